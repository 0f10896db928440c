//! The network as a [`Potential`], evaluated on this machine's processor in f64 or f32.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::formula::{Curved, Formula, Linearised};
use super::subspace::Along;
use super::{Architecture, FormsAlong, GibbsFactor, Weights};
use crate::error::{Error, Result};
use crate::head_factor::HeadFactor;
use crate::host::{Array, Host, Scalar};
use crate::mixture::Mixture;
use crate::ops::Ops;
use crate::potential::{
    LogDetGradient, Potential, Purpose, SecondOrder, Subspace, Whitened, check_contraction, check_hessian,
    check_hvp, check_log_det_gradient, check_value_and_gradient, hessian_then_contraction, rows,
};

/// Rows that one thread evaluates at a time: enough for efficient products, few enough for the
/// intermediate arrays to stay in its cache.
const CHUNK: usize = 128;

/// The same where each row has its own Jacobian. One, so that rounding does not depend on the rows' number or the
/// threads'.
const SECOND_ORDER_CHUNK: usize = 1;

/// An input-convex network on the host: the reference in f64, the fast engine in f32.
#[derive(Debug, Clone)]
pub struct Icnn<T> {
    arch: Architecture,
    weights: Weights<Array<T>>,
    /// The head on its own, where the Gibbs factor is of that.
    gibbs: Option<Arc<HeadFactor>>,
    /// What [`SecondOrder::subspace`] gives, once it was asked for.
    bends: OnceLock<Option<Arc<Along<T>>>>,
}

impl<T: Scalar> Icnn<T> {
    /// Checks every array against the architecture, for finite numbers and for the signs that convexity asks for.
    pub fn new(arch: Architecture, mut weights: Weights<Array<T>>) -> Result<Self> {
        // Those of other forms, for all that is known here.
        weights.along = None;
        arch.validate()?;
        for (name, shape, array) in weights.named(&arch) {
            if array.shape() != shape {
                return Err(Error::Invalid(format!(
                    "{name}: expected shape {shape:?}, found {:?}",
                    array.shape()
                )));
            }
            if !array.all(|v| v.to_f64().is_finite()) {
                return Err(Error::NotFinite(format!("a number of {name}")));
            }
            let positive = ["output", "diagonal"].contains(&name.as_str()) || name.starts_with("mixing");
            if positive && !array.all(|v| v.to_f64() >= 0.0) {
                return Err(Error::Invalid(format!(
                    "{name}: expected no number below 0, with which the potential would not be convex"
                )));
            }
        }
        let gibbs = match arch.gibbs {
            GibbsFactor::Whole => None,
            GibbsFactor::Head => Some(Arc::new(head_factor(&arch, &weights)?)),
        };
        Ok(Icnn { arch, weights, gibbs, bends: OnceLock::new() })
    }

