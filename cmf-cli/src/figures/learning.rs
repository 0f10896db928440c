//! Networks that a figure learns itself.

use std::time::Instant;

use cmf_core::Result;
use cmf_core::gibbs_start::GibbsStart;
use cmf_core::icnn::{Head, Icnn};
use cmf_core::train::{TrainConfig, Trainer, Training};
use cmf_plugins::data::{DataSet, Split};
use indicatif::ProgressBar;

use crate::interrupt;
use crate::run_directory::gaussian;

/// A network and where its samplers and solvers begin.
pub struct Learned {
    pub w: Icnn<f32>,
    pub start: GibbsStart,
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
        Ok(Learned { w: trainer.network()?, start: GibbsStart::new(trainer.start())?, seconds })
    }

    /// Draws of the source [n, d], and what they are mapped to where the solve converged [m, d].
    pub fn draw(&self, n: usize, steps: usize, seed: u64) -> Result<(Vec<f64>, Vec<f64>)> {
        let draws = self.start.samples(&self.w, n, steps, seed, &mut |_| !interrupt::asked())?;
        Ok((draws.source, draws.solution.converged()))
    }
}
