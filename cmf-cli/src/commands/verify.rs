//! `cmf-cli verify`: every engine's answers against the model file's probes and the f64 reference.

use std::path::PathBuf;

use clap::Args;
use cmf_core::density::{MOST_EXACT, exact_log_density, exact_log_density_from, is_exact};
use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::Icnn;
use cmf_core::linalg::largest;
use cmf_core::onnx::{Metadata, ModelFile, Probe};
use cmf_core::{Error, Potential, Result, SecondOrder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Serialize;
use serde_json::json;

use crate::engine::{EngineArgs, present};
use crate::interrupt;
use crate::report::{Outcome, Report};

/// Check that every engine computes what the model file says.
///
/// Each engine that is present, or the one chosen, is compared with the reference in f64 at the probes stored in
/// the file and at random batches of 1, 2, 7 and 256 points: value, gradient, Hessian-vector product, Hessian
/// and log-density. The reference itself is compared with the answers stored in the file.
#[derive(Args)]
#[command(after_help = "\
Differences are divided by 1 + the largest magnitude of the batch; those of log-densities are in
nats. The random points are drawn from the Gaussian of the model's data. Hessians and log-densities
are compared at the first 8 points of a batch, of models of up to 2048 dimensions; log-densities also
beyond, of models whose head and units look along fewer directions. Engines leave out units that
rounding hides; the reference has them all. The exit code is 0 only if every difference is within its
tolerance.

Examples:
  cmf-cli verify models/mnist.onnx
  cmf-cli verify models/mnist.onnx --engine ort --ort-lib python
  cmf-cli verify models/mnist.onnx --json")]
pub struct Verify {
    /// The model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Seed of the random points
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

/// Points of each random batch: one, a few, an odd number, and more than an engine takes at once.
const BATCHES: [usize; 4] = [1, 2, 7, 256];
/// Points of a batch at which a whole [d, d] matrix is formed.
const SECOND_ORDER_POINTS: usize = 8;
/// Sums of 10^4 f32 products, each off by 6e-8, stay within this where terms do not cancel.
const VALUE_TOLERANCE: f64 = 1e-5;
/// Gradients and second derivatives are differences of such sums.
const DERIVATIVE_TOLERANCE: f64 = 1e-4;
/// Nats on 784 dimensions: a log-determinant adds one rounded logarithm a dimension, so it grows with them.
const LOG_DENSITY_TOLERANCE: f64 = 1e-2;

const FUNCTIONS: [&str; 5] = ["value", "gradient", "hvp", "hessian", "log-density"];

/// How far an engine's answers for one function are from the reference's, on one set of points.
#[derive(Serialize)]
struct Difference {
    function: &'static str,
    points: String,
    rows: usize,
    max: f64,
    mean: f64,
    tolerance: f64,
    within_tolerance: bool,
}

#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    who: serde_json::Value,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    differences: Vec<Difference>,
}

impl Verify {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let file = ModelFile::open(&self.model)?;
        let (Some(metadata), Some(network)) = (file.metadata(), file.network()) else {
            return Err(Error::file(&self.model, "is a foreign ONNX file: it holds no answers to verify"));
        };
        if metadata.probes.is_empty() {
            return Err(Error::file(
                &self.model,
                "holds no probes, so nothing can be verified: export it again",
            ));
        }
        let reference = network.cast::<f64>()?;
        let sets = sets(metadata, self.seed)?;
        let stored = stored(&reference, metadata)?;
        let mut all =
            vec![Checked { who: json!({ "engine": "reference" }), error: None, differences: stored }];
        let exact = is_exact(&reference);
        let of =
            |w: &dyn SecondOrder, set: &Set| interrupt::check().and_then(|()| Answers::of(w, set, exact));
        let answers = sets.iter().map(|set| of(&reference, set)).collect::<Result<Vec<_>>>()?;
        if network.dim() > MOST_EXACT {
            let d = network.dim();
            let what = if exact { "hessian is" } else { "hessian and log-density are" };
            self.report.note(format!(
                "{what} not compared: the model has {d} dimensions, and whole Hessians are for {MOST_EXACT} at most"
            ));
        }
        let mut names = vec!["f64 reference".to_string()];
        for (name, loaded) in present(&self.engine, &file, &self.report) {
            let (name, who, differences) = match loaded {
                Ok(loaded) => {
                    let compared = sets.iter().zip(&answers).map(|(set, answers)| {
                        Ok(of(loaded.potential.as_ref(), set)?.compare(answers, set, metadata))
                    });
                    let compared =
                        compared.collect::<Result<Vec<_>>>().map(|all| all.into_iter().flatten().collect());
                    (loaded.worker.to_string(), json!(loaded.worker), compared)
                }
                Err(e) => (name.to_string(), json!({ "engine": name }), Err(e)),
            };
            let (differences, error) = match differences {
                Ok(differences) => (differences, None),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(e) => {
                    self.report.warn(format!("{name} failed: {e}"));
                    (Vec::new(), Some(e.to_string()))
                }
            };
            names.push(name);
            all.push(Checked { who, error, differences });
        }
        let sound = |c: &Checked| c.error.is_none() && c.differences.iter().all(|d| d.within_tolerance);
        let ok = all.iter().all(sound);
        self.report.text(table(&names, &all))?;
        self.report.document(&json!({
            "file": self.model, "probes": metadata.probes.len(), "ok": ok, "engines": all,
        }))?;
        Ok(Outcome::of(ok))
    }
}

