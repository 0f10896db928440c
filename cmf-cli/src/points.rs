//! Points to compare: rows of a data set, and draws from a model.

use cmf_core::density::tweedie;
use cmf_core::gibbs_start::GibbsStart;
use cmf_core::sampler::Samples;
use cmf_core::{Error, Result};
use cmf_plugins::data::{DataSet, Split};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::commands::sample::{Noise, converged};
use crate::interrupt;
use crate::model::Model;
use crate::report::Report;

/// All rows of a split: [n, d].
pub fn split_rows(data: &dyn DataSet, split: Split) -> Result<Vec<f64>> {
    let n = data.rows(split);
    let mut rows = vec![0.0; n * data.shape().dim()];
    data.read(split, &(0..n).collect::<Vec<_>>(), &mut rows).map_err(cmf_plugins::core_error)?;
    Ok(rows)
}

/// Adds N(0, sigma² I).
pub fn add_noise(rows: &mut [f64], sigma: f64, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rows.iter_mut().for_each(|v| *v += sigma * rng.sample::<f64, _>(StandardNormal));
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
    /// The Gibbs draws behind them, all of them, with their diagnostics.
    pub gibbs: Samples,
    /// How many transport solves did not converge.
    pub unconverged: usize,
}

impl Drawing {
    /// Draws x ~ e^{-w}/Z and maps them to data, y = grad w*(x).
    pub fn draw(&self, model: &Model, report: &Report) -> Result<Drawn> {
        let start = GibbsStart::new(&model.gaussian.quadratic_start()?)?;
        let bar = report.progress(self.steps, "sampling");
        let gibbs =
            start.gibbs(model.engine.as_ref(), self.number, self.steps, self.seed, &mut |done, _| {
                bar.set_position(done as u64);
                !interrupt::asked()
            })?;
        bar.finish_and_clear();
        let d = model.dim();
        let (mut y, unconverged) = converged(&start.conjugate(model.engine.as_ref(), &gibbs.state.x)?, d);
        if y.is_empty() {
            return Err(Error::Invalid("no sample's transport solve converged".into()));
        }
        if self.noise == Noise::Remove {
            let mut clean = Vec::with_capacity(y.len());
            for block in y.chunks(64 * d) {
                interrupt::check()?;
                clean.extend(tweedie(model.engine.as_ref(), block, model.metadata.sigma)?);
            }
            y = clean;
        }
        Ok(Drawn { y, gibbs, unconverged })
    }
}
