//! The maximum mean discrepancy with a Gaussian kernel.

use super::{Distances, check_sample};
use crate::error::{Error, Result};
use crate::sinkhorn::suggested_epsilon;

/// MMD² with k(x, y) = exp(-|x - y|² / 2h²), without bias.
///
/// The U-statistic mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j) (Gretton,
/// Borgwardt, Rasch, Schölkopf and Smola, 2012, lemma 6): its mean is zero for equal laws, so single values
/// can be negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mmd {
    /// h > 0, in units of the points.
    pub bandwidth: f64,
}

/// h with 2h² = E|x - x'|², the mean squared distance of a row of `x` [n, d] and one of `x2` [m, d].
pub fn suggested_bandwidth(x: &[f64], x2: &[f64], d: usize) -> Result<f64> {
    // The suggested ε is 0.05 times the same mean.
    Ok((suggested_epsilon(x, x2, d)? / 0.05 / 2.0).sqrt())
}

impl Mmd {
    /// The U-statistic of the rows of `x` [n, d] and `y` [m, d].
    ///
    /// # Errors
    /// A shape that does not fit, fewer than two points on a side, a value that is not finite, a bandwidth that
    /// is not positive.
    pub fn squared(&self, x: &[f64], y: &[f64], d: usize) -> Result<f64> {
        if !(self.bandwidth.is_finite() && self.bandwidth > 0.0) {
            return Err(Error::Invalid(format!(
                "MMD needs a positive bandwidth, found {}: are all points of the data equal?",
                self.bandwidth
            )));
        }
        let (n, m) = (check_sample(x, d, 2)? as f64, check_sample(y, d, 2)? as f64);
        let (xx, yy, xy) = (self.sum(x, x, d)?, self.sum(y, y, d)?, self.sum(x, y, d)?);
        // The sums over one sample hold k(x_i, x_i) = 1 for each i.
        Ok((xx - n) / (n * (n - 1.0)) + (yy - m) / (m * (m - 1.0)) - 2.0 * xy / (n * m))
    }

    /// Σ_ij k(x_i, y_j).
    fn sum(&self, x: &[f64], y: &[f64], d: usize) -> Result<f64> {
        let factor = -0.5 / (self.bandwidth * self.bandwidth);
        let row = |_: usize, squares: &mut [f64]| squares.iter().map(|s| (factor * s).exp()).sum::<f64>();
        Ok(Distances::new(x, y, d)?.map_rows(row).into_iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    fn normal(seed: u64, n: usize, shift: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| shift + rng.sample::<f64, _>(StandardNormal)).collect()
    }

    #[test]
    fn agrees_with_the_closed_form_of_gaussians() {
        // N(0, 1) against N(t, 1): E k = h / sqrt(h² + 2) exp(-t² / 2(h² + 2)), so MMD² = 2 c (1 - exp(...)).
        let (h, t): (f64, f64) = (1.3, 1.0);
        let spread = h * h + 2.0;
        let want = 2.0 * (h / spread.sqrt()) * (1.0 - (-0.5 * t * t / spread).exp());
        let runs = 40;
        let values: Vec<f64> = (0..runs)
            .map(|k| Mmd { bandwidth: h }.squared(&normal(k, 300, 0.0), &normal(k + 900, 300, t), 1).unwrap())
            .collect();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
        // Without bias: within 4 standard errors of the mean of the runs.
        assert!((mean - want).abs() < 4.0 * (variance / runs as f64).sqrt(), "{mean} {want}");
    }

    #[test]
    fn a_large_offset_changes_nothing() {
        let (x, y) = (normal(1, 100, 0.0), normal(2, 120, 0.5));
        let far = |x: &[f64]| x.iter().map(|v| v + 1e6).collect::<Vec<_>>();
        let mmd = Mmd { bandwidth: 1.0 };
        let (near, far) = (mmd.squared(&x, &y, 2).unwrap(), mmd.squared(&far(&x), &far(&y), 2).unwrap());
        // 1e6 + v keeps v to 1e-10.
        assert!((near - far).abs() < 1e-8, "{near} {far}");
    }

    #[test]
    fn misuse_is_an_error() {
        let x = [0.0, 1.0];
        assert!(Mmd { bandwidth: 0.0 }.squared(&x, &x, 1).is_err());
        assert!(Mmd { bandwidth: f64::NAN }.squared(&x, &x, 1).is_err());
        assert!(Mmd { bandwidth: 1.0 }.squared(&x, &[1.0], 1).is_err());
        assert!(Mmd { bandwidth: 1.0 }.squared(&x, &[f64::INFINITY, 0.0], 1).is_err());
        assert!(Mmd { bandwidth: 1.0 }.squared(&[1e200, 0.0], &[0.0, 1.0], 1).is_err());
    }
}
