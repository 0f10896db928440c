//! Batched L-BFGS ascent of the exact log-density on the hole, in whitened coordinates.

use std::collections::VecDeque;

use super::hole::Hole;
use crate::density::{ExactLogDensity, Status, exact_log_density_and_score};
use crate::error::Result;
use crate::linalg::dot;
use crate::potential::SecondOrder;

/// How the ascent from one start ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The gain that is left, ½|∇_ζ log ρ|², is below the tolerance.
    Converged,
    /// The evaluations ran out; the point is the best that was found.
    OutOfEvaluations,
    /// The line search found no better point: rounding, or a jump of the log-determinant.
    Stalled,
    /// The start itself has no density.
    NoDensity,
    /// Explored, but not among the best, so not ascended.
    Dropped,
}

/// Pairs that L-BFGS remembers.
const HISTORY: usize = 10;
/// Line-search trials before a row is stalled.
const TRIALS: usize = 8;
/// Relative rounding of a log-density: values closer than this (times |log ρ| + d) are equal, and the
/// slope alone decides. It allows for potentials that compute in f32.
const ROUNDING: f64 = 1e-6;

/// One start on its way up.
pub(super) struct Climber {
    /// Where it is, whitened: [k].
    pub zeta: Vec<f64>,
    /// log ρ there, unnormalised.
    pub value: f64,
    /// Exact evaluations so far.
    pub evaluations: usize,
    /// Set when the climb is over.
    pub outcome: Option<Outcome>,
    gradient: Vec<f64>,
    direction: Vec<f64>,
    step: f64,
    trials: usize,
    /// (s, y, 1/s'y) with y the fall of the gradient along s.
    pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)>,
}

/// Tolerance and budget of the ascent.
#[derive(Clone, Copy)]
pub(super) struct Ascent {
    /// In nats: a row has converged when ½|∇_ζ log ρ|² is below it. It bounds the gain that is left
    /// where the density is at least as peaked as the Gaussian.
    pub tolerance: f64,
    /// Exact evaluations a row, the one at the start included.
    pub max_evaluations: usize,
    /// The largest curvature in ζ: the first step is the gradient over it.
    pub curvature: f64,
}

/// Exact log-densities and whitened gradients of rows `zeta` [n, k].
pub(super) fn exact(w: &dyn SecondOrder, hole: &Hole, zeta: &[f64]) -> Result<(ExactLogDensity, Vec<f64>)> {
    let points = hole.fill(zeta);
    let mut score = vec![0.0; points.len()];
    let density = exact_log_density_and_score(w, 0.0, &points, &mut score)?;
    let gradient = hole.pull_back(&score);
    Ok((density, gradient))
}

impl Ascent {
    /// Climbs from each row of `zeta` [n, k]; `hear` is told the evaluations spent after each round.
    ///
    /// The inverse Hessian starts as a multiple of I in ζ, which is the metric of the hole in y. All
    /// rows that are still climbing share each batch of evaluations.
    pub fn climb(
        &self,
        w: &dyn SecondOrder,
        hole: &Hole,
        zeta: &[f64],
        mut hear: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Climber>> {
        let k = hole.len();
        let (density, gradient) = exact(w, hole, zeta)?;
        let mut climbers: Vec<Climber> = zeta
            .chunks_exact(k)
            .zip(gradient.chunks_exact(k))
            .zip(density.value.iter().zip(&density.status))
            .map(|((zeta, gradient), (&value, &status))| {
                let mut climber = Climber {
                    zeta: zeta.to_vec(),
                    value,
                    evaluations: 1,
                    outcome: (status != Status::Evaluated).then_some(Outcome::NoDensity),
                    gradient: gradient.to_vec(),
                    direction: vec![],
                    step: 1.0,
                    trials: 0,
                    pairs: VecDeque::new(),
                };
                climber.aim(self);
                climber
            })
            .collect();
        for spent in 2.. {
            let mut active: Vec<&mut Climber> = climbers.iter_mut().filter(|c| c.outcome.is_none()).collect();
            if active.is_empty() {
                break;
            }
            let trial: Vec<f64> = active.iter().flat_map(|c| c.trial()).collect();
            let (density, gradient) = exact(w, hole, &trial)?;
            for (i, climber) in active.iter_mut().enumerate() {
                climber.hear(self, w.dim(), &trial[i * k..][..k], density.value[i], &gradient[i * k..][..k]);
            }
            hear(spent)?;
        }
        Ok(climbers)
    }
}

impl Climber {
    fn trial(&self) -> impl Iterator<Item = f64> {
        self.zeta.iter().zip(&self.direction).map(|(z, p)| z + self.step * p)
    }

