//! The hole: which coordinates are hidden, and the conditional Gaussian that whitens them.

use faer::linalg::solvers::Llt;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Mat, Par, Side};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::density::{finite, tweedie};
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::linalg::{Cholesky, matmul, to_rows, view};
use crate::potential::SecondOrder;
use crate::source::Source;

/// A point with hidden coordinates, in coordinates ζ [k] that whiten the density there: h = m + L ζ.
///
/// m is the mean of the hidden coordinates given the known ones under the Gaussian start N(m, S) of the
/// model, and L L' = A^{-1} with A the average of [H(y) H(G(y)) H(y)]_hh over a few draws of that conditional
/// Gaussian. A is the curvature of w(∇w(y)), the part of -log ρ that the log-determinant leaves, without its
/// third-derivative term: positive definite, and for a quadratic potential the inverse of the
/// conditional covariance. In a trained model it is an order of magnitude sharper across strokes.
pub struct Hole {
    y: Vec<f64>,
    hidden: Vec<usize>,
    mean: Vec<f64>,
    /// L: [k, k], lower triangular, row-major.
    factor: Vec<f64>,
    /// What turns white noise into ζ of conditional Gaussian draws, L^{-1} chol(C): [k, k].
    broad: Vec<f64>,
}

/// Pairs of opposite draws over which the metric A is averaged; each draw costs two Hessians.
const METRIC_PAIRS: usize = 1;

impl Hole {
    /// The hole `hidden` in the point `y` [d] for the model w; the values of `y` there are not read.
    ///
    /// Errors: an empty or repeated `hidden`, a coordinate beyond d, known values that are not finite,
    /// a Gaussian or metric that is not positive definite.
    pub fn new(w: &dyn SecondOrder, gaussian: &Gaussian, y: &[f64], hidden: &[usize]) -> Result<Self> {
        let d = gaussian.dim();
        check_len("y", y.len(), d)?;
        check_len("the dimension of the potential", w.dim(), d)?;
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
        let broad =
            lower_factor(&conditional.covariance.dense(), k, "the conditional covariance of the hole")?;
        // With L = chol(C) first, draws of the conditional Gaussian are ζ ~ N(0, I).
        let mut hole = Hole {
            y,
            hidden: hidden.to_vec(),
            mean: conditional.mean,
            factor: to_rows(broad.as_ref()),
            broad: identity(k),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let points = hole.fill(&hole.draw(2 * METRIC_PAIRS, &mut rng));
        let metric = Cholesky::new(&hole.curvature_matrix(w, &points)?, k, "the curvature in the hole")?;
        let factor = lower_factor(&metric.inverse(), k, "the inverse curvature in the hole")?;
        let mut ratio = broad;
        solve_lower_triangular_in_place(factor.as_ref(), ratio.as_mut(), Par::rayon(0));
        hole.factor = to_rows(factor.as_ref());
        hole.broad = to_rows(ratio.as_ref());
        Ok(hole)
    }

    /// The average of [H(y) H(G(y)) H(y)]_hh over the rows y of `points` [n, d]: [k, k].
    fn curvature_matrix(&self, w: &dyn SecondOrder, points: &[f64]) -> Result<Vec<f64>> {
        let (d, k) = (self.y.len(), self.len());
        let n = points.len() / d;
        let (mut value, mut pushed) = (vec![0.0; n], vec![0.0; n * d]);
        w.value_and_gradient(points, &mut value, &mut pushed)?;
        let (mut outer, mut inner) = (vec![0.0; n * d * d], vec![0.0; n * d * d]);
        w.hessian(points, &mut outer)?;
        w.hessian(&pushed, &mut inner)?;
        let mut sum = vec![0.0; k * k];
        for (outer, inner) in outer.chunks_exact(d * d).zip(inner.chunks_exact(d * d)) {
            let rows: Vec<f64> = self.hidden.iter().flat_map(|&i| &outer[i * d..][..d]).copied().collect();
            let half = matmul(&rows, inner, k, d, d);
            let product = to_rows((view(&half, k, d) * view(&rows, k, d).transpose()).as_ref());
            sum.iter_mut().zip(product).for_each(|(s, p)| *s += p / n as f64);
        }
        if !finite(&sum) {
            return Err(Error::NotFinite("the curvature in the hole".into()));
        }
        Ok(sum)
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

    /// n rows of white noise [n, k], every odd one the negative of the one before it.
    pub(super) fn noise(&self, n: usize, rng: &mut impl Rng) -> Vec<f64> {
        let half: Vec<f64> =
            (0..n.div_ceil(2) * self.len()).map(|_| rng.sample::<f64, _>(StandardNormal)).collect();
        let mut rows = Vec::with_capacity(2 * half.len());
        for row in half.chunks_exact(self.len()) {
            rows.extend_from_slice(row);
            rows.extend(row.iter().map(|v| -v));
        }
        rows.truncate(n * self.len());
        rows
    }

    /// ζ of n draws of the conditional Gaussian, in opposite pairs: [n, k].
    pub(super) fn draw(&self, n: usize, rng: &mut impl Rng) -> Vec<f64> {
        let k = self.len();
        to_rows((view(&self.noise(n, rng), n, k) * view(&self.broad, k, k).transpose()).as_ref())
    }
}

/// The lower Cholesky factor of a row-major [k, k] matrix.
fn lower_factor(a: &[f64], k: usize, what: &str) -> Result<Mat<f64>> {
    let factor =
        Llt::new(view(a, k, k), Side::Lower).map_err(|_| Error::NotPositiveDefinite(what.to_string()))?;
    Ok(factor.L().to_owned())
}

fn identity(k: usize) -> Vec<f64> {
    let mut out = vec![0.0; k * k];
    out.iter_mut().step_by(k + 1).for_each(|v| *v = 1.0);
    out
}

/// E[x | y] = y + σ² ∇ log ρ(y) on the hidden coordinates of filled points [n, d], for y = x + σ n.
///
/// [`tweedie`] there; known coordinates stay. Errors: as it has them.
pub fn denoise(w: &dyn SecondOrder, sigma: f64, hole: &Hole, points: &[f64]) -> Result<Vec<f64>> {
    Ok(hole.place(&hole.pick(&tweedie(w, Source::Gibbs, points, sigma)?)))
}
