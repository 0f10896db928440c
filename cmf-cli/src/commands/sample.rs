//! `cmf-cli sample`: draws of the Gibbs factor, moved to the data by the conjugate's gradient.

use std::path::{Path, PathBuf};

use clap::Args;
use cmf_core::conjugate::ConjugateSolver;
use cmf_core::{Error, Result};
use serde_json::json;

use super::sample_energy::EnergySampling;
use crate::drawing::{Drawing, Drawn, MOST_DRAWS, Noise};
use crate::engine::{EngineArgs, check_results, signed};
use crate::images::write_png;
use crate::interrupt;
use crate::model::Model;
use crate::pictures::{grid_of, scatter_of};
use crate::report::{Outcome, Report};
use crate::table::{write_csv, write_npy};

/// Draw samples from a model, or from an energy.
///
/// Each sample is its own Markov chain x ~ e^{-w}/Z (Metropolis-adjusted Langevin, preconditioned by
/// the data's covariance) that is mapped to data by the convex solve y = argmax <x,y> - w(y). Samples
/// whose solve does not converge are reported and left out. Where the source is a Gaussian, or a mixture of
/// them, x is drawn from it exactly: the Gibbs factor of the potential's quadratic head (`train --gibbs head`),
/// or N(0, I) of a generative input-convex network (`train --method gaussian-icnn`).
#[derive(Args)]
#[command(after_help = "\
The model learns data to which noise of a known standard deviation was added (see `cmf-cli info`).
`--noise mean` takes it away again: y + sigma^2 grad log rho(y), the mean of the clean point given
the noisy one (Tweedie's formula). `remove`, the default for images, takes that step twice, because
draws have more noise than the data had; `keep` leaves samples of the density itself.

Examples:
  cmf-cli sample --model models/mnist.onnx -n 64 --out grid.png
  cmf-cli sample --model models/mnist.onnx -n 1000 --seed 7 --out samples.npy
  cmf-cli sample --model models/mnist.onnx -n 10 --separate digits/
  cmf-cli sample --model models/mnist.onnx --engine ort --device cuda --out grid.png
  cmf-cli sample --model models/eight-gaussians.onnx -n 2000 --out scatter.png --out points.csv
  cmf-cli sample --energy himmelblau -n 2000 --out scatter.png
  cmf-cli sample --energy plugin:./libmy_energy.so --set depth=5 --out points.npy")]
pub struct Sample {
    /// The model file
    #[arg(long, short, value_name = "FILE", required_unless_present = "energy")]
    model: Option<PathBuf>,
    /// Sample e^{-E} of an energy instead: its name, or plugin:LIBRARY[#NAME]; `cmf-cli plugin list` shows names
    #[arg(long, value_name = "ENERGY", conflicts_with_all = ["model", "separate", "columns", "noise", "EngineArgs"])]
    energy: Option<String>,
    /// A parameter of the energy
    #[arg(long, value_name = "NAME=VALUE", requires = "energy", value_parser = crate::plugin_args::parse_setting)]
    set: Vec<(String, String)>,
    /// How many samples
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DRAWS)))]
    number: u32,
    /// What to write, by its extension: .png (a grid of images, or a scatter plot in 2 dimensions), .npy
    /// or .csv; may be given several times
    #[arg(short, long, value_name = "FILE", required_unless_present = "separate")]
    out: Vec<PathBuf>,
    /// Also write each image to its own file in this folder
    #[arg(long, value_name = "FOLDER")]
    separate: Option<PathBuf>,
    /// Seed of the random numbers; the same seed gives the same samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Langevin steps, where the source is not a Gaussian; the first half tunes the step size
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    steps: u32,
    /// Images in a row of the grid [default: a square grid]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    columns: Option<u32>,
    /// What to do with the noise that the model learned with its data [default: remove for images, keep otherwise]
    #[arg(long, value_enum)]
    noise: Option<Noise>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

