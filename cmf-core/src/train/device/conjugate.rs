//! Conjugate points ∇w*(x) on a device: the host's L-BFGS iteration (`crate::conjugate`) with all rows in step.

use burn::prelude::*;

use super::super::ops::Precise;
use super::metric::{Metric, choose, dots};
use super::{Potential, at};

/// As on the host: a step may overshoot to at most this fraction of the first slope.
const OVERSHOOT: f64 = 0.8;
/// Pairs of steps and gradient changes that are kept.
const MEMORY: usize = 5;
/// Curvature below this share of |s||dg| is rounding, which would spoil the estimate of the Hessian.
const ROUNDING: f64 = f32::EPSILON as f64;

/// Where the solves have come.
pub(super) struct Solved<B: Backend> {
    /// The best iterate of each row: [n, d].
    pub y: Tensor<B, 2>,
    /// Root mean square of ∇w(y) - x there: [n, 1]; not finite for a row without a finite gradient.
    pub residual: Tensor<B, 2>,
}

/// An iterate with what the potential said there.
#[derive(Clone)]
struct Point<B: Backend> {
    y: Tensor<B, 2>,
    /// L'(∇w(y) - x).
    gradient: Tensor<B, 2>,
    residual: Tensor<B, 2>,
}

impl<B: Backend> Point<B> {
    fn choose(mask: &Tensor<B, 2, Bool>, new: &Point<B>, old: &Point<B>) -> Point<B> {
        Point {
            y: choose(mask, new.y.clone(), &old.y),
            gradient: choose(mask, new.gradient.clone(), &old.gradient),
            residual: choose(mask, new.residual.clone(), &old.residual),
        }
    }
}

/// An accepted step of the rows that took one; zeros in the others.
struct Pair<B: Backend> {
    s: Tensor<B, 2>,
    dg: Tensor<B, 2>,
    /// 1/⟨s, dg⟩, or 0: [n, 1].
    rho: Tensor<B, 2>,
}

/// Moves each row from `start` [n, d] towards the y with ∇w(y) = x [n, d], in `calls` evaluations of ∇w.
///
/// A row takes part until its residual is at most `tolerance`. Steps are accepted on the slope along their
/// direction, shortened by the secant where they overshoot and to a tenth where w is not finite. The number of
/// calls is fixed, so that nothing waits for the device.
pub(super) fn conjugate<B: Precise>(
    w: &Potential<'_, B>,
    metric: &Metric<B>,
    x: &Tensor<B, 2>,
    start: Tensor<B, 2>,
    tolerance: f64,
    calls: usize,
) -> Solved<B> {
    let [n, d] = x.dims();
    let evaluate = |y: Tensor<B, 2>| {
        let g = at(w, &y).1 - x.clone();
        let residual = (dots(&g, &g) / d as f64).sqrt();
        Point { y, gradient: metric.pull_back(g), residual }
    };
    let mut here = evaluate(start);
    let mut best = here.clone();
    let ones = Tensor::<B, 2>::ones([n, 1], &x.device());
    let (mut step, mut scale) = (ones.clone(), ones.clone());
    let mut direction = -here.gradient.clone();
    let mut pairs: Vec<Pair<B>> = Vec::new();
    for _ in 1..calls {
        let slope = dots(&here.gradient, &direction);
        let trial = evaluate(here.y.clone() + metric.colour(direction.clone()) * step.clone());
        let going = here.residual.clone().greater_elem(tolerance);
        // Comparisons with NaN are false.
        let finite = trial.residual.clone().lower_elem(f32::MAX);
        let slope_there = dots(&trial.gradient, &direction);
        let short = slope_there.clone().lower_equal(slope.clone() * -OVERSHOOT);
        let accepted = going.bool_and(finite.clone()).bool_and(short);

        // Zeros where no step was taken, so that what is not finite there stays out of the sums.
        let zero = here.y.zeros_like();
        let s = choose(&accepted, direction.clone() * step.clone(), &zero);
        let dg = choose(&accepted, trial.gradient.clone() - here.gradient.clone(), &zero);
        let (curvature, square) = (dots(&s, &dg), dots(&dg, &dg));
        let least = (dots(&s, &s) * square.clone()).sqrt() * ROUNDING;
        let curved = curvature.clone().greater(least);
        scale = choose(&curved, curvature.clone() / square, &scale);
        let rho = choose(&curved, curvature.recip(), &step.zeros_like());
        if pairs.len() == MEMORY {
            pairs.remove(0);
        }
        pairs.push(Pair { s, dg, rho });

        // The root of the secant through both slopes: exact for a quadratic.
        let secant = step.clone() * (-slope.clone() / (slope_there - slope));
        let shorter = choose(&finite, secant, &(step.clone() * 0.1));
        step = choose(&accepted, ones.clone(), &shorter);
        here = Point::choose(&accepted, &trial, &here);
        best = Point::choose(&here.residual.clone().lower(best.residual.clone()), &here, &best);
        let proposal = quasi_newton(&pairs, &scale, &here.gradient);
        let steepest = -here.gradient.clone();
        let descends = dots(&here.gradient, &proposal).lower_elem(0.0);
        direction = choose(&accepted, choose(&descends, proposal, &steepest), &direction);
    }
    Solved { y: best.y, residual: best.residual }
}

/// The two-loop recursion for -H g (Nocedal and Wright, 2006, algorithm 7.4), with `scale` I for H_0.
fn quasi_newton<B: Backend>(
    pairs: &[Pair<B>],
    scale: &Tensor<B, 2>,
    gradient: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let mut q = -gradient.clone();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho.clone() * dots(&pair.s, &q);
        q = q - pair.dg.clone() * alpha.clone();
        alphas.push(alpha);
    }
    q = q * scale.clone();
    for (pair, alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let k = alpha - pair.rho.clone() * dots(&pair.dg, &q);
        q = q + pair.s.clone() * k;
    }
    q
}
