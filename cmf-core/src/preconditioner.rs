//! An approximate inverse Hessian P = L L' shared by all rows, which speeds up solvers and samplers.

use faer::linalg::matmul::triangular::BlockStructure;
use faer::linalg::solvers::{Llt, PartialPivLu, Solve};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Mat, MatRef, Par, Side};

use crate::error::{Error, Result, check_len};
use crate::host::Scalar;
use crate::linalg::{products_of_rows, to_rows, view};
use crate::potential::rows;
use crate::symmetric::{Spectrum, Spiked, Symmetric};

/// A symmetric positive definite P ≈ (∇²w)^{-1} with a factor L: Cholesky's, the symmetric square root of a
/// spiked P, or any other.
///
/// Working in z = L^{-1} y turns the Hessian into L' ∇²w L, whose condition number is 1 when P is
/// exact. For a trained model P = S^{1/3}, the inverse Hessian of its closed-form start, is close.
#[derive(Debug, Clone)]
pub struct Preconditioner(Factor);

#[derive(Debug, Clone)]
enum Factor {
    Lower(Mat<f64>),
    /// With its inverse's factors.
    Dense(Mat<f64>, PartialPivLu<f64>),
    Root(Spiked),
}

impl Preconditioner {
    /// Factors P; fails when it is not positive definite.
    pub fn new(inverse_hessian: &Symmetric) -> Result<Self> {
        let indefinite = || Error::NotPositiveDefinite("the preconditioner".into());
        match inverse_hessian {
            Symmetric::Full(all) => {
                let d = inverse_hessian.dim();
                check_len("preconditioner", all.len(), d * d)?;
                let factor = Llt::new(view(all, d, d), Side::Lower).map_err(|_| indefinite())?;
                Ok(Preconditioner(Factor::Lower(factor.L().to_owned())))
            }
            Symmetric::Spiked(spiked) => match inverse_hessian.spectrum()?.ends().0 > 0.0 {
                true => Ok(Preconditioner(Factor::Root(spiked.apply(f64::sqrt)))),
                false => Err(indefinite()),
            },
        }
    }

    /// P = H^{-1}; `what` names H in the error if it is not positive definite.
    pub(crate) fn of_inverse(hessian: &Symmetric, what: &str) -> Result<Self> {
        match hessian {
            Symmetric::Full(all) => Self::of_inverse_of_full(all, hessian.dim(), what),
            Symmetric::Spiked(_) => Preconditioner::new(&hessian.inverse(what)?),
        }
    }

    /// The factor that [`new`](Self::new) finds for the inverse, in half the time: with H backwards = G G' is H = U U', where
    /// U is G backwards, upper triangular, so that L = U^{-1}' is lower triangular.
    fn of_inverse_of_full(hessian: &[f64], d: usize, what: &str) -> Result<Self> {
        let backwards = view(hessian, d, d).reverse_rows_and_cols();
        let factor =
            Llt::new(backwards, Side::Lower).map_err(|_| Error::NotPositiveDefinite(what.to_string()))?;
        let mut inverse = Mat::zeros(d, d);
        invert_lower_triangular(inverse.as_mut(), factor.L(), Par::rayon(0));
        Ok(Preconditioner(Factor::Lower(inverse.as_ref().reverse_rows_and_cols().transpose().to_owned())))
    }

    /// The inverse of a mean Hessian [d, d]; none where rounding left it indefinite.
    pub(crate) fn of_mean_hessian(mean: &[f64]) -> Result<Option<Self>> {
        match Self::of_inverse_of_full(mean, mean.len().isqrt(), "the mean Hessian") {
            Err(Error::NotPositiveDefinite(_)) => Ok(None),
            found => found.map(Some),
        }
    }

