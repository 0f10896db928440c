//! The dozen array operations that the network's formulas are written in.
//!
//! Three interpreters evaluate them: [`crate::host`] (f64 reference and fast f32), the ONNX graph
//! builder and Burn tensors. A value of [`Ops::Tensor`] is a row-major array of rank 2, or of rank 3
//! where the formulas need one matrix a row.

use serde::{Deserialize, Serialize};

/// A convex, nondecreasing activation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Activation {
    /// max(t, 0) + e^{min(t, 0)} - 1: once continuously differentiable.
    Elu,
    /// log(1 + e^{βt}) / β: smooth.
    Softplus {
        /// β > 0; the larger, the closer to max(t, 0).
        beta: f64,
    },
}

impl Activation {
    /// The activation and its derivatives of order 1 to 3 at `t`, as [`Ops::activation`] has them for arrays.
    pub fn at(self, t: f64) -> [f64; 4] {
        match self {
            Activation::Elu => {
                let slope = t.min(0.0).exp();
                let further = slope - if t > 0.0 { 1.0 } else { 0.0 };
                [t.max(0.0) + slope - 1.0, slope, further, further]
            }
            Activation::Softplus { beta } => {
                let t = beta * t;
                let tail = (-t.abs()).exp();
                let first = if t > 0.0 { 1.0 / (1.0 + tail) } else { tail / (1.0 + tail) };
                let second = first * (1.0 - first);
                let value = (t.max(0.0) + tail.ln_1p()) / beta;
                [value, first, beta * second, beta * beta * second * (1.0 - 2.0 * first)]
            }
        }
    }
}

/// Array operations with broadcasting of axes of length 1 (equal ranks).
pub trait Ops {
    /// A handle to an array; cloning is cheap.
    type Tensor: Clone;

    /// Matrix product over the last two axes. A rank-2 factor serves every matrix of a rank-3 one.
    fn matmul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// Σ a' b of at least one pair over the last two axes, where the sum is symmetric: [.., k, m] -> [.., m, m].
    ///
    /// An interpreter may compute one triangle and mirror it.
    fn symmetric_product(&self, pairs: &[[Self::Tensor; 2]]) -> Self::Tensor {
        let products = pairs.iter().map(|[a, b]| self.matmul(&self.transpose(a), b));
        products.reduce(|sum, product| self.add(&sum, &product)).expect("at least one pair")
    }
    /// Sums of a b over the last axis, whose number is `axis`; it stays with length 1.
    fn inner(&self, a: &Self::Tensor, b: &Self::Tensor, axis: usize) -> Self::Tensor {
        self.sum(&self.mul(a, b), axis)
    }
    /// a_i' M a_i for the rows a_i of a and each symmetric M: [N, d], [n, d, d] -> [n, N].
    ///
    /// An interpreter may read one triangle of M only.
    fn quadratic_forms(&self, a: &Self::Tensor, m: &Self::Tensor) -> Self::Tensor {
        self.squeeze(&self.inner(&self.matmul(a, m), &self.unsqueeze(a, 0), 2), 2)
    }
    /// Swaps the last two axes.
    fn transpose(&self, a: &Self::Tensor) -> Self::Tensor;
    /// a + b.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// a - b.
    fn sub(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// a b, elementwise.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Self::Tensor;
    /// k a for a number k.
    fn scale(&self, a: &Self::Tensor, k: f64) -> Self::Tensor;
    /// a + k for a number k.
    fn offset(&self, a: &Self::Tensor, k: f64) -> Self::Tensor;
    /// max(a, 0).
    fn relu(&self, a: &Self::Tensor) -> Self::Tensor;
    /// e^a.
    fn exp(&self, a: &Self::Tensor) -> Self::Tensor;
    /// ln a.
    fn ln(&self, a: &Self::Tensor) -> Self::Tensor;
    /// 1 / (1 + e^{-a}).
    fn sigmoid(&self, a: &Self::Tensor) -> Self::Tensor;
    /// 1 where a > 0, else 0; not differentiated.
    fn positive(&self, a: &Self::Tensor) -> Self::Tensor;
    /// Sum over one axis, which stays with length 1.
    fn sum(&self, a: &Self::Tensor, axis: usize) -> Self::Tensor;
    /// Elements `from..to` along `axis`, rank 2.
    fn slice(&self, a: &Self::Tensor, axis: usize, from: usize, to: usize) -> Self::Tensor;
    /// Joins along `axis`.
    fn concat(&self, parts: &[Self::Tensor], axis: usize) -> Self::Tensor;
    /// Rank 2 to rank 3: inserts an axis of length 1 at `axis`.
    fn unsqueeze(&self, a: &Self::Tensor, axis: usize) -> Self::Tensor;
    /// Rank 3 to rank 2: removes the axis of length 1 at `axis`.
    fn squeeze(&self, a: &Self::Tensor, axis: usize) -> Self::Tensor;

    /// The identity matrix [d, d].
    fn identity(&self, d: usize) -> Self::Tensor;

    /// The derivative of order 0 to 3 of the activation at `t`.
    ///
    /// ELU's second derivative jumps at 0; its third is taken without the atom there.
    fn activation(&self, t: &Self::Tensor, kind: Activation, order: u8) -> Self::Tensor {
        composed_activation(self, t, kind, order)
    }
}

/// [`Ops::activation`] by the other operations.
pub fn composed_activation<O: Ops + ?Sized>(
    ops: &O,
    t: &O::Tensor,
    kind: Activation,
    order: u8,
) -> O::Tensor {
    match kind {
        Activation::Elu => {
            // e^{min(t, 0)} is ELU's slope, and for t < 0 every further derivative.
            let slope = ops.exp(&ops.scale(&ops.relu(&ops.scale(t, -1.0)), -1.0));
            match order {
                0 => ops.offset(&ops.add(&ops.relu(t), &slope), -1.0),
                1 => slope,
                _ => ops.sub(&slope, &ops.positive(t)),
            }
        }
        Activation::Softplus { beta } => {
            let t = ops.scale(t, beta);
            if order == 0 {
                // relu(t) + ln(1 + e^{-|t|}) does not overflow.
                let magnitude = ops.add(&ops.relu(&t), &ops.relu(&ops.scale(&t, -1.0)));
                let tail = ops.ln(&ops.offset(&ops.exp(&ops.scale(&magnitude, -1.0)), 1.0));
                return ops.scale(&ops.add(&ops.relu(&t), &tail), 1.0 / beta);
            }
            let first = ops.sigmoid(&t);
            if order == 1 {
                return first;
            }
            let second = ops.mul(&first, &ops.offset(&ops.scale(&first, -1.0), 1.0));
            if order == 2 {
                return ops.scale(&second, beta);
            }
            let slope = ops.offset(&ops.scale(&first, -2.0), 1.0);
            ops.scale(&ops.mul(&second, &slope), beta * beta)
        }
    }
}
