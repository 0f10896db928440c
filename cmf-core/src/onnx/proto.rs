//! The messages of an ONNX graph.

use tract_onnx::pb;

use crate::host::Array;

pub fn node(name: &str, op: &str, inputs: &[&str], attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
    pb::NodeProto {
        name: name.into(),
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![name.into()],
        attribute,
        ..Default::default()
    }
}

pub fn integer(name: &str, i: i64) -> pb::AttributeProto {
    let r#type = pb::attribute_proto::AttributeType::Int as i32;
    pb::AttributeProto { name: name.into(), r#type, i, ..Default::default() }
}

pub fn integers(name: &str, ints: Vec<i64>) -> pb::AttributeProto {
    let r#type = pb::attribute_proto::AttributeType::Ints as i32;
    pb::AttributeProto { name: name.into(), r#type, ints, ..Default::default() }
}

pub fn float_tensor(name: &str, array: &Array<f32>) -> pb::TensorProto {
    let bytes = |v: f32| v.to_le_bytes();
    floats(name, array.shape(), array.to_vec().into_iter().map(bytes).collect::<Vec<_>>().into_flattened())
}

/// A number without axes.
pub fn number(name: &str, value: f32) -> pb::TensorProto {
    floats(name, &[], value.to_le_bytes().to_vec())
}

/// A tensor of float32 whose numbers the runtime is given apart.
#[cfg(feature = "ort")]
pub fn tensor_apart(name: &str, dims: &[usize]) -> pb::TensorProto {
    pb::TensorProto {
        data_location: Some(pb::tensor_proto::DataLocation::External as i32),
        external_data: vec![pb::StringStringEntryProto { key: "location".into(), value: "memory".into() }],
        ..floats(name, dims, Vec::new())
    }
}

fn floats(name: &str, dims: &[usize], raw_data: Vec<u8>) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: dims.iter().map(|&n| n as i64).collect(),
        data_type: pb::tensor_proto::DataType::Float as i32,
        raw_data,
        ..Default::default()
    }
}

pub fn integer_tensor(name: &str, value: i64) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: vec![1],
        data_type: pb::tensor_proto::DataType::Int64 as i32,
        raw_data: value.to_le_bytes().to_vec(),
        ..Default::default()
    }
}