    /// P = L L' of an invertible L: [d, d], row-major.
    pub fn of_factor(factor: &[f64], d: usize) -> Result<Self> {
        check_len("preconditioner factor", factor.len(), d * d)?;
        let factor = view(factor, d, d).to_owned();
        let lu = factor.partial_piv_lu();
        Ok(Preconditioner(Factor::Dense(factor, lu)))
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        match &self.0 {
            Factor::Lower(l) | Factor::Dense(l, _) => l.nrows(),
            Factor::Root(root) => root.dim(),
        }
    }

    /// log det P.
    pub fn log_det(&self) -> f64 {
        match &self.0 {
            Factor::Lower(l) => 2.0 * log_diagonal(l.as_ref()),
            Factor::Dense(_, lu) => 2.0 * log_diagonal(lu.U()),
            Factor::Root(root) => 2.0 * Spectrum::Spiked(root).sum(f64::ln),
        }
    }

    /// L z for each row z of `z` [n, d]: from preconditioned coordinates back to the original ones.
    pub fn colour(&self, z: &[f64]) -> Result<Vec<f64>> {
        match &self.0 {
            Factor::Lower(l) => times(z, l.transpose(), BlockStructure::TriangularUpper),
            Factor::Dense(l, _) => times(z, l.transpose(), BlockStructure::Rectangular),
            Factor::Root(root) => root.times(z),
        }
    }

    /// L' g for each row g of `g` [n, d]: the gradient in preconditioned coordinates.
    pub fn pull_back(&self, g: &[f64]) -> Result<Vec<f64>> {
        match &self.0 {
            Factor::Lower(l) => times(g, l.as_ref(), BlockStructure::TriangularLower),
            Factor::Dense(l, _) => times(g, l.as_ref(), BlockStructure::Rectangular),
            Factor::Root(root) => root.times(g),
        }
    }

    /// The same in the precision of `g`.
    pub(crate) fn pull_back_in<T: Scalar>(&self, g: &[T]) -> Result<Vec<T>> {
        if let Factor::Lower(l) = &self.0 {
            let l = Mat::from_fn(l.nrows(), l.ncols(), |i, j| T::from_f64(l[(i, j)]));
            return times(g, l.as_ref(), BlockStructure::TriangularLower);
        }
        let g: Vec<f64> = g.iter().map(|v| v.to_f64()).collect();
        Ok(self.pull_back(&g)?.into_iter().map(T::from_f64).collect())
    }

    /// L^{-1} x for each row x of `x` [n, d]: from the original coordinates to preconditioned ones.
    pub fn whiten(&self, x: &[f64]) -> Result<Vec<f64>> {
        let d = self.dim();
        let mut z = view(x, rows(x, d)?, d).transpose().to_owned();
        match &self.0 {
            Factor::Lower(l) => solve_lower_triangular_in_place(l.as_ref(), z.as_mut(), Par::rayon(0)),
            Factor::Dense(_, lu) => lu.solve_in_place(&mut z),
            Factor::Root(root) => return root.apply(f64::recip).times(x),
        }
        Ok(to_rows(z.transpose()))
    }
}

/// Σ_i ln |u_ii|.
fn log_diagonal(u: MatRef<'_, f64>) -> f64 {
    (0..u.nrows()).map(|i| u[(i, i)].abs().ln()).sum()
}

/// The product of each row of `a` [n, d] with b [d, d].
fn times<T: Scalar>(a: &[T], b: MatRef<'_, T>, structure: BlockStructure) -> Result<Vec<T>> {
    rows(a, b.nrows())?;
    Ok(products_of_rows(a, b, structure))
}

/// L z, or a copy of z without a preconditioner.
pub(crate) fn colour(preconditioner: Option<&Preconditioner>, z: &[f64]) -> Result<Vec<f64>> {
    preconditioner.map_or_else(|| Ok(z.to_vec()), |p| p.colour(z))
}

