//! The network's activation as one node of the graph that training differentiates.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Node, OpsKind, unary};
use burn::backend::{Autodiff, Flex};
use burn::prelude::Backend;
use burn::tensor::TensorData;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};

use crate::host::{Array, Host};
use crate::ops::{Activation, Ops};

/// A backend with the network's activation and its derivatives.
///
/// In Burn's own operations a softplus is ten nodes, each with its pass backwards: most of an update in the plane. Here
/// the pass backwards is the derivative of the next order.
pub trait Activates: Backend {
    /// The derivative of order 0 to 3 at `t`; up to order 2 differentiable, where the backend differentiates.
    fn activation(t: FloatTensor<Self>, kind: Activation, order: u8) -> FloatTensor<Self>;
}

/// By the host's single pass.
impl Activates for Flex {
    fn activation(t: FloatTensor<Self>, kind: Activation, order: u8) -> FloatTensor<Self> {
        let data = t.into_data();
        let shape = data.shape.clone();
        let numbers: Vec<f32> = data.into_vec().expect("training's numbers are f32");
        let columns = numbers.len();
        let out = Host::<f32>::parallel().activation(&Array::matrix(numbers, 1, columns), kind, order);
        Self::float_from_data(TensorData::new(out.to_vec(), shape), &Default::default())
    }
}

/// The pass backwards.
#[derive(Debug)]
struct Derivative;

impl<B: Activates> Backward<B, 1> for Derivative {
    /// The point, and which derivative was taken there.
    type State = (FloatTensor<B>, Activation, u8);

    fn backward(self, node: Node<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (t, kind, order) = node.state;
        unary::<B, _>(node.parents, node.node, gradients, |gradient| {
            B::float_mul(gradient, B::activation(t, kind, order + 1))
        });
    }
}

impl<B: Activates, C: CheckpointStrategy> Activates for Autodiff<B, C> {
    fn activation(t: FloatTensor<Self>, kind: Activation, order: u8) -> FloatTensor<Self> {
        match Derivative.prepare::<C>([t.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                assert!(order < 3, "no derivative of order 4 to differentiate order 3 by");
                let out = B::activation(t.primitive.clone(), kind, order);
                prepared.finish((t.primitive, kind, order), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::activation(t.primitive, kind, order)),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;

    #[test]
    fn each_order_is_the_derivative_of_the_one_before() {
        // ELU's own second derivative jumps at 0, which is left out.
        let points = [-30.0f32, -1.3, -0.2, 0.4, 2.0, 40.0];
        for kind in [Activation::Elu, Activation::Softplus { beta: 2.5 }] {
            for order in 0..3 {
                // A column of a matrix, whose numbers do not lie side by side.
                let data =
                    TensorData::new(points.iter().flat_map(|&t| [t, 7.0]).collect(), [points.len(), 2]);
                let all = Tensor::<Autodiff<Flex>, 2>::from_data(data, &Default::default()).require_grad();
                let t = all.clone().narrow(1, 0, 1).into_primitive().tensor();
                let out = Autodiff::<Flex>::activation(t, kind, order);
                let out = Tensor::<Autodiff<Flex>, 2>::from_primitive(TensorPrimitive::Float(out));
                let gradient = all.grad(&out.clone().sum().backward()).unwrap();
                let [out, gradient]: [Vec<f32>; 2] =
                    [out.inner(), gradient].map(|a| a.narrow(1, 0, 1).into_data().to_vec().unwrap());
                for ((t, out), slope) in points.iter().zip(out).zip(gradient) {
                    let exact = kind.at(f64::from(*t));
                    let of_order = |k: u8| exact[usize::from(k)];
                    // A few roundings of f32.
                    let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 2e-6 * (1.0 + b.abs());
                    assert!(near(out, of_order(order)), "{kind:?} {t} {order}: {out}");
                    assert!(near(slope, of_order(order + 1)), "{kind:?} {t} {order}: {slope}");
                }
            }
        }
    }
}
