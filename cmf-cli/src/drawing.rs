//! Draws from a model: its source, the transport map, and what becomes of the noise it learned.

use clap::ValueEnum;
use cmf_core::density::{Denoise, tweedie, without_noise};
use cmf_core::draws::{self, Draws};
use cmf_core::sampler::Samples;
use cmf_core::{Error, Result};

use crate::interrupt;
use crate::model::Model;
use crate::report::Report;

/// Most draws that a command makes.
pub const MOST_DRAWS: u32 = 1_000_000;

/// What to do with the noise in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Noise {
    /// Samples of the density as learned.
    Keep,
    /// The mean of the clean point given the noisy sample.
    Mean,
    /// The same step once more from there, for what draws have more of noise than the data had.
    Remove,
}

impl Noise {
    /// What is done if nobody says: images are to be looked at.
    pub fn usual(model: &Model) -> Noise {
        if model.grid().is_some() { Noise::Remove } else { Noise::Keep }
    }
}

/// How to draw from a model.
#[derive(Debug, Clone, Copy)]
pub struct Drawing {
    /// Draws, each from its own chain.
    pub number: usize,
    /// Langevin steps of each chain; the first half tunes their size.
    pub steps: usize,
    /// What to do with the noise that the model learned with its data.
    pub noise: Noise,
    /// Seed of all randomness.
    pub seed: u64,
}

/// What was drawn.
pub struct Drawn {
    /// The draws whose transport solve converged: [n, d].
    pub y: Vec<f64>,
    /// The Langevin draws behind them, all of them, with their diagnostics; none if the source is a
    /// Gaussian.
    pub chains: Option<Samples>,
    /// How many transport solves did not converge.
    pub unconverged: usize,
    /// The largest relative residual of a solve.
    pub worst_residual: f64,
}

impl Drawing {
    /// Draws x from the model's source and maps them to data, y = grad w*(x).
    pub fn draw(&self, model: &Model, report: &Report) -> Result<Drawn> {
        let (w, d) = (model.engine.as_ref(), model.dim());
        let bar = report.progress(self.steps, "sampling");
        let source = model.metadata.source;
        let Draws { chains, solution, .. } =
            draws::samples(w, &model.gaussian, source, self.number, self.steps, self.seed, &mut |done| {
                bar.set_position(done as u64);
                !interrupt::asked()
            })?;
        bar.finish_and_clear();
        let mut y = solution.converged();
        let unconverged = self.number - y.len() / d;
        if y.is_empty() {
            return Err(Error::Invalid("no sample's transport solve converged".into()));
        }
        match self.noise {
            Noise::Keep => {}
            Noise::Mean => y = denoised(model, &y, tweedie, report)?,
            Noise::Remove => y = denoised(model, &y, without_noise, report)?,
        }
        Ok(Drawn { y, chains, unconverged, worst_residual: solution.worst_residual() })
    }
}

impl Drawn {
    /// How the source was drawn, for a person.
    pub fn how(&self) -> String {
        let Some(samples) = &self.chains else {
            return "the source was drawn exactly".into();
        };
        let known = |v: Option<f64>, digits: usize| v.map_or("unknown".into(), |v| format!("{v:.digits$}"));
        format!(
            "acceptance {:.2}, split R-hat {}, effective sample size {}",
            samples.acceptance,
            known(samples.r_hat, 3),
            known(samples.effective_sample_size, 0)
        )
    }
}

fn denoised(model: &Model, y: &[f64], by: Denoise, report: &Report) -> Result<Vec<f64>> {
    let d = model.dim();
    let bar = report.progress(y.len() / d, "removing noise");
    let mut clean = Vec::with_capacity(y.len());
    // Blocks, so that a long run can be interrupted.
    for block in y.chunks(64 * d) {
        interrupt::check()?;
        clean.extend(by(model.engine.as_ref(), model.metadata.source, block, model.metadata.sigma)?);
        bar.inc((block.len() / d) as u64);
    }
    bar.finish_and_clear();
    Ok(clean)
}