/// L' g, or a copy of g without a preconditioner.
pub(crate) fn pull_back(preconditioner: Option<&Preconditioner>, g: &[f64]) -> Result<Vec<f64>> {
    preconditioner.map_or_else(|| Ok(g.to_vec()), |p| p.pull_back(g))
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
        let full = vec![2.0, 0.5, 0.1, 0.5, 1.0, -0.2, 0.1, -0.2, 3.0];
        let spiked = Spiked::new(0.5, vec![3.0, 0.2], vec![0.6, 0.8, 0.0, 0.0, 0.0, 1.0]).unwrap();
        // Not triangular, of P = L L'.
        let factor = [1.0, 0.5, 0.0, -0.2, 0.8, 0.3, 0.4, 0.0, 1.5];
        let product = (0..9).map(|k| dot(&factor[k / 3 * 3..][..3], &factor[k % 3 * 3..][..3])).collect();
        let of = |p: Symmetric| (Preconditioner::new(&p).unwrap(), p);
        let dense = (Preconditioner::of_factor(&factor, 3).unwrap(), Symmetric::Full(product));
        for (factor, p) in [of(full.into()), of(spiked.into()), dense] {
            let v = [1.0, -2.0, 0.5, 0.0, 4.0, 1.0];
            // L (L' v) = P v; a handful of roundings.
            let product = factor.colour(&factor.pull_back(&v).unwrap()).unwrap();
            for (row, out) in v.chunks(3).zip(product.chunks(3)) {
                for (p, o) in p.dense().chunks(3).zip(out) {
                    assert!((dot(p, row) - o).abs() < 1e-14);
                }
            }
            let back = factor.whiten(&factor.colour(&v).unwrap()).unwrap();
            assert!(back.iter().zip(v).all(|(b, v)| (b - v).abs() < 1e-13), "{back:?}");
            let log_det = p.spectrum().unwrap().sum(f64::ln);
            assert!((factor.log_det() - log_det).abs() < 1e-13);
        }
        assert!(Preconditioner::of_factor(&factor, 2).is_err());
    }

    #[test]
    fn the_inverse_of_a_hessian_has_the_factor_of_the_inverse() {
        let hessian = vec![2.0, 0.5, 0.1, 0.5, 1.0, -0.2, 0.1, -0.2, 3.0];
        let inverse = Symmetric::Full(hessian.clone()).inverse("H").unwrap();
        let spiked = Symmetric::from(Spiked::new(0.5, vec![3.0], vec![0.6, 0.8, 0.0]).unwrap());
        let identity: Vec<f64> = (0..9).map(|i| f64::from(i % 4 == 0)).collect();
        let of = |h: &Symmetric| Preconditioner::of_inverse(h, "H").unwrap();
        let mean = Preconditioner::of_mean_hessian(&hessian).unwrap().unwrap();
        let pairs = [
            (of(&hessian.into()), Preconditioner::new(&inverse).unwrap()),
            (mean, Preconditioner::new(&inverse).unwrap()),
            (of(&spiked), Preconditioner::new(&spiked.inverse("H").unwrap()).unwrap()),
        ];
        for (found, expected) in pairs {
            let factors = [found, expected].map(|p| p.colour(&identity).unwrap());
            // A handful of roundings of numbers about 1.
            assert!(factors[0].iter().zip(&factors[1]).all(|(a, b)| (a - b).abs() < 1e-14), "{factors:?}");
        }
    }

    #[test]
    fn rejects_indefinite_matrices() {
        let indefinite = vec![1.0, 2.0, 2.0, 1.0];
        assert!(Preconditioner::of_mean_hessian(&indefinite).unwrap().is_none());
        let named = Preconditioner::of_inverse(&indefinite.into(), "H").unwrap_err().to_string();
        assert!(named.contains("H is not positive definite"), "{named}");
        assert!(Preconditioner::new(&vec![1.0, 2.0, 2.0, 1.0].into()).is_err());
        assert!(Preconditioner::new(&vec![1.0, 0.0, 0.0].into()).is_err());
        let spiked = Spiked::new(1.0, vec![-0.1], vec![1.0, 0.0]).unwrap();
        assert!(Preconditioner::new(&spiked.into()).is_err());
    }
}
