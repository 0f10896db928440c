//! The hole: which coordinates are hidden, and the Gaussian of them given the known ones.

use faer::{Mat, Scale};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::density::without_noise;
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::head_factor::MetricsInParts;
use crate::linalg::{Cholesky, centred, matmul, plus, to_rows, view};
use crate::mixture::{Conditional, Mixture, inverse_of_spread};
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
    mixture: Option<Mixed>,
}

/// What a mixture says of the hidden coordinates: s | y_known, and how they follow it.
struct Mixed {
    conditional: Conditional,
    /// F_h C: [m, k], with C = Cov(y_h | y_known) under the Gaussian.
    cross: Vec<f64>,
    /// T^{-1} of T = F_h C F_h': [m, m].
    inverse: Vec<f64>,
    /// F_h': [k, m].
    columns: Vec<f64>,
    /// s̄ = F (ȳ - mean), ȳ with the Gaussian's conditional mean: [m].
    centre: Vec<f64>,
    /// E[y_h | y_known] under the mixture: [k].
    mean: Vec<f64>,
    /// The same within the likeliest component: [k].
    likeliest: Vec<f64>,
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
        Ok(Hole { y, hidden: hidden.to_vec(), known, mean: conditional.mean, covariance, mixture: None })
    }

    /// The same hole in the eyes of a mixture in the place of `gaussian`'s marginal along few directions, if there is one.
    ///
    /// With C = Cov(y_h | y_known) and s = F (y - m), what is known has s | y_known ~ N(s̄, T), T = F_h C F_h', under the
    /// Gaussian; under the mixture s has another law, and given s the hidden coordinates follow as they did:
    /// E[y_h | y_known, s] = ȳ_h + C F_h' T^{-1} (s - s̄).
    pub fn with_mixture(mut self, gaussian: &Gaussian, mixture: Option<&Mixture>) -> Result<Self> {
        let Some(mixture) = mixture else { return Ok(self) };
        check_len("the directions of the mixture", mixture.dim(), self.y.len())?;
        let (k, m) = (self.len(), mixture.directions());
        let columns = mixture.columns(&self.hidden);
        let lower = to_rows(self.covariance.lower().as_ref());
        // L'F_h' and C F_h', by columns of F_h'.
        let half = to_rows((view(&lower, k, k).transpose() * view(&columns, k, m)).as_ref());
        let cross = to_rows((view(&lower, k, k) * view(&half, k, m)).transpose());
        let spread = to_rows((view(&half, k, m).transpose() * view(&half, k, m)).as_ref());
        let inverse = inverse_of_spread(&spread, m)?;
        let centre = mixture.coordinates(&centred(&self.place(&self.mean), &gaussian.mean));
        let mut mixed = Mixed {
            conditional: mixture.condition(&centre, &inverse)?,
            inverse,
            cross,
            columns,
            centre,
            mean: vec![],
            likeliest: vec![],
        };
        mixed.mean = plus(mixed.follow(&mixed.conditional.mean(), &mixed.centre), &self.mean);
        mixed.likeliest = plus(mixed.follow(mixed.conditional.likeliest(), &mixed.centre), &self.mean);
        self.mixture = Some(mixed);
        Ok(self)
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

    /// E[y_h | y_known] under the start, Gaussian or mixture: [k].
    pub(crate) fn mean(&self) -> &[f64] {
        self.mixture.as_ref().map_or(&self.mean, |mixed| &mixed.mean)
    }

    /// Where an ascent begins: the mean, or that of the mixture's likeliest component: [k].
    pub(crate) fn likeliest(&self) -> &[f64] {
        self.mixture.as_ref().map_or(&self.mean, |mixed| &mixed.likeliest)
    }

    /// n draws of y_h | y_known under the start, in opposite pairs, less [`mean`](Self::mean): [n, k].
    pub(crate) fn offsets(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
        let mut draws = opposite_noise(n, self.len(), rng);
        self.covariance.colour_rows(&mut draws)?;
        let Some(mixed) = &self.mixture else { return Ok(draws) };
        let (k, m) = (self.len(), mixed.centre.len());
        // Each draw has an s of its own under the Gaussian, which it is moved from to the mixture's.
        let own = plus(matmul(&draws, &mixed.columns, n, k, m), &mixed.centre);
        let moves = mixed.follow(&mixed.conditional.draws(n, rng), &own);
        let draws: Vec<f64> = draws.iter().zip(moves).map(|(v, by)| v + by).collect();
        Ok(centred(&plus(draws, &self.mean), &mixed.mean))
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

    /// As [`place`](Self::place), for values less their [`mean`](Self::mean).
    pub(super) fn place_about_mean(&self, offsets: Vec<f64>) -> Vec<f64> {
        self.place(&plus(offsets, self.mean()))
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
        if let Some(found) = self.curvatures_along(w, points, &pushed)? {
            return Ok(found);
        }
        let (mut outer, mut inner) = (vec![0.0; n * d * d], vec![0.0; n * d * d]);
        w.hessian(points, &mut outer)?;
        match w.gibbs() {
            Some(head) => head.metrics(&pushed, &mut inner),
            None => w.hessian(&pushed, &mut inner)?,
        }
        let curvature = |(outer, inner): (&[f64], &[f64])| {
            let rows: Vec<f64> = self.hidden.iter().flat_map(|&i| &outer[i * d..][..d]).copied().collect();
            let half = matmul(&rows, inner, k, d, d);
            to_rows((view(&half, k, d) * view(&rows, k, d).transpose()).as_ref())
        };
        Ok(outer.chunks_exact(d * d).zip(inner.chunks_exact(d * d)).map(curvature).collect())
    }

    /// [`curvatures`](Self::curvatures) of a potential that bends along few directions, without a matrix [d, d].
    ///
    /// H = c I + W'BW and ∇²V = e I + W'GW over common rows W [m, d], which may depend on each other. So is H ∇²V H, and the
    /// matrix [m, m] of it takes products with W W' alone.
    fn curvatures_along(
        &self,
        w: &dyn SecondOrder,
        points: &[f64],
        pushed: &[f64],
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let Some(subspace) = w.subspace() else { return Ok(None) };
        let (k, c) = (subspace.along.dim(), subspace.across);
        let bends = |points: &[f64]| -> Result<Vec<Mat<f64>>> {
            let points = subspace.coordinates(points);
            let mut hessians = vec![0.0; points.len() * k];
            subspace.along.hessian(&points, &mut hessians)?;
            let less = |h: &[f64]| Mat::from_fn(k, k, |i, j| h[i * k + j] - if i == j { c } else { 0.0 });
            Ok(hessians.chunks_exact(k * k).map(less).collect())
        };
        let outer = bends(points)?;
        let inner = match w.gibbs().map(|head| head.metrics_in_parts(pushed)) {
            Some(None) => return Ok(None),
            Some(Some(parts)) => parts,
            None => MetricsInParts { across: c, rows: subspace.directions.to_vec(), inner: bends(pushed)? },
        };
        let (d, hidden) = (self.y.len(), self.len());
        let rows = [subspace.directions, &inner.rows].concat();
        let m = rows.len() / d;
        // Products of matrices [m, m] then cost as much as those of [d, d].
        if 2 * m > d {
            return Ok(None);
        }
        let rows = view(&rows, m, d);
        let gram = rows * rows.transpose();
        let of_hidden = Mat::from_fn(m, hidden, |i, j| rows[(i, self.hidden[j])]);
        let curvature = |(b, g): (&Mat<f64>, &Mat<f64>)| {
            let mut outer = Mat::zeros(m, m);
            outer.as_mut().submatrix_mut(0, 0, k, k).copy_from(b);
            let mut metric = Mat::zeros(m, m);
            metric.as_mut().submatrix_mut(k, k, m - k, m - k).copy_from(g);
            // (c I + W'BW)(e I + W'GW) = c e I + W'PW, and that times H.
            let e = inner.across;
            let half = Scale(e) * &outer + Scale(c) * &metric + &outer * &gram * &metric;
            let whole = Scale(c) * &half + Scale(c * e) * &outer + &half * &gram * &outer;
            let mut found = to_rows((of_hidden.transpose() * whole * &of_hidden).as_ref());
            found.iter_mut().step_by(hidden + 1).for_each(|v| *v += c * c * e);
            found
        };
        Ok(Some(outer.iter().zip(&inner.inner).map(curvature).collect()))
    }
}

impl Mixed {
    /// C F_h' T^{-1} (s - from) of each row: by how much hidden coordinates follow s. `s` [n, m], `from` [n, m] or [m].
    fn follow(&self, s: &[f64], from: &[f64]) -> Vec<f64> {
        let m = self.centre.len();
        let (n, k) = (s.len() / m, self.cross.len() / m);
        let off: Vec<f64> = s.iter().zip(from.iter().cycle()).map(|(s, from)| s - from).collect();
        matmul(&matmul(&off, &self.inverse, n, m, m), &self.cross, n, m, k)
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

/// The hidden coordinates of filled points [n, d] without their noise of deviation σ, by [`without_noise`]; known coordinates
/// stay. Errors: as it has them.
pub fn denoise(w: &dyn SecondOrder, sigma: f64, hole: &Hole, points: &[f64]) -> Result<Vec<f64>> {
    Ok(hole.place(&hole.pick(&without_noise(w, Source::Gibbs, points, sigma)?)))
}
