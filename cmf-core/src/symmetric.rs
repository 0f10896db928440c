//! Symmetric matrices with all their numbers, or with few: a multiple of the identity but for k directions.
//!
//! A covariance S of images in d = 3072 has 4.7 million numbers. Probabilistic principal components (Tipping and
//! Bishop, 1999) keep the k leading eigenvectors and one variance for the rest, and every function of S that the
//! closed-form solution asks for (S^{1/3}, S^{-1/3}, square roots) has the same form and the same eigenvectors.

use std::borrow::Cow;

use faer::linalg::matmul::triangular::BlockStructure;

use crate::error::{Error, Result, check_len};
use crate::linalg::{Cholesky, SymmetricEigen, dot, matmul, product, products_of_rows, to_rows, view};
use crate::potential::rows;

/// Most by which U U' may differ from I: f32 rounds each number of a unit vector to 6e-8 of itself.
const ORTHONORMAL: f64 = 1e-5;

/// A symmetric [d, d] matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum Symmetric {
    /// All d² numbers, row-major.
    Full(Vec<f64>),
    /// Few numbers.
    Spiked(Spiked),
}

/// s (I - U'U) + U' diag(l) U with orthonormal rows U: eigenvalues l along them and s across.
#[derive(Debug, Clone, PartialEq)]
pub struct Spiked {
    floor: f64,
    values: Vec<f64>,
    vectors: Vec<f64>,
}

impl From<Vec<f64>> for Symmetric {
    fn from(all: Vec<f64>) -> Self {
        Symmetric::Full(all)
    }
}

impl From<Spiked> for Symmetric {
    fn from(spiked: Spiked) -> Self {
        Symmetric::Spiked(spiked)
    }
}

/// The largest |U U' - I|, for rows U [k, d], on the calling thread alone.
fn off_orthonormal(vectors: &[f64], k: usize) -> f64 {
    let u = view(vectors, k, vectors.len() / k);
    let gram = product(vectors, u.transpose());
    let off = gram.iter().enumerate().map(|(i, v)| (v - f64::from(i % (k + 1) == 0)).abs());
    off.fold(0.0, f64::max)
}

impl Spiked {
    /// From s, l [k] and U [k, d], row-major.
    ///
    /// Fails unless 0 < k < d, every number is finite and U U' = I within 1e-5.
    pub fn new(floor: f64, values: Vec<f64>, vectors: Vec<f64>) -> Result<Self> {
        let k = values.len();
        if k == 0 || !vectors.len().is_multiple_of(k) || vectors.len() / k <= k {
            return Err(Error::Invalid(format!(
                "a spiked matrix needs k of d directions with 0 < k < d, found {k} eigenvalues and {} numbers of \
                 eigenvectors",
                vectors.len()
            )));
        }
        if !floor.is_finite() || values.iter().chain(&vectors).any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a number of a spiked matrix".into()));
        }
        let off = off_orthonormal(&vectors, k);
        if off > ORTHONORMAL {
            return Err(Error::Invalid(format!(
                "the eigenvectors of a spiked matrix are not orthonormal: U U' differs from I by {off:.1e}"
            )));
        }
        Ok(Spiked { floor, values, vectors })
    }

    /// The eigenvalue s across the directions.
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// The eigenvalues l along the directions: [k].
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// U: [k, d], row-major.
    pub fn vectors(&self) -> &[f64] {
        &self.vectors
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.vectors.len() / self.values.len()
    }

    /// The matrix function f of this matrix.
    pub fn apply(&self, f: impl Fn(f64) -> f64) -> Spiked {
        let values = self.values.iter().map(|&v| f(v)).collect();
        Spiked { floor: f(self.floor), values, vectors: self.vectors.clone() }
    }

    /// U'U, which projects on the directions.
    pub fn projection(&self) -> Spiked {
        Spiked { floor: 0.0, values: vec![1.0; self.values.len()], vectors: self.vectors.clone() }
    }

    /// The product with each row of `a` [n, d].
    pub fn times(&self, a: &[f64]) -> Result<Vec<f64>> {
        let (k, d) = (self.values.len(), self.dim());
        rows(a, d)?;
        let vectors = view(&self.vectors, k, d);
        let mut along = products_of_rows(a, vectors.transpose(), BlockStructure::Rectangular);
        for row in along.chunks_exact_mut(k) {
            row.iter_mut().zip(&self.values).for_each(|(v, l)| *v *= l - self.floor);
        }
        let mut out = products_of_rows(&along, vectors, BlockStructure::Rectangular);
        out.iter_mut().zip(a).for_each(|(o, v)| *o += self.floor * v);
        Ok(out)
    }

    /// Elements in the crossings of `rows` and `columns`, row-major.
    fn block(&self, rows: &[usize], columns: &[usize]) -> Vec<f64> {
        let (k, d) = (self.values.len(), self.dim());
        let pick = |of: &[usize], weight: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..k).flat_map(|j| of.iter().map(move |&i| weight(j) * self.vectors[j * d + i])).collect()
        };
        let left = pick(rows, &|j| self.values[j] - self.floor);
        let right = pick(columns, &|_| 1.0);
        let (m, n) = (rows.len(), columns.len());
        let mut out = to_rows((view(&left, k, m).transpose() * view(&right, k, n)).as_ref());
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(n.max(1))) {
            columns.iter().zip(out).filter(|(c, _)| *c == row).for_each(|(_, v)| *v += self.floor);
        }
        out
    }
}

