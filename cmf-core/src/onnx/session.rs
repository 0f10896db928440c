//! Sessions of ONNX Runtime, made of a graph as often as there are callers at once.

use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::CUDA;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};
use prost::Message;
use rayon::prelude::*;
use tract_onnx::pb;

use super::onnxruntime::{Device, OnnxRuntime, failed, guarded};
use super::proto::tensor_apart;
use super::recording::Recording;
use crate::error::Result;

/// How many threads compute in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// One: each of the threads that share a batch has a session of its own.
    One,
    /// All.
    All,
}

/// The sessions of one graph: as many as there are callers at once, for a session serves one call at a time.
pub(super) struct Sessions {
    source: Source,
    runtime: &'static OnnxRuntime,
    device: Device,
    held: Mutex<Held>,
}

/// By width.
#[derive(Default)]
struct Held {
    idle: [Vec<Opened>; 2],
    opened: [bool; 2],
    /// Rows that sessions of one width have taken for want of the other.
    makeshift: usize,
}

/// A session, and numbers for its next call, whose memory is asked for once.
pub(super) struct Opened {
    pub session: Session,
    pub inputs: [Vec<f32>; 2],
}

/// Rows that sessions of the wrong width take before others are opened: what they lose by it is then about what opening
/// costs. (For the digits that is 20 ms, in which 600 rows are evaluated; the wrong width takes an eighth longer for large
/// batches and half as long again for small ones. Of 1,000 digits' six sessions three are left.)
const MAKESHIFT: usize = 2048;

impl Sessions {
    pub fn new(source: Source, runtime: &'static OnnxRuntime, device: Device) -> Self {
        Sessions { source, runtime, device, held: Mutex::default() }
    }

    /// The width for a batch of so many rows, which one `suits`.
    pub fn width(&self, rows: usize, suits: Width) -> Width {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let other = if suits == Width::One { Width::All } else { Width::One };
        if held.opened[suits as usize] || !held.opened[other as usize] || held.makeshift >= MAKESHIFT {
            return suits;
        }
        held.makeshift += rows;
        other
    }

    /// How many sessions of this width are idle.
    #[cfg(test)]
    pub fn idle(&self, width: Width) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).idle[width as usize].len()
    }

    /// Calls `run` with an idle session of this width, or a new one. One that failed is not used again.
    pub fn with<T>(&self, width: Width, run: impl FnOnce(&mut Opened) -> Result<T>) -> Result<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.opened[width as usize] = true;
        let idle = held.idle[width as usize].pop();
        drop(held);
        let mut session = match idle {
            Some(session) => session,
            None => {
                let threads = if width == Width::One { 1 } else { rayon::current_num_threads() };
                let session =
                    guarded(|| self.source.open(self.runtime, self.device, threads).map_err(failed))?;
                Opened { session, inputs: Default::default() }
            }
        };
        let out = run(&mut session)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.idle[width as usize].push(session);
        Ok(out)
    }
}

/// What sessions of one graph are made of.
pub(super) struct Source {
    /// The encoded model, without what is shared.
    model: Vec<u8>,
    shared: Option<Shared>,
}

/// What sessions on the processor need only once: the matrices, and what the library makes of them for its products.
///
/// (Each session of the digits would copy 12 MB twice; and two that work side by side share a cache.)
struct Shared {
    matrices: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl Source {
    /// Of a graph that was written here. A GPU has matrices of its own.
    pub fn of_recording(recording: Recording, device: Device) -> Result<Self> {
        guarded(|| Source::shared(recording, device).map_err(failed))
    }

    fn shared(recording: Recording, device: Device) -> ort::Result<Self> {
        if device != Device::Cpu {
            return Ok(Source::of_model(&recording.into_model()));
        }
        let (matrices, rows): (Vec<_>, _) =
            recording.constants.into_iter().partition(|(_, array)| array.shape()[0] > 1);
        let mut model = Recording { constants: rows, ..recording }.into_model();
        let apart = matrices.iter().map(|(name, array)| tensor_apart(name, array.shape()));
        model.graph.iter_mut().for_each(|graph| graph.initializer.extend(apart.clone()));
        let numbers = matrices.par_iter().map(|(_, array)| array.to_vec()).collect::<Vec<_>>();
        let values = matrices.iter().zip(numbers).map(|((name, array), numbers)| {
            let tensor = Tensor::from_array((array.shape(), numbers))?;
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
    fn open(&self, runtime: &OnnxRuntime, device: Device, threads: usize) -> ort::Result<Session> {
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
