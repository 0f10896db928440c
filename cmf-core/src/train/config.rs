//! Everything that decides a training run, saved with it.

use serde::{Deserialize, Serialize};

use super::least_squares::applies as least_squares_applies;
use crate::energy::Domain;
use crate::error::{Error, Result};
use crate::icnn::{Architecture, GibbsFactor};
use crate::mixture::MOST_COMPONENTS;
use crate::source::Source;

/// What a run learns from, and the law that its potential transports to that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Method {
    /// Samples, transported from the Gibbs factor of w or of its head (CMFGen and maximum likelihood).
    #[default]
    Samples,
    /// Samples, transported from N(0, I): the generative input-convex network.
    GaussianIcnn,
    /// An energy E with ρ ∝ e^{-E}, by regression on the Monge-Ampère equation (CMFMA).
    Energy {
        /// Where the uniform points of a batch lie.
        domain: Domain,
        /// Levenberg-Marquardt steps, which networks of one small hidden layer allow, in place of Adam's.
        least_squares: bool,
    },
}

impl Method {
    /// The law that is transported.
    pub fn source(&self) -> Source {
        match self {
            Method::GaussianIcnn => Source::Gaussian,
            Method::Samples | Method::Energy { .. } => Source::Gibbs,
        }
    }
}

/// Settings of a run; a run directory and the exported model record them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// From samples of which source, or from an energy.
    #[serde(default)]
    pub method: Method,
    /// The network.
    pub architecture: Architecture,
    /// Standard deviation σ of the Gaussian noise added to the data.
    pub sigma: f64,
    /// Updates in all.
    pub updates: usize,
    /// The first so many of them are CMFGen's; the others maximise the likelihood.
    pub conjugate_updates: usize,
    /// Weight of CMFGen's objective beside the likelihood, after the updates that are CMFGen's alone; 0 leaves
    /// it out and saves its conjugate solves.
    pub conjugate_weight: f64,
    /// Whether a network learns to guess the conjugates, from which their solves then start, instead of from
    /// the conjugates of the last update.
    pub amortise: bool,
    /// Data points per update, or uniform points of an energy's domain.
    pub batch: usize,
    /// Persistent particles of the source; their conjugates are further points at which an energy is compared.
    pub particles: usize,
    /// Langevin steps per update.
    pub langevin_steps: usize,
    /// c of the first Langevin step γ = c / λ_max, in the metric of the start's Gibbs factor; from N(0, I) the time
    /// of an exact step.
    pub langevin_step: f64,
    /// Mean probability of acceptance towards which the step size is then tuned.
    #[serde(default = "langevin_acceptance")]
    pub langevin_acceptance: f64,
    /// Most oracle calls of a conjugate solve, warm-started.
    pub conjugate_steps: usize,
    /// Root mean square of ∇w(y) - x at which such a solve stops.
    #[serde(default = "conjugate_tolerance")]
    pub conjugate_tolerance: f64,
    /// Relative residual at which the log-determinant's linear solves stop.
    pub solve_tolerance: f64,
    /// Most Hessian-vector products of one such solve.
    pub solve_steps: usize,
    /// Adam's step size on forms and biases.
    pub learning_rate: f64,
    /// The same on positive weights (mixing, output, diagonal), before softplus.
    pub learning_rate_positive: f64,
    /// The same on the quadratic head.
    pub learning_rate_head: f64,
    /// Share of the step sizes left at the end of the cosine schedule.
    pub final_rate: f64,
    /// Updates over which step sizes rise from zero.
    pub warm_up: usize,
    /// Adam's decay rates.
    pub betas: (f64, f64),
    /// Decay per update of the averaged weights, which are the ones exported.
    pub average: f64,
    /// Most Gaussians of the mixture that the head's Gibbs factor becomes after an eighth of the updates; 1 for none.
    #[serde(default = "one")]
    pub components: usize,
    /// Seed of every random number.
    pub seed: u64,
}

/// A compromise of the best for high dimensions, 0.574 (Roberts and Rosenthal, 1998, theorem 2), and of particles in
/// sharp places, which accept less than the mean.
///
/// Steps by λ_max alone, which the sharpest place decides, were accepted by 0.98 and more in the plane and hardly moved:
/// of the scaled and rotated s-curve two runs ended at 2.3 and 1.9 of the floor of the Sinkhorn divergence, tuned to 0.9
/// at 1.6 and 1.2, to 0.7 at 1.1 and 1.4.
fn langevin_acceptance() -> f64 {
    0.7
}

/// What runs from before the setting have.
fn one() -> usize {
    1
}

