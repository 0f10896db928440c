//! The one noun of the crate: a convex potential that gives values, gradients and Hessian products.

use std::sync::Arc;

use faer::MatRef;
use faer::linalg::matmul::triangular::BlockStructure;
use rayon::prelude::*;

use crate::error::{Error, Result, check_len};
use crate::halves;
use crate::head_factor::HeadFactor;
use crate::linalg::{products_of_rows, view};
use crate::preconditioner::Preconditioner;

/// A convex function w on R^d, evaluated on batches of rows.
///
/// Object-safe, `&self`, row-major slices that the caller allocates. `Err` means broken or misused.
/// Implementers must give the same answer for a row whatever batch it is in, up to rounding.
pub trait Potential: Send + Sync {
    /// The dimension d.
    fn dim(&self) -> usize;

    /// Values w(x_i) and gradients ∇w(x_i).
    ///
    /// `x`: [n, d], `value`: [n], `gradient`: [n, d].
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()>;

    /// Hessian-vector products ∇²w(x_i) v_i.
    ///
    /// `x`, `v`, `hv`: [n, d].
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()>;

    /// The head of this potential on its own, with its mixture if it has one, where the Gibbs factor e^{-V} that ∇w* carries to the data is of that; none
    /// where V = w.
    fn gibbs(&self) -> Option<&HeadFactor> {
        None
    }

    /// This potential in coordinates that suit a purpose, from an implementer that gains by them; else none.
    ///
    /// It may differ by a few hundredths of a nat where the Gibbs factor, or the data, have their mass: enough for draws of
    /// e^{-w}, and for the start of a solve that ends with w itself.
    fn whitened(&self, _purpose: Purpose<'_>) -> Result<Option<Whitened>> {
        Ok(None)
    }
}

/// V, the potential of the Gibbs factor: the head where [`Potential::gibbs`] gives one, or w itself.
pub(crate) fn gibbs_of(w: &dyn Potential) -> &dyn Potential {
    match w.gibbs() {
        Some(head) => head,
        None => w,
    }
}

/// What the coordinates of [`Potential::whitened`] are for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// Chains on e^{-w}, given a P that is close to the inverse Hessian: the Hessian is about as close to the identity as in
    /// the coordinates of P, and an evaluation costs less.
    Chains(&'a Preconditioner),
    /// Solves of conjugates, given points like the data, [n, d]: the mean Hessian at these is the identity.
    Conjugates(&'a [f64]),
}

/// A potential w in coordinates z with x = L z.
pub struct Whitened {
    /// z ↦ w(L z), to within what [`Potential::whitened`] says.
    pub potential: Box<dyn Potential>,
    /// L.
    pub coordinates: Arc<Preconditioner>,
}

/// What a potential w(x) = f(V x) + ½ c |(I - V'V)(x - a)|² is made of, which bends along k orthonormal directions alone.
///
/// ∇²w(x) = V' ∇²f(V x) V + c (I - V'V), so that log det ∇²w = log det ∇²f + (d - k) ln c.
#[derive(Clone, Copy)]
pub struct Subspace<'a> {
    /// f on R^k.
    pub along: &'a dyn SecondOrder,
    /// V: [k, d].
    pub directions: &'a [f64],
    /// c.
    pub across: f64,
}

impl Subspace<'_> {
    /// V x of each row x: [n, d] -> [n, k].
    pub fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        products_of_rows(x, self.view().transpose(), BlockStructure::Rectangular)
    }

    /// V' u of each row u: [n, k] -> [n, d].
    pub fn rows(&self, u: &[f64]) -> Vec<f64> {
        products_of_rows(u, self.view(), BlockStructure::Rectangular)
    }

    fn view(&self) -> MatRef<'_, f64> {
        let k = self.along.dim();
        view(self.directions, k, self.directions.len() / k)
    }
}

