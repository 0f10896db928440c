//! The two losses of learning from samples, as scalars whose gradient Burn takes.

use burn::prelude::*;
use burn::tensor::TensorData;

use super::ops::{BurnOps, Ranked};
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, Weights};

/// Points and directions of one update; each [n, d].
pub struct Batch<'a> {
    /// Data y.
    pub data: &'a [f64],
    /// Gibbs particles x.
    pub particles: &'a [f64],
    /// CMFGen's part: conjugate points ∇w*(x), and its weight.
    pub conjugate: Option<(&'a [f64], f64)>,
    /// The likelihood's part.
    pub likelihood: Option<&'a Likelihood>,
}

/// What the likelihood's gradient needs; each [n, d].
pub struct Likelihood {
    /// The points x = ∇w(y).
    pub image: Vec<f64>,
    /// The directions ∇w(x).
    pub along: Vec<f64>,
    /// u ≈ ∇²w(y)^{-1} v.
    pub solved: Vec<f64>,
    /// Probes v with E v v' = I.
    pub probe: Vec<f64>,
}

/// The rows of `a` as a tensor [n, d].
fn rows<B: Backend>(a: &[f64], d: usize, device: &B::Device) -> Ranked<B> {
    let data: Vec<f32> = a.iter().map(|&v| v as f32).collect();
    Ranked::Two(Tensor::from_data(TensorData::new(data, [a.len() / d, d]), device))
}

/// The loss whose gradient in the parameters is an update's.
///
/// * CMFGen: mean w(y) - mean w(∇w*(x)), the semi-dual's gradient by Danskin's theorem (Vesseron,
///   Béthune and Cuturi, 2025, section 4).
/// * Likelihood: the gradient of E[-log ρ] is E ∂[w(∇w(y)) - log det ∇²w(y)] - E_P ∂w(x). The first
///   derivative is total: ∂w at the frozen image plus ∂∇w(y) along ∇w(∇w(y)); log det enters by one
///   probe, ∂ log det H = E u' ∂H v with H u = v.
pub fn loss<B: Backend>(
    ops: &BurnOps<B>,
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    batch: &Batch<'_>,
    device: &B::Device,
) -> Tensor<B, 1> {
    let formula = Formula::new(ops, arch, weights);
    let rows = |a: &[f64]| rows::<B>(a, arch.dim, device);
    // Mean value at the first rows minus mean value at the second, by one pass.
    let contrast = |first: &[f64], second: &[f64]| {
        let n = first.len() / arch.dim;
        let values = formula.value(&rows(&[first, second].concat())).matrix();
        values.clone().narrow(0, 0, n).mean() - values.narrow(0, n, second.len() / arch.dim).mean()
    };
    let mut total = Tensor::zeros([1], device);
    if let Some((conjugate, weight)) = batch.conjugate {
        total = total + contrast(batch.data, conjugate) * weight;
    }
    if let Some(Likelihood { image, along, solved, probe }) = batch.likelihood {
        let n = batch.data.len() / arch.dim;
        let (first, second) =
            formula.directional(n, &rows(batch.data), &rows(along), [&rows(solved), &rows(probe)]);
        total = total + contrast(image, batch.particles) + (first.matrix() - second.matrix()).mean();
    }
    total
}
