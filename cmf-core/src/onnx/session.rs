//! Sessions of ONNX Runtime, made of a graph as often as there are callers at once.

use std::sync::Arc;

use ort::ep::CUDA;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};
use prost::Message;
use tract_onnx::pb;

use super::onnxruntime::{Device, OnnxRuntime};
use super::proto::tensor_apart;
use super::recording::Recording;

/// What sessions of one graph are made of.
pub(super) struct Source {
    /// The encoded model, without what is shared.
    model: Vec<u8>,
    shared: Option<Shared>,
}

/// What sessions on the processor need only once: the matrices, and what the library makes of them for its products.
///
/// (Of five sessions of the digits each would copy 12 MB twice; two that work side by side share a cache as well. 1,000 digits
/// took 1.28 s instead of 1.41.)
struct Shared {
    matrices: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl Source {
    /// Of a graph that was written here. A GPU has matrices of its own.
    pub fn of_recording(recording: Recording, device: Device) -> ort::Result<Self> {
        if device != Device::Cpu {
            return Ok(Source::of_model(&recording.into_model()));
        }
        let (matrices, rows): (Vec<_>, _) =
            recording.constants.into_iter().partition(|(_, array)| array.shape()[0] > 1);
        let mut model = Recording { constants: rows, ..recording }.into_model();
        let apart = matrices.iter().map(|(name, array)| tensor_apart(name, array.shape()));
        model.graph.iter_mut().for_each(|graph| graph.initializer.extend(apart.clone()));
        let values = matrices.iter().map(|(name, array)| {
            let tensor = Tensor::from_array((array.shape(), array.to_vec()))?;
            Ok((name.clone(), Arc::new(tensor.into_dyn())))
        });
        let shared =
            Shared { matrices: values.collect::<ort::Result<_>>()?, packed: PrepackedWeights::new() };
        Ok(Source { model: model.encode_to_vec(), shared: Some(shared) })
    }

    /// Of any graph.
    pub fn of_model(model: &pb::ModelProto) -> Self {
        Source { model: model.encode_to_vec(), shared: None }
    }

    /// A session that computes on `device` or not at all.
    pub fn open(&self, runtime: &OnnxRuntime, device: Device, threads: usize) -> ort::Result<Session> {
        let mut builder = SessionBuilder::new(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            // Between two batches other threads have work to do.
            .with_intra_op_spinning(false)?;
        if let Device::Cuda(n) = device {
            // TF32 keeps ten bits of a factor, which is not what f32 promises.
            let cuda = CUDA::default().with_device_id(n as i32).with_tf32(false).build().error_on_failure();
            builder = builder.with_execution_providers([cuda])?.with_disable_cpu_fallback()?;
        }
        if let Some(Shared { matrices, packed }) = &self.shared {
            for (name, matrix) in matrices {
                // The graph's optimisers look for its numbers, and sessions share what they make only of what they share.
                builder = builder.with_external_initializer(name, matrix.clone())?;
                builder = builder.with_initializer(name, matrix.clone())?;
            }
            builder = builder.with_prepacked_weights(packed)?;
        }
        builder.commit_from_memory(&self.model)
    }
}