/// What only some potentials can do fast: whole Hessians and their contraction.
pub trait SecondOrder: Potential {
    /// The directions along which this potential bends, where it is known to bend along few: what its density needs is found
    /// in these alone.
    fn subspace(&self) -> Option<Subspace<'_>> {
        None
    }

    /// Hessians ∇²w(x_i). `x`: [n, d], `hessian`: [n, d, d], symmetric.
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()>;

    /// Gradients in x of the Frobenius products ⟨M_i, ∇²w(x_i)⟩ with M_i held fixed.
    ///
    /// `x`: [n, d], `m`: [n, d, d] symmetric, `out`: [n, d]. With M = (∇²w)^{-1} this is the gradient
    /// of log det ∇²w.
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()>;

    /// [`SecondOrder::hessian`], and for later the gradients of log det ∇²w at the same points: what the two share is
    /// kept, where an implementer can, and takes [`SecondOrder::kept`] numbers a point.
    fn hessian_to_factor<'a>(&'a self, x: &'a [f64], hessian: &mut [f64]) -> Result<LogDetGradient<'a>> {
        hessian_then_contraction(self, x, hessian)
    }

    /// Numbers that [`SecondOrder::hessian_to_factor`] keeps of each point, or needs in the end.
    fn kept(&self) -> usize {
        self.dim() * self.dim()
    }
}

/// [`SecondOrder::hessian_to_factor`] by the contraction with the inverse Hessian.
pub fn hessian_then_contraction<'a, W: SecondOrder + ?Sized>(
    w: &'a W,
    x: &'a [f64],
    hessian: &mut [f64],
) -> Result<LogDetGradient<'a>> {
    w.hessian(x, hessian)?;
    Ok(Box::new(move |factors, out| {
        let d = w.dim();
        check_log_det_gradient(d, x, factors, out)?;
        let mut inverses = vec![0.0; factors.len()];
        let matrices = inverses.par_chunks_exact_mut(d * d).zip(factors.par_chunks_exact_mut(d * d));
        matrices.for_each(|(inverse, l)| halves::invert(l, inverse, d));
        w.hessian_contraction(x, &inverses, out)
    }))
}

/// ∇ log det ∇²w(x_i) at points that it knows, given the Cholesky factors L_i of ∇²w(x_i) = L_i L_i'.
///
/// `factors`: [n, d, d], the lower triangles by columns, used up; what stands above them does not matter. `out`: [n, d].
pub type LogDetGradient<'a> = Box<dyn FnOnce(&mut [f64], &mut [f64]) -> Result<()> + 'a>;

/// Number of rows of `x` in dimension `d`, or a shape error.
pub fn rows<T>(x: &[T], d: usize) -> Result<usize> {
    if d > 0 && x.len().is_multiple_of(d) {
        return Ok(x.len() / d);
    }
    Err(Error::Shape { what: "x", expected: format!("a multiple of {d}"), found: x.len().to_string() })
}

/// Checks the slice lengths of [`Potential::value_and_gradient`] and returns n.
pub fn check_value_and_gradient(d: usize, x: &[f64], value: &[f64], gradient: &[f64]) -> Result<usize> {
    let n = rows(x, d)?;
    check_len("value", value.len(), n)?;
    check_len("gradient", gradient.len(), n * d)?;
    Ok(n)
}

/// Checks the slice lengths of [`Potential::hvp`] and returns n.
pub fn check_hvp(d: usize, x: &[f64], v: &[f64], hv: &[f64]) -> Result<usize> {
    let n = rows(x, d)?;
    check_len("v", v.len(), n * d)?;
    check_len("hv", hv.len(), n * d)?;
    Ok(n)
}

/// Checks the slice lengths of [`SecondOrder::hessian`] and returns n.
pub fn check_hessian(d: usize, x: &[f64], hessian: &[f64]) -> Result<usize> {
    let n = rows(x, d)?;
    check_len("hessian", hessian.len(), n * d * d)?;
    Ok(n)
}

/// Checks the slice lengths of [`SecondOrder::hessian_contraction`] and returns n.
pub fn check_contraction(d: usize, x: &[f64], m: &[f64], out: &[f64]) -> Result<usize> {
    let n = rows(x, d)?;
    check_len("m", m.len(), n * d * d)?;
    check_len("out", out.len(), n * d)?;
    Ok(n)
}

/// Checks the slice lengths of a [`LogDetGradient`] and returns n.
pub fn check_log_det_gradient(d: usize, x: &[f64], factors: &[f64], out: &[f64]) -> Result<usize> {
    let n = rows(x, d)?;
    check_len("factors", factors.len(), n * d * d)?;
    check_len("out", out.len(), n * d)?;
    Ok(n)
}

impl<P: Potential + ?Sized> Potential for &P {
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        (**self).value_and_gradient(x, value, gradient)
    }
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        (**self).hvp(x, v, hv)
    }
    fn gibbs(&self) -> Option<&HeadFactor> {
        (**self).gibbs()
    }
    fn whitened(&self, purpose: Purpose<'_>) -> Result<Option<Whitened>> {
        (**self).whitened(purpose)
    }
}
