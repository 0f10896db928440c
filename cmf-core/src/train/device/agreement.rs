//! Whether a device computes what the processor does, asked before a run begins on it.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use super::super::activation::Activates;
use super::super::objective::{Batch, Law, Likelihood, loss, rows};
use super::super::ops::{BurnOps, Precise, Ranked};
use super::super::parameters::{Parameters, network_of};
use super::super::trainer::Backend as HostBackend;
use super::{at, inner_weights, ranked, read};
use crate::error::{Error, Result};
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, Icnn, Weights};
use crate::linalg::largest;
use crate::potential::Potential;

/// Largest difference from the host's f64 answers that a device may begin with, relative to the largest number.
const AGREEMENT: f64 = 1e-4;
/// The same for the differentiated pass, whose products may round their factors to 11 bits: some sums of them later, and
/// far below the noise of a gradient from a hundred points.
const GRADIENT_AGREEMENT: f64 = 1e-2;

/// Fails if a number of `found` is off by more than `agreement` of the largest in `want`.
fn close(
    device: &impl std::fmt::Debug,
    what: &str,
    found: &[f64],
    want: &[f64],
    agreement: f64,
) -> Result<()> {
    let size = largest(want);
    let off = found.iter().zip(want).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0, |top: f64, off| if off.is_nan() { f64::INFINITY } else { top.max(off) });
    if off <= agreement * size {
        return Ok(());
    }
    let message = format!(
        "{device:?}: its {what} differ from the processor's by {off:e} where the largest is {size:e}; {:e} is allowed",
        agreement * size
    );
    Err(Error::Engine { engine: "burn", message })
}

/// A likelihood's derivative in the linear and squared forms, with the points `x` in every place.
fn in_forms<B: AutodiffBackend + Activates>(
    network: &Icnn<f32>,
    x: &[f64],
    device: &B::Device,
) -> Result<Vec<f64>> {
    let arch = network.architecture();
    let parameters = Parameters::<B>::from_network(network, device)?;
    let x = rows::<B>(x, arch.dim, device);
    let likelihood =
        Likelihood { image: Some(x.clone()), along: x.clone(), solved: x.clone(), probe: x.clone() };
    let source = Law::Particles(x.clone() * 0.5);
    let batch = Batch { data: x, source, conjugate: None, likelihood: Some(likelihood) };
    let loss = loss(&BurnOps::new(device.clone()), arch, &parameters.weights(arch), batch);
    let gradient = parameters.forms.val().grad(&loss.backward());
    gradient.map_or_else(|| Err(Error::Engine { engine: "burn", message: "no derivative".into() }), read)
}

/// Compares a device's gradients, Hessian products and derivatives in the weights at `points` [n, d] with the host's; makes
/// the device compile most of its kernels.
pub(super) fn agrees<B: AutodiffBackend<InnerBackend: Precise> + Activates>(
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    points: &Tensor<B::InnerBackend, 2>,
) -> Result<()> {
    let device = points.device();
    let single = network_of(arch, weights)?;
    let host: Icnn<f64> = single.cast()?;
    let (ops, inner) = (BurnOps::precise(device.clone()), inner_weights(arch, weights)?);
    let w = Formula::new(&ops, arch, &inner);
    let x = read(points.clone())?;
    let (mut value, mut gradient, mut product) =
        (vec![0.0; x.len() / arch.dim], vec![0.0; x.len()], vec![0.0; x.len()]);
    host.value_and_gradient(&x, &mut value, &mut gradient)?;
    host.hvp(&x, &x, &mut product)?;
    let hvp = w.hvp(&w.linearise(&ranked(points)), &ranked(points)).matrix();
    close(&device, "gradients", &read(at(&w, points).1)?, &gradient, AGREEMENT)?;
    close(&device, "Hessian products", &read(hvp)?, &product, AGREEMENT)?;
    let found = in_forms::<B>(&single, &x, &device)?;
    let want = in_forms::<HostBackend>(&single, &x, &Default::default())?;
    close(&device, "derivatives in the weights", &found, &want, GRADIENT_AGREEMENT)
}
