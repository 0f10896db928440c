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
                "the chains do not agree (split R-hat {}, expected below {AGREED}): between separate modes the \
                 starts, uniform on the domain, decide how many samples each gets; otherwise more --steps help",
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

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}
