//! What engines evaluate of a model file: its graph, or a smaller one with the same answers.

use std::borrow::Cow;

use tract_onnx::pb;

use super::file::ModelFile;
use super::graph::{self, Function};
use crate::error::Result;
use crate::icnn::Icnn;

/// Share of the largest value at the probes that the units left out may add together, were each as active as any of their
/// layer: the tolerance of `cmf-cli verify` for values. Of the digits' 1,152 units 229 go, a sixth of all products; values
/// change by 4e-7 of the largest, about as much as f32 rounds them, and gradients by 3e-6.
const HIDDEN: f64 = 1e-5;

/// What an engine evaluates of a model file.
pub(super) struct Evaluated<'a> {
    /// The graph of the value and gradient.
    pub graph: Cow<'a, pb::ModelProto>,
    /// Whether the graph was written here. Another may ask for any memory.
    pub own: bool,
    /// The network of the graph, for its other functions; none of a foreign ONNX model.
    pub network: Option<Icnn<f32>>,
}

impl<'a> Evaluated<'a> {
    /// Takes the file's graph as it is, unless it is the one that is written here for its network.
    pub fn of(file: &'a ModelFile) -> Result<Self> {
        let graph = Cow::Borrowed(file.proto());
        let (Some(network), Some(metadata)) = (file.network()?, file.metadata()) else {
            return Ok(Evaluated { graph, own: false, network: None });
        };
        let mut written = graph::of_file(&network)?;
        written.graph.iter_mut().for_each(graph::keep_first_outputs);
        if written.graph != file.proto().graph {
            return Ok(Evaluated { graph, own: false, network: Some(network) });
        }
        let points: Vec<f64> = metadata.probes.iter().flat_map(|p| &p.x).map(|&v| f64::from(v)).collect();
        let largest = metadata.probes.iter().fold(0.0f64, |largest, p| largest.max(p.value.abs()));
        let lean = network.without_idle_units(&points, HIDDEN * largest)?;
        let graph = Cow::Owned(graph::to_run(Function::ValueAndGradient, &lean)?);
        Ok(Evaluated { graph, own: true, network: Some(lean) })
    }
}