/// Points [n, d] under a name.
struct Set {
    name: String,
    x: Vec<f64>,
    /// Directions of the Hessian-vector products.
    v: Vec<f64>,
}

fn sets(metadata: &Metadata, seed: u64) -> Result<Vec<Set>> {
    let d = metadata.architecture.dim;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = |n: usize| -> Vec<f64> { (0..n * d).map(|_| rng.sample(StandardNormal)).collect() };
    let probes = Probe::points(&metadata.probes);
    let mut sets = vec![Set { name: "probes".into(), v: normal(metadata.probes.len()), x: probes }];
    for n in BATCHES {
        let x = spread(metadata.gaussian.as_deref(), normal(n), d);
        // As the engines see them, which read f32.
        let x = x.iter().map(|&v| f64::from(v as f32)).collect();
        sets.push(Set { name: format!("{n} random"), x, v: normal(n) });
    }
    Ok(sets)
}

/// Standard normal numbers moved to the mean and scaled to the standard deviations of the data.
fn spread(gaussian: Option<&Gaussian>, mut x: Vec<f64>, d: usize) -> Vec<f64> {
    if let Some(g) = gaussian {
        let variances = g.covariance.diagonal();
        for row in x.chunks_exact_mut(d) {
            for ((v, m), variance) in row.iter_mut().zip(&g.mean).zip(&variances) {
                *v = m + variance.sqrt() * *v;
            }
        }
    }
    x
}

/// The five functions' values on one set of points.
struct Answers([Vec<f64>; 5]);

impl Answers {
    /// With log-densities if they are `exact` by the reference.
    fn of(w: &dyn SecondOrder, set: &Set, exact: bool) -> Result<Answers> {
        let d = w.dim();
        let n = set.x.len() / d;
        let (mut value, mut gradient, mut hv) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d]);
        w.value_and_gradient(&set.x, &mut value, &mut gradient)?;
        w.hvp(&set.x, &set.v, &mut hv)?;
        let some = |possible: bool| if possible { n.min(SECOND_ORDER_POINTS) } else { 0 };
        let x = &set.x[..some(d <= MOST_EXACT) * d];
        let mut hessian = vec![0.0; x.len() * d];
        w.hessian(x, &mut hessian)?;
        let density = exact_log_density(w, 0.0, &set.x[..some(exact) * d])?.value;
        Ok(Answers([value, gradient, hv, hessian, density]))
    }

    fn compare(&self, reference: &Answers, set: &Set, metadata: &Metadata) -> Vec<Difference> {
        let d = metadata.architecture.dim;
        let row = [1, d, d, d * d, 1];
        let compared = FUNCTIONS.iter().zip(&self.0).zip(&reference.0).zip(row);
        compared
            .filter(|(((_, a), _), _)| !a.is_empty())
            .map(|(((function, a), b), row)| difference(function, &set.name, a.len() / row, a, b, d))
            .collect()
    }
}

