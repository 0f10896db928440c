//! Networks that a figure learns itself.

use std::time::Instant;

use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::{Head, Icnn};
use cmf_core::train::{TrainConfig, Trainer, Training};
use cmf_core::{Result, Source, draws};
use cmf_plugins::data::{DataSet, Split};
use indicatif::ProgressBar;

use crate::interrupt;
use crate::run_directory::gaussian;

/// A network, its source, and mean and covariance of what it learned.
pub struct Learned {
    pub w: Icnn<f32>,
    source: Source,
    gaussian: Gaussian,
    /// Of training.
    pub seconds: f64,
}

impl Learned {
    /// Learns `data` with these settings; each update moves `bar`.
    pub fn from(data: &dyn DataSet, config: TrainConfig, bar: &ProgressBar) -> Result<Learned> {
        let (updates, fitted) = (config.updates, gaussian(data, config.sigma, Head::Full)?);
        let mut trainer = Trainer::new(config, &fitted)?;
        let clock = Instant::now();
        for _ in 0..updates {
            interrupt::check()?;
            trainer.step(data.rows(Split::Train), &|indices, out| {
                data.read(Split::Train, indices, out).map_err(cmf_plugins::core_error)
            })?;
            bar.inc(1);
        }
        let seconds = clock.elapsed().as_secs_f64();
        let source = trainer.start().source;
        Ok(Learned { w: trainer.network()?, source, gaussian: fitted, seconds })
    }

    /// Draws of the source [n, d], and what they are mapped to where the solve converged [m, d].
    pub fn draw(&self, n: usize, steps: usize, seed: u64) -> Result<(Vec<f64>, Vec<f64>)> {
        let go_on = &mut |_| !interrupt::asked();
        let draws = draws::samples(&self.w, &self.gaussian, self.source, n, steps, seed, go_on)?;
        Ok((draws.source, draws.solution.converged()))
    }
}
