//! An approximate inverse Hessian P = L L' shared by all rows, which speeds up solvers and samplers.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatMut, MatRef, Side};

use crate::error::{Error, Result, check_len};
use crate::linalg::view;
use crate::potential::rows;

/// A symmetric positive definite P ≈ (∇²w)^{-1} with its Cholesky factor L.
///
/// Working in z = L^{-1} y turns the Hessian into L' ∇²w L, whose condition number is 1 when P is
/// exact. For a trained model P = S^{1/3}, the inverse Hessian of its closed-form start, is close.
#[derive(Debug, Clone)]
pub struct Preconditioner {
    factor: Mat<f64>,
}

impl Preconditioner {
    /// Factors P, row-major symmetric [d, d]; fails when it is not positive definite.
    pub fn new(inverse_hessian: &[f64], d: usize) -> Result<Self> {
        check_len("preconditioner", inverse_hessian.len(), d * d)?;
        let factor = faer::linalg::solvers::Llt::new(view(inverse_hessian, d, d), Side::Lower)
            .map_err(|_| Error::NotPositiveDefinite("the preconditioner".into()))?;
        Ok(Preconditioner { factor: factor.L().to_owned() })
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.factor.nrows()
    }

    /// L z for each row z of `z` [n, d]: from preconditioned coordinates back to the original ones.
    pub fn colour(&self, z: &[f64]) -> Result<Vec<f64>> {
        self.times(z, self.factor.transpose(), BlockStructure::TriangularUpper)
    }

    /// L' g for each row g of `g` [n, d]: the gradient in preconditioned coordinates.
    pub fn pull_back(&self, g: &[f64]) -> Result<Vec<f64>> {
        self.times(g, self.factor.as_ref(), BlockStructure::TriangularLower)
    }

    fn times(&self, a: &[f64], b: MatRef<'_, f64>, structure: BlockStructure) -> Result<Vec<f64>> {
        let d = self.dim();
        let n = rows(a, d)?;
        let mut out = vec![0.0; n * d];
        matmul(
            MatMut::from_row_major_slice_mut(&mut out, n, d),
            BlockStructure::Rectangular,
            Accum::Replace,
            view(a, n, d),
            BlockStructure::Rectangular,
            b,
            structure,
            1.0,
            faer::get_global_parallelism(),
        );
        Ok(out)
    }
}

/// L z, or a copy of z without a preconditioner.
pub(crate) fn colour(preconditioner: Option<&Preconditioner>, z: &[f64]) -> Result<Vec<f64>> {
    preconditioner.map_or_else(|| Ok(z.to_vec()), |p| p.colour(z))
}

/// L' g, or g itself without a preconditioner.
pub(crate) fn pull_back(preconditioner: Option<&Preconditioner>, g: Vec<f64>) -> Result<Vec<f64>> {
    match preconditioner {
        Some(p) => p.pull_back(&g),
        None => Ok(g),
    }
}

/// Fails unless the preconditioner, where there is one, has the potential's dimension.
pub(crate) fn check(preconditioner: Option<&Preconditioner>, d: usize) -> Result<()> {
    preconditioner.map_or(Ok(()), |p| check_len("preconditioner dimension", p.dim(), d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::dot;

    #[test]
    fn colour_and_pull_back_compose_to_the_matrix() {
        let p = [2.0, 0.5, 0.1, 0.5, 1.0, -0.2, 0.1, -0.2, 3.0];
        let factor = Preconditioner::new(&p, 3).unwrap();
        let v = [1.0, -2.0, 0.5, 0.0, 4.0, 1.0];
        // L (L' v) = P v; a handful of roundings.
        let product = factor.colour(&factor.pull_back(&v).unwrap()).unwrap();
        for (row, out) in v.chunks(3).zip(product.chunks(3)) {
            for (p, o) in p.chunks(3).zip(out) {
                assert!((dot(p, row) - o).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn rejects_indefinite_matrices() {
        assert!(Preconditioner::new(&[1.0, 2.0, 2.0, 1.0], 2).is_err());
        assert!(Preconditioner::new(&[1.0, 0.0, 0.0], 2).is_err());
    }
}