impl Symmetric {
    /// The dimension d.
    pub fn dim(&self) -> usize {
        match self {
            Symmetric::Full(all) => all.len().isqrt(),
            Symmetric::Spiked(spiked) => spiked.dim(),
        }
    }

    /// The number k of directions with an eigenvalue of their own, if the matrix is spiked.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Symmetric::Full(_) => None,
            Symmetric::Spiked(spiked) => Some(spiked.values.len()),
        }
    }

    /// All d² numbers, row-major.
    pub fn dense(&self) -> Cow<'_, [f64]> {
        match self {
            Symmetric::Full(all) => Cow::Borrowed(all),
            Symmetric::Spiked(spiked) => {
                let all: Vec<usize> = (0..spiked.dim()).collect();
                Cow::Owned(spiked.block(&all, &all))
            }
        }
    }

    /// The elements on the diagonal: [d].
    pub fn diagonal(&self) -> Vec<f64> {
        let d = self.dim();
        match self {
            Symmetric::Full(all) => all.iter().step_by(d + 1).copied().collect(),
            Symmetric::Spiked(Spiked { floor, values, vectors }) => {
                let mut out = vec![*floor; d];
                for (l, u) in values.iter().zip(vectors.chunks_exact(d)) {
                    out.iter_mut().zip(u).for_each(|(o, u)| *o += (l - floor) * u * u);
                }
                out
            }
        }
    }

    /// Elements in the crossings of `rows` and `columns`: [rows, columns], row-major.
    pub fn block(&self, rows: &[usize], columns: &[usize]) -> Vec<f64> {
        match self {
            Symmetric::Full(all) => {
                let d = self.dim();
                rows.iter().flat_map(|&i| columns.iter().map(move |&j| all[i * d + j])).collect()
            }
            Symmetric::Spiked(spiked) => spiked.block(rows, columns),
        }
    }

    /// The product with each row of `a` [n, d].
    pub fn times(&self, a: &[f64]) -> Result<Vec<f64>> {
        match self {
            Symmetric::Full(all) => {
                let d = self.dim();
                Ok(matmul(a, all, rows(a, d)?, d, d))
            }
            Symmetric::Spiked(spiked) => spiked.times(a),
        }
    }

    /// The eigenvalues, with which functions of the matrix are made.
    pub fn spectrum(&self) -> Result<Spectrum<'_>> {
        Ok(match self {
            Symmetric::Full(all) => Spectrum::Full(SymmetricEigen::new(all, self.dim())?),
            Symmetric::Spiked(spiked) => Spectrum::Spiked(spiked),
        })
    }

    /// The inverse; `what` names the matrix in the error if it is not positive definite.
    pub fn inverse(&self, what: &str) -> Result<Symmetric> {
        match self {
            Symmetric::Full(all) => Ok(Cholesky::new(all, self.dim(), what)?.inverse().into()),
            Symmetric::Spiked(spiked) => {
                spiked.check_positive(what)?;
                Ok(spiked.apply(|v| 1.0 / v).into())
            }
        }
    }

    /// log det and a' S^{-1} a of each row of `a` [n, d]; `what` as for [`inverse`](Self::inverse).
    pub fn log_det_and_inverse_forms(&self, a: &[f64], what: &str) -> Result<(f64, Vec<f64>)> {
        let d = self.dim();
        let (log_det, solved) = match self {
            Symmetric::Full(all) => {
                let factor = Cholesky::new(all, d, what)?;
                let mut solved = a.to_vec();
                factor.solve_rows(&mut solved)?;
                (factor.log_det(), solved)
            }
            Symmetric::Spiked(spiked) => {
                spiked.check_positive(what)?;
                (Spectrum::Spiked(spiked).sum(f64::ln), spiked.apply(|v| 1.0 / v).times(a)?)
            }
        };
        let pairs = a.chunks_exact(d).zip(solved.chunks_exact(d));
        Ok((log_det, pairs.map(|(a, solved)| dot(a, solved)).collect()))
    }

    /// The numbers that the matrix is made of: all of them, or s, l and U.
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Symmetric::Full(all) => all.clone(),
            Symmetric::Spiked(Spiked { floor, values, vectors }) => {
                [std::slice::from_ref(floor), values, vectors].concat()
            }
        }
    }

    /// The matrix of these [`numbers`](Self::numbers), of dimension `d` and this [`rank`](Self::rank).
    pub fn from_numbers(numbers: Vec<f64>, d: usize, rank: Option<usize>) -> Result<Self> {
        let Some(k) = rank else {
            check_len("the numbers of a symmetric matrix", numbers.len(), d * d)?;
            return Ok(Symmetric::Full(numbers));
        };
        check_len("the numbers of a spiked matrix", numbers.len(), 1 + k + k * d)?;
        let (values, vectors) = numbers[1..].split_at(k);
        Ok(Spiked::new(numbers[0], values.to_vec(), vectors.to_vec())?.into())
    }
}

