//! What an update needs besides samplers and conjugates, on the host's f32 engine and never
//! differentiated: random numbers, probes, gradients, and the largest eigenvalue.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::icnn::Icnn;
use crate::linalg::dot;
use crate::potential::Potential;
use crate::preconditioner::Preconditioner;

/// Standard normal numbers.
pub fn normal(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| f64::from(Distribution::<f32>::sample(&StandardNormal, rng))).collect()
}

/// Numbers ±1 with equal probability.
pub fn signs(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect()
}

/// Up to this dimension each point has a probe a coordinate, with which the log-determinant's gradient is exact.
///
/// One of random signs leaves √2 times the size of H^{-1} ∂H off its diagonal as noise, which along thin and slanted laws
/// is larger than its trace.
pub const MOST_PROBED: usize = 3;

/// Probes v of `n` points in turn, with mean Σ v v' = I over those of a point: random signs, or in few dimensions the
/// coordinates: [k n, d] for k a point.
pub fn probes(rng: &mut ChaCha8Rng, n: usize, d: usize) -> Vec<f64> {
    if d > MOST_PROBED {
        return signs(rng, n * d);
    }
    coordinates(n, d)
}

/// e_1 for each of `n` points, then e_2 for each, and so on: [d n, d].
pub fn coordinates(n: usize, d: usize) -> Vec<f64> {
    (0..d * n * d).map(|i| if i % d == i / (n * d) { 1.0 } else { 0.0 }).collect()
}

/// The rows of `a` as many times over as `probes` has rows for each.
pub fn tiled(a: &[f64], probes: &[f64]) -> Vec<f64> {
    a.repeat(probes.len() / a.len())
}

/// Gradients ∇w at the rows of `x`.
pub fn gradient(w: &dyn Potential, x: &[f64]) -> Result<Vec<f64>> {
    let (mut value, mut gradient) = (vec![0.0; x.len() / w.dim()], vec![0.0; x.len()]);
    w.value_and_gradient(x, &mut value, &mut gradient)?;
    Ok(gradient)
}

/// Root mean square over all rows and coordinates of ∇w(y) - x.
pub fn residual(w: &Icnn<f32>, y: &[f64], x: &[f64]) -> Result<f64> {
    let squares = gradient(w, y)?.iter().zip(x).map(|(g, x)| (g - x).powi(2)).sum::<f64>();
    Ok((squares / x.len() as f64).sqrt())
}

/// The largest eigenvalue of L' ∇²w L over the rows of `x`, by power iteration from `v` (kept
/// for the next call); approached from below.
pub fn lambda_max(
    w: &Icnn<f32>,
    metric: &Preconditioner,
    x: &[f64],
    v: &mut [f64],
    iterations: usize,
) -> Result<f64> {
    let d = w.dim();
    let at = w.linearise(x)?;
    let mut hv = vec![0.0; x.len()];
    let mut largest = 0.0f64;
    for _ in 0..iterations {
        at.hvp(&metric.colour(v)?, &mut hv);
        let product = metric.pull_back(&hv)?;
        largest = 0.0;
        for (v, product) in v.chunks_exact_mut(d).zip(product.chunks_exact(d)) {
            let norm = dot(product, product).sqrt();
            largest = largest.max(norm / dot(v, v).sqrt());
            v.iter_mut().zip(product).for_each(|(v, h)| *v = h / norm);
        }
    }
    Ok(largest)
}
