//! The losses of learning from samples and from energies, as scalars whose gradient Burn takes.

use burn::prelude::*;
use burn::tensor::TensorData;

use super::activation::Activates;
use super::ops::{BurnOps, Ranked};
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, Weights};

/// Points and directions of one update.
pub struct Batch<B: Backend> {
    /// Data y: [n, d].
    pub data: Tensor<B, 2>,
    /// The law that data are carried to.
    pub source: Law<Tensor<B, 2>>,
    /// CMFGen's part: conjugate points ∇w*(x) [particles, d], and its weight.
    pub conjugate: Option<(Tensor<B, 2>, f64)>,
    /// The likelihood's part.
    pub likelihood: Option<Likelihood<Tensor<B, 2>>>,
}

/// Draws or moments of the Gibbs factor.
pub enum Law<T> {
    /// Particles x of e^{-w}: [particles, d].
    Particles(T),
    /// Of the head.
    Head(OfHead<T>),
}

/// What stands for the head's law, held fixed where its derivative is taken.
pub struct OfHead<T> {
    /// Q^{-1} [d, d] of a full head, by which its determinant is differentiated; that of a spiked one is a product.
    pub inverse: Option<T>,
    /// Of a mixture in the head's Gibbs factor.
    pub mixture: Option<Slope<T>>,
}

/// The derivative in the head of the mean over data of c, the mixture's part of V.
pub struct Slope<T> {
    /// In Q [d, d], or in a spiked head's excesses and floor [1, k + 1].
    pub precision: T,
    /// In a: [1, d].
    pub centre: T,
}

impl Slope<Vec<f64>> {
    /// The same as tensors, in dimension `d`.
    fn on<B: Backend>(&self, d: usize, device: &B::Device) -> Slope<Tensor<B, 2>> {
        // The k + 1 numbers of a spiked head are at most d.
        let columns = self.precision.len().min(d);
        Slope { precision: rows(&self.precision, columns, device), centre: rows(&self.centre, d, device) }
    }
}

impl OfHead<Vec<f64>> {
    /// The same as tensors, in dimension `d`.
    pub fn on<B: Backend>(&self, d: usize, device: &B::Device) -> OfHead<Tensor<B, 2>> {
        OfHead {
            inverse: self.inverse.as_ref().map(|inverse| rows(inverse, d, device)),
            mixture: self.mixture.as_ref().map(|slope| slope.on(d, device)),
        }
    }
}

/// What the likelihood's gradient needs at n points with k probes each.
pub struct Likelihood<T> {
    /// The points x = ∇w(y), where the source depends on w: [n, d].
    pub image: Option<T>,
    /// The directions ∇V(x), V = w or ½|x|²: [n, d].
    pub along: T,
    /// u ≈ ∇²w(y)^{-1} v: [k n, d].
    pub solved: T,
    /// Probes v with E Σ_k v v' = I, the first of all points, then the second of all: [k n, d].
    pub probe: T,
}

impl<T> Likelihood<T> {
    /// The same with each array replaced.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Likelihood<U> {
        let Likelihood { image, along, solved, probe } = self;
        Likelihood { image: image.map(&f), along: f(along), solved: f(solved), probe: f(probe) }
    }
}

/// The rows of `a` as a tensor [n, d].
pub fn rows<B: Backend>(a: &[f64], d: usize, device: &B::Device) -> Tensor<B, 2> {
    let data: Vec<f32> = a.iter().map(|&v| v as f32).collect();
    Tensor::from_data(TensorData::new(data, [a.len() / d, d]), device)
}

