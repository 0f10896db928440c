//! `cmf-cli verify`: the engine's answers against the model file's probes and the f64 reference.

use std::path::PathBuf;

use clap::Args;
use cmf_core::onnx::{ModelFile, Probe, TractModel};
use cmf_core::{Error, Potential, Result};
use serde::Serialize;

use crate::report::{Outcome, Report};

/// Check that the engine computes what the model file says.
///
/// The points stored in the file are evaluated again by tract (f32) and by the reference (f64), and
/// compared with the answers stored beside them. Differences are relative to 1 + the largest magnitude.
#[derive(Args)]
#[command(after_help = "\
The exit code is 0 only if every difference is within the tolerance.

Examples:
  cmf-cli verify models/mnist.onnx
  cmf-cli verify models/mnist.onnx --json")]
pub struct Verify {
    /// The model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    report: Report,
}

/// Sums of about 10^4 f32 products, each with a relative error of 6e-8, stay well within this.
const TOLERANCE: f64 = 1e-4;

#[derive(Serialize)]
struct Row {
    engine: &'static str,
    value: f64,
    gradient: f64,
    within_tolerance: bool,
}

impl Verify {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let file = ModelFile::open(&self.model)?;
        let (Some(metadata), Some(network)) = (file.metadata(), file.network()?) else {
            return Err(Error::file(&self.model, "is a foreign ONNX file: it holds no answers to verify"));
        };
        if metadata.probes.is_empty() {
            return Err(Error::file(
                &self.model,
                "holds no probes, so nothing can be verified: export it again",
            ));
        }
        let rows = [
            compare("tract (f32)", &TractModel::load(&file)?, &metadata.probes)?,
            compare("reference (f64)", &network.cast::<f64>()?, &metadata.probes)?,
        ];
        let mut text = format!("{:<18}{:>12}{:>12}", "engine", "value", "gradient");
        for row in &rows {
            let verdict = if row.within_tolerance { "ok" } else { "DIFFERS" };
            text += &format!("\n{:<18}{:>12.2e}{:>12.2e}  {verdict}", row.engine, row.value, row.gradient);
        }
        let probes = metadata.probes.len();
        self.report
            .text(format!("{text}\n{probes} probes, largest relative difference, tolerance {TOLERANCE:e}"))?;
        let ok = rows.iter().all(|row| row.within_tolerance);
        self.report.document(&serde_json::json!({
            "file": self.model, "probes": probes, "tolerance": TOLERANCE, "ok": ok, "engines": rows,
        }))?;
        Ok(Outcome::of(ok))
    }
}

fn compare(engine: &'static str, w: &dyn Potential, probes: &[Probe]) -> Result<Row> {
    let double = |a: &[f32]| a.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let x: Vec<f64> = probes.iter().flat_map(|p| double(&p.x)).collect();
    let (mut value, mut gradient) = (vec![0.0; probes.len()], vec![0.0; x.len()]);
    w.value_and_gradient(&x, &mut value, &mut gradient)?;
    let values: Vec<f64> = probes.iter().map(|p| p.value).collect();
    let gradients: Vec<f64> = probes.iter().flat_map(|p| double(&p.gradient)).collect();
    let (value, gradient) = (difference(&value, &values), difference(&gradient, &gradients));
    Ok(Row { engine, value, gradient, within_tolerance: value.max(gradient) <= TOLERANCE })
}

/// max |a - b| / (1 + max |b|), infinite if anything is not finite.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let scale = 1.0 + b.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let largest = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    largest.fold(0.0, |m: f64, d| if d.is_finite() { m.max(d) } else { f64::INFINITY }) / scale
}
