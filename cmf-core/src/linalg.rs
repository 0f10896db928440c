//! Dense linear algebra on row-major slices, through faer.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::solvers::{DenseSolveCore, Solve};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::traits::RealField;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use rayon::prelude::*;

use crate::error::{Error, Result, check_len};

/// A row-major [rows, cols] slice as a faer view.
pub fn view<T>(a: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(a, rows, cols)
}

/// Rows of d numbers below which threads do not share a sweep over them.
pub fn least_rows(d: usize) -> usize {
    const LEAST: usize = 1 << 14;
    LEAST.div_ceil(d)
}

/// Copies a faer matrix into a row-major vector.
pub fn to_rows<T: Copy>(a: MatRef<'_, T>) -> Vec<T> {
    let mut out = Vec::with_capacity(a.nrows() * a.ncols());
    for i in 0..a.nrows() {
        out.extend((0..a.ncols()).map(|j| a[(i, j)]));
    }
    out
}

/// Copies the elements right of the diagonal of a row-major [m, m] matrix to their mirror places, in
/// blocks that fit the cache.
pub fn mirror<T: Copy>(a: &mut [T], m: usize) {
    const BLOCK: usize = 32;
    for i0 in (0..m).step_by(BLOCK) {
        for j0 in (i0..m).step_by(BLOCK) {
            for i in i0..(i0 + BLOCK).min(m) {
                for j in j0.max(i + 1)..(j0 + BLOCK).min(m) {
                    a[j * m + i] = a[i * m + j];
                }
            }
        }
    }
}

/// Cholesky factor of a symmetric positive definite matrix, with what is asked of it.
pub struct Cholesky {
    factor: faer::linalg::solvers::Llt<f64>,
    d: usize,
}

impl Cholesky {
    /// Factors the row-major symmetric [d, d] matrix `a`; `what` names it in the error.
    pub fn new(a: &[f64], d: usize, what: &str) -> Result<Self> {
        check_len("matrix", a.len(), d * d)?;
        let factor = faer::linalg::solvers::Llt::new(view(a, d, d), Side::Lower)
            .map_err(|_| Error::NotPositiveDefinite(what.to_string()))?;
        Ok(Cholesky { factor, d })
    }

    /// log det A.
    pub fn log_det(&self) -> f64 {
        let l = self.factor.L();
        2.0 * (0..self.d).map(|i| l[(i, i)].ln()).sum::<f64>()
    }

    /// The factor L of A = L L', lower triangular.
    pub fn lower(&self) -> Mat<f64> {
        self.factor.L().to_owned()
    }

    /// A^{-1} as a row-major [d, d] matrix.
    pub fn inverse(&self) -> Vec<f64> {
        to_rows(self.factor.inverse().as_ref())
    }

    /// Solves A X = B for the columns of Bᵀ: `b` is [n, d], one right-hand side a row, solved in place.
    pub fn solve_rows(&self, b: &mut [f64]) -> Result<()> {
        let n = crate::potential::rows(b, self.d)?;
        let x = self.factor.solve(view(b, n, self.d).transpose());
        for (i, row) in b.chunks_exact_mut(self.d).enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                *v = x[(j, i)];
            }
        }
        Ok(())
    }

    /// L z for each row z of `z` [n, d], in place: turns white noise into noise of covariance A.
    pub fn colour_rows(&self, z: &mut [f64]) -> Result<()> {
        let n = crate::potential::rows(z, self.d)?;
        // z L' row by row; L() is lower triangular with zeros above.
        let l = self.lower();
        let out = view(z, n, self.d) * l.transpose();
        z.copy_from_slice(&to_rows(out.as_ref()));
        Ok(())
    }
}

/// The inverse of a lower triangular matrix, on one thread.
pub(crate) fn inverse_of_lower(l: MatRef<'_, f64>) -> Mat<f64> {
    let mut inverse = Mat::zeros(l.nrows(), l.ncols());
    invert_lower_triangular(inverse.as_mut(), l, Par::Seq);
    inverse
}

/// Eigen-decomposition of a symmetric matrix.
pub struct SymmetricEigen {
    /// Eigenvalues in ascending order.
    pub values: Vec<f64>,
    vectors: Mat<f64>,
}

impl SymmetricEigen {
    /// Decomposes the row-major symmetric [d, d] matrix `a`.
    pub fn new(a: &[f64], d: usize) -> Result<Self> {
        check_len("matrix", a.len(), d * d)?;
        if a.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a matrix to decompose".into()));
        }
        let eigen = view(a, d, d)
            .self_adjoint_eigen(Side::Lower)
            .map_err(|e| Error::Invalid(format!("the symmetric eigen-decomposition failed: {e:?}")))?;
        let values = (0..d).map(|i| eigen.S()[i]).collect();
        Ok(SymmetricEigen { values, vectors: eigen.U().to_owned() })
    }

    /// The eigenvector of eigenvalue `i`: [d].
    pub fn vector(&self, i: usize) -> Vec<f64> {
        (0..self.values.len()).map(|k| self.vectors[(k, i)]).collect()
    }

    /// V f(Λ) V', the matrix function f of the decomposed matrix, row-major [d, d].
    pub fn apply(&self, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let d = self.values.len();
        let values: Vec<f64> = self.values.iter().map(|&v| f(v)).collect();
        let scaled = Mat::from_fn(d, d, |i, j| self.vectors[(i, j)] * values[j]);
        to_rows((&scaled * self.vectors.transpose()).as_ref())
    }
}

