//! Hessian products of a foreign model, which gives no more than its gradient: central differences.

use crate::error::Result;
use crate::linalg::largest;
use crate::potential::Potential;

/// Cube root of f32's rounding unit, where rounding and truncation of a central difference balance.
const STEP: f64 = 4e-3;

/// (∇w(x_i + h v_i) - ∇w(x_i - h v_i)) / 2h: `x`, `v`, `hv`: [n, d].
///
/// h moves the largest coordinate of each row by STEP (1 + max |x_i|). For a gradient in f32 the
/// relative error is about 1e-5 times the third derivatives' size.
pub fn hvp(w: &dyn Potential, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
    let d = w.dim();
    let n = x.len() / d;
    let step = |i: usize| match largest(&v[i * d..][..d]) {
        0.0 => STEP,
        size => STEP * (1.0 + largest(&x[i * d..][..d])) / size,
    };
    let moved = |sign: f64| (0..n * d).map(move |k| x[k] + sign * step(k / d) * v[k]);
    let points: Vec<f64> = moved(1.0).chain(moved(-1.0)).collect();
    let (mut value, mut gradient) = (vec![0.0; 2 * n], vec![0.0; 2 * n * d]);
    w.value_and_gradient(&points, &mut value, &mut gradient)?;
    let (up, down) = gradient.split_at(n * d);
    for (k, h) in hv.iter_mut().enumerate() {
        *h = (up[k] - down[k]) / (2.0 * step(k / d));
    }
    Ok(())
}

/// The Hessian's columns by [`hvp`], made symmetric: `x`: [n, d], `hessian`: [n, d, d].
pub fn hessian(w: &dyn Potential, x: &[f64], hessian: &mut [f64]) -> Result<()> {
    let d = w.dim();
    for (x, hessian) in x.chunks_exact(d).zip(hessian.chunks_exact_mut(d * d)) {
        let mut unit = vec![0.0; d * d];
        unit.iter_mut().step_by(d + 1).for_each(|v| *v = 1.0);
        let mut columns = vec![0.0; d * d];
        hvp(w, &x.repeat(d), &unit, &mut columns)?;
        for (k, h) in hessian.iter_mut().enumerate() {
            *h = 0.5 * (columns[k] + columns[k % d * d + k / d]);
        }
    }
    Ok(())
}
