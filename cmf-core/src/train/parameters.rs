//! The trained numbers as a Burn module, and how positivity is built into them.
//!
//! Nonnegative weights are softplus of a free number; the head is Q = R R' + diag(softplus(δ)). The
//! effective weights that the formulas see are computed from these, so no step can leave the convex cone.

use burn::module::{Module, Param, ParamId};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::softplus;

use super::ops::Ranked;
use crate::error::{Error, Result};
use crate::host::{Array, Scalar};
use crate::icnn::{Architecture, Icnn, Weights};
use crate::linalg::SymmetricEigen;

/// Share of the head's smallest eigenvalue that starts in its diagonal part, which keeps Q positive
/// definite whatever R becomes.
const DIAGONAL_SHARE: f64 = 0.5;

/// What stands for zero, which is out of softplus' reach.
const LEAST_POSITIVE: f64 = 1e-6;

/// The free parameters of a network.
#[derive(Module, Debug)]
pub struct Parameters<B: Backend> {
    /// [(1 + r) N, d]: linear and squared forms.
    pub forms: Param<Tensor<B, 2>>,
    /// [1, N].
    pub bias: Param<Tensor<B, 2>>,
    /// Before softplus: [N, d].
    pub diagonal: Option<Param<Tensor<B, 2>>>,
    /// Before softplus, each relative to 1 / fan-in.
    pub mixing: Vec<Param<Tensor<B, 2>>>,
    /// Before softplus: [1, width].
    pub output: Param<Tensor<B, 2>>,
    /// R: [d, d].
    pub head_root: Param<Tensor<B, 2>>,
    /// δ before softplus: [1, d].
    pub head_diagonal: Param<Tensor<B, 2>>,
    /// a: [1, d].
    pub centre: Param<Tensor<B, 2>>,
}

/// The number whose softplus is `v` > 0.
fn softplus_inverse(v: f64) -> f64 {
    // ln(e^v - 1) = v + ln(1 - e^{-v}), which neither overflows nor cancels.
    v + (-(-v).exp_m1()).ln()
}

fn tensor<B: Backend>(data: &[f64], shape: [usize; 2], device: &B::Device) -> Tensor<B, 2> {
    let data: Vec<f32> = data.iter().map(|&v| v as f32).collect();
    Tensor::from_data(TensorData::new(data, shape), device)
}

fn numbers<B: Backend>(tensor: Tensor<B, 2>) -> Result<Array<f32>> {
    let [rows, cols] = tensor.dims();
    let data = tensor
        .into_data()
        .convert::<f32>()
        .to_vec()
        .map_err(|e| Error::Engine { engine: "burn", message: format!("{e:?}") })?;
    Ok(Array::matrix(data, rows, cols))
}

impl<B: Backend> Parameters<B> {
    /// Free parameters whose effective weights are those of `network`.
    pub fn from_network<T: Scalar>(network: &Icnn<T>, device: &B::Device) -> Result<Self> {
        let (arch, weights) = (network.architecture(), network.weights());
        let (d, forms) = (arch.dim, (1 + arch.rank) * arch.units());
        let flat = |a: &Array<T>| -> Vec<f64> { a.to_vec().iter().map(|v| v.to_f64()).collect() };
        let free = |a: &Array<T>, scale: f64| -> Vec<f64> {
            flat(a).iter().map(|v| softplus_inverse((v * scale).max(LEAST_POSITIVE))).collect()
        };
        let param = |data: &[f64], shape: [usize; 2]| Param::from_tensor(tensor::<B>(data, shape, device));
        let x_side = flat(&weights.x_side);
        let head = &x_side[forms * d..];
        let eigen = SymmetricEigen::new(head, d)?;
        if eigen.values[0].is_nan() || eigen.values[0] <= 0.0 {
            return Err(Error::NotPositiveDefinite("the head of the network".into()));
        }
        let share = DIAGONAL_SHARE * eigen.values[0];
        let root = eigen.apply(|v| (v - share).max(0.0).sqrt());
        Ok(Parameters {
            forms: param(&x_side[..forms * d], [forms, d]),
            bias: param(&flat(&weights.bias), [1, arch.units()]),
            diagonal: weights.diagonal.as_ref().map(|a| param(&free(a, 1.0), [arch.units(), d])),
            mixing: weights
                .mixing
                .iter()
                .zip(arch.widths.windows(2))
                .map(|(a, w)| param(&free(a, w[0] as f64), [w[0], w[1]]))
                .collect(),
            output: param(&free(&weights.output, 1.0), [1, weights.output.shape()[1]]),
            head_root: param(&root, [d, d]),
            head_diagonal: param(&vec![softplus_inverse(share); d], [1, d]),
            centre: param(&flat(&weights.centre), [1, d]),
        })
    }

