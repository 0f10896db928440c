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

fn node(op: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        name: output.into(),
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// w(x) = Σ_j e^{x_j} in dimension 3, whose outputs come in the other order.
fn exponential() -> pb::ModelProto {
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
    assert!(file.metadata().is_none() && file.network().is_none());
    TractModel::load(&file)
}

/// Such a gradient has no inverse: no model is like that, but a broken runtime is.
#[test]
fn a_gradient_that_is_the_same_everywhere_is_refused() {
    let mut model = exponential();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].op_type = "Sign".into();
    graph.node.insert(0, node("Abs", &["points"], "size"));
    graph.node[1].input = vec!["shifted".into()];
    // sign(|x| + 1) is 1 everywhere.
    graph.initializer.push(pb::TensorProto {
        name: "constant".into(),
        data_type: pb::tensor_proto::DataType::Float as i32,
        float_data: vec![1.0],
        ..Default::default()
    });
    graph.node.insert(1, node("Add", &["size", "constant"], "shifted"));
    let message = load(&model).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("the gradient is the same at 0, 1 and -1"), "{message}");
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

/// The exponential model with `nodes` before it and `constants` of ones.
fn with(nodes: Vec<pb::NodeProto>, constants: &[(&str, &[i64])]) -> pb::ModelProto {
    let mut model = exponential();
    let graph = model.graph.as_mut().unwrap();
    graph.node.splice(0..0, nodes);
    graph.initializer.extend(constants.iter().map(|(name, dims)| pb::TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: pb::tensor_proto::DataType::Float as i32,
        float_data: vec![1.0; dims.iter().product::<i64>() as usize],
        ..Default::default()
    }));
    model
}

/// Adds the mean of `bomb` to the exponential's points, so that the outputs need it.
fn needs(mut model: pb::ModelProto, bomb: &str) -> pb::ModelProto {
    let graph = model.graph.as_mut().unwrap();
    let mut mean = node("ReduceMean", &[bomb], "mean");
    mean.attribute = vec![pb::AttributeProto {
        name: "keepdims".into(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        ..Default::default()
    }];
    let at = graph.node.iter().position(|n| n.op_type == "Exp").unwrap();
    graph.node[at].input[0] = "shifted".into();
    graph.node.splice(at..at, [mean, node("Add", &["points", "mean"], "shifted")]);
    model
}

#[cfg(feature = "ort")]
#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn with_onnxruntime_foreign_models_run_and_stay_within_bounds() {
    use cmf_core::onnx::{Device, OrtModel};
    let load = |model: &pb::ModelProto| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        OrtModel::load(&ModelFile::open(&path).unwrap(), crate::onnxruntime::runtime(), Device::Cpu)
    };
    let engine = load(&exponential()).unwrap();
    let x = [-1.0, 0.5, 1.0, 0.0, 2.0, -0.25];
    let (mut value, mut gradient) = ([0.0; 2], [0.0; 6]);
    engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    // One rounding to f32 a number.
    assert_close("gradient", &gradient, &x.map(f64::exp), 1e-6);
    let mut hv = [0.0; 6];
    engine.hvp(&x, &[1.0; 6], &mut hv).unwrap();
    // As for tract: central differences of an f32 gradient.
    assert_close("hvp", &hv, &x.map(f64::exp), 1e-4);

    let refused = |model: &pb::ModelProto, words: &[&str]| {
        let message = load(model).err().unwrap().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    // Of constants, which would be multiplied when the session is made.
    let nodes = vec![node("Mul", &["column", "row"], "bomb")];
    let bomb = with(nodes, &[("column", &[1 << 16, 1]), ("row", &[1, 1 << 16])]);
    refused(&needs(bomb, "bomb"), &["bomb", "[65536, 65536]", "1024 MiB"]);
    // The value is declared [n] but computed as [n, 1].
    let mut model = exponential();
    model.graph.as_mut().unwrap().node[1].attribute[0].i = 1;
    refused(&model, &["foreign.onnx", "value"]);
}

#[test]
fn a_small_file_cannot_ask_for_large_arrays() {
    let refused = |model: &pb::ModelProto, words: &[&str]| {
        assert!(model.encoded_len() < 1 << 20);
        let message = load(model).err().unwrap().to_string();
        for word in [&["foreign.onnx"], words].concat() {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    };
    let (column, row) = (("column", &[1 << 16, 1][..]), ("row", &[1, 1 << 16][..]));
    // Of constants alone, which would be multiplied while the shapes are derived: 16 GiB.
    for op in ["Mul", "Add", "Max", "MatMul", "Gemm"] {
        let bomb = with(vec![node(op, &["column", "row"], "bomb")], &[column, row]);
        refused(&needs(bomb, "bomb"), &["bomb", "[65536, 65536]", "16384 MiB", "1024 MiB"]);
    }
    let mut einsum = node("Einsum", &["column", "row"], "bomb");
    einsum.attribute = vec![pb::AttributeProto {
        name: "equation".into(),
        r#type: pb::attribute_proto::AttributeType::String as i32,
        s: b"ij,jk->ik".to_vec(),
        ..Default::default()
    }];
    refused(&needs(with(vec![einsum.clone()], &[column, row]), "bomb"), &["[65536, 65536]", "1024 MiB"]);
    einsum.input.push("row".into());
    refused(&needs(with(vec![einsum], &[column, row]), "bomb"), &["Einsum of 3 operands"]);
    // Of the input: [rows, 3] times [3, 2^15], then an outer product.
    let nodes = vec![
        node("MatMul", &["points", "wide"], "products"),
        node("ReduceMax", &["products"], "largest"),
        node("Add", &["largest", "tall"], "column"),
        node("Mul", &["column", "products"], "bomb"),
    ];
    let bomb = with(nodes, &[("wide", &[3, 1 << 15]), ("tall", &[1 << 15, 1])]);
    refused(&needs(bomb, "bomb"), &["bomb", "[32768, 32768]", "4096 MiB"]);
    // 2^40 numbers by doubling.
    let doubled = (0..40).map(|k| {
        let from = if k == 0 { "row".into() } else { format!("row_{k}") };
        let mut concat = node("Concat", &[&from, &from], &format!("row_{}", k + 1));
        concat.attribute = vec![pb::AttributeProto {
            name: "axis".into(),
            r#type: pb::attribute_proto::AttributeType::Int as i32,
            i: 1,
            ..Default::default()
        }];
        concat
    });
    let bomb = with(doubled.collect(), &[row]);
    refused(&needs(bomb, "row_40"), &["1024 MiB"]);
    // Each within the limit, 1 GiB, but not all together.
    let mut nodes = vec![
        node("ReduceMax", &["points"], "largest"),
        node("Add", &["largest", "column"], "tall"),
        node("Mul", &["tall", "row"], "sum_0"),
    ];
    nodes.extend((0..5).map(|k| node("Neg", &[&format!("sum_{k}")], &format!("sum_{}", k + 1))));
    let bomb = with(nodes, &[("column", &[1 << 14, 1]), ("row", &[1, 1 << 14])]);
    refused(&needs(bomb, "sum_5"), &["4096 MiB"]);
}

#[test]
fn what_no_output_needs_is_not_made() {
    let bomb = node("Mul", &["column", "row"], "bomb");
    load(&with(vec![bomb], &[("column", &[1 << 16, 1]), ("row", &[1, 1 << 16])])).unwrap();
}
