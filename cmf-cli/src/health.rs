//! How good a model in training is: its samples against held-out data or the energy, and a picture of them.

use cmf_core::density::{exact_log_density, is_exact};
use cmf_core::draws;
use cmf_core::icnn::Icnn;
use cmf_core::sinkhorn::{Sinkhorn, suggested_epsilon};
use cmf_core::{Potential, Result};
use cmf_plugins::data::{DataSet, Shape, Split};

use crate::grid::Grid;
use crate::images::write_png;
use crate::pictures::{grid_of, scatter_of};
use crate::points::add_noise;
use crate::run_directory::{Lesson, Run};

/// What a look at a model found.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// The Sinkhorn divergence of samples to held-out data, in squared units of the data.
    Sinkhorn(f64),
    /// The effective share of samples that are weighed by e^{-E}/ρ_w: 1 for a model that is exact.
    EffectiveShare(f64),
}

/// What a model in training is held against.
pub enum Health {
    /// Held-out rows, with the model's noise added, that samples are compared with.
    Data {
        /// [rows, d].
        held_out: Vec<f64>,
        /// Of the Sinkhorn divergence.
        epsilon: f64,
    },
    /// The energy.
    Energy,
}

/// Rows on each side of the comparison.
const ROWS: usize = 256;
/// Samples in a preview.
const SHOWN: usize = 64;
/// Langevin steps of the samples that are compared with an energy.
const STEPS: usize = 300;

impl Health {
    /// Reads the first held-out rows of the run's data.
    pub fn new(run: &Run) -> Result<Health> {
        let Some(data) = run.lesson.data() else { return Ok(Health::Energy) };
        let (n, d) = (data.rows(Split::HeldOut).min(ROWS), data.shape().dim());
        let mut held_out = vec![0.0; n * d];
        data.read(Split::HeldOut, &(0..n).collect::<Vec<_>>(), &mut held_out)
            .map_err(cmf_plugins::core_error)?;
        let config = run.trainer.config();
        add_noise(&mut held_out, config.sigma, config.seed);
        let epsilon = suggested_epsilon(&held_out, &held_out, d)?;
        Ok(Health::Data { held_out, epsilon })
    }

    /// Holds the model's samples against data or energy and writes a preview of them into the run directory.
    ///
    /// Nothing is seen of an energy in more dimensions than a density is exact in.
    pub fn look(&self, run: &Run) -> Result<Option<Seen>> {
        let network = run.trainer.network()?;
        match (self, &run.lesson) {
            (Health::Data { held_out, epsilon }, Lesson::Data(_, opened)) => {
                let d = network.dim();
                let particles = run.trainer.particles()?;
                let x = &particles[..particles.len().min(ROWS * d)];
                let start = run.trainer.start();
                let y = draws::conjugates(&network, &start.gaussian()?, start.source, x)?.converged();
                preview_data(run, opened.data.as_ref(), &y[..y.len().min(SHOWN * d)])?;
                // Held-out rows without distances between them, a single one say, are no measure.
                if *epsilon == 0.0 {
                    return Ok(None);
                }
                if y.is_empty() {
                    return Ok(Some(Seen::Sinkhorn(f64::INFINITY)));
                }
                let divergence = Sinkhorn::new(*epsilon).divergence(&y, held_out, d)?;
                Ok(Some(Seen::Sinkhorn(divergence.value)))
            }
            (_, Lesson::Energy(_, opened)) => {
                let y = samples(run, &network, ROWS)?;
                if network.dim() == 2 {
                    write_png(&run.directory.file(&preview_name(run)), &scatter_of(&y))?;
                }
                effective_share(&network, &opened.energy, &y).map(|s| s.map(Seen::EffectiveShare))
            }
            (Health::Energy, Lesson::Data(..)) => Ok(None),
        }
    }
}

/// Samples of a model in training, those whose transport solve converged.
pub fn samples(run: &Run, network: &Icnn<f32>, n: usize) -> Result<Vec<f64>> {
    let (start, seed) = (run.trainer.start(), run.trainer.config().seed);
    let draws = draws::samples(network, &start.gaussian()?, start.source, n, STEPS, seed, &mut |_| true)?;
    Ok(draws.solution.converged())
}

/// (Σ v)²/(n Σ v²) of the importance weights v = e^{-E}/ρ_w at the samples `y`; where E is not finite v is 0.
fn effective_share(network: &Icnn<f32>, energy: &dyn Potential, y: &[f64]) -> Result<Option<f64>> {
    let d = network.dim();
    if !is_exact(network) || y.is_empty() {
        return Ok(None);
    }
    let (mut value, mut gradient) = (vec![0.0; y.len() / d], vec![0.0; y.len()]);
    energy.value_and_gradient(y, &mut value, &mut gradient)?;
    let density = exact_log_density(network, 0.0, y)?.value;
    let logs: Vec<f64> = value.iter().zip(&density).map(|(e, l)| -e - l).filter(|v| v.is_finite()).collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights = || logs.iter().map(|l| (l - top).exp());
    let (sum, squares) = (weights().sum::<f64>(), weights().map(|v| v * v).sum::<f64>());
    Ok((squares > 0.0).then(|| sum * sum / squares / value.len() as f64))
}

fn preview_name(run: &Run) -> String {
    format!("preview-{:06}.png", run.trainer.updates_done())
}

fn preview_data(run: &Run, data: &dyn DataSet, y: &[f64]) -> Result<()> {
    let picture = match (data.shape(), data.pixel_range()) {
        (Shape::Image { height, width, channels }, Some((low, high))) => {
            grid_of(&Grid { height, width, channels, low, high }, y, None)
        }
        (Shape::Vector { dim: 2 }, _) => scatter_of(y),
        _ => return Ok(()),
    };
    write_png(&run.directory.file(&preview_name(run)), &picture)
}
