//! The trained numbers as a Burn module, and how positivity is built into them.
//!
//! Nonnegative weights are softplus of a free number; the head is Q = R R' + diag(softplus(δ)), or a spiked one whose
//! eigenvalues are softplus of free numbers and whose directions are fixed. The effective weights that the formulas see
//! are computed from these, so no step can leave the convex cone.

use burn::module::{Module, Param, ParamId};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::activation::Activates;
use super::ops::{BurnOps, Ranked};
use crate::error::{Error, Result};
use crate::host::{Array, Host, Scalar};
use crate::icnn::subspace::in_directions;
use crate::icnn::{Architecture, FormsAlong, GibbsFactor, Head, Icnn, Spikes, Weights};
use crate::linalg::{SymmetricEigen, largest};
use crate::ops::{Activation, Ops};
use crate::symmetric::Spiked;

/// Share of the head's smallest eigenvalue that starts in its diagonal part, which keeps Q positive
/// definite whatever R becomes.
const DIAGONAL_SHARE: f64 = 0.5;

/// The same where the Gibbs factor is of the head alone, whose least curvatures then fall far below the start's: its variance
/// along the leading axes of digits grows to thirty times the start's.
const DIAGONAL_SHARE_OF_FACTOR: f64 = 0.02;

/// How far forms may lie outside of a spiked head's directions, in units of the largest number: f32 rounds sums of a
/// few thousand terms.
const OUTSIDE: f64 = 1e-4;

/// What stands for zero, which is out of softplus' reach.
const LEAST_POSITIVE: f64 = 1e-6;

/// The free parameters of a network.
#[derive(Module, Debug)]
pub struct Parameters<B: Backend> {
    /// Linear and squared forms: [(1 + r) N, d], or beside a spiked head [(1 + r) N, k] in its directions.
    pub forms: Param<Tensor<B, 2>>,
    /// [1, N].
    pub bias: Param<Tensor<B, 2>>,
    /// Before softplus: [N, d].
    pub diagonal: Option<Param<Tensor<B, 2>>>,
    /// Before softplus, each relative to 1 / fan-in.
    pub mixing: Vec<Param<Tensor<B, 2>>>,
    /// Before softplus: [1, width].
    pub output: Param<Tensor<B, 2>>,
    /// R: [d, d]; of a spiked head V: [k, d], which no step moves.
    pub head_root: Param<Tensor<B, 2>>,
    /// Before softplus, δ: [1, d]; of a spiked head q and c: [1, k + 1].
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

/// R and the free diagonal of Q = R R' + diag(softplus(δ)).
fn full_head(head: &[f64], d: usize, share: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let eigen = SymmetricEigen::new(head, d)?;
    if eigen.values[0].is_nan() || eigen.values[0] <= 0.0 {
        return Err(Error::NotPositiveDefinite("the head of the network".into()));
    }
    let share = share * eigen.values[0];
    Ok((eigen.apply(|v| (v - share).max(0.0).sqrt()), vec![softplus_inverse(share); d]))
}

/// The coordinates [n, k] of the rows `forms` [n, d] in `directions` [k, d], in which they must lie.
fn within(forms: &[f64], directions: &[f64], d: usize) -> Result<Vec<f64>> {
    let rows = |a: &[f64]| Array::<f64>::from_f64(a, a.len() / d, d);
    let [inside, outside] = in_directions(&rows(forms), &rows(directions), &Host::parallel());
    let off = largest(&outside.to_f64s());
    if off > OUTSIDE * largest(forms).max(1.0) {
        return Err(Error::Invalid(format!(
            "beside a spiked head units look along its directions alone, and a form lies {off:.1e} outside of them"
        )));
    }
    Ok(inside.to_f64s())
}

/// V and the free eigenvalues q and c of a spiked head.
fn spiked_head(directions: &[f64], floor: f64, excess: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let values: Vec<f64> = excess.iter().map(|e| e + floor).chain([floor]).collect();
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    if smallest.is_nan() || smallest <= 0.0 {
        return Err(Error::NotPositiveDefinite("the head of the network".into()));
    }
    // Checks that the directions are orthonormal.
    Spiked::new(floor, values[..excess.len()].to_vec(), directions.to_vec())?;
    Ok((directions.to_vec(), values.into_iter().map(softplus_inverse).collect()))
}

impl<B: Backend> Parameters<B> {
    /// Free parameters whose effective weights are those of `network`.
    pub fn from_network<T: Scalar>(network: &Icnn<T>, device: &B::Device) -> Result<Self> {
        let (arch, weights) = (network.architecture(), network.weights());
        let (d, forms) = (arch.dim, (1 + arch.rank) * arch.units());
        let free = |a: &Array<T>, scale: f64| -> Vec<f64> {
            a.to_f64s().iter().map(|v| softplus_inverse((v * scale).max(LEAST_POSITIVE))).collect()
        };
        let param = |data: &[f64], shape: [usize; 2]| Param::from_tensor(tensor::<B>(data, shape, device));
        let x_side = weights.x_side.to_f64s();
        let head = &x_side[forms * d..];
        let forms_of_x = &x_side[..forms * d];
        let (forms_free, root, free_diagonal) = match &weights.spikes {
            None => {
                let share = match arch.gibbs {
                    GibbsFactor::Whole => DIAGONAL_SHARE,
                    GibbsFactor::Head => DIAGONAL_SHARE_OF_FACTOR,
                };
                let (root, free) = full_head(head, d, share)?;
                (forms_of_x.to_vec(), root, free)
            }
            Some(spikes) => {
                let (directions, free) =
                    spiked_head(head, spikes.floor.to_f64s()[0], &spikes.excess.to_f64s())?;
                let along = match &weights.along {
                    Some(along) => along.forms.to_f64s(),
                    None => within(forms_of_x, &directions, d)?,
                };
                (along, directions, free)
            }
        };
        Ok(Parameters {
            forms: param(&forms_free, [forms, forms_free.len() / forms]),
            bias: param(&weights.bias.to_f64s(), [1, arch.units()]),
            diagonal: weights.diagonal.as_ref().map(|a| param(&free(a, 1.0), [arch.units(), d])),
            mixing: weights
                .mixing
                .iter()
                .zip(arch.widths.windows(2))
                .map(|(a, w)| param(&free(a, w[0] as f64), [w[0], w[1]]))
                .collect(),
            output: param(&free(&weights.output, 1.0), [1, weights.output.shape()[1]]),
            head_root: param(&root, [root.len() / d, d]),
            head_diagonal: param(&free_diagonal, [1, free_diagonal.len()]),
            centre: param(&weights.centre.to_f64s(), [1, d]),
        })
    }