/// a b for row-major [n, k] and [k, m].
pub fn matmul(a: &[f64], b: &[f64], n: usize, k: usize, m: usize) -> Vec<f64> {
    to_rows((view(a, n, k) * view(b, k, m)).as_ref())
}

/// `out` = a b for row-major a [n, k] and b [k, m] of this structure, on the calling thread.
fn multiply<T: RealField>(out: &mut [T], a: &[T], b: MatRef<'_, T>, structure: BlockStructure) {
    let n = a.len() / b.nrows();
    let target = MatMut::from_row_major_slice_mut(out, n, b.ncols());
    let (a, all) = (view(a, n, b.nrows()), BlockStructure::Rectangular);
    triangular::matmul(target, all, Accum::Replace, a, all, b, structure, T::one_impl(), Par::Seq);
}

/// a b for row-major a [n, k] and b [k, m], on the calling thread.
pub(crate) fn product(a: &[f64], b: MatRef<'_, f64>) -> Vec<f64> {
    let mut out = vec![0.0; a.len() / b.nrows() * b.ncols()];
    multiply(&mut out, a, b, BlockStructure::Rectangular);
    out
}

/// a b for row-major a [n, k] and b [k, m] of this structure, shared out to the threads: each row to the same bits whatever
/// other rows there are and on any number of threads.
///
/// (faer's own sharing has its threads spin at barriers.)
pub(crate) fn products_of_rows<T: RealField + Copy + Default>(
    a: &[T],
    b: MatRef<'_, T>,
    structure: BlockStructure,
) -> Vec<T> {
    // Enough to pay for the packing of b.
    const ROWS: usize = 64;
    let (k, m) = (b.nrows(), b.ncols());
    let mut out = vec![T::default(); a.len() / k * m];
    out.par_chunks_mut(ROWS * m).zip(a.par_chunks(ROWS * k)).for_each(|(out, a)| {
        if a.len() > k {
            return multiply(out, a, b, structure);
        }
        // A single row has a way of its own through faer, with other sums.
        let mut twice = vec![T::default(); 2 * m];
        multiply(&mut twice, &a.repeat(2), b, structure);
        out.copy_from_slice(&twice[..m]);
    });
    out
}

/// The rows of `y` [n, d] less `mean` [d].
pub(crate) fn centred(y: &[f64], mean: &[f64]) -> Vec<f64> {
    let mut out = y.to_vec();
    for row in out.chunks_exact_mut(mean.len()) {
        row.iter_mut().zip(mean).for_each(|(v, m)| *v -= m);
    }
    out
}

/// The rows of `y` [n, d] plus `mean` [d].
pub(crate) fn plus(mut y: Vec<f64>, mean: &[f64]) -> Vec<f64> {
    for row in y.chunks_exact_mut(mean.len()) {
        row.iter_mut().zip(mean).for_each(|(v, m)| *v += m);
    }
    y
}

/// The largest |a_i|; 0 of none.
pub fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()))
}

/// ⟨a, b⟩ of equally long slices, summed in eight interleaved parts so that it vectorises.
pub fn dot<T>(a: &[T], b: &[T]) -> T
where
    T: Copy + Default + Add<Output = T> + Mul<Output = T> + AddAssign + Sum,
{
    let (head_a, tail_a) = a.as_chunks::<8>();
    let (head_b, tail_b) = b.as_chunks::<8>();
    let mut parts = [T::default(); 8];
    for (x, y) in head_a.iter().zip(head_b) {
        for (part, (&x, &y)) in parts.iter_mut().zip(x.iter().zip(y)) {
            *part += x * y;
        }
    }
    parts.into_iter().sum::<T>() + tail_a.iter().zip(tail_b).map(|(&x, &y)| x * y).sum::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_same_products_in_any_company() {
        use BlockStructure::{Rectangular, TriangularLower, TriangularUpper};
        let shapes = [(3, 1), (7, 5), (100, 99), (784, 50), (1000, 400)].map(|shape| (shape, Rectangular));
        let triangles = [((7, 7), TriangularUpper), ((400, 400), TriangularLower)];
        for ((k, m), structure) in shapes.into_iter().chain(triangles) {
            let numbers = |n: usize| (0..n).map(|i| (i as f64 * 0.7).sin()).collect::<Vec<f64>>();
            let (a, b) = (numbers(130 * k), numbers(k * m));
            for b in [view(&b, k, m), view(&b, m, k).transpose()] {
                let all = products_of_rows(&a, b, structure);
                let plain = view(&a, 130, k)
                    * Mat::from_fn(k, m, |i, j| match structure {
                        TriangularLower if i < j => 0.0,
                        TriangularUpper if i > j => 0.0,
                        _ => b[(i, j)],
                    });
                // Sums of up to 1,000 terms up to 1.
                assert!(all.iter().zip(to_rows(plain.as_ref())).all(|(a, b)| (a - b).abs() < 1e-11));
                for n in [1, 2, 65, 129] {
                    let some = products_of_rows(&a[..n * k], b, structure);
                    assert_eq!(some, all[..n * m], "{n} rows of {k} by {m}, {structure:?}");
                }
                let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
                assert_eq!(pool.install(|| products_of_rows(&a, b, structure)), all);
            }
        }
    }
}