    /// The same network going through its forms in the directions of its spiked head, which are these.
    pub(crate) fn with_forms_along(mut self, along: Option<FormsAlong<Array<T>>>) -> Self {
        self.weights.along = along;
        self
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// The effective weights.
    pub fn weights(&self) -> &Weights<Array<T>> {
        &self.weights
    }

    /// The same network, with a mixture along few directions of its head's Gibbs factor.
    ///
    /// Fails where the Gibbs factor is of all of w.
    pub fn with_mixture(mut self, mixture: Arc<Mixture>) -> Result<Self> {
        let Some(head) = self.gibbs.as_deref() else {
            return Err(Error::Invalid("a mixture goes with the Gibbs factor of the head".into()));
        };
        self.gibbs = Some(Arc::new(head.clone().with_mixture(mixture)?));
        Ok(self)
    }

    /// A network of other units beside this one's head, whose Gibbs factor it takes over.
    pub(super) fn beside_the_same_head(
        &self,
        arch: Architecture,
        weights: Weights<Array<T>>,
    ) -> Result<Self> {
        let (gibbs, along) = (arch.gibbs, weights.along.clone());
        let network = Icnn::new(Architecture { gibbs: GibbsFactor::Whole, ..arch }, weights)?;
        let arch = Architecture { gibbs, ..network.arch };
        Ok(Icnn { arch, gibbs: self.gibbs.clone(), ..network }.with_forms_along(along))
    }

    /// The same network in another precision.
    pub fn cast<U: Scalar>(&self) -> Result<Icnn<U>> {
        let named = self.weights.named(&self.arch);
        let cast = |array: &Array<T>| -> Result<Array<U>> {
            let data = array.to_vec().iter().map(|v| U::from_f64(v.to_f64())).collect();
            let [rows, cols] = [array.shape()[0], array.shape()[1]];
            Ok(Array::matrix(data, rows, cols))
        };
        let weights = Weights::build(&self.arch, |name, _| {
            let found = named.iter().find(|(n, ..)| n == name);
            let (.., array) = found.ok_or_else(|| Error::Invalid(format!("no array {name}")))?;
            cast(array)
        })?;
        let along = self.weights.along.as_ref().map(|along| along.try_map(cast)).transpose()?;
        let cast = Icnn::new(self.arch.clone(), weights)?.with_forms_along(along);
        match self.gibbs.as_ref().and_then(|head| head.mixture()) {
            Some(mixture) => cast.with_mixture(mixture.clone()),
            None => Ok(cast),
        }
    }

    /// The interpreter for each of `n` rows or shares of them: few cannot keep the threads busy, which share each product
    /// instead.
    fn host(&self, n: usize) -> Host<T> {
        if n < rayon::current_num_threads() { Host::parallel() } else { Host::sequential() }
    }

    /// Shares the rows of `x` out to the threads; `run` gets the first row of its share, an
    /// interpreter and the share as an array, and returns one array a buffer of `out`.
    fn share<const K: usize>(
        &self,
        x: &[f64],
        chunk: usize,
        out: [&mut [f64]; K],
        run: impl Fn(usize, &Host<T>, &Array<T>) -> [Array<T>; K] + Sync,
    ) -> Result<()> {
        let d = self.arch.dim;
        let n = x.len() / d;
        if n == 0 {
            return Ok(());
        }
        let threads = rayon::current_num_threads();
        let host = self.host(n);
        let chunk = n.div_ceil(threads).clamp(1, chunk);
        let pieces: Vec<Vec<&mut [f64]>> = {
            let mut columns: Vec<_> = out.into_iter().map(|o| o.chunks_mut(o.len() / n * chunk)).collect();
            (0..n.div_ceil(chunk)).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect()
        };
        pieces.into_par_iter().zip(x.par_chunks(chunk * d)).enumerate().for_each(|(i, (mut piece, x))| {
            let x = Array::from_f64(x, x.len() / d, d);
            for (array, out) in run(i * chunk, &host, &x).iter().zip(piece.iter_mut()) {
                array.write_to(out);
            }
        });
        Ok(())
    }

    /// Linearises the network at the rows of `x` [n, d] for many Hessian-vector products there.
    pub fn linearise(&self, x: &[f64]) -> Result<LinearisedIcnn<'_, T>> {
        let d = self.arch.dim;
        let n = crate::potential::rows(x, d)?;
        let rows = n.div_ceil(rayon::current_num_threads()).clamp(1, CHUNK);
        let host = Host::sequential();
        let formula = self.formula(&host);
        let parts =
            x.par_chunks(rows * d).map(|x| formula.linearise(&Array::from_f64(x, x.len() / d, d))).collect();
        Ok(LinearisedIcnn { network: self, rows, parts })
    }

    /// The mean of the Hessians at the rows of `x` [n, d]: [d, d].
    pub(crate) fn mean_hessian(&self, x: &[f64]) -> Result<Vec<f64>> {
        // Whole Hessians, which other than flat networks average, are large beside a network.
        const AT_ONCE: usize = 4;
        let (d, host) = (self.arch.dim, Host::parallel());
        let n = rows(x, d)?;
        let mut mean = vec![0.0; d * d];
        let at_once = if self.arch.is_flat() { n.max(1) } else { AT_ONCE };
        for some in x.chunks(at_once * d) {
            let m = some.len() / d;
            let part = self.formula(&host).mean_hessian(m, &Array::from_f64(some, m, d));
            let share = m as f64 / n as f64;
            mean.iter_mut().zip(part.to_vec()).for_each(|(mean, h)| *mean += share * h.to_f64());
        }
        Ok(mean)
    }

    /// act(s) of all units at the rows of `x` [n, d]: [n, N].
    pub(super) fn active(&self, x: &[f64]) -> Array<T> {
        let (n, host) = (x.len() / self.arch.dim, Host::parallel());
        self.formula(&host).active(&Array::from_f64(x, n, self.arch.dim))
    }

    fn formula<'a>(&'a self, host: &'a Host<T>) -> Formula<'a, Host<T>> {
        Formula::new(host, &self.arch, &self.weights)
    }
}

/// The head of a network on its own.
fn head_factor<T: Scalar>(arch: &Architecture, weights: &Weights<Array<T>>) -> Result<HeadFactor> {
    let (from, to) = (arch.x_side_rows() - arch.head_rows(), arch.x_side_rows());
    let rows = Host::sequential().slice(&weights.x_side, 0, from, to).to_f64s();
    let spikes = weights.spikes.as_ref().map(|spikes| (spikes.floor.to_f64s()[0], spikes.excess.to_f64s()));
    HeadFactor::of_rows(rows, spikes, weights.centre.to_f64s())
}

