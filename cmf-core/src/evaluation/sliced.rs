//! The sliced Wasserstein distance: optimal transport along directions, where sorting solves it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::check_sample;
use crate::error::{Error, Result};
use crate::linalg::view;
use crate::potential::rows;

/// `count` directions, independent and uniform on the unit sphere: [count, d].
pub fn directions(d: usize, count: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<f64> = (0..count * d).map(|_| rng.sample(StandardNormal)).collect();
    for direction in all.chunks_exact_mut(d) {
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|v| *v /= length);
    }
    all
}

/// Directions projected on at once.
const BLOCK: usize = 16;

/// SW_2 = (mean over the directions θ of W_2²(θ'x, θ'y))^{1/2} of the rows of `x` [n, d] and `y` [m, d], along
/// `directions` [k, d] of length 1 (Bonneel, Rabin, Peyré and Pfister, 2015, section 3).
///
/// # Errors
/// A shape that does not fit, an empty sample, a value that is not finite.
pub fn sliced_wasserstein(x: &[f64], y: &[f64], d: usize, directions: &[f64]) -> Result<f64> {
    let (n, m) = (check_sample(x, d, 1)?, check_sample(y, d, 1)?);
    let count = rows(directions, d)?;
    if count == 0 {
        return Err(Error::Invalid("a sliced distance needs at least one direction".into()));
    }
    let total: f64 = directions
        .par_chunks(BLOCK * d)
        .map(|block| {
            let k = block.len() / d;
            let sorted = |x: &[f64], n: usize| -> Vec<Vec<f64>> {
                let product = view(block, k, d) * view(x, n, d).transpose();
                let line = |i: usize| {
                    let mut line: Vec<f64> = (0..n).map(|j| product[(i, j)]).collect();
                    line.sort_unstable_by(f64::total_cmp);
                    line
                };
                (0..k).map(line).collect()
            };
            let (x, y) = (sorted(x, n), sorted(y, m));
            x.iter().zip(&y).map(|(x, y)| squared_wasserstein(x, y)).sum::<f64>()
        })
        .sum();
    let value = (total / count as f64).sqrt();
    if value.is_finite() { Ok(value) } else { Err(Error::NotFinite("the sliced distance".into())) }
}

/// W_2² of two sorted samples on the line: the integral of (Q_x - Q_y)² over [0, 1].
fn squared_wasserstein(x: &[f64], y: &[f64]) -> f64 {
    let (n, m) = (x.len(), y.len());
    // In units of 1 / (n m), so that quantile levels are whole numbers and never drift.
    let (mut i, mut j, mut done) = (0, 0, 0);
    let mut total = 0.0;
    while i < n && j < m {
        let next = ((i + 1) * m).min((j + 1) * n);
        total += (next - done) as f64 * (x[i] - y[j]).powi(2);
        i += usize::from(next == (i + 1) * m);
        j += usize::from(next == (j + 1) * n);
        done = next;
    }
    total / (n as f64 * m as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_direction_is_transport_on_the_line() {
        // Quantiles of {0, 2} and {0, 1, 5}: ((0-0)² 2 + (0-1)² + (2-1)² + (2-5)² 2) / 6 = 20 / 6.
        let value = sliced_wasserstein(&[2.0, 0.0], &[1.0, 5.0, 0.0], 1, &[1.0]).unwrap();
        assert!((value * value - 20.0 / 6.0).abs() < 1e-14, "{value}");
    }

    #[test]
    fn a_shift_moves_every_projection() {
        let x = directions(3, 50, 1);
        let y: Vec<f64> = x.chunks_exact(3).flat_map(|p| [p[0] + 1.0, p[1] - 2.0, p[2] + 0.5]).collect();
        let along = directions(3, 40, 2);
        let want: f64 =
            along.chunks_exact(3).map(|t| (t[0] - 2.0 * t[1] + 0.5 * t[2]).powi(2)).sum::<f64>() / 40.0;
        let value = sliced_wasserstein(&x, &y, 3, &along).unwrap();
        assert!((value * value - want).abs() < 1e-12 * want, "{value} {want}");
        assert!(sliced_wasserstein(&x, &x, 3, &along).unwrap() == 0.0);
    }

    #[test]
    fn misuse_is_an_error() {
        let x = [0.0, 1.0];
        assert!(sliced_wasserstein(&x, &[], 2, &[1.0, 0.0]).is_err());
        assert!(sliced_wasserstein(&x, &[1.0], 2, &[1.0, 0.0]).is_err());
        assert!(sliced_wasserstein(&x, &[f64::NAN, 0.0], 2, &[1.0, 0.0]).is_err());
        assert!(sliced_wasserstein(&x, &x, 2, &[]).is_err());
    }
}