/// The loss whose gradient in the parameters is an update's.
///
/// * CMFGen: mean w(y) - mean w(∇w*(x)), the semi-dual's gradient by Danskin's theorem (Vesseron,
///   Béthune and Cuturi, 2025, section 4).
/// * Likelihood: the gradient of E[-log ρ] is E ∂[w(∇w(y)) - log det ∇²w(y)] - E_P ∂w(x). The first
///   derivative is total: ∂w at the frozen image plus ∂∇w(y) along ∇w(∇w(y)); log det enters by one
///   probe or a few, ∂ log det H = E u' ∂H v with H u = v. From N(0, I) there are neither the frozen image nor P.
///   For the Gibbs factor of the head V stands in the place of w at the image, and -½ log det Q in that of P. A mixture in
///   it adds its part's derivative in the head.
///   What `noise_control` takes from these directions has mean 0.
pub fn loss<B: Activates>(
    ops: &BurnOps<B>,
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    batch: Batch<B>,
) -> Tensor<B, 1> {
    let formula = Formula::new(ops, arch, weights);
    let Batch { data, source, conjugate, likelihood } = batch;
    let n = data.dims()[0];
    // Mean value at the first n rows minus mean value at the second, by one pass.
    let contrast = |first: Tensor<B, 2>, second: Tensor<B, 2>| {
        let others = second.dims()[0];
        let values = formula.value(&Ranked::Two(Tensor::cat(vec![first, second], 0))).matrix();
        values.clone().narrow(0, 0, n).mean() - values.narrow(0, n, others).mean()
    };
    let mut total = Tensor::zeros([1], &data.device());
    if let Some((conjugate, weight)) = conjugate {
        total = total + contrast(data.clone(), conjugate) * weight;
    }
    if let Some(Likelihood { image, along, solved, probe }) = likelihood {
        let probes = probe.dims()[0] / n;
        let [data, along, solved, probe] = [data, along, solved, probe].map(Ranked::Two);
        let (first, second) = formula.directional([n, probes], &data, &along, [&solved, &probe]);
        total = total + (first.matrix() - second.matrix()).mean();
        total = match (image, source) {
            (Some(image), Law::Particles(particles)) => total + contrast(image, particles),
            (Some(image), Law::Head(OfHead { inverse, mixture })) => {
                let (value, _) = formula.head_value_and_gradient(&Ranked::Two(image));
                let total = total + value.matrix().mean() - log_det_of_head(arch, weights, inverse) * 0.5;
                match mixture {
                    Some(slope) => total + along_head(arch, weights, slope),
                    None => total,
                }
            }
            (None, _) => total,
        };
    }
    total
}

/// A scalar whose derivative in the head is that of log det Q: ⟨Q, Q^{-1}⟩ with the inverse held fixed, or the sum of
/// logarithms of a spiked head's eigenvalues.
fn log_det_of_head<B: Activates>(
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    inverse: Option<Tensor<B, 2>>,
) -> Tensor<B, 1> {
    match (&weights.spikes, inverse) {
        (Some(spikes), _) => {
            let (floor, excess) = (spikes.floor.clone().matrix(), spikes.excess.clone().matrix());
            let across = (arch.dim - arch.head_rows()) as f64;
            (floor.clone() + excess).log().sum() + floor.log().sum() * across
        }
        (None, Some(inverse)) => (precision_of_head(arch, weights) * inverse).sum(),
        (None, None) => unreachable!("a full head comes with its inverse"),
    }
}

/// Q of a full head: [d, d].
fn precision_of_head<B: Backend>(arch: &Architecture, weights: &Weights<Ranked<B>>) -> Tensor<B, 2> {
    weights.x_side.clone().matrix().narrow(0, (1 + arch.rank) * arch.units(), arch.dim)
}

/// A scalar whose derivative in the head is `slope`.
fn along_head<B: Backend>(
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    slope: Slope<Tensor<B, 2>>,
) -> Tensor<B, 1> {
    let precision = match &weights.spikes {
        Some(spikes) => Tensor::cat(vec![spikes.excess.clone().matrix(), spikes.floor.clone().matrix()], 1),
        None => precision_of_head(arch, weights),
    };
    (precision * slope.precision).sum() + (weights.centre.clone().matrix() * slope.centre).sum()
}

/// What the gradient of an energy's loss needs, at n points y with k directions each.
pub struct Regression {
    /// ∂loss/∂(w(∇w(y)) - log det ∇²w(y)): [n].
    pub weight: Vec<f64>,
    /// y: [n, d].
    pub points: Vec<f64>,
    /// x = ∇w(y): [n, d].
    pub image: Vec<f64>,
    /// ∇w(x): [n, d].
    pub along: Vec<f64>,
    /// u with Σ_k u v' ≈ ∇²w(y)^{-1}, the first of all points, then the second of all: [k n, d].
    pub solved: Vec<f64>,
    /// v: [k n, d].
    pub probe: Vec<f64>,
}

/// Σ_i c_i ∂[w(∇w(y_i)) - log det ∇²w(y_i)] as the gradient of a scalar, with the c_i held fixed.
pub fn regression<B: Activates>(
    ops: &BurnOps<B>,
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
    parts: &Regression,
    device: &B::Device,
) -> Tensor<B, 1> {
    let formula = Formula::new(ops, arch, weights);
    let (d, n) = (arch.dim, parts.weight.len());
    let k = parts.solved.len() / parts.points.len();
    let rows = |a: &[f64], width: usize| Ranked::Two(rows::<B>(a, width, device));
    let at_image = formula.value(&rows(&parts.image, d)).matrix();
    let (first, second) = formula.directional(
        [n, k],
        &rows(&parts.points, d),
        &rows(&parts.along, d),
        [&rows(&parts.solved, d), &rows(&parts.probe, d)],
    );
    ((at_image + first.matrix() - second.matrix()) * rows(&parts.weight, 1).matrix()).sum()
}
