//! The hole: which coordinates are hidden, and the conditional Gaussian that whitens them.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::density::{Status, exact_log_density_and_score};
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::linalg::{matmul, to_rows, view};
use crate::potential::SecondOrder;

/// A point with hidden coordinates, in whitened coordinates ζ [k] of the hidden ones: h = m + L ζ.
///
/// m and L L' are the mean and covariance of the hidden coordinates given the known ones under the
/// Gaussian start N(m, S) of the model.
pub struct Hole {
    y: Vec<f64>,
    hidden: Vec<usize>,
    mean: Vec<f64>,
    /// L: [k, k], lower triangular, row-major.
    factor: Vec<f64>,
}

impl Hole {
    /// The hole `hidden` in the point `y` [d]; the values of `y` there are not read.
    ///
    /// Errors: an empty or repeated `hidden`, a coordinate beyond d, known values that are not finite.
    pub fn new(gaussian: &Gaussian, y: &[f64], hidden: &[usize]) -> Result<Self> {
        let d = gaussian.dim();
        check_len("y", y.len(), d)?;
        let mut known = vec![true; d];
        for &i in hidden {
            if i >= d || !known[i] {
                let message = format!("hidden coordinate {i}: repeated, or not below the dimension {d}");
                return Err(Error::Invalid(message));
            }
            known[i] = false;
        }
        if hidden.is_empty() {
            return Err(Error::Invalid("there is no hidden coordinate to fill".into()));
        }
        let mut y = y.to_vec();
        hidden.iter().for_each(|&i| y[i] = gaussian.mean[i]);
        if y.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a known coordinate".into()));
        }
        let conditional = gaussian.conditional(&y, hidden)?;
        let k = hidden.len();
        let covariance = view(&conditional.covariance, k, k);
        let factor = faer::linalg::solvers::Llt::new(covariance, faer::Side::Lower)
            .map_err(|_| Error::NotPositiveDefinite("the conditional covariance of the hole".into()))?;
        let hole = Hole { y, hidden: hidden.to_vec(), mean: conditional.mean, factor: to_rows(factor.L()) };
        if !crate::density::finite(&hole.mean) || !crate::density::finite(&hole.factor) {
            return Err(Error::NotFinite("the conditional Gaussian of the hole".into()));
        }
        Ok(hole)
    }

    /// The number k of hidden coordinates.
    pub fn len(&self) -> usize {
        self.hidden.len()
    }

    /// Never: a hole without coordinates is refused.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The hidden coordinates, in the order of ζ.
    pub fn hidden(&self) -> &[usize] {
        &self.hidden
    }

    /// The conditional Gaussian mean filled in: [d].
    pub fn gaussian_mean(&self) -> Vec<f64> {
        self.fill(&vec![0.0; self.len()])
    }

    /// Whitened rows ζ [n, k] to filled points [n, d]; known coordinates are bitwise those given.
    pub fn fill(&self, zeta: &[f64]) -> Vec<f64> {
        let mut values = self.colour(zeta);
        for row in values.chunks_exact_mut(self.len()) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v += m);
        }
        self.place(&values)
    }

    /// Directions in ζ [n, k] to directions in y [n, d]: L v on the hidden coordinates, else 0.
    pub(super) fn push_forward(&self, v: &[f64]) -> Vec<f64> {
        let d = self.y.len();
        let mut out = vec![0.0; v.len() / self.len() * d];
        for (out, row) in out.chunks_exact_mut(d).zip(self.colour(v).chunks_exact(self.len())) {
            self.hidden.iter().zip(row).for_each(|(&i, v)| out[i] = *v);
        }
        out
    }

    /// L v for the rows v of [n, k].
    fn colour(&self, v: &[f64]) -> Vec<f64> {
        let k = self.len();
        let transposed = view(&self.factor, k, k).transpose();
        to_rows((view(v, v.len() / k, k) * transposed).as_ref())
    }

    /// Gradients in y [n, d] to gradients in ζ [n, k]: L' g_h.
    pub(super) fn pull_back(&self, gradient: &[f64]) -> Vec<f64> {
        let k = self.len();
        let picked = self.pick(gradient);
        matmul(&picked, &self.factor, picked.len() / k, k, k)
    }

    /// The hidden coordinates of rows [n, d]: [n, k].
    pub(super) fn pick(&self, rows: &[f64]) -> Vec<f64> {
        rows.chunks_exact(self.y.len()).flat_map(|row| self.hidden.iter().map(|&i| row[i])).collect()
    }

    /// Rows of the point with its hidden coordinates from `values` [n, k].
    pub(super) fn place(&self, values: &[f64]) -> Vec<f64> {
        let mut points = self.y.repeat(values.len() / self.len());
        for (point, row) in points.chunks_exact_mut(self.y.len()).zip(values.chunks_exact(self.len())) {
            self.hidden.iter().zip(row).for_each(|(&i, v)| point[i] = *v);
        }
        points
    }

    /// n rows of standard normal ζ: draws of the conditional Gaussian.
    pub(super) fn draw(&self, n: usize, rng: &mut impl Rng) -> Vec<f64> {
        (0..n * self.len()).map(|_| rng.sample::<f64, _>(StandardNormal)).collect()
    }
}

/// E[x | y] = y + σ² ∇ log ρ(y) on the hidden coordinates of filled points [n, d], for y = x + σ n.
///
/// Tweedie's formula (Robbins, 1956; Efron, 2011), exact for an exact model; known coordinates stay.
/// Errors: shapes; a point where the model has no density.
pub fn denoise(w: &dyn SecondOrder, sigma: f64, hole: &Hole, points: &[f64]) -> Result<Vec<f64>> {
    let mut score = vec![0.0; points.len()];
    let density = exact_log_density_and_score(w, 0.0, points, &mut score)?;
    if density.status.iter().any(|&s| s != Status::Evaluated) {
        return Err(Error::Invalid("a point to denoise has no density under the model".into()));
    }
    let mut clean = points.to_vec();
    for (point, score) in clean.chunks_exact_mut(w.dim()).zip(score.chunks_exact(w.dim())) {
        hole.hidden.iter().for_each(|&i| point[i] += sigma * sigma * score[i]);
    }
    Ok(clean)
}
