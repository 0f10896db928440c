//! The interpreter of [`Ops`] on Burn tensors, which training differentiates.

use burn::prelude::*;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{TensorPrimitive, activation};

use super::activation::Activates;
use crate::ops::{Activation, Ops};

/// A Burn tensor of rank 2 or 3.
#[derive(Debug, Clone)]
pub enum Ranked<B: Backend> {
    /// [rows, columns].
    Two(Tensor<B, 2>),
    /// [n, rows, columns].
    Three(Tensor<B, 3>),
}

impl<B: Backend> Ranked<B> {
    /// The tensor as rank 3, with one matrix if it has rank 2.
    fn stacked(&self) -> Tensor<B, 3> {
        match self {
            Ranked::Two(a) => a.clone().unsqueeze_dim(0),
            Ranked::Three(a) => a.clone(),
        }
    }

    /// The tensor as rank 2; the formulas only ask this of what has it.
    pub fn matrix(self) -> Tensor<B, 2> {
        match self {
            Ranked::Two(a) => a,
            Ranked::Three(a) => panic!("expected a matrix, found shape {:?}", a.dims()),
        }
    }
}

/// Applies the same expression to either rank.
macro_rules! each_rank {
    ($value:expr, $a:ident => $body:expr) => {
        match $value {
            Ranked::Two($a) => Ranked::Two({
                let $a = $a.clone();
                $body
            }),
            Ranked::Three($a) => Ranked::Three({
                let $a = $a.clone();
                $body
            }),
        }
    };
}

/// Applies the same expression to two tensors of equal rank.
macro_rules! both_ranks {
    ($left:expr, $right:expr, $a:ident, $b:ident => $body:expr) => {
        match ($left, $right) {
            (Ranked::Two($a), Ranked::Two($b)) => Ranked::Two({
                let ($a, $b) = ($a.clone(), $b.clone());
                $body
            }),
            (a, b) => Ranked::Three({
                let ($a, $b) = (a.stacked(), b.stacked());
                $body
            }),
        }
    };
}

/// A function that multiplies matrices.
type Product<B> = fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>;

/// A backend that can multiply matrices without rounding their numbers to fewer bits than f32 has.
#[cfg(any(test, feature = "cuda"))]
pub trait Precise: Activates {
    /// a b: [.., n, k], [.., k, m] -> [.., n, m].
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(test)]
impl Precise for burn::backend::Flex {
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as burn::tensor::ops::FloatTensorOps<Self>>::float_matmul(a, b)
    }
}

/// Evaluates [`Ops`] on Burn tensors of one device.
#[derive(Debug, Clone)]
pub struct BurnOps<B: Backend> {
    device: B::Device,
    product: Product<B>,
}

impl<B: Backend> BurnOps<B> {
    /// On `device`, with the products that its backend has, which NVIDIA's tensor cores round (TF32).
    pub fn new(device: B::Device) -> Self {
        BurnOps { device, product: B::float_matmul }
    }
}

#[cfg(any(test, feature = "cuda"))]
impl<B: Precise> BurnOps<B> {
    /// On `device`, with precise products; not to be differentiated.
    pub fn precise(device: B::Device) -> Self {
        BurnOps { device, product: B::product }
    }
}

/// a b by `product`.
fn multiplied<B: Backend, const D: usize>(
    product: Product<B>,
    a: Tensor<B, D>,
    b: Tensor<B, D>,
) -> Tensor<B, D> {
    let [a, b] = [a, b].map(|a| a.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(product(a, b)))
}

/// a b to the precision of f32: [n, k], [k, m] -> [n, m].
#[cfg(any(test, feature = "cuda"))]
pub fn product<B: Precise>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    multiplied(B::product, a, b)
}

impl<B: Activates> Ops for BurnOps<B> {
    type Tensor = Ranked<B>;

    fn matmul(&self, a: &Ranked<B>, b: &Ranked<B>) -> Ranked<B> {
        both_ranks!(a, b, a, b => multiplied(self.product, a, b))
    }
    fn transpose(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => a.transpose())
    }
    fn add(&self, a: &Ranked<B>, b: &Ranked<B>) -> Ranked<B> {
        both_ranks!(a, b, a, b => a + b)
    }
    fn sub(&self, a: &Ranked<B>, b: &Ranked<B>) -> Ranked<B> {
        both_ranks!(a, b, a, b => a - b)
    }
    fn mul(&self, a: &Ranked<B>, b: &Ranked<B>) -> Ranked<B> {
        both_ranks!(a, b, a, b => a * b)
    }
    fn scale(&self, a: &Ranked<B>, k: f64) -> Ranked<B> {
        each_rank!(a, a => a.mul_scalar(k))
    }
    fn offset(&self, a: &Ranked<B>, k: f64) -> Ranked<B> {
        each_rank!(a, a => a.add_scalar(k))
    }
    fn relu(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => activation::relu(a))
    }
    fn exp(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => a.exp())
    }
    fn ln(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => a.log())
    }
    fn sigmoid(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => activation::sigmoid(a))
    }
    fn positive(&self, a: &Ranked<B>) -> Ranked<B> {
        each_rank!(a, a => a.greater_elem(0.0).float())
    }
    fn sum(&self, a: &Ranked<B>, axis: usize) -> Ranked<B> {
        each_rank!(a, a => a.sum_dim(axis))
    }
    fn slice(&self, a: &Ranked<B>, axis: usize, from: usize, to: usize) -> Ranked<B> {
        each_rank!(a, a => a.narrow(axis, from, to - from))
    }
    fn concat(&self, parts: &[Ranked<B>], axis: usize) -> Ranked<B> {
        let all_two: Option<Vec<Tensor<B, 2>>> =
            parts.iter().map(|p| if let Ranked::Two(a) = p { Some(a.clone()) } else { None }).collect();
        match all_two {
            Some(parts) => Ranked::Two(Tensor::cat(parts, axis)),
            None => Ranked::Three(Tensor::cat(parts.iter().map(Ranked::stacked).collect(), axis)),
        }
    }
    fn unsqueeze(&self, a: &Ranked<B>, axis: usize) -> Ranked<B> {
        Ranked::Three(a.clone().matrix().unsqueeze_dim(axis))
    }
    fn squeeze(&self, a: &Ranked<B>, axis: usize) -> Ranked<B> {
        Ranked::Two(a.stacked().squeeze_dim(axis))
    }
    fn activation(&self, t: &Ranked<B>, kind: Activation, order: u8) -> Ranked<B> {
        each_rank!(t, t => {
            let out = B::activation(t.into_primitive().tensor(), kind, order);
            Tensor::from_primitive(TensorPrimitive::Float(out))
        })
    }
    fn identity(&self, d: usize) -> Ranked<B> {
        Ranked::Two(Tensor::eye(d, &self.device))
    }
}