/// The reference against what the file stores.
fn stored(reference: &Icnn<f64>, metadata: &Metadata) -> Result<Vec<Difference>> {
    let (d, probes) = (metadata.architecture.dim, &metadata.probes);
    let x = Probe::points(probes);
    let (mut value, mut gradient) = (vec![0.0; probes.len()], vec![0.0; x.len()]);
    reference.value_and_gradient(&x, &mut value, &mut gradient)?;
    let values: Vec<f64> = probes.iter().map(|p| p.value).collect();
    let gradients: Vec<f64> = probes.iter().flat_map(|p| double(&p.gradient)).collect();
    let of = |function, a: &[f64], b: &[f64]| difference(function, "stored", probes.len(), a, b, d);
    let mut all = vec![of("value", &value, &values), of("gradient", &gradient, &gradients)];
    let known: Vec<(&Probe, f64)> = probes.iter().filter_map(|p| Some((p, p.log_density?))).collect();
    if !known.is_empty() && is_exact(reference) {
        let y = Probe::points(known.iter().map(|(p, _)| *p));
        let log_z = metadata.log_z.map_or(0.0, |z| z.value);
        let found = exact_log_density_from(reference, metadata.source, log_z, &y, None)?.value;
        let expected: Vec<f64> = known.iter().map(|(_, v)| *v).collect();
        all.push(difference("log-density", "stored", known.len(), &found, &expected, d));
    }
    Ok(all)
}

/// Max and mean of |a - b|, relative to 1 + max |b| except for log-densities; infinite if anything is not finite.
fn difference(
    function: &'static str,
    points: &str,
    rows: usize,
    a: &[f64],
    b: &[f64],
    d: usize,
) -> Difference {
    let (scale, tolerance) = match function {
        "log-density" => (1.0, LOG_DENSITY_TOLERANCE * (d as f64 / 784.0).max(1.0)),
        "value" => (1.0 + largest(b), VALUE_TOLERANCE),
        _ => (1.0 + largest(b), DERIVATIVE_TOLERANCE),
    };
    let each = || a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale);
    let or_infinite = |v: f64| if v.is_finite() { v } else { f64::INFINITY };
    let max = each().map(or_infinite).fold(0.0, f64::max);
    let mean = or_infinite(each().sum::<f64>() / a.len() as f64);
    let within_tolerance = max <= tolerance;
    Difference { function, points: points.into(), rows, max, mean, tolerance, within_tolerance }
}

fn double(a: &[f32]) -> Vec<f64> {
    a.iter().map(|&v| f64::from(v)).collect()
}

/// A line for each engine and function: the worst of its sets of points, and the mean over all.
fn table(names: &[String], all: &[Checked]) -> String {
    let mut text = format!(
        "{:<22}{:<13}{:>6}{:>11}{:>11}{:>11}",
        "engine", "function", "rows", "max", "mean", "tolerance"
    );
    for (name, checked) in names.iter().zip(all) {
        if checked.error.is_some() {
            text += &format!("\n{name:<22}FAILED");
        }
        for function in FUNCTIONS {
            let of: Vec<_> = checked.differences.iter().filter(|d| d.function == function).collect();
            let Some(first) = of.first() else { continue };
            let rows: usize = of.iter().map(|d| d.rows).sum();
            let max = of.iter().map(|d| d.max).fold(0.0, f64::max);
            let mean = of.iter().map(|d| d.mean * d.rows as f64).sum::<f64>() / rows as f64;
            let verdict = if of.iter().all(|d| d.within_tolerance) { "ok" } else { "DIFFERS" };
            text += &format!(
                "\n{name:<22}{function:<13}{rows:>6}{max:>11.1e}{mean:>11.1e}{:>11.0e}  {verdict}",
                first.tolerance
            );
        }
    }
    text
}