impl Sample {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        if let Some(energy) = &self.energy {
            let sampling = EnergySampling {
                energy,
                set: &self.set,
                number: self.number as usize,
                steps: self.steps as usize,
                seed: self.seed,
                out: &self.out,
                report: &self.report,
            };
            return sampling.run();
        }
        let model = Model::open(self.path(), &self.engine, &self.report)?;
        self.check_outputs(&model)?;
        let drawing = Drawing {
            number: self.number as usize,
            steps: self.steps as usize,
            noise: self.noise.unwrap_or(Noise::usual(&model)),
            seed: self.seed,
        };
        let drawn = drawing.draw(&model, &self.report)?;
        let how = drawn.how();
        let Drawn { y, chains, unconverged, worst_residual } = drawn;
        let d = model.dim();
        check_results("sample", &y, d)?;
        for out in &self.out {
            self.write(&model, out, &y)?;
            self.report.text(out.display().to_string())?;
        }
        if let Some(folder) = &self.separate {
            self.write_separately(&model, folder, &y)?;
            self.report.text(folder.display().to_string())?;
        }
        if unconverged > 0 {
            self.report.warn(format!(
                "{unconverged} of {} samples were left out: their transport solve did not converge (worst residual {:.1e}, tolerance {:.1e})",
                self.number,
                worst_residual,
                ConjugateSolver::default().tolerance
            ));
        }
        self.report.note(&how);
        self.report.document(&signed(
            Some(&model.worker),
            json!({
                "model": self.model,
                "seed": self.seed,
                "source": model.metadata.source,
                "steps": chains.as_ref().map(|_| self.steps),
                "requested": self.number,
                "written": y.len() / d,
                "unconverged": unconverged,
                "worst_residual": worst_residual,
                "acceptance": chains.as_ref().map(|c| c.acceptance),
                "step_size": chains.as_ref().map(|c| c.step_size),
                "r_hat": chains.as_ref().and_then(|c| c.r_hat),
                "effective_sample_size": chains.as_ref().and_then(|c| c.effective_sample_size),
                "noise": match drawing.noise {
                    Noise::Keep => "kept",
                    Noise::Mean => "mean",
                    Noise::Remove => "removed",
                },
                "outputs": self.out,
                "separate": self.separate,
            }),
        ))?;
        Ok(Outcome::of(unconverged == 0))
    }

    /// The model file, which the arguments require unless there is an energy.
    fn path(&self) -> &Path {
        self.model.as_deref().unwrap_or(Path::new(""))
    }

    /// Refuses impossible outputs before any work is done.
    fn check_outputs(&self, model: &Model) -> Result<()> {
        let drawable = model.grid().is_some() || model.dim() == 2;
        for out in &self.out {
            match extension(out).as_str() {
                "npy" | "csv" => {}
                "png" if drawable => {}
                "png" => {
                    let d = model.dim();
                    return Err(Error::file(
                        out,
                        format!("points with {d} coordinates make no picture: use .npy or .csv"),
                    ));
                }
                _ => return Err(Error::file(out, "expected a name that ends in .png, .npy or .csv")),
            }
        }
        if let Some(folder) = &self.separate {
            model.require_grid(self.path())?;
            crate::batch::ensure_folder(folder)?;
        }
        Ok(())
    }

    fn write(&self, model: &Model, out: &Path, y: &[f64]) -> Result<()> {
        match (extension(out).as_str(), model.grid()) {
            ("npy", _) => write_npy(out, y, model.dim()),
            ("csv", _) => write_csv(out, y, model.dim()),
            (_, Some(grid)) => write_png(out, &grid_of(&grid, y, self.columns.map(|c| c as usize))),
            (_, None) => write_png(out, &scatter_of(y)),
        }
    }

    fn write_separately(&self, model: &Model, folder: &Path, y: &[f64]) -> Result<()> {
        let grid = model.require_grid(self.path())?;
        let width = self.number.to_string().len();
        for (i, row) in y.chunks_exact(model.dim()).enumerate() {
            interrupt::check()?;
            write_png(&folder.join(format!("sample-{:0width$}.png", i + 1)), &grid.picture(row))?;
        }
        Ok(())
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}
