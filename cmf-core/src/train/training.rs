//! A run in progress as its callers see it: one update at a time, wherever it is computed.

use std::path::Path;

use super::config::TrainConfig;
use crate::error::Result;
use crate::gaussian::QuadraticStart;
use crate::icnn::Icnn;
use crate::potential::Potential;

/// What one update saw.
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// Updates done, this one included.
    pub update: usize,
    /// Seconds spent in updates, over all sessions of the run.
    pub seconds: f64,
    /// Whether the update was CMFGen's, the likelihood's or an energy's.
    pub objective: &'static str,
    /// The largest eigenvalue over particles, or over data where there are none, of the Hessian preconditioned by the start's.
    pub lambda_max: f64,
    /// rms residual of the conjugate solves (CMFGen) or worst relative residual of the linear solves.
    pub residual: f64,
    /// Root mean square of ∇w(H(x)) - x for the amortiser's guesses H(x), before they are solved; none without
    /// an amortiser or in updates without conjugate solves.
    pub guess_residual: Option<f64>,
    /// The share of the particles' Langevin steps that was accepted; 1 where they move exactly or there are none.
    pub acceptance: f64,
    /// Factor of the learning rates.
    pub rate: f64,
    /// Standard deviation over the batch of E + log ρ_w, in nats; 0 for a model that is exact there. None
    /// without an energy.
    pub deviation: Option<f64>,
}

/// Copies rows of training data by index into [indices, d].
pub type ReadRows<'a> = dyn Fn(&[usize], &mut [f64]) -> Result<()> + 'a;

/// A run in progress, on this machine's processor or on a device.
pub trait Training {
    /// The settings of the run.
    fn config(&self) -> &TrainConfig;

    /// Updates done.
    fn updates_done(&self) -> usize;

    /// The closed-form potential that the run started from.
    fn start(&self) -> &QuadraticStart;

    /// The averaged network.
    fn network(&self) -> Result<Icnn<f32>>;

    /// The particles of the source, or as many draws of it where a run needs none: [particles, d].
    fn particles(&self) -> Result<Vec<f64>>;

    /// Takes one update on training data of `rows` rows.
    fn step(&mut self, rows: usize, read: &ReadRows<'_>) -> Result<Metrics>;

    /// Makes a mixture of the source where that is due, an eighth of the updates into a run of several components; fitting one
    /// takes up to half a minute. [`step`](Self::step) does so where nobody has.
    ///
    /// `hear` is told the share of it that is done, once or more often from 0 to 1, and returns whether to go on; where it says
    /// no, this fails with [`Error::Interrupted`](crate::Error::Interrupted) and the run is as it was.
    fn mix_source(
        &mut self,
        rows: usize,
        read: &ReadRows<'_>,
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<()>;

    /// Takes one update on an energy.
    ///
    /// mu is `batch` points of the domain, uniform but for a density that falls off as a = (1 + (E - min E)/5)^{-2},
    /// and `particles` points of the model, (∇w*)#P_w, as far as their conjugate solves have come; each counts
    /// with the weight a, so that the tails do not outweigh the bulk. Fails where E is not finite.
    fn step_on_energy(&mut self, energy: &dyn Potential) -> Result<Metrics>;

    /// Writes the whole state to `path`, replacing a file there only once it is complete.
    fn save(&self, path: &Path) -> Result<()>;
}
