//! `cmf-cli score`: log-densities of images and data rows, in nats and bits per dimension.

use std::path::PathBuf;

use clap::Args;
use cmf_core::density::bits_per_dimension;
use cmf_core::{Error, Result};
use cmf_plugins::data::Split;
use cmf_plugins::sdk::{DensityRow, DensityStatus};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Serialize;
use serde_json::json;

use crate::data_spec::DataSpec;
use crate::engine::{EngineArgs, signed};
use crate::model::Model;
use crate::report::{Outcome, Report};
use crate::{batch, images, interrupt};

/// Print the log-density of images or data under a model.
///
/// log rho(y) = -w(grad w(y)) + log det Hess w(y) - log Z, in nats (with the quadratic head of w, or |x|^2/2, for w(x),
/// x = grad w(y), where the model's source is the head's Gibbs factor or N(0, I)): one line per image or data row on
/// standard output, tab-separated, and the mean on standard error. The log-determinant is exact up to
/// 2048 dimensions, and beyond of models whose head and units look along fewer directions; of others it is
/// estimated with a standard error. The output says which. The standard error of log Z is common to all rows and
/// is given beside the mean.
#[derive(Args)]
#[command(after_help = "\
The model's density is that of data with noise added (`cmf-cli info` gives its standard deviation
sigma). A clean image is not a typical draw of it: each pixel sits at the centre of its noise, so it
scores higher than data do. Use --add-noise for figures that compare with other densities of the
data. Bits per dimension are -log2 rho / d with pixels in 1/256 of their range.

