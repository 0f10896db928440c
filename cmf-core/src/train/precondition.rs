//! The metric of the inner loops: the covariance P = S^{1/3} of the closed-form Gibbs factor.
//!
//! P^{1/2} ∇²w P^{1/2} is I at the start and stays near it, so preconditioned Langevin steps, conjugate
//! gradients and Barzilai-Borwein steps need few iterations. The parameters themselves are trained in
//! the data's own coordinates, where Adam's scaling by coordinate suits pixels.

use crate::error::Result;
use crate::gaussian::QuadraticStart;
use crate::host::{Array, Host};
use crate::linalg::SymmetricEigen;
use crate::ops::Ops;

/// P and its symmetric root, in the inner loops' precision.
pub struct Preconditioner {
    dim: usize,
    full: Array<f32>,
    root: Array<f32>,
}

impl Preconditioner {
    /// P = Q^{-1} for the Hessian Q of `start`.
    pub fn new(start: &QuadraticStart) -> Result<Self> {
        let dim = start.centre.len();
        let eigen = SymmetricEigen::new(&start.hessian, dim)?;
        Ok(Preconditioner {
            dim,
            full: Array::from_f64(&eigen.apply(|q| 1.0 / q), dim, dim),
            root: Array::from_f64(&eigen.apply(|q| 1.0 / q.sqrt()), dim, dim),
        })
    }

    /// P v for the rows v of `rows` [n, d].
    pub fn apply(&self, rows: &[f64]) -> Vec<f64> {
        self.times(rows, &self.full)
    }

    /// P^{1/2} v for the rows v of `rows` [n, d].
    pub fn apply_root(&self, rows: &[f64]) -> Vec<f64> {
        self.times(rows, &self.root)
    }

    fn times(&self, rows: &[f64], matrix: &Array<f32>) -> Vec<f64> {
        let rows = Array::from_f64(rows, rows.len() / self.dim, self.dim);
        let product = Host::parallel().matmul(&rows, matrix);
        product.to_vec().into_iter().map(f64::from).collect()
    }
}
