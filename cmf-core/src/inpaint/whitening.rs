//! Coordinates in which the density on a hole is about as sharp in every direction.

use faer::Par;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::hole::{Hole, opposite_noise};
use crate::density::finite;
use crate::error::{Error, Result};
use crate::linalg::{Cholesky, matmul, to_rows, view};
use crate::potential::SecondOrder;

/// Coordinates ζ [k] of a hole: h = m + L ζ.
///
/// m is the mean of the hidden coordinates given the known ones under the start of the model, a Gaussian or a
/// mixture, and L L' = A^{-1} with A the average of the [`Hole`]'s curvature over a few draws of that conditional
/// law. A step in ζ is then about as long as the density is wide, whatever its direction.
pub(super) struct Whitening<'a> {
    pub hole: &'a Hole,
    /// A.
    pub metric: Cholesky,
    /// L: [k, k], lower triangular, row-major.
    factor: Vec<f64>,
    /// What [`fill`](Self::fill) adds to the known coordinates of its first rows: [n, d - k], or empty.
    known_noise: Vec<f64>,
}

/// Pairs of opposite draws over which A is averaged; each draw costs two Hessians.
const METRIC_PAIRS: usize = 1;

impl<'a> Whitening<'a> {
    /// Measures the curvature of w in the hole.
    ///
    /// Errors: what the potential refuses, a curvature that is not finite or positive definite.
    pub fn new(w: &dyn SecondOrder, hole: &'a Hole) -> Result<Self> {
        let (n, k) = (2 * METRIC_PAIRS, hole.len());
        let draws = hole.offsets(n, &mut ChaCha8Rng::seed_from_u64(0))?;
        let mut sum = vec![0.0; k * k];
        for curvature in hole.curvatures(w, &hole.place_about_mean(draws))? {
            sum.iter_mut().zip(curvature).for_each(|(s, p)| *s += p / n as f64);
        }
        if !finite(&sum) {
            return Err(Error::NotFinite("the curvature in the hole".into()));
        }
        let metric = Cholesky::new(&sum, k, "the curvature in the hole")?;
        let factor = Cholesky::new(&metric.inverse(), k, "the inverse curvature in the hole")?.lower();
        Ok(Whitening { hole, metric, factor: to_rows(factor.as_ref()), known_noise: vec![] })
    }

    /// Noise of standard deviation σ on the known coordinates of n rows from here on, opposite in pairs.
    pub fn disturb(&mut self, n: usize, sigma: f64, rng: &mut impl Rng) {
        self.known_noise = opposite_noise(n, self.hole.known().len(), rng);
        self.known_noise.iter_mut().for_each(|v| *v *= sigma);
    }

    /// Whitened rows ζ [n, k] to filled points [n, d]; known coordinates are bitwise those given, but for
    /// the noise of [`disturb`](Self::disturb).
    pub fn fill(&self, zeta: &[f64]) -> Vec<f64> {
        let mut points = self.hole.place_about_mean(self.colour(zeta));
        let known = self.hole.known();
        let d = self.hole.len() + known.len();
        for (point, noise) in
            points.chunks_exact_mut(d).zip(self.known_noise.chunks_exact(known.len().max(1)))
        {
            known.iter().zip(noise).for_each(|(&j, v)| point[j] += v);
        }
        points
    }

    /// Directions in ζ [n, k] to directions in y [n, d]: L v on the hidden coordinates, else 0.
    pub fn push_forward(&self, v: &[f64], d: usize) -> Vec<f64> {
        let k = self.hole.len();
        let mut out = vec![0.0; v.len() / k * d];
        for (out, row) in out.chunks_exact_mut(d).zip(self.colour(v).chunks_exact(k)) {
            self.hole.hidden().iter().zip(row).for_each(|(&i, v)| out[i] = *v);
        }
        out
    }

    /// L v for the rows v of [n, k].
    fn colour(&self, v: &[f64]) -> Vec<f64> {
        let k = self.hole.len();
        let transposed = view(&self.factor, k, k).transpose();
        to_rows((view(v, v.len() / k, k) * transposed).as_ref())
    }

    /// Gradients in y [n, d] to gradients in ζ [n, k]: L' g_h.
    pub fn pull_back(&self, gradient: &[f64]) -> Vec<f64> {
        let k = self.hole.len();
        let picked = self.hole.pick(gradient);
        matmul(&picked, &self.factor, picked.len() / k, k, k)
    }

    /// ζ of n draws of the start's conditional law, in opposite pairs: [n, k].
    pub fn draw(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
        let k = self.hole.len();
        let mut columns = view(&self.hole.offsets(n, rng)?, n, k).transpose().to_owned();
        solve_lower_triangular_in_place(view(&self.factor, k, k), columns.as_mut(), Par::rayon(0));
        Ok(to_rows(columns.transpose()))
    }
}
