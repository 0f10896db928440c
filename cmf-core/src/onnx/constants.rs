//! The network that a graph's constants hold.

use tract_onnx::pb;

use super::graph::{DIRECTIONS, FORMS_ALONG};
use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::host::{Array, Host};
use crate::icnn::{FormsAlong, Icnn, Weights};

/// The network of a graph that `metadata` describe, with its forms along the directions of the head if they are written so.
pub fn network(graph: &pb::GraphProto, metadata: &Metadata, is_along: bool) -> Result<Icnn<f32>> {
    let arch = &metadata.architecture;
    let along = match arch.head.rank().filter(|_| is_along) {
        Some(k) => Some(FormsAlong {
            forms: array(graph, FORMS_ALONG, [(1 + arch.rank) * arch.units(), k])?,
            directions: array(graph, DIRECTIONS, [k, arch.dim])?,
        }),
        None => None,
    };
    let weights = Weights::build(arch, |name, shape| match (name, &along) {
        ("x_side", Some(along)) => Ok(along.x_side(&Host::parallel())),
        _ => array(graph, name, shape),
    })?;
    let network = Icnn::new(arch.clone(), weights)?;
    let network = match &metadata.mixture {
        Some(mixture) => network.with_mixture(mixture.clone())?,
        None => network,
    };
    Ok(network.with_forms_along(along))
}

/// The numbers of the constant of this name, if it has any of float32.
pub fn numbers(graph: &pb::GraphProto, name: &str) -> Option<Vec<f32>> {
    find(graph, name).and_then(of_tensor)
}

fn find<'a>(graph: &'a pb::GraphProto, name: &str) -> Option<&'a pb::TensorProto> {
    graph.initializer.iter().find(|t| t.name == name)
}

/// The constant of this name, which has to have this shape.
fn array(graph: &pb::GraphProto, name: &str, shape @ [rows, cols]: [usize; 2]) -> Result<Array<f32>> {
    let found = find(graph, name)
        .ok_or_else(|| Error::Invalid(format!("the constant {name:?} of cmf.architecture is missing")))?;
    let fits = found.dims == [rows as i64, cols as i64];
    match of_tensor(found) {
        Some(numbers) if fits && numbers.len() == rows * cols => Ok(Array::matrix(numbers, rows, cols)),
        _ => Err(Error::Invalid(format!(
            "the constant {name:?} has the shape {:?}; cmf.architecture needs {shape:?} of float32",
            found.dims
        ))),
    }
}

fn of_tensor(tensor: &pb::TensorProto) -> Option<Vec<f32>> {
    let float = tensor.data_type == pb::tensor_proto::DataType::Float as i32;
    // Other writers may store numbers one by one; the checks know that there are as many as claimed.
    let (raw, _) = tensor.raw_data.as_chunks::<4>();
    float.then(|| match raw {
        [] => tensor.float_data.clone(),
        raw => raw.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    })
}
