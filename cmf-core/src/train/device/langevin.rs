//! Langevin steps and the eigenvalue that their step size goes by.

use burn::prelude::*;

use super::metric::{Metric, dots};
use super::{Potential, at};

/// Unadjusted Langevin steps x' = x - γ P ∇w(x) + √(2γ) L ξ, one for each array ξ [n, d] of `noise`.
///
/// Returns the particles [n, d] and w there [n, 1].
pub(super) fn langevin<B: Backend>(
    w: &Potential<'_, B>,
    metric: &Metric<B>,
    mut x: Tensor<B, 2>,
    step: f64,
    noise: Vec<Tensor<B, 2>>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let (mut value, mut gradient) = at(w, &x);
    for xi in noise {
        let drift = xi * (2.0 * step).sqrt() - metric.pull_back(gradient) * step;
        x = x + metric.colour(drift);
        (value, gradient) = at(w, &x);
    }
    (x, value)
}

/// The largest eigenvalue of L' ∇²w L over the rows of `x`, by power iteration from `v`, which is returned for
/// the next call; approached from below: [n, d], [n, d] -> [1], [n, d].
pub(super) fn lambda_max<B: Backend>(
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
