//! `cmf-cli sample --energy`: draws from e^{-E} of an energy, built in or from a plugin, by MALA.

use std::path::{Path, PathBuf};

use cmf_core::sampler::{self, Mala, Run};
use cmf_core::{Error, Potential, Result};
use cmf_plugins::host::{EnergyPotential, KindOfPlugin};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::images::write_png;
use crate::interrupt;
use crate::pictures::scatter_of;
use crate::plugin_args::{parameters, plugins};
use crate::report::{Outcome, Report};
use crate::table::{write_csv, write_npy};

/// Largest split R-hat at which chains are said to agree (Vehtari et al., 2021).
const AGREED: f64 = 1.01;

/// Which energy to sample.
pub struct EnergySampling<'a> {
    /// NAME or plugin:PATH[#NAME].
    pub energy: &'a str,
    /// Its parameters.
    pub set: &'a [(String, String)],
    /// How many samples, each from its own chain.
    pub number: usize,
    /// Steps of each chain.
    pub steps: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// What to write.
    pub out: &'a [PathBuf],
    /// How to speak.
    pub report: &'a Report,
}

impl EnergySampling<'_> {
    /// Runs the command.
    pub fn run(&self) -> Result<Outcome> {
        let found = plugins()?.resolve(KindOfPlugin::Energy, self.energy)?;
        let energy = found.energy(&parameters(&found.schema, self.set)?)?;
        let (low, high) = energy.domain();
        let w = EnergyPotential::new(energy)?;
        let d = w.dim();
        for out in self.out {
            match extension(out) {
                "npy" | "csv" => {}
                "png" if d == 2 => {}
                "png" => {
                    let message = format!("points with {d} coordinates make no picture: use .npy or .csv");
                    return Err(Error::file(out, message));
                }
                _ => return Err(Error::file(out, "expected a name that ends in .png, .npy or .csv")),
            }
        }
        if !w.has_hvp() {
            self.report
                .note("the energy has no Hessian products; differences of gradients stand in for them");
        }

        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let start: Vec<f64> = (0..self.number * d)
            .map(|i| low[i % d] + (high[i % d] - low[i % d]) * rng.random::<f64>())
            .collect();
        let sides: Vec<f64> = low.iter().zip(&high).map(|(l, h)| h - l).collect();
        let start = downhill(&w, start, sides.iter().fold(f64::INFINITY, |m, s| m.min(*s)))?;
        let few = &start[..d * self.number.min(16)];
        let lambda = sampler::lambda_max(&w, few, None, 10, &mut rng)?;
        // Where the energy is flat any step will do to begin with; the warm-up tunes it.
        let step = if lambda > 0.0 { 0.5 / lambda } else { 1.0 };
        let warmup = self.steps / 2;
        let run = Run { warmup, steps: self.steps - warmup, seed: self.seed };
        let bar = self.report.progress(self.steps, "sampling");
        let samples =
            sampler::sample(&w, Mala { step, preconditioner: None }, start, run, &mut |done, _| {
                bar.set_position(done as u64);
                !interrupt::asked()
            })?;
        bar.finish_and_clear();

        let x = &samples.state.x;
        for out in self.out {
            match extension(out) {
                "npy" => write_npy(out, x, d)?,
                "csv" => write_csv(out, x, d)?,
                _ => write_png(out, &scatter_of(x))?,
            }
            self.report.text(out.display().to_string())?;
        }
        let or_unknown =
            |v: Option<f64>, digits: usize| v.map_or("unknown".into(), |v| format!("{v:.digits$}"));
        self.report.note(format!(
            "acceptance {:.2}, split R-hat {}, effective sample size {}",
            samples.acceptance,
            or_unknown(samples.r_hat, 3),
            or_unknown(samples.effective_sample_size, 0)
        ));
        if samples.r_hat.is_none_or(|r| r > AGREED) {
            self.report.warn(format!(
                "the chains do not agree (split R-hat {}, expected below {AGREED}): more --steps help, but between \
                 separate modes the starts decide how many samples each gets, downhill from uniform on the domain",
                or_unknown(samples.r_hat, 3)
            ));
        }
        self.report.document(&json!({
            "energy": self.energy,
            "dimension": d,
            "seed": self.seed,
            "steps": self.steps,
            "written": self.number,
            "acceptance": samples.acceptance,
            "step_size": samples.step_size,
            "r_hat": samples.r_hat,
            "effective_sample_size": samples.effective_sample_size,
            "outputs": self.out,
        }))?;
        Ok(Outcome::Done)
    }
}

/// Steps downhill before the chains begin.
const DESCENT: usize = 100;

/// The points [n, d] that gradient descent reaches from `x`, each row with its own step: longer after each step that
/// goes down, shorter after each that would not. `side` is the length of a short side of the domain.
///
/// Where an energy grows faster than a quadratic, a Langevin step that suits the middle throws a chain at the rim so
/// far out that it is never accepted (Roberts and Tweedie, 1996): such a chain would stay at its start.
fn downhill(w: &dyn Potential, mut x: Vec<f64>, side: f64) -> Result<Vec<f64>> {
    let d = w.dim();
    let n = x.len() / d;
    let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
    w.value_and_gradient(&x, &mut value, &mut gradient)?;
    let norm = |g: &[f64]| g.iter().map(|v| v * v).sum::<f64>().sqrt();
    let mut step: Vec<f64> =
        gradient.chunks_exact(d).map(|g| 0.1 * side / norm(g).max(f64::MIN_POSITIVE)).collect();
    let (mut lower, mut slope) = (value.clone(), gradient.clone());
    for _ in 0..DESCENT {
        interrupt::check()?;
        let next: Vec<f64> = (0..n * d).map(|i| x[i] - step[i / d] * gradient[i]).collect();
        w.value_and_gradient(&next, &mut lower, &mut slope)?;
        for (i, &reached) in lower.iter().enumerate() {
            let row = i * d..(i + 1) * d;
            if reached < value[i] && slope[row.clone()].iter().all(|g| g.is_finite()) {
                x[row.clone()].copy_from_slice(&next[row.clone()]);
                gradient[row.clone()].copy_from_slice(&slope[row]);
                value[i] = reached;
                step[i] *= 1.5;
            } else {
                step[i] *= 0.3;
            }
        }
    }
    Ok(x)
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}
