//! Langevin steps on the hole with estimated scores: cheap exploration, approximate draws.

use rand::Rng;

use super::hole::opposite_noise;
use super::whitening::Whitening;
use crate::density::ScoreEstimator;
use crate::error::Result;
use crate::linalg::dot;
use crate::potential::{Potential, gibbs_of};

/// Chains [n, k] in whitened coordinates, moved by unadjusted Langevin with one probe's score.
///
/// ζ' = ζ + γ L' ĝ_h(y) + √(2γT) ξ. Rows 2i and 2i + 1 share their noise with opposite signs: on a nearly
/// Gaussian target the errors of the two cancel in any mean. A drift γ|L' ĝ_h| beyond √k, the radius of the
/// whitened start, is cut to it, so that a chain cannot blow up on its way in.
pub(super) struct Walk<'a, R> {
    pub w: &'a dyn Potential,
    pub whitening: &'a Whitening<'a>,
    pub estimator: ScoreEstimator,
    pub rng: R,
    /// γ.
    pub step: f64,
    /// Solves behind the scores that missed their tolerance, so far.
    pub unconverged: usize,
}

impl<R: Rng> Walk<'_, R> {
    /// Moves all chains once at temperature T; returns the estimated scores ∇ log ρ [n, d] they left from.
    pub fn advance(&mut self, zeta: &mut [f64], temperature: f64) -> Result<Vec<f64>> {
        let k = self.whitening.hole.len();
        let points = self.whitening.fill(zeta);
        let mut score = vec![0.0; points.len()];
        self.unconverged += self.estimator.estimate(self.w, &points, &mut self.rng, &mut score)?.unconverged;
        let drift = self.whitening.pull_back(&score);
        let noise = opposite_noise(zeta.len() / k, k, &mut self.rng);
        let spread = (2.0 * self.step * temperature).sqrt();
        for ((zeta, drift), noise) in
            zeta.chunks_exact_mut(k).zip(drift.chunks_exact(k)).zip(noise.chunks_exact(k))
        {
            let length = dot(drift, drift).sqrt();
            let step = self.step.min((k as f64).sqrt() / length.max(f64::MIN_POSITIVE));
            for ((z, g), xi) in zeta.iter_mut().zip(drift).zip(noise) {
                *z += step * g + spread * xi;
            }
        }
        Ok(score)
    }
}

/// The largest eigenvalue of L' [H(y) ∇²V(G(y)) H(y)]_hh L over the rows of `zeta` [n, k]; at least 1.
///
/// It is the curvature that the metric of the [`Whitening`] averages: 1 for a quadratic potential, three
/// products an iteration. Step sizes are fractions of its inverse.
pub(super) fn curvature(
    w: &dyn Potential,
    whitening: &Whitening,
    zeta: &[f64],
    rng: &mut impl Rng,
) -> Result<f64> {
    /// Power iterations; the largest eigenvalue is then low by a few percent at most in practice.
    const ITERATIONS: usize = 12;
    let k = whitening.hole.len();
    let points = whitening.fill(zeta);
    let n = zeta.len() / k;
    let (mut value, mut pushed) = (vec![0.0; n], vec![0.0; points.len()]);
    w.value_and_gradient(&points, &mut value, &mut pushed)?;
    let mut v = opposite_noise(n, k, rng);
    let mut top = 1.0_f64;
    for _ in 0..ITERATIONS {
        for row in v.chunks_exact_mut(k) {
            let length = dot(row, row).sqrt().max(f64::MIN_POSITIVE);
            row.iter_mut().for_each(|v| *v /= length);
        }
        let (mut first, mut second) = (whitening.push_forward(&v, w.dim()), vec![0.0; points.len()]);
        w.hvp(&points, &first, &mut second)?;
        gibbs_of(w).hvp(&pushed, &second, &mut first)?;
        w.hvp(&points, &first, &mut second)?;
        v = whitening.pull_back(&second);
        top = v.chunks_exact(k).map(|row| dot(row, row).sqrt()).fold(1.0, f64::max);
    }
    if top.is_finite() {
        Ok(top)
    } else {
        Err(crate::Error::NotFinite("the curvature of the density".into()))
    }
}
