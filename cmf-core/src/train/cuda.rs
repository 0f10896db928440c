//! Runs on NVIDIA's GPUs: the edge at which the backend's type ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::cuda::CudaDevice;
use burn::backend::{Autodiff, Cuda};
use burn::prelude::Tensor;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{TensorMetadata, TensorPrimitive};
use burn_cubecl::kernel::matmul::init_matmul_output;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;

use super::activation::Activates;
use super::device::DeviceTrainer;
use super::ops::{BurnOps, Precise, Ranked};
use super::trainer::Trainer;
use super::training::Training;
use crate::error::{Error, Result};
use crate::ops::{Activation, composed_activation};

/// By Burn's own kernels, one after the other.
impl Activates for Cuda {
    fn activation(t: FloatTensor<Self>, kind: Activation, order: u8) -> FloatTensor<Self> {
        let (shape, ops) = (t.shape(), BurnOps::<Self>::new(t.device.clone()));
        let row = Self::float_reshape(t, [1, shape.num_elements()].into());
        let row = Ranked::Two(Tensor::from_primitive(TensorPrimitive::Float(row)));
        let out = composed_activation(&ops, &row, kind, order).matrix().into_primitive().tensor();
        Self::float_reshape(out, shape)
    }
}

/// By the kernel that multiplies on the ordinary units: tensor cores round factors to 11 bits and cut sums off.
impl Precise for Cuda {
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let out = init_matmul_output(&a, &b, a.dtype);
        let kind = a.dtype.into();
        let mut kinds = MatmulElems::from_globals(&MatmulGlobalElems { lhs: kind, rhs: kind, out: kind });
        let [a, b] = [a, b].map(|t| InputBinding::new(t.binding(), kind));
        let on_units = Strategy::SimpleUnit(Default::default());
        let launched = launch_ref(&on_units, &out.client.clone(), a, b, out.clone().binding(), &mut kinds);
        // As for Burn's own products, a shape without a kernel is a fault of the program.
        launched.unwrap_or_else(|e| panic!("no kernel multiplies these matrices: {e:?}"));
        out
    }
}

impl Trainer {
    /// Goes on with the run on the GPUs of these numbers, which share every update's rows and have the parameters each.
    ///
    /// The GPUs' gradients and Hessian products at some particles are compared with the processor's first. Fails if
    /// they differ, if CUDA does not work, if the run learns from an energy, or if several GPUs cannot share it: the batch
    /// or the particles are no multiple of their number, or it has an amortiser. Look for NVIDIA's driver and compiler
    /// before: without them Burn panics, which is caught here but has been said on standard error by then.
    pub fn on_cuda(&self, gpus: &[u32]) -> Result<Box<dyn Training>> {
        let state = self.state()?;
        let devices = gpus.iter().map(|&n| CudaDevice::new(n as usize)).collect();
        let begin = || DeviceTrainer::<Autodiff<Cuda>>::from_state(state, devices);
        // Nothing that a panic leaves half done is used again.
        match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(run) => Ok(Box::new(run?)),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
                Err(Error::Engine { engine: "burn", message: format!("CUDA failed to start: {text}") })
            }
        }
    }
}