    /// The effective weights, differentiable in the free parameters.
    pub fn weights(&self, arch: &Architecture) -> Weights<Ranked<B>>
    where
        B: Activates,
    {
        let device = self.head_root.val().device();
        // Burn's own softplus overflows from 88 on, which mixing weights, in units of 1 / fan-in, do reach.
        let ops = BurnOps::<B>::new(device.clone());
        let softplus = Activation::Softplus { beta: 1.0 };
        let positive = |p: &Param<Tensor<B, 2>>| ops.activation(&Ranked::Two(p.val()), softplus, 0).matrix();
        let centre = self.centre.val();
        let diagonal = positive(&self.head_diagonal);
        let (forms, along, head, pull, spikes) = match arch.head {
            Head::Full => {
                let root = self.head_root.val();
                let diagonal = Tensor::eye(arch.dim, &device) * diagonal;
                let head = root.clone().matmul(root.transpose()) + diagonal;
                (self.forms.val(), None, head.clone(), centre.clone().matmul(head), None)
            }
            Head::Spiked { rank } => {
                // Without a derivative, so that the directions stay orthonormal.
                let directions = self.head_root.val().detach();
                let floor = diagonal.clone().narrow(1, rank, 1);
                let excess = diagonal.narrow(1, 0, rank) - floor.clone();
                let spikes = Spikes { floor: Ranked::Two(floor), excess: Ranked::Two(excess) };
                let forms = self.forms.val().matmul(directions.clone());
                let pull = centre.clone().matmul(directions.clone().transpose());
                let along = FormsAlong {
                    forms: Ranked::Two(self.forms.val()),
                    directions: Ranked::Two(directions.clone()),
                };
                (forms, Some(along), directions, pull, Some(spikes))
            }
        };
        Weights {
            pull: Ranked::Two(pull),
            spikes,
            x_side: Ranked::Two(Tensor::cat(vec![forms, head], 0)),
            along,
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
    let on_host = Weights::build(arch, |name, _| match values.next() {
        Some((found, _, t)) if found == name => numbers(t.clone().matrix()),
        _ => Err(Error::Invalid(format!("no array {name}"))),
    })?;
    let along = weights.along.as_ref().map(|along| along.try_map(|t| numbers(t.clone().matrix())));
    Ok(Icnn::new(arch.clone(), on_host)?.with_forms_along(along.transpose()?))
}
