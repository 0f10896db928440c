//! An unbiased estimate of ∇ log ρ through gradients and Hessian-vector products alone.

use rand::{Rng, RngExt};

use super::{Pushed, finite};
use crate::error::{Error, Result, check_len};
use crate::linalg::dot;
use crate::potential::{Potential, rows};
use crate::source::Source;

/// Estimates ∇ log ρ with Rademacher probes for the log-determinant.
///
/// ∂_k log det H = E_v[(H^{-1}v)' (∂_k H) v]: u = H^{-1}v by conjugate gradients, and by the symmetry of the third
/// derivative (∂_k H)v contracted with u is [H(y + tu)v - H(y - tu)v]_k / 2t (Hutchinson, 1990). At
/// d = 784 one probe costs some 15 products instead of a Hessian, a Cholesky factor and a contraction,
/// a few percent of the exact score; all rows and probes share each batched product.
#[derive(Debug, Clone, Copy)]
pub struct ScoreEstimator {
    /// Probes a row.
    pub probes: usize,
    /// Relative residual at which the conjugate gradients stop; the estimate's bias is of this size.
    pub tolerance: f64,
    /// Most iterations of the conjugate gradients.
    pub max_iterations: usize,
}

impl Default for ScoreEstimator {
    fn default() -> Self {
        ScoreEstimator { probes: 1, tolerance: 0.05, max_iterations: 100 }
    }
}

/// What the solves behind a batch of estimated scores did.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreReport {
    /// Conjugate gradient iterations of the slowest row.
    pub iterations: usize,
    /// Solves that missed the tolerance; their estimates are biased.
    pub unconverged: usize,
}

/// Length of the step along u/|u| in the central difference, relative to max(1, |y|_∞).
///
/// The rounding of f32 products gives an error of 1e-7/2e-2 of |Hv||u|, far below the probe's own
/// spread; over a kink of the activation's second derivative the difference also averages the jump,
/// which a pointwise third derivative leaves out.
const STEP: f64 = 2e-2;

impl ScoreEstimator {
    /// Writes the estimates of ∇ log ρ(y_i) to `score`. `y`, `score`: [n, d].
    ///
    /// Errors: shapes; [`Error::NotFinite`] where the potential answers with NaN or infinity.
    pub fn estimate(
        &self,
        w: &dyn Potential,
        y: &[f64],
        rng: &mut impl Rng,
        score: &mut [f64],
    ) -> Result<ScoreReport> {
        let d = w.dim();
        rows(y, d)?;
        check_len("score", score.len(), y.len())?;
        if self.probes == 0 {
            return Err(Error::Invalid("an estimated score needs one probe at least".into()));
        }
        w.hvp(y, &Pushed::new(w, Source::Gibbs, y)?.twice, score)?;
        score.iter_mut().for_each(|s| *s = -*s);

        let points: Vec<f64> = y.chunks_exact(d).flat_map(|row| row.repeat(self.probes)).collect();
        let v: Vec<f64> = (0..points.len()).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let (u, report) = self.solve(w, &points, &v)?;

        let steps: Vec<f64> = u
            .chunks_exact(d)
            .zip(points.chunks_exact(d))
            .map(|(u, y)| STEP * y.iter().fold(1.0_f64, |m, v| m.max(v.abs())) / dot(u, u).sqrt())
            .collect();
        let mut product = vec![0.0; points.len()];
        for side in [1.0, -1.0] {
            let mut shifted = points.clone();
            for ((p, u), t) in shifted.chunks_exact_mut(d).zip(u.chunks_exact(d)).zip(&steps) {
                p.iter_mut().zip(u).for_each(|(p, u)| *p += side * t * u);
            }
            w.hvp(&shifted, &v, &mut product)?;
            for (i, (row, t)) in product.chunks_exact(d).zip(&steps).enumerate() {
                let out = &mut score[i / self.probes * d..][..d];
                let k = side / (2.0 * t * self.probes as f64);
                out.iter_mut().zip(row).for_each(|(s, h)| *s += k * h);
            }
        }
        if !finite(score) {
            return Err(Error::NotFinite("an estimated gradient of the log-density".into()));
        }
        Ok(report)
    }

    /// H(y_i) u_i = v_i by conjugate gradients, all rows in lockstep; `y`, `v`: [n, d].
    fn solve(&self, w: &dyn Potential, y: &[f64], v: &[f64]) -> Result<(Vec<f64>, ScoreReport)> {
        let d = w.dim();
        let n = y.len() / d;
        let (mut u, mut residual, mut direction) = (vec![0.0; y.len()], v.to_vec(), v.to_vec());
        let mut product = vec![0.0; y.len()];
        // Entries of v are ±1, so |v|² = d.
        let target = self.tolerance * self.tolerance * d as f64;
        let mut squared = vec![d as f64; n];
        let mut report = ScoreReport { iterations: 0, unconverged: n };
        while report.unconverged > 0 && report.iterations < self.max_iterations {
            w.hvp(y, &direction, &mut product)?;
            for (i, squared) in squared.iter_mut().enumerate() {
                if *squared <= target {
                    continue;
                }
                let at = i * d..(i + 1) * d;
                let (p, hp) = (&mut direction[at.clone()], &product[at.clone()]);
                let curvature = dot(p, hp);
                if curvature.is_nan() || curvature <= 0.0 {
                    return Err(Error::NotPositiveDefinite(
                        "the Hessian in a conjugate gradient solve".into(),
                    ));
                }
                let alpha = *squared / curvature;
                u[at.clone()].iter_mut().zip(p.iter()).for_each(|(u, p)| *u += alpha * p);
                residual[at.clone()].iter_mut().zip(hp).for_each(|(r, h)| *r -= alpha * h);
                let next = dot(&residual[at.clone()], &residual[at.clone()]);
                let beta = next / *squared;
                p.iter_mut().zip(&residual[at]).for_each(|(p, r)| *p = r + beta * *p);
                *squared = next;
            }
            report.iterations += 1;
            report.unconverged = squared.iter().filter(|&&s| s > target).count();
        }
        Ok((u, report))
    }
}
