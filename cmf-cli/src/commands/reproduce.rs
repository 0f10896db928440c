//! `cmf-cli reproduce`: makes the figures of the paper again, as pictures and as one report.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};
use serde_json::json;

use crate::engine::EngineArgs;
use crate::figures::{self, Made, Settings, Which};
use crate::interrupt;
use crate::report::{Outcome, Report};

/// Make the figures of the paper again.
///
/// Writes each picture as .png and .svg, and report.html, one file with all pictures, numbers, settings and seeds.
/// The full settings are the paper's where they are known; --quick is all figures in minutes on two cores.
#[derive(Args)]
#[command(after_help = "\
Figures can also be named by their numbers in the paper: `cmf-cli reproduce 8` makes `line`. Figures
of digits use the model and the digits given by --model and --mnist, whose defaults lie in this
project's source: run them from there or say where they are.

Examples:
  cmf-cli reproduce all --out figures --quick
  cmf-cli reproduce line --out figures
  cmf-cli reproduce completions --out figures --mnist data/mnist")]
pub struct Reproduce {
    /// Which figures
    #[arg(value_enum, value_name = "FIGURE", required = true)]
    figures: Vec<Which>,
    /// The folder to write into, made if it does not exist; pictures of the same name are replaced
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// Smaller settings: all figures within minutes on two cores
    #[arg(long)]
    quick: bool,
    /// The MNIST model
    #[arg(long, value_name = "FILE", default_value = "models/mnist.onnx")]
    model: PathBuf,
    /// A folder with MNIST's four idx files
    #[arg(long, value_name = "FOLDER", default_value = "tests/fixtures/mnist-small")]
    mnist: PathBuf,
    /// Seed of all randomness
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

impl Reproduce {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let mut wanted: Vec<Which> = match self.figures.contains(&Which::All) {
            true => Which::value_variants().iter().copied().filter(|&w| w != Which::All).collect(),
            false => Vec::new(),
        };
        for &which in &self.figures {
            if which != Which::All && !wanted.contains(&which) {
                wanted.push(which);
            }
        }
        // Before minutes of work, not after them.
        if wanted.iter().any(|w| matches!(w, Which::Digits | Which::Completions)) {
            let missing = [(&self.model, "--model"), (&self.mnist, "--mnist")];
            if let Some((path, option)) = missing.into_iter().find(|(path, _)| !path.exists()) {
                let message = format!("does not exist; say where it is with {option}");
                return Err(Error::file(path, message));
            }
        }
        std::fs::create_dir_all(&self.out)
            .map_err(|e| Error::file(&self.out, format!("cannot make the folder: {e}")))?;
        let settings = Settings {
            quick: self.quick,
            seed: self.seed,
            model: self.model.clone(),
            engine: self.engine.clone(),
            mnist: self.mnist.clone(),
        };
        let mut made = Vec::new();
        for which in wanted {
            interrupt::check()?;
            let clock = Instant::now();
            let Some(section) = figures::make(which, &settings, &self.report)? else { continue };
            let mut pngs = Vec::new();
            for (stem, _, figure) in &section.pictures {
                pngs.push(figure.write(&self.out, stem)?);
                self.report.text(self.out.join(format!("{stem}.png")).display().to_string())?;
            }
            let seconds = clock.elapsed().as_secs_f64();
            self.report.note(format!("{}: {seconds:.1} s", section.title));
            made.push(Made { section, pngs, seconds });
        }
        let path = self.out.join("report.html");
        let text = figures::html(&made, self.quick);
        write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
        self.report.text(path.display().to_string())?;
        let figure = |m: &Made| {
            json!({
                "figure": m.section.which,
                "seconds": m.seconds,
                "pictures": m.section.pictures.iter().map(|p| &p.0).collect::<Vec<_>>(),
                "tables": m.section.tables,
                "settings": m.section.settings,
            })
        };
        self.report.document(&json!({
            "quick": self.quick,
            "report": path,
            "figures": made.iter().map(figure).collect::<Vec<_>>(),
        }))?;
        Ok(Outcome::Done)
    }
}
