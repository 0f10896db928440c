//! Langevin steps and the eigenvalue that the first one's size goes by.

use burn::prelude::*;

use super::super::objective::rows;
use super::super::ops::Precise;
use super::draws::Chance;
use super::metric::{Metric, choose, dots};
use super::{Potential, at};

/// Metropolis-adjusted Langevin steps from x to x - γ P ∇w(x) + √(2γ) L ξ, as the host's `Mala`.
///
/// Returns the particles [n, d] and the mean probability that a step was accepted with [1].
pub(super) fn langevin<B: Precise>(
    w: &Potential<'_, B>,
    metric: &Metric<B>,
    mut x: Tensor<B, 2>,
    step: f64,
    chances: &[Chance],
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let (length, steps) = ((2.0 * step).sqrt(), chances.len() as f64);
    let (mut value, mut gradient) = at(w, &x);
    let mut accepted = Tensor::zeros([1], &x.device());
    let ([_, d], device) = (x.dims(), x.device());
    for Chance { noise, uniform } in chances {
        let (noise, uniform) = (rows(noise, d, &device), rows(uniform, 1, &device));
        // One leapfrog step with momenta ξ.
        let momentum = noise.clone() - metric.pull_back(gradient.clone()) * (0.5 * length);
        let proposed = x.clone() + metric.colour(momentum.clone()) * length;
        let (new_value, new_gradient) = at(w, &proposed);
        let momentum = momentum - metric.pull_back(new_gradient.clone()) * (0.5 * length);
        let kinetic = (dots(&momentum, &momentum) - dots(&noise, &noise)) * 0.5;
        let probability = (value.clone() - new_value.clone() - kinetic).exp().clamp_max(1.0);
        // Comparisons with NaN are false: what left the finite numbers is rejected.
        let finite = probability.clone().lower_equal_elem(1.0);
        let probability = choose(&finite, probability.clone(), &probability.zeros_like());
        let taken = uniform.lower(probability.clone());
        accepted = accepted + probability.mean() / steps;
        x = choose(&taken, proposed, &x);
        value = choose(&taken, new_value, &value);
        gradient = choose(&taken, new_gradient, &gradient);
    }
    (x, accepted)
}

/// The largest eigenvalue of L' ∇²w L over the rows of `x`, by power iteration from `v`, which is returned for
/// the next call; approached from below: [n, d], [n, d] -> [1], [n, d].
pub(super) fn lambda_max<B: Precise>(
    w: &Potential<'_, B>,
    metric: &Metric<B>,
    x: &Tensor<B, 2>,
    mut v: Tensor<B, 2>,
    iterations: usize,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let point = w.linearise(&super::ranked(x));
    let mut largest = Tensor::zeros([1], &x.device());
    for _ in 0..iterations {
        let along = metric.colour(v.clone());
        let product = metric.pull_back(w.hvp(&point, &super::ranked(&along)).matrix());
        let norm = dots(&product, &product).sqrt();
        largest = (norm.clone() / dots(&v, &v).sqrt()).max();
        v = product / norm;
    }
    (largest, v)
}
