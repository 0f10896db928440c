//! Ascent of the exact log-density on the hole, in the metric of the model's own curvature.

use super::hole::Hole;
use super::whitening::Whitening;
use crate::density::{ExactLogDensity, Status, exact_log_density_and_score};
use crate::error::Result;
use crate::linalg::{Cholesky, dot};
use crate::potential::SecondOrder;

/// How the ascent from one start ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The gain that is left, ½ g'A^{-1}g, is below the tolerance.
    Converged,
    /// The evaluations ran out; the point is the best that was found.
    OutOfEvaluations,
    /// The line search found no better point (rounding, or a jump of the log-determinant), or the
    /// curvature has no Cholesky factor.
    Stalled,
    /// The start itself has no density.
    NoDensity,
    /// Explored, but not among the best, so not ascended.
    Dropped,
}

/// Line-search trials before a row is stalled.
const TRIALS: usize = 8;
/// Shares of a whole step A^{-1} g that a line search may begin with.
const SHARES: (f64, f64) = (0.02, 1.0);
/// Relative rounding of a log-density: values closer than this (times |log ρ| + d) are equal, and the
/// slope alone decides. It allows for potentials that compute in f32.
const ROUNDING: f64 = 1e-6;

/// One start on its way up.
pub(super) struct Climber {
    /// Where it is, the hidden coordinates: [k].
    pub hidden: Vec<f64>,
    /// log ρ there, unnormalised.
    pub value: f64,
    /// Exact evaluations so far.
    pub evaluations: usize,
    /// Set when the climb is over.
    pub outcome: Option<Outcome>,
    /// g = ∇_h log ρ: [k].
    gradient: Vec<f64>,
    /// A^{-1} g: [k]; empty until [`Ascent::aim`] has been here.
    direction: Vec<f64>,
    /// The share of it that is tried.
    share: f64,
    trials: usize,
}

/// Tolerance and budget of the ascent.
#[derive(Clone, Copy)]
pub(super) struct Ascent {
    /// In nats: a row has converged when ½ g'A^{-1}g is below it. It bounds the gain that is left
    /// where the density is at least as peaked as its metric A says.
    pub tolerance: f64,
    /// Exact evaluations a row, the one at the start included.
    pub max_evaluations: usize,
    /// How many of them go up in the broad metric.
    pub broad: usize,
}

/// Exact log-densities with `hidden` [n, k] filled in, and their gradients there [n, k].
fn exact(w: &dyn SecondOrder, hole: &Hole, hidden: &[f64]) -> Result<(ExactLogDensity, Vec<f64>)> {
    let points = hole.place(hidden);
    let mut score = vec![0.0; points.len()];
    let density = exact_log_density_and_score(w, 0.0, &points, &mut score)?;
    Ok((density, hole.pick(&score)))
}