/// A network with its passes at fixed points kept: [`Icnn::linearise`].
pub struct LinearisedIcnn<'a, T> {
    network: &'a Icnn<T>,
    rows: usize,
    parts: Vec<Linearised<Array<T>>>,
}

impl<T: Scalar> LinearisedIcnn<'_, T> {
    /// ∇²w(x_i) v_i at the points of the linearisation: `v`, `hv`: [n, d].
    pub fn hvp(&self, v: &[f64], hv: &mut [f64]) {
        let d = self.network.arch.dim;
        let host = Host::sequential();
        let formula = self.network.formula(&host);
        let pieces = v.par_chunks(self.rows * d).zip(hv.par_chunks_mut(self.rows * d));
        self.parts.par_iter().zip(pieces).for_each(|(at, (v, hv))| {
            let product = formula.hvp(at, &Array::from_f64(v, v.len() / d, d));
            product.write_to(hv);
        });
    }
}

impl<T: Scalar> Potential for Icnn<T> {
    fn dim(&self) -> usize {
        self.arch.dim
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        check_value_and_gradient(self.arch.dim, x, value, gradient)?;
        self.share(x, CHUNK, [value, gradient], |_, host, x| {
            let (value, gradient) = self.formula(host).value_and_gradient(x);
            [value, gradient]
        })
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.arch.dim;
        check_hvp(d, x, v, hv)?;
        self.share(x, CHUNK, [hv], |first, host, x| {
            let rows = x.shape()[0];
            let v = Array::from_f64(&v[first * d..][..rows * d], rows, d);
            let formula = self.formula(host);
            [formula.hvp(&formula.linearise(x), &v)]
        })
    }

    fn gibbs(&self) -> Option<&HeadFactor> {
        self.gibbs.as_deref()
    }

    fn whitened(&self, purpose: Purpose<'_>) -> Result<Option<Whitened>> {
        let found = self.whitened_network(purpose)?;
        Ok(found.map(|(network, coordinates)| Whitened { potential: Box::new(network), coordinates }))
    }
}

impl<T: Scalar> SecondOrder for Icnn<T> {
    fn subspace(&self) -> Option<Subspace<'_>> {
        self.bends.get_or_init(|| Along::of(self)).as_deref().map(Along::subspace)
    }

    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        check_hessian(self.arch.dim, x, hessian)?;
        self.share(x, SECOND_ORDER_CHUNK, [hessian], |_, host, x| {
            let formula = self.formula(host);
            [formula.hessian(&formula.curved(x))]
        })
    }

    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        let d = self.arch.dim;
        check_contraction(d, x, m, out)?;
        self.share(x, SECOND_ORDER_CHUNK, [out], |first, host, x| {
            let rows = x.shape()[0];
            let m = m[first * d * d..][..rows * d * d].iter().map(|&v| T::from_f64(v)).collect();
            let formula = self.formula(host);
            [formula.hessian_contraction(&formula.curved(x), &Array::stack(m, rows, d, d))]
        })
    }

    fn kept(&self) -> usize {
        let d = self.arch.dim;
        (self.arch.units() * d).max(d * d)
    }

    /// Keeps the Jacobians of the layers: units · d numbers a row.
    fn hessian_to_factor<'a>(&'a self, x: &'a [f64], hessian: &mut [f64]) -> Result<LogDetGradient<'a>> {
        if self.arch.diagonal {
            return hessian_then_contraction(self, x, hessian);
        }
        let d = self.arch.dim;
        let n = check_hessian(d, x, hessian)?;
        let host = self.host(n);
        let kept: Vec<Curved<Array<T>>> = x
            .par_chunks(d)
            .zip(hessian.par_chunks_mut(d * d))
            .map(|(x, hessian)| {
                let formula = self.formula(&host);
                let curved = formula.curved(&Array::from_f64(x, 1, d));
                formula.hessian(&curved).write_to(hessian);
                curved
            })
            .collect();
        Ok(Box::new(move |factors, out| {
            check_log_det_gradient(d, x, factors, out)?;
            let rows = kept.into_par_iter().zip(factors.par_chunks(d * d)).zip(out.par_chunks_mut(d));
            rows.for_each(|((curved, factor), out)| {
                // The lower triangle by columns is that of L' by rows.
                let transposed = Array::from_f64(factor, d, d);
                let in_whitened = |rows: &Array<T>| host.times_inverse_of_upper(rows, &transposed);
                self.formula(&host).log_det_gradient(&curved, in_whitened).write_to(out);
            });
            Ok(())
        }))
    }
}
