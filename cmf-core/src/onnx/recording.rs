//! A graph as it was recorded, its arrays apart.

use tract_onnx::pb;

use super::proto::float_tensor;
use crate::host::Array;

/// An ONNX model whose arrays of float32 lie beside it, not copied: they are those of the network.
pub struct Recording {
    /// The model without them.
    pub model: pb::ModelProto,
    /// By name, in the order of their recording.
    pub constants: Vec<(String, Array<f32>)>,
}

impl Recording {
    /// The whole model, with these arrays before its other constants.
    pub fn into_model(mut self) -> pb::ModelProto {
        if let Some(graph) = &mut self.model.graph {
            let whole = self.constants.iter().map(|(name, array)| float_tensor(name, array));
            graph.initializer.splice(..0, whole);
        }
        self.model
    }

    /// Whether the whole model's graph is `found`, whose constants hold what they claim.
    pub fn is(&self, found: &pb::GraphProto) -> bool {
        let Some(graph) = &self.model.graph else { return false };
        let Some((arrays, others)) = found.initializer.split_at_checked(self.constants.len()) else {
            return false;
        };
        let same = |((name, array), tensor): (&(String, Array<f32>), &pb::TensorProto)| {
            let (bytes, _) = tensor.raw_data.as_chunks();
            *name == tensor.name
                && tensor.data_type == pb::tensor_proto::DataType::Float as i32
                && array.shape().iter().map(|&n| n as i64).eq(tensor.dims.iter().copied())
                && array.to_vec().iter().map(|v| v.to_le_bytes()).eq(bytes.iter().copied())
        };
        graph.name == found.name
            && graph.input == found.input
            && graph.output == found.output
            && graph.node == found.node
            && graph.initializer == others
            && self.constants.iter().zip(arrays).all(same)
    }
}