impl Ascent {
    /// Climbs from each row of `hidden` [n, k]; `hear` is told the evaluations spent after each round.
    ///
    /// A step is a share of A^{-1} g. Far from a mode A is the [`Whitening`]'s, the same everywhere: it
    /// averages over what the hole may hold, and steps in it follow the broad slopes. Then A is the curvature at the
    /// very point, which the strokes that are there by now make sharp: from there on its steps converge
    /// in a dozen evaluations, where those of the broad one would take hundreds. What A leaves out, the
    /// log-determinant's part, sets the share: each step begins with the secant of the last.
    /// All rows that are still climbing share each batch of evaluations.
    pub fn climb(
        &self,
        w: &dyn SecondOrder,
        whitening: &Whitening,
        hidden: &[f64],
        mut hear: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Climber>> {
        let hole = whitening.hole;
        let k = hole.len();
        let (density, gradient) = exact(w, hole, hidden)?;
        let mut climbers: Vec<Climber> = hidden
            .chunks_exact(k)
            .zip(gradient.chunks_exact(k))
            .zip(density.value.iter().zip(&density.status))
            .map(|((hidden, gradient), (&value, &status))| Climber {
                hidden: hidden.to_vec(),
                value,
                evaluations: 1,
                outcome: (status != Status::Evaluated).then_some(Outcome::NoDensity),
                gradient: gradient.to_vec(),
                direction: vec![],
                share: 1.0,
                trials: 0,
            })
            .collect();
        for spent in 2.. {
            self.aim(w, whitening, &mut climbers)?;
            let mut active: Vec<&mut Climber> = climbers.iter_mut().filter(|c| c.outcome.is_none()).collect();
            if active.is_empty() {
                break;
            }
            let trial: Vec<f64> = active.iter().flat_map(|c| c.trial()).collect();
            let (density, gradient) = exact(w, hole, &trial)?;
            for (i, climber) in active.iter_mut().enumerate() {
                let (trial, gradient) = (&trial[i * k..][..k], &gradient[i * k..][..k]);
                climber.hear(self, w.dim(), trial, density.value[i], gradient);
            }
            hear(spent)?;
        }
        Ok(climbers)
    }

    /// Decides for climbers that have come to a new point whether the climb is over, and if not the next direction.
    fn aim(&self, w: &dyn SecondOrder, whitening: &Whitening, climbers: &mut [Climber]) -> Result<()> {
        let hole = whitening.hole;
        let (broad, local): (Vec<_>, Vec<_>) = climbers
            .iter_mut()
            .filter(|climber| climber.outcome.is_none() && climber.direction.is_empty())
            .partition(|climber| climber.evaluations <= self.broad);
        for climber in broad {
            self.point(climber, &whitening.metric)?;
        }
        let hidden: Vec<f64> = local.iter().flat_map(|climber| climber.hidden.iter().copied()).collect();
        let curvatures = if local.is_empty() { vec![] } else { hole.curvatures(w, &hole.place(&hidden))? };
        for (climber, curvature) in local.into_iter().zip(curvatures) {
            match Cholesky::new(&curvature, hole.len(), "the curvature in the hole") {
                Ok(metric) => self.point(climber, &metric)?,
                Err(_) => climber.outcome = Some(Outcome::Stalled),
            }
        }
        Ok(())
    }

    /// As [`aim`](Self::aim), for one climber in the metric A.
    fn point(&self, climber: &mut Climber, metric: &Cholesky) -> Result<()> {
        climber.direction = climber.gradient.clone();
        metric.solve_rows(&mut climber.direction)?;
        if 0.5 * dot(&climber.gradient, &climber.direction) <= self.tolerance {
            climber.outcome = Some(Outcome::Converged);
        } else if climber.evaluations >= self.max_evaluations {
            climber.outcome = Some(Outcome::OutOfEvaluations);
        }
        Ok(())
    }
}

impl Climber {
    fn trial(&self) -> impl Iterator<Item = f64> {
        self.hidden.iter().zip(&self.direction).map(|(h, p)| h + self.share * p)
    }

    /// Takes the answer at the trial point: moves there and forgets the direction, or shortens the step.
    fn hear(&mut self, settings: &Ascent, d: usize, trial: &[f64], value: f64, gradient: &[f64]) {
        self.evaluations += 1;
        let slope = dot(&self.gradient, &self.direction);
        let new_slope = dot(gradient, &self.direction);
        let equal = ROUNDING * (self.value.abs() + d as f64);
        let rises = value >= self.value + 1e-4 * self.share * slope;
        let level = (value - self.value).abs() <= equal && new_slope.abs() <= slope;
        // Where the secant of the slopes vanishes, as a share of this step.
        let secant = slope / (slope - new_slope);
        if rises || level {
            let whole = if secant > 0.0 { self.share * secant } else { SHARES.1 };
            self.share = whole.clamp(SHARES.0, SHARES.1);
            self.hidden = trial.to_vec();
            self.value = value;
            self.gradient = gradient.to_vec();
            self.direction.clear();
            self.trials = 0;
            return;
        }
        self.trials += 1;
        // Without a density there is no slope.
        let shorter = if value.is_finite() && !secant.is_nan() { secant.clamp(0.1, 0.5) } else { 0.25 };
        self.share *= shorter;
        if self.trials == TRIALS {
            self.outcome = Some(Outcome::Stalled);
        } else if self.evaluations >= settings.max_evaluations {
            self.outcome = Some(Outcome::OutOfEvaluations);
        }
    }
}