/// What checkpoints without the setting were trained with.
fn conjugate_tolerance() -> f64 {
    1e-2
}

impl TrainConfig {
    /// Checks that the settings can be run.
    pub fn validate(&self) -> Result<()> {
        self.architecture.validate()?;
        let positive = [
            ("updates", self.updates as f64),
            ("langevin_steps", self.langevin_steps as f64),
            ("langevin_step", self.langevin_step),
            ("conjugate_steps", self.conjugate_steps as f64),
            ("conjugate_tolerance", self.conjugate_tolerance),
            ("solve_tolerance", self.solve_tolerance),
            ("solve_steps", self.solve_steps as f64),
            ("learning_rate", self.learning_rate),
            ("learning_rate_positive", self.learning_rate_positive),
            ("learning_rate_head", self.learning_rate_head),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Invalid(format!("{name} must be positive, found {value}")));
            }
        }
        if !(self.sigma.is_finite() && self.sigma >= 0.0) {
            return Err(Error::Invalid(format!("sigma must be at least 0, found {}", self.sigma)));
        }
        if !(self.conjugate_weight.is_finite() && self.conjugate_weight >= 0.0) {
            return Err(Error::Invalid(format!(
                "conjugate_weight must be at least 0, found {}",
                self.conjugate_weight
            )));
        }
        let points = match self.method {
            // The residual has a variance from two points on, of either kind.
            Method::Energy { .. } => (self.batch + self.particles).saturating_sub(1),
            _ => self.batch.min(self.particles),
        };
        if points == 0 {
            return Err(Error::Invalid(format!(
                "batch and particles must be positive, found {} and {}",
                self.batch, self.particles
            )));
        }
        if let Method::Energy { domain, least_squares } = &self.method {
            domain.validate(self.architecture.dim)?;
            if *least_squares && !least_squares_applies(&self.architecture) {
                return Err(Error::Invalid(
                    "least_squares needs a full head, one hidden layer without diagonal terms, and few parameters".into(),
                ));
            }
            if self.conjugate_updates > 0 || self.conjugate_weight > 0.0 || self.sigma != 0.0 {
                return Err(Error::Invalid(
                    "an energy has no data, so neither sigma nor conjugate_updates nor conjugate_weight go with it".into(),
                ));
            }
        }
        if self.components > MOST_COMPONENTS {
            return Err(Error::Invalid(format!(
                "components must be at most {MOST_COMPONENTS}, found {}",
                self.components
            )));
        }
        if self.components == 0 || (self.components > 1 && self.architecture.gibbs != GibbsFactor::Head) {
            return Err(Error::Invalid(format!(
                "components must be at least 1, and 1 for any other source than the Gibbs factor of the head, found {}",
                self.components
            )));
        }
        if self.architecture.gibbs == GibbsFactor::Head {
            if self.method != Method::Samples {
                return Err(Error::Invalid(
                    "the Gibbs factor of the head goes with conjugate moment measures that are learned from samples".into(),
                ));
            }
            if self.conjugate_updates > 0 || self.conjugate_weight > 0.0 {
                return Err(Error::Invalid(
                    "conjugate_updates and conjugate_weight go with the Gibbs factor of all of w, not with that of its head".into(),
                ));
            }
        }
        if self.amortise && self.conjugate_updates == 0 && self.conjugate_weight == 0.0 {
            return Err(Error::Invalid(
                "amortise guesses conjugates, which the likelihood does not need: it goes with conjugate_updates or \
                 conjugate_weight above 0"
                    .into(),
            ));
        }
        if !(0.0..1.0).contains(&self.average) {
            return Err(Error::Invalid(format!("average must be in [0, 1), found {}", self.average)));
        }
        if !(self.langevin_acceptance > 0.0 && self.langevin_acceptance < 1.0) {
            return Err(Error::Invalid(format!(
                "langevin_acceptance must be between 0 and 1, found {}",
                self.langevin_acceptance
            )));
        }
        Ok(())
    }

    /// Whether the update of this number follows the likelihood, and the weight of CMFGen's objective in it.
    pub(super) fn objective(&self, update: usize) -> (bool, f64) {
        let likelihood = update >= self.conjugate_updates;
        (likelihood, if likelihood { self.conjugate_weight } else { 1.0 })
    }

    /// The factor of the step sizes at `update`: a linear rise, then a cosine.
    pub fn rate(&self, update: usize) -> f64 {
        let rise = ((update + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let done = update as f64 / self.updates as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        rise * (self.final_rate + (1.0 - self.final_rate) * cosine)
    }
}
