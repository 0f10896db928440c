//! The hole: which coordinates are hidden, and the Gaussian of them given the known ones.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::density::tweedie;
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::linalg::{Cholesky, matmul, plus, to_rows, view};
use crate::potential::SecondOrder;
use crate::source::Source;

/// A point with hidden coordinates, and what the Gaussian start N(m, S) of a model says of them.
pub struct Hole {
    y: Vec<f64>,
    hidden: Vec<usize>,
    known: Vec<usize>,
    /// E[y_h | y_known]: [k].
    mean: Vec<f64>,
    /// Cov(y_h | y_known).
    covariance: Cholesky,
}

impl Hole {
    /// The hole `hidden` in the point `y` [d]; the values of `y` there are not read.
    ///
    /// Errors: an empty or repeated `hidden`, a coordinate beyond d, known values that are not finite,
    /// a Gaussian that is not positive definite.
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
        let covariance = Cholesky::new(
            &conditional.covariance.dense(),
            hidden.len(),
            "the conditional covariance of the hole",
        )?;
        let known = (0..d).filter(|&i| known[i]).collect();
        Ok(Hole { y, hidden: hidden.to_vec(), known, mean: conditional.mean, covariance })
    }

    /// The number k of hidden coordinates.
    pub fn len(&self) -> usize {
        self.hidden.len()
    }

    /// Never: a hole without coordinates is refused.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The hidden coordinates, in the order of every [k] of this module.
    pub fn hidden(&self) -> &[usize] {
        &self.hidden
    }

    /// The other coordinates, in ascending order: [d - k].
    pub(super) fn known(&self) -> &[usize] {
        &self.known
    }

    /// E[y | y_known] under the Gaussian: [d].
    pub fn gaussian_mean(&self) -> Vec<f64> {
        self.place(&self.mean)
    }

    /// E[y_h | y_known] under the Gaussian: [k].
    pub(super) fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Cov(y_h | y_known) under the Gaussian: [k, k].
    pub(super) fn covariance(&self) -> &Cholesky {
        &self.covariance
    }

    /// The hidden coordinates of rows [n, d]: [n, k].
    pub(super) fn pick(&self, rows: &[f64]) -> Vec<f64> {
        rows.chunks_exact(self.y.len()).flat_map(|row| self.hidden.iter().map(|&i| row[i])).collect()
    }

    /// Rows of the point with its hidden coordinates from `values` [n, k]: [n, d]. Known coordinates are
    /// bitwise those given.
    pub(super) fn place(&self, values: &[f64]) -> Vec<f64> {
        let mut points = self.y.repeat(values.len() / self.len());
        for (point, row) in points.chunks_exact_mut(self.y.len()).zip(values.chunks_exact(self.len())) {
            self.hidden.iter().zip(row).for_each(|(&i, v)| point[i] = *v);
        }
        points
    }

    /// As [`place`](Self::place), for values less their Gaussian mean.
    pub(super) fn place_about_mean(&self, offsets: Vec<f64>) -> Vec<f64> {
        self.place(&plus(offsets, &self.mean))
    }

    /// [H(y) ∇²V(G(y)) H(y)]_hh of each row y of `points` [n, d]: n matrices [k, k].
    ///
    /// It is the curvature of V(∇w(y)), with V = w or its head, the part of -log ρ that the log-determinant leaves, without its
    /// third-derivative term: positive definite, and for a quadratic potential the inverse of the
    /// conditional covariance. In a trained model it is an order of magnitude sharper across strokes.
    pub(super) fn curvatures(&self, w: &dyn SecondOrder, points: &[f64]) -> Result<Vec<Vec<f64>>> {
        let (d, k) = (self.y.len(), self.len());
        let n = points.len() / d;
        let (mut value, mut pushed) = (vec![0.0; n], vec![0.0; n * d]);
        w.value_and_gradient(points, &mut value, &mut pushed)?;
        let (mut outer, mut inner) = (vec![0.0; n * d * d], vec![0.0; n * d * d]);
        w.hessian(points, &mut outer)?;
        match w.gibbs() {
            Some(head) => {
                let precision = head.precision().dense();
                inner.chunks_exact_mut(d * d).for_each(|m| m.copy_from_slice(&precision));
            }
            None => w.hessian(&pushed, &mut inner)?,
        }
        let curvature = |(outer, inner): (&[f64], &[f64])| {
            let rows: Vec<f64> = self.hidden.iter().flat_map(|&i| &outer[i * d..][..d]).copied().collect();
            let half = matmul(&rows, inner, k, d, d);
            to_rows((view(&half, k, d) * view(&rows, k, d).transpose()).as_ref())
        };
        Ok(outer.chunks_exact(d * d).zip(inner.chunks_exact(d * d)).map(curvature).collect())
    }
}

/// n rows of white noise [n, k], every odd one the negative of the one before it.
pub(super) fn opposite_noise(n: usize, k: usize, rng: &mut impl Rng) -> Vec<f64> {
    let half: Vec<f64> = (0..n.div_ceil(2) * k).map(|_| rng.sample::<f64, _>(StandardNormal)).collect();
    let mut rows = Vec::with_capacity(2 * half.len());
    for row in half.chunks_exact(k.max(1)) {
        rows.extend_from_slice(row);
        rows.extend(row.iter().map(|v| -v));
    }
    rows.truncate(n * k);
    rows
}

/// E[x | y] = y + σ² ∇ log ρ(y) on the hidden coordinates of filled points [n, d], for y = x + σ n.
///
/// [`tweedie`] there; known coordinates stay. Errors: as it has them.
pub fn denoise(w: &dyn SecondOrder, sigma: f64, hole: &Hole, points: &[f64]) -> Result<Vec<f64>> {
    Ok(hole.place(&hole.pick(&tweedie(w, Source::Gibbs, points, sigma)?)))
}
