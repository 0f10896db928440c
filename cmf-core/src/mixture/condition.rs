//! The mixture given what some coordinates of a point say of s.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Mixture, chosen, product};
use crate::error::Result;
use crate::linalg::{Cholesky, SymmetricEigen, dot, inverse_of_lower, matmul, to_rows, view};
use crate::sampler::standard_normals;

/// Least conditional variance of s that is told from 0, of at most 1. Weights then keep five digits.
const LEAST: f64 = 1e-8;

/// The law of s given known coordinates, a mixture again.
///
/// Under the Gaussian s has the prior φ and the conditional law N(s̄, T), so that what is known says φ(s)^{-1} N(s; s̄, T) of
/// it: a precision P = T^{-1} - I and an information T^{-1} s̄. Under the mixture component j then has the precision
/// (L_j L_j')^{-1} + P.
pub(crate) struct Conditional {
    /// Posterior weights: [K].
    weights: Vec<f64>,
    /// Conditional means of s: [K, k].
    means: Vec<f64>,
    /// Factors M_j with M_j M_j' the conditional covariance of each: [K][k, k].
    factors: Vec<Vec<f64>>,
    k: usize,
}

impl Mixture {
    /// The directions' columns `hidden`, as rows: F_h' [h, k].
    pub(crate) fn columns(&self, hidden: &[usize]) -> Vec<f64> {
        let (k, d) = (self.directions(), self.dim());
        hidden
            .iter()
            .flat_map(|&j| (0..k).map(move |i| (i, j)))
            .map(|(i, j)| self.directions[i * d + j])
            .collect()
    }

    /// From s̄ [k] and T^{-1} [k, k], the inverse of the conditional covariance under the Gaussian.
    pub(crate) fn condition(&self, mean: &[f64], inverse: &[f64]) -> Result<Conditional> {
        let k = self.directions();
        let mut precision = inverse.to_vec();
        precision.iter_mut().step_by(k + 1).for_each(|v| *v -= 1.0);
        let information = matmul(mean, inverse, 1, k, k);
        let (mut logs, mut means, mut factors) = (vec![], vec![], vec![]);
        for c in &self.components {
            let whitener = c.whitener();
            let own = to_rows((whitener.transpose() * whitener).as_ref());
            let pull = product(&c.mean, view(&own, k, k));
            let total: Vec<f64> = own.iter().zip(&precision).map(|(a, b)| a + b).collect();
            let b: Vec<f64> = pull.iter().zip(&information).map(|(a, b)| a + b).collect();
            let factor = Cholesky::new(&total, k, "a component of the mixture given the known coordinates")?;
            let mut mean = b.clone();
            factor.solve_rows(&mut mean)?;
            // The constant of a component has -log det L for ½ log det of its precision.
            logs.push(c.constant + 0.5 * (dot(&b, &mean) - dot(&c.mean, &pull) - factor.log_det()));
            means.extend(mean);
            // M = R^{-T} of R R', the precision.
            factors.push(to_rows(inverse_of_lower(factor.lower().as_ref()).transpose()));
        }
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut weights: Vec<f64> = logs.iter().map(|l| (l - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        Ok(Conditional { weights, means, factors, k })
    }
}

/// T^{-1} of T [k, k], with the least variance for those that cannot be told from 0.
pub(crate) fn inverse_of_spread(spread: &[f64], k: usize) -> Result<Vec<f64>> {
    Ok(SymmetricEigen::new(spread, k)?.apply(|t| 1.0 / t.max(LEAST)))
}

impl Conditional {
    /// E[s | known]: [k].
    pub(crate) fn mean(&self) -> Vec<f64> {
        matmul(&self.weights, &self.means, 1, self.weights.len(), self.k)
    }

    /// The mean of the likeliest component: [k].
    pub(crate) fn likeliest(&self) -> &[f64] {
        let best = (0..self.weights.len()).max_by(|&a, &b| self.weights[a].total_cmp(&self.weights[b]));
        self.of(best.unwrap_or(0)).0
    }

    /// Draws of s, every odd one of the component of the one before it and on the other side of its mean: [n, k].
    pub(crate) fn draws(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut all = Vec::with_capacity((n + 1) * self.k);
        while all.len() < n * self.k {
            let (mean, factor) = self.of(chosen(self.weights.iter().copied(), rng.random()));
            let off = product(&standard_normals(rng, self.k), view(factor, self.k, self.k).transpose());
            all.extend(mean.iter().zip(&off).map(|(m, o)| m + o));
            all.extend(mean.iter().zip(&off).map(|(m, o)| m - o));
        }
        all.truncate(n * self.k);
        all
    }

    fn of(&self, j: usize) -> (&[f64], &[f64]) {
        (&self.means[j * self.k..][..self.k], &self.factors[j])
    }
}