    /// The effective weights, differentiable in the free parameters.
    pub fn weights(&self, arch: &Architecture) -> Weights<Ranked<B>> {
        let positive = |p: &Param<Tensor<B, 2>>| softplus(p.val(), 1.0);
        let root = self.head_root.val();
        let device = root.device();
        let diagonal = Tensor::eye(arch.dim, &device) * positive(&self.head_diagonal);
        let head = root.clone().matmul(root.transpose()) + diagonal;
        let centre = self.centre.val();
        Weights {
            pull: Ranked::Two(centre.clone().matmul(head.clone())),
            x_side: Ranked::Two(Tensor::cat(vec![self.forms.val(), head], 0)),
            diagonal: self.diagonal.as_ref().map(|p| Ranked::Two(positive(p))),
            mixing: self
                .mixing
                .iter()
                .map(|p| Ranked::Two(positive(p).div_scalar(p.dims()[0] as f64)))
                .collect(),
            bias: Ranked::Two(self.bias.val()),
            output: Ranked::Two(positive(&self.output)),
            centre: Ranked::Two(centre),
            constant: Ranked::Two(Tensor::zeros([1, 1], &device)),
        }
    }

    /// The arrays without diagonal and mixing, one after the other: those of a network with one hidden layer.
    fn shallow(&mut self) -> [&mut Param<Tensor<B, 2>>; 6] {
        let Parameters { forms, bias, output, head_root, head_diagonal, centre, .. } = self;
        [forms, bias, output, head_root, head_diagonal, centre]
    }

    /// The free numbers of a network with one hidden layer as one vector.
    pub fn shallow_numbers(&self) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for param in self.clone().shallow() {
            all.extend(numbers(param.val())?.to_vec().into_iter().map(f64::from));
        }
        Ok(all)
    }

    /// The same parameters with the numbers of [`Parameters::shallow_numbers`] replaced.
    pub fn with_shallow_numbers(mut self, mut numbers: &[f64]) -> Self {
        for param in self.shallow() {
            let [rows, cols] = param.dims();
            let (these, rest) = numbers.split_at(rows * cols);
            *param = param.clone().map(|t| tensor(these, [rows, cols], &t.device()));
            numbers = rest;
        }
        self
    }

    /// Parameters by learning rate: forms and biases, positive weights, head.
    pub fn groups(&self) -> [Vec<ParamId>; 3] {
        let positive = self.mixing.iter().chain([&self.output]).chain(&self.diagonal);
        [
            vec![self.forms.id, self.bias.id],
            positive.map(|p| p.id).collect(),
            vec![self.head_root.id, self.head_diagonal.id, self.centre.id],
        ]
    }
}

/// Effective weights as a network on the host.
pub fn network_of<B: Backend>(arch: &Architecture, weights: &Weights<Ranked<B>>) -> Result<Icnn<f32>> {
    // `build` asks in the order of `named`.
    let mut values = weights.named(arch).into_iter();
    let weights = Weights::build(arch, |name, _| match values.next() {
        Some((found, _, t)) if found == name => numbers(t.clone().matrix()),
        _ => Err(Error::Invalid(format!("no array {name}"))),
    })?;
    Icnn::new(arch.clone(), weights)
}
