//! `cmf-cli export`: the model of a run directory as one self-describing .onnx file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use cmf_core::density::{Status, exact_log_density_from, is_exact};
use cmf_core::icnn::Icnn;
use cmf_core::normaliser::AnnealedImportance;
use cmf_core::onnx::{self, Data, LogZ, Metadata, Probe};
use cmf_core::{Error, Potential, Result, Source};
use cmf_plugins::data::{self, Split};
use serde_json::json;

use crate::health::samples;
use crate::interrupt;
use crate::mixture::mixture_of_data;
use crate::report::{Outcome, Report};
use crate::run_directory::{Lesson, Run};

/// Write the model of a run directory as one .onnx file.
///
/// The model is that of the last checkpoint (averaged weights). log Z is estimated by annealed importance sampling and
/// stored with its standard error, or known where the source is a Gaussian or a mixture of them. The file also keeps
/// points with the model's answers, by which every program that runs it can check itself, and beside a mixture in the
/// source one of the training data, from which completions start.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cmf-cli export runs/mnist --out mnist.onnx
  cmf-cli export runs/mnist --out mnist.onnx --licence CC-BY-4.0 && cmf-cli verify mnist.onnx")]
pub struct Export {
    /// The folder that `cmf-cli train` wrote
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Licence of the model, as an SPDX expression
    #[arg(long, value_name = "SPDX", default_value = "")]
    licence: String,
    #[command(flatten)]
    report: Report,
}

impl Export {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        if self.out.extension().is_none_or(|e| !e.eq_ignore_ascii_case("onnx")) {
            return Err(Error::file(&self.out, "expected a name that ends in .onnx"));
        }
        let run = Run::open(&self.run)?;
        let log_z = write_model(&run, &self.out, &self.licence, &self.report)?;
        self.report.text(self.out.display().to_string())?;
        self.report.document(&json!({
            "run": self.run, "model": self.out, "updates": run.trainer.updates_done(), "log_z": log_z,
        }))?;
        Ok(Outcome::Done)
    }
}

/// Held-out points, or samples of a model of an energy, stored with the model's answers.
const PROBES: usize = 8;
/// The same seed for each export of a checkpoint: the same file.
const LOG_Z_SEED: u64 = 0;

/// Estimates log Z and writes the model of `run` to `path`.
pub fn write_model(run: &Run, path: &Path, licence: &str, report: &Report) -> Result<LogZ> {
    let gaussian = run.trainer.start().gaussian()?;
    let network = run.trainer.network()?;
    let data_mixture = mixture_of_data(run, &network, &gaussian, report)?;
    let reference = network.cast::<f64>()?;
    let source = run.trainer.start().source;
    let log_z = match source {
        Source::Gibbs => match network.gibbs() {
            Some(head) => LogZ { value: head.log_z()?, standard_error: 0.0 },
            None => estimate_log_z(run, &network, report)?,
        },
        Source::Gaussian => LogZ { value: run.trainer.start().log_z, standard_error: 0.0 },
    };
    let points = match run.lesson.data() {
        Some(data) => {
            let rows: Vec<usize> = (0..data.rows(Split::HeldOut).min(PROBES)).collect();
            let mut points = vec![0.0; rows.len() * data.shape().dim()];
            data.read(Split::HeldOut, &rows, &mut points).map_err(cmf_plugins::core_error)?;
            points
        }
        None => samples(run, &network, PROBES)?,
    };
    let mut probes = Probe::record(&reference, &points)?;
    if is_exact(&reference) {
        let exact = exact_log_density_from(&reference, source, log_z.value, &points, None)?;
        for (i, probe) in probes.iter_mut().enumerate() {
            probe.log_density = (exact.status[i] == Status::Evaluated).then_some(exact.value[i]);
        }
    }
    let config = run.trainer.config();
    let mut recipe = json!({ "settings": config, "updates": run.trainer.updates_done() });
    if let Some(init) = &run.init {
        // Without its place on this machine.
        let file = init.path.file_name().map(|name| name.to_string_lossy());
        recipe["init"] = json!({ "file": file, "sha256": init.sha256 });
    }
    let licence_of_data = match &run.lesson {
        Lesson::Data(_, opened) => opened.licence.clone().unwrap_or_default(),
        Lesson::Energy(..) => String::new(),
    };
    let metadata = Metadata {
        source,
        shape: match run.lesson.data().map(|data| data.shape()) {
            Some(data::Shape::Image { height, width, channels }) => {
                onnx::Shape::Image { height, width, channels }
            }
            Some(data::Shape::Vector { dim }) => onnx::Shape::Flat { dim },
            None => onnx::Shape::Flat { dim: network.dim() },
        },
        pixel_range: run.lesson.data().and_then(|data| data.pixel_range()).map(|(low, high)| [low, high]),
        sigma: config.sigma,
        mixture: network.gibbs().and_then(|head| head.mixture().cloned()),
        log_z: Some(log_z),
        gaussian: Some(Arc::new(gaussian)),
        data_mixture,
        recipe,
        data: Data { name: run.lesson.card(), sha256: run.lesson.sha256().into(), licence: licence_of_data },
        licence: licence.into(),
        probes,
        ..Metadata::new(config.architecture.clone())
    };
    onnx::export(path, &network, &metadata)?;
    Ok(log_z)
}

fn estimate_log_z(run: &Run, network: &Icnn<f32>, report: &Report) -> Result<LogZ> {
    let bar = report.progress(1000, "log Z");
    let sampler = AnnealedImportance { seed: LOG_Z_SEED, ..AnnealedImportance::default() };
    let estimate = sampler.log_z(network, run.trainer.start(), &mut |share| {
        bar.set_position((1000.0 * share) as u64);
        !interrupt::asked()
    })?;
    bar.finish_and_clear();
    Ok(LogZ { value: estimate.value, standard_error: estimate.standard_error })
}
