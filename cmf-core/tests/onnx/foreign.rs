//! ONNX models of other makers: run as they are, with Hessian products by finite differences.

use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::{Potential, SecondOrder};
use prost::Message;
use tract_onnx::pb;

use crate::assert_close;

fn value_info(name: &str, axes: &[Option<i64>]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let axis = |a: &Option<i64>| Dimension {
        value: Some(a.map_or(Value::DimParam("n".into()), Value::DimValue)),
        ..Default::default()
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: pb::tensor_proto::DataType::Float as i32,
        shape: Some(pb::TensorShapeProto { dim: axes.iter().map(axis).collect() }),
    };
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// w(x) = Σ_j e^{x_j} in dimension 3, whose outputs come in the other order.
fn exponential() -> pb::ModelProto {
    let node = |op: &str, inputs: &[&str], output: &str| pb::NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let mut sum = node("ReduceSum", &["gradient", "one"], "value");
    sum.attribute = vec![pb::AttributeProto {
        name: "keepdims".into(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        ..Default::default()
    }];
    let one = pb::TensorProto {
        name: "one".into(),
        dims: vec![1],
        data_type: pb::tensor_proto::DataType::Int64 as i32,
        int64_data: vec![1],
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
        producer_name: "somebody else".into(),
        graph: Some(pb::GraphProto {
            name: "exponential".into(),
            node: vec![node("Exp", &["points"], "gradient"), sum],
            initializer: vec![one],
            input: vec![value_info("points", &[None, Some(3)])],
            output: vec![value_info("gradient", &[None, Some(3)]), value_info("value", &[None])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn load(model: &pb::ModelProto) -> cmf_core::Result<TractModel> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let file = ModelFile::open(&path)?;
    assert!(file.metadata().is_none() && file.network()?.is_none());
    TractModel::load(&file)
}

#[test]
fn a_foreign_model_runs_with_hessians_by_differences() {
    let engine = load(&exponential()).unwrap();
    assert!(engine.note().unwrap().contains("finite differences"));
    let x = [-1.0, 0.5, 1.0, 0.0, 2.0, -0.25];
    let exponentials = x.map(f64::exp);
    let (mut value, mut gradient) = ([0.0; 2], [0.0; 6]);
    engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    // One rounding to f32 a number.
    assert_close("gradient", &gradient, &exponentials, 1e-6);
    assert_close("value", &value, &[0, 3].map(|i| exponentials[i..i + 3].iter().sum()), 1e-6);
    // Step 4e-3: rounding 6e-8 of the gradient over it, and its square for the curvature left out.
    let (v, mut hv) = ([1.0, -2.0, 0.5, 0.0, 0.0, 0.0], [0.0; 6]);
    engine.hvp(&x, &v, &mut hv).unwrap();
    assert_close("hvp", &hv, &std::array::from_fn::<_, 6, _>(|i| exponentials[i] * v[i]), 1e-4);
    let mut hessian = [0.0; 18];
    engine.hessian(&x, &mut hessian).unwrap();
    let expected: [f64; 18] =
        std::array::from_fn(|k| if k % 9 % 4 == 0 { exponentials[k / 9 * 3 + k % 9 / 4] } else { 0.0 });
    assert_close("hessian", &hessian, &expected, 1e-4);
    let message = engine.hessian_contraction(&x, &hessian, &mut [0.0; 6]).unwrap_err().to_string();
    assert!(message.contains("foreign"), "{message}");
}

#[test]
fn a_foreign_model_whose_shapes_are_wrong_is_refused() {
    // The value is declared [n] but computed as [n, 1].
    let mut model = exponential();
    model.graph.as_mut().unwrap().node[1].attribute[0].i = 1;
    let message = load(&model).err().unwrap().to_string();
    assert!(message.contains("foreign.onnx") && message.contains("value"), "{message}");
    // An axis that does not exist: the graph itself is wrong.
    let mut model = exponential();
    model.graph.as_mut().unwrap().initializer[0].int64_data = vec![5];
    let message = load(&model).err().unwrap().to_string();
    assert!(message.contains("foreign.onnx"), "{message}");
}