    /// Takes the answer at the trial point: accepts it, or shortens the step.
    fn hear(&mut self, settings: &Ascent, d: usize, trial: &[f64], value: f64, gradient: &[f64]) {
        self.evaluations += 1;
        let slope = dot(&self.gradient, &self.direction);
        let new_slope = dot(gradient, &self.direction);
        let equal = ROUNDING * (self.value.abs() + d as f64);
        let rises = value >= self.value + 1e-4 * self.step * slope;
        let level = (value - self.value).abs() <= equal && new_slope.abs() <= slope;
        if rises || level {
            self.remember(trial, gradient);
            self.zeta = trial.to_vec();
            self.value = value;
            self.gradient = gradient.to_vec();
            self.aim(settings);
            return;
        }
        self.trials += 1;
        // The secant of the slopes, kept within a tenth and a half; without a density there is no slope.
        let secant = if value.is_finite() { slope / (slope - new_slope) } else { 0.25 };
        self.step *= if secant.is_nan() { 0.25 } else { secant.clamp(0.1, 0.5) };
        if self.trials == TRIALS {
            self.outcome = Some(Outcome::Stalled);
        } else if self.evaluations >= settings.max_evaluations {
            self.outcome = Some(Outcome::OutOfEvaluations);
        }
    }

    /// Keeps the pair of a step along which the gradient fell (a log-density need not be concave).
    fn remember(&mut self, point: &[f64], gradient: &[f64]) {
        let s: Vec<f64> = point.iter().zip(&self.zeta).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = self.gradient.iter().zip(gradient).map(|(a, b)| a - b).collect();
        let product = dot(&s, &y);
        if product > 1e-6 * dot(&s, &s) {
            self.pairs.push_back((s, y, 1.0 / product));
            if self.pairs.len() > HISTORY {
                self.pairs.pop_front();
            }
        }
    }

    /// Decides whether the climb is over and, if not, the next direction (Nocedal and Wright, 2006,
    /// algorithm 7.4), no longer than √k, the radius of the whitened Gaussian.
    fn aim(&mut self, settings: &Ascent) {
        if self.outcome.is_some() {
            return;
        }
        if 0.5 * dot(&self.gradient, &self.gradient) <= settings.tolerance {
            self.outcome = Some(Outcome::Converged);
        } else if self.evaluations >= settings.max_evaluations {
            self.outcome = Some(Outcome::OutOfEvaluations);
        }
        let mut p = self.gradient.clone();
        let mut weights = Vec::with_capacity(self.pairs.len());
        for (s, y, inverse) in self.pairs.iter().rev() {
            let a = inverse * dot(s, &p);
            p.iter_mut().zip(y).for_each(|(p, y)| *p -= a * y);
            weights.push(a);
        }
        let scale = match self.pairs.back() {
            Some((_, y, inverse)) => 1.0 / (inverse * dot(y, y)),
            None => 1.0 / settings.curvature,
        };
        p.iter_mut().for_each(|p| *p *= scale);
        for ((s, y, inverse), a) in self.pairs.iter().zip(weights.iter().rev()) {
            let b = inverse * dot(y, &p);
            p.iter_mut().zip(s).for_each(|(p, s)| *p += (a - b) * s);
        }
        let longest = (p.len() as f64).sqrt();
        let length = dot(&p, &p).sqrt();
        if length > longest {
            p.iter_mut().for_each(|p| *p *= longest / length);
        }
        self.direction = p;
        self.step = 1.0;
        self.trials = 0;
    }
}
