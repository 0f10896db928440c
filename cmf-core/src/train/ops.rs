//! The interpreter of [`Ops`] on Burn tensors, which training differentiates.

use burn::prelude::*;
use burn::tensor::activation;

use crate::ops::Ops;

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

/// Evaluates [`Ops`] on Burn tensors of one device.
#[derive(Debug, Clone)]
pub struct BurnOps<B: Backend> {
    device: B::Device,
    precise: bool,
}

impl<B: Backend> BurnOps<B> {
    /// On `device`, with the products that its backend has.
    pub fn new(device: B::Device) -> Self {
        BurnOps { device, precise: false }
    }

    /// On `device`, with every product a [`product`]; not to be differentiated.
    #[cfg(any(test, feature = "cuda"))]
    pub fn precise(device: B::Device) -> Self {
        BurnOps { device, precise: true }
    }
}

/// a b to the precision of f32 on devices whose products round their factors to 11 bits, too.
///
/// Burn's products on NVIDIA's tensor cores do that (TF32). Split into parts of 11 bits and the rest, three
/// products lose no more than 2^{-21} |a||b|; on other devices they are the plain product, cut in three.
pub fn product<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    let ([a, a_rest], [b, b_rest]) = (split(a), split(b));
    a.clone().matmul(b.clone()) + (a.matmul(b_rest) + a_rest.matmul(b))
}

/// The leading 11 bits of each number and the rest, which are exact (Dekker, 1971, section 5).
pub(super) fn split<B: Backend, const D: usize>(a: Tensor<B, D>) -> [Tensor<B, D>; 2] {
    // 2^s + 1 with s = 13, the bits that f32 has beyond 11.
    let scaled = a.clone().mul_scalar(8193.0);
    let leading = scaled.clone() - (scaled - a.clone());
    [leading.clone(), a - leading]
}

impl<B: Backend> Ops for BurnOps<B> {
    type Tensor = Ranked<B>;

    fn matmul(&self, a: &Ranked<B>, b: &Ranked<B>) -> Ranked<B> {
        if self.precise {
            return both_ranks!(a, b, a, b => product(a, b));
        }
        both_ranks!(a, b, a, b => a.matmul(b))
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
    fn identity(&self, d: usize) -> Ranked<B> {
        Ranked::Two(Tensor::eye(d, &self.device))
    }
}