Examples:
  cmf-cli score --model models/mnist.onnx digits/*.png
  cmf-cli score --model models/mnist.onnx digits/ --add-noise --seed 1 --json
  cmf-cli score --model models/mnist.onnx --data mnist:data/mnist --rows 200 --add-noise")]
pub struct Score {
    /// The model file
    #[arg(long, short, value_name = "FILE")]
    model: PathBuf,
    /// Images, or folders of images
    #[arg(value_name = "IMAGE|FOLDER", required_unless_present = "data", conflicts_with = "data")]
    inputs: Vec<PathBuf>,
    /// Score the held-out rows of a data set instead: NAME, NAME:PATH or PATH, as for `train`
    #[arg(long, value_name = "DATA")]
    data: Option<DataSpec>,
    /// At most this many rows of the data set, from its start
    #[arg(long, value_name = "N", requires = "data", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Add the model's noise to the input first
    #[arg(long)]
    add_noise: bool,
    /// Seed of the noise, of generated data, and of estimates
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

/// Rows between two looks at Ctrl-C: enough to keep the cores busy.
const BLOCK: usize = 16;

/// What is scored, and what could not be.
struct Inputs {
    names: Vec<String>,
    /// [names.len(), d].
    rows: Vec<f64>,
    failures: usize,
}

#[derive(Serialize)]
struct Scored {
    name: String,
    /// Nats.
    log_density: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_dim: Option<f64>,
    /// Of an estimate, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_error: Option<f64>,
}

impl Score {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let model = Model::open(&self.model, &self.engine, &self.report)?;
        let mut inputs = match &self.data {
            Some(data) => self.data_rows(&model, data)?,
            None => self.images(&model)?,
        };
        if self.add_noise {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            let mut noise = || model.metadata.sigma * rng.sample::<f64, _>(StandardNormal);
            inputs.rows.iter_mut().for_each(|v| *v += noise());
        }
        let header = self.header(&model);
        self.report.text(header)?;
        let mut scored = Vec::new();
        let bar = self.report.progress(inputs.names.len(), "scoring");
        let blocks = inputs.names.chunks(BLOCK).zip(inputs.rows.chunks(BLOCK * model.dim()));
        for (names, rows) in blocks {
            if interrupt::asked() {
                break;
            }
            for (name, result) in names.iter().zip(self.evaluate(&model, rows)?) {
                match result {
                    Ok(row) => {
                        let row = Scored { name: name.clone(), ..row };
                        bar.suspend(|| self.report.text(line(&row)))?;
                        scored.push(row);
                    }
                    Err(why) => {
                        inputs.failures += 1;
                        bar.suspend(|| self.report.warn(format!("{name}: has no log-density: {why}")));
                    }
                }
            }
            bar.inc(names.len() as u64);
        }
        bar.finish_and_clear();
        self.finish(&model, &scored, &inputs)
    }

    fn images(&self, model: &Model) -> Result<Inputs> {
        let grid = model.require_grid(&self.model)?;
        let mut inputs = Inputs { names: Vec::new(), rows: Vec::new(), failures: 0 };
        for path in batch::images(&self.inputs)? {
            interrupt::check()?;
            let row = images::read(&path).and_then(|picture| {
                opaque(&picture).and_then(|()| grid.row(&picture)).map_err(|m| Error::file(&path, m))
            });
            match row {
                Ok(row) => {
                    inputs.names.push(path.display().to_string());
                    inputs.rows.extend(row);
                }
                Err(e) => {
                    inputs.failures += 1;
                    self.report.warn(e.to_string());
                }
            }
        }
        Ok(inputs)
    }

    fn data_rows(&self, model: &Model, spec: &DataSpec) -> Result<Inputs> {
        let data = spec.open(self.seed)?.data;
        if data.shape().dim() != model.dim() {
            return Err(Error::Invalid(format!(
                "the data set {spec} has {} numbers a row, {} expects {}",
                data.shape().dim(),
                self.model.display(),
                model.dim()
            )));
        }
        let n = data.rows(Split::HeldOut).min(self.rows.map_or(usize::MAX, |n| n as usize));
        let mut rows = vec![0.0; n * model.dim()];
        data.read(Split::HeldOut, &(0..n).collect::<Vec<_>>(), &mut rows).map_err(cmf_plugins::core_error)?;
        Ok(Inputs { names: (0..n).map(|i| format!("{spec}#{i}")).collect(), rows, failures: 0 })
    }

    /// The rows' log-densities, or why they have none.
    fn evaluate(&self, model: &Model, rows: &[f64]) -> Result<Vec<Result<Scored, String>>> {
        let (d, m) = (model.dim(), &model.metadata);
        let range = m.pixel_range.filter(|_| m.log_z.is_some());
        let scored = |row: DensityRow| match row.status {
            DensityStatus::Evaluated => Ok(Scored {
                name: String::new(),
                log_density: row.value,
                bits_per_dim: range.map(|[low, high]| bits_per_dimension(row.value, d, (low, high))),
                standard_error: (!model.is_exact()).then_some(row.standard_error),
            }),
            DensityStatus::NotPositiveDefinite => {
                Err("the Hessian is not positive definite there".to_string())
            }
            DensityStatus::NotFinite => Err("it is not finite there".to_string()),
            DensityStatus::Unconverged => Err("the Lanczos quadrature did not converge".to_string()),
        };
        let rows = model.host().log_density(rows, None, self.seed)?;
        Ok(rows.into_iter().map(scored).collect())
    }

    fn header(&self, model: &Model) -> String {
        let mut columns =
            vec!["file", if model.metadata.log_z.is_some() { "nats" } else { "nats_unnormalised" }];
        if model.metadata.log_z.is_some() && model.metadata.pixel_range.is_some() {
            columns.push("bits_per_dim");
        }
        if !model.is_exact() {
            columns.push("standard_error");
        }
        columns.join("\t")
    }

    fn finish(self, model: &Model, scored: &[Scored], inputs: &Inputs) -> Result<Outcome> {
        let values: Vec<f64> = scored.iter().map(|row| row.log_density).collect();
        let mean = mean(&values);
        let method = if model.is_exact() { "exact" } else { "estimated" };
        if model.metadata.log_z.is_none() {
            self.report.warn("the model has no log Z: these log-densities lack their constant");
        }
        if let Some((mean, error)) = mean {
            let log_z = model.metadata.log_z.map_or(String::new(), |z| format!("; log Z {z}"));
            let error = error.map_or(String::new(), |e| format!(", standard error {e:.3}"));
            self.report.note(format!("mean of {}: {mean:.3} nats{error} ({method}{log_z})", scored.len()));
        }
        let remaining = inputs.names.len() - scored.len();
        self.report.document(&signed(
            Some(&model.worker),
            json!({
                "model": self.model,
                "method": method,
                "normalised": model.metadata.log_z.is_some(),
                "log_z": model.metadata.log_z,
                "noise_added": if self.add_noise { model.metadata.sigma } else { 0.0 },
                "rows": scored,
                "failed": inputs.failures,
                "mean": mean.map(|m| m.0),
                "standard_error_of_mean": mean.and_then(|m| m.1),
            }),
        ))?;
        if interrupt::asked() {
            self.report.note(format!("interrupted: {} scored, {remaining} not", scored.len()));
            return Ok(Outcome::Interrupted);
        }
        if inputs.failures > 0 {
            self.report.note(format!("{} scored, {} failed", scored.len(), inputs.failures));
        }
        Ok(Outcome::of(inputs.failures == 0))
    }
}

/// Refuses transparent pixels, whose colour is not seen.
fn opaque(picture: &images::Picture) -> Result<(), String> {
    match picture.alphas().filter(|&a| a < 255).count() {
        0 => Ok(()),
        n => Err(format!("has {n} transparent pixels, expected an opaque image: flatten it first")),
    }
}

/// A tab-separated row.
fn line(row: &Scored) -> String {
    let mut cells = vec![row.name.clone(), format!("{:.4}", row.log_density)];
    cells.extend(row.bits_per_dim.map(|b| format!("{b:.5}")));
    cells.extend(row.standard_error.map(|e| format!("{e:.4}")));
    cells.join("\t")
}

/// The mean and its standard error, if there are enough values for each.
fn mean(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some((mean, (values.len() > 1).then_some((variance / n).sqrt())))
}