impl Spiked {
    fn check_positive(&self, what: &str) -> Result<()> {
        match self.values.iter().all(|&v| v > 0.0) && self.floor > 0.0 {
            true => Ok(()),
            false => Err(Error::NotPositiveDefinite(what.into())),
        }
    }
}

/// The eigenvalues of a symmetric matrix with its eigenvectors.
pub enum Spectrum<'a> {
    /// Of a full matrix.
    Full(SymmetricEigen),
    /// Of a spiked one, which is its own spectrum.
    Spiked(&'a Spiked),
}

impl Spectrum<'_> {
    /// The smallest and the largest eigenvalue.
    pub fn ends(&self) -> (f64, f64) {
        match self {
            Spectrum::Full(eigen) => (eigen.values[0], eigen.values[eigen.values.len() - 1]),
            Spectrum::Spiked(s) => {
                s.values.iter().fold((s.floor, s.floor), |(low, high), &v| (low.min(v), high.max(v)))
            }
        }
    }

    /// The eigenvectors of the `k` largest eigenvalues, or of those that are kept if they are fewer: [k, d], row-major.
    pub fn leading(&self, k: usize) -> Vec<f64> {
        match self {
            Spectrum::Full(eigen) => {
                let d = eigen.values.len();
                (d - k.min(d)..d).rev().flat_map(|i| eigen.vector(i)).collect()
            }
            // In the order of their eigenvalues, which fall.
            Spectrum::Spiked(s) => s.vectors[..k.min(s.values.len()) * s.dim()].to_vec(),
        }
    }

    /// Σ f(λ) over the d eigenvalues.
    pub fn sum(&self, f: impl Fn(f64) -> f64) -> f64 {
        match self {
            Spectrum::Full(eigen) => eigen.values.iter().map(|&v| f(v)).sum(),
            Spectrum::Spiked(s) => {
                (s.dim() - s.values.len()) as f64 * f(s.floor) + s.values.iter().map(|&v| f(v)).sum::<f64>()
            }
        }
    }

    /// The matrix function f.
    pub fn apply(&self, f: impl Fn(f64) -> f64) -> Symmetric {
        match self {
            Spectrum::Full(eigen) => eigen.apply(f).into(),
            Spectrum::Spiked(spiked) => spiked.apply(f).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gaussian::Gaussian;

    /// Eigenvalues 3 and 0.2 along two directions of four, 0.5 across.
    fn spiked() -> Spiked {
        Spiked::new(0.5, vec![3.0, 0.2], vec![0.6, 0.8, 0.0, 0.0, 0.0, 0.0, 0.28, -0.96]).unwrap()
    }

    #[track_caller]
    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        // A few dozen roundings of numbers of order 1 to 100.
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs())), "{a:?} {b:?}");
    }

    #[test]
    fn few_numbers_do_what_all_of_them_do() {
        let few = Symmetric::from(spiked());
        let all = Symmetric::from(few.dense().into_owned());
        assert_eq!((few.dim(), few.rank(), all.dim(), all.rank()), (4, Some(2), 4, None));
        let rows = [1.0, -2.0, 0.5, 3.0, 0.1, 0.2, -0.7, 0.0];
        close(&few.times(&rows).unwrap(), &all.times(&rows).unwrap());
        close(&few.diagonal(), &all.diagonal());
        close(&few.block(&[2, 0], &[0, 1, 2]), &all.block(&[2, 0], &[0, 1, 2]));
        close(&few.inverse("S").unwrap().dense(), &all.inverse("S").unwrap().dense());
        let (spectrum, whole) = (few.spectrum().unwrap(), all.spectrum().unwrap());
        close(&spectrum.apply(f64::cbrt).dense(), &whole.apply(f64::cbrt).dense());
        let ends = |s: &Spectrum| [s.ends().0, s.ends().1, s.sum(f64::ln)];
        close(&ends(&spectrum), &ends(&whole));
        let forms = |s: &Symmetric| {
            let (log_det, forms) = s.log_det_and_inverse_forms(&rows, "S").unwrap();
            [vec![log_det], forms].concat()
        };
        close(&forms(&few), &forms(&all));
        for matrix in [few, all] {
            let back = Symmetric::from_numbers(matrix.numbers(), 4, matrix.rank()).unwrap();
            assert_eq!(back, matrix);
        }
    }

    #[test]
    fn gaussians_of_few_numbers_are_gaussians() {
        let few = Gaussian { mean: vec![0.3, -0.1, 0.0, 1.0], covariance: spiked().into() };
        let all = Gaussian { covariance: few.covariance.dense().into_owned().into(), ..few.clone() };
        let y = [1.0, 0.5, -0.2, 0.7];
        close(&few.log_density(&y).unwrap(), &all.log_density(&y).unwrap());
        let (a, b) = (few.conditional(&y, &[3, 1]).unwrap(), all.conditional(&y, &[3, 1]).unwrap());
        close(&a.mean, &b.mean);
        close(&a.covariance.dense(), &b.covariance.dense());
        let (a, b) = (few.quadratic_start().unwrap(), all.quadratic_start().unwrap());
        close(&a.hessian.dense(), &b.hessian.dense());
        close(&a.centre, &b.centre);
        close(&[a.log_z], &[b.log_z]);
        close(&a.gaussian().unwrap().covariance.dense(), &few.covariance.dense());
    }

    #[test]
    fn what_is_no_such_matrix_is_refused() {
        let message = |r: Result<Spiked>| r.unwrap_err().to_string();
        assert!(message(Spiked::new(1.0, vec![], vec![])).contains("found 0 eigenvalues"));
        assert!(message(Spiked::new(1.0, vec![1.0; 2], vec![1.0, 0.0, 0.0, 1.0])).contains("0 < k < d"));
        assert!(message(Spiked::new(1.0, vec![1.0], vec![2.0, 0.0])).contains("not orthonormal"));
        assert!(message(Spiked::new(f64::NAN, vec![1.0], vec![1.0, 0.0])).contains("not finite"));
        let indefinite = Symmetric::from(Spiked::new(-1.0, vec![1.0], vec![1.0, 0.0]).unwrap());
        assert!(indefinite.inverse("S").unwrap_err().to_string().contains("S is not positive definite"));
        assert!(Symmetric::from_numbers(vec![0.0; 5], 2, Some(1)).is_err());
    }
}
