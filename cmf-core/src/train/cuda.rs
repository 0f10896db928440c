//! Runs on NVIDIA's GPUs: the edge at which the backend's type ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::cuda::CudaDevice;
use burn::backend::{Autodiff, Cuda};

use super::device::DeviceTrainer;
use super::trainer::Trainer;
use super::training::Training;
use crate::error::{Error, Result};

impl Trainer {
    /// Goes on with the run on the GPU of number `n`.
    ///
    /// The GPU's gradients and Hessian products at some particles are compared with the processor's first. Fails if
    /// they differ, if CUDA does not work, or if the run learns from an energy. Look for NVIDIA's driver and compiler
    /// before: without them Burn panics, which is caught here but has been said on standard error by then.
    pub fn on_cuda(&self, n: u32) -> Result<Box<dyn Training>> {
        let state = self.state()?;
        let begin = || DeviceTrainer::<Autodiff<Cuda>>::from_state(state, CudaDevice::new(n as usize));
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
