//! What an update needs besides samplers and conjugates, on the host's f32 engine and never
//! differentiated: random numbers, the step size's eigenvalue, and the log-determinant's linear solves.

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

/// Gradients ∇w at the rows of `x`.
pub fn gradient(w: &Icnn<f32>, x: &[f64]) -> Result<Vec<f64>> {
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

/// Solves ∇²w(y_i) u_i = v_i by preconditioned conjugate gradients until each relative residual (in the
/// norm of P) is below `tolerance` or `most` products were spent; returns u and the worst of them.
pub fn hessian_solve(
    w: &Icnn<f32>,
    metric: &Preconditioner,
    y: &[f64],
    v: &[f64],
    tolerance: f64,
    most: usize,
) -> Result<(Vec<f64>, f64)> {
    let d = w.dim();
    let at = w.linearise(y)?;
    let mut u = vec![0.0; v.len()];
    let mut r = v.to_vec();
    let mut z = metric.colour(&metric.pull_back(&r)?)?;
    let mut p = z.clone();
    let mut hp = vec![0.0; v.len()];
    let products = |a: &[f64], b: &[f64]| -> Vec<f64> {
        a.chunks_exact(d).zip(b.chunks_exact(d)).map(|(a, b)| dot(a, b)).collect()
    };
    let start = products(&r, &z);
    let mut rz = start.clone();
    let worst = |rz: &[f64]| rz.iter().zip(&start).map(|(r, s)| (r / s).sqrt()).fold(0.0, f64::max);
    for _ in 0..most {
        if worst(&rz) <= tolerance {
            break;
        }
        at.hvp(&p, &mut hp);
        for (i, curvature) in products(&p, &hp).into_iter().enumerate() {
            // A row that is solved to rounding, or lost to it, stays as it is.
            if curvature.is_nan() || curvature <= 0.0 || rz[i] <= 1e-12 * start[i] {
                continue;
            }
            let alpha = rz[i] / curvature;
            for k in i * d..(i + 1) * d {
                u[k] += alpha * p[k];
                r[k] -= alpha * hp[k];
            }
        }
        z = metric.colour(&metric.pull_back(&r)?)?;
        let next = products(&r, &z);
        for (i, (new, old)) in next.iter().zip(&rz).enumerate() {
            let beta = new / old;
            for k in i * d..(i + 1) * d {
                p[k] = z[k] + beta * p[k];
            }
        }
        rz = next;
    }
    Ok((u, worst(&rz)))
}
