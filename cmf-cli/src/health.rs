//! How good a model in training is: distance of its samples to held-out data, and a picture of them.

use cmf_core::Result;
use cmf_core::conjugate::{ConjugateSolver, Status};
use cmf_core::sinkhorn::{Sinkhorn, suggested_epsilon};
use cmf_plugins::data::{Shape, Split};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::grid::Grid;
use crate::images::write_png;
use crate::pictures::{grid_of, scatter_of};
use crate::run_directory::Run;

/// Held-out rows, with the model's noise added, that samples are compared with.
pub struct Health {
    held_out: Vec<f64>,
    epsilon: f64,
}

/// Rows on each side of the comparison.
const ROWS: usize = 256;
/// Samples in a preview.
const SHOWN: usize = 64;

impl Health {
    /// Reads the first held-out rows of the run's data.
    pub fn new(run: &Run) -> Result<Health> {
        let data = run.data.data.as_ref();
        let (n, d) = (data.rows(Split::HeldOut).min(ROWS), data.shape().dim());
        let mut held_out = vec![0.0; n * d];
        data.read(Split::HeldOut, &(0..n).collect::<Vec<_>>(), &mut held_out)
            .map_err(cmf_plugins::core_error)?;
        let config = run.trainer.config();
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        held_out.iter_mut().for_each(|v| *v += config.sigma * rng.sample::<f64, _>(StandardNormal));
        let epsilon = suggested_epsilon(&held_out, &held_out, d)?;
        Ok(Health { held_out, epsilon })
    }

    /// The Sinkhorn divergence of the model's samples to held-out data, in squared units of the data;
    /// writes a preview of the samples into the run directory.
    pub fn look(&self, run: &Run) -> Result<f64> {
        let d = run.data.data.shape().dim();
        let particles = run.trainer.particles();
        let x = &particles[..particles.len().min(ROWS * d)];
        let solution = ConjugateSolver::default().solve(&run.trainer.network()?, x, None)?;
        let good = |i: &usize| solution.rows[*i].status == Status::Converged;
        let y: Vec<f64> =
            (0..solution.rows.len()).filter(good).flat_map(|i| solution.y[i * d..][..d].to_vec()).collect();
        self.preview(run, &y[..y.len().min(SHOWN * d)])?;
        if y.is_empty() {
            return Ok(f64::INFINITY);
        }
        Ok(Sinkhorn::new(self.epsilon).divergence(&y, &self.held_out, d)?.value)
    }

    fn preview(&self, run: &Run, y: &[f64]) -> Result<()> {
        let picture = match (run.data.data.shape(), run.data.data.pixel_range()) {
            (Shape::Image { height, width, channels }, Some((low, high))) => {
                grid_of(&Grid { height, width, channels, low, high }, y, None)
            }
            (Shape::Vector { dim: 2 }, _) => scatter_of(y),
            _ => return Ok(()),
        };
        let name = format!("preview-{:06}.png", run.trainer.updates_done());
        write_png(&run.directory.file(&name), &picture)
    }
}
