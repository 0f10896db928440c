//! What a model file must be before any runtime sees it.

use std::collections::HashSet;

use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};

/// Largest file that is read.
pub const MOST_BYTES: u64 = 512 << 20;

/// Versions of the ONNX file format and operator set that are read.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 4..=13;
const OPSETS: std::ops::RangeInclusive<i64> = 13..=18;

/// Standard operators that compute numbers from numbers: no control flow, no randomness, no input or
/// output, no tensors whose size is a number in the file rather than that of an operand.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "Cos",
    "Div",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "Gather",
    "Gemm",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Mean",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Slice",
    "Softmax",
    "Softplus",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Decodes the bytes of a file, or says why they are not an ONNX model.
pub fn decode(bytes: &[u8]) -> Result<pb::ModelProto, String> {
    use prost::Message;
    // Every ONNX writer starts with the field ir_version: tag 8 and a small number.
    let looks_like_onnx = matches!(bytes, [8, 1..=127, ..]);
    match (bytes, pb::ModelProto::decode(bytes)) {
        ([], _) => Err("the file is empty; expected an ONNX model".into()),
        (_, Ok(model)) if looks_like_onnx => Ok(model),
        (_, Err(e)) if looks_like_onnx => Err(format!(
            "the ONNX model is cut short or damaged ({e}) after {} bytes; copy or export it again",
            bytes.len()
        )),
        _ => {
            Err("this is not an ONNX model; expected a file written by `export` or another ONNX writer"
                .into())
        }
    }
}

/// Checks versions, operators, constants, connections, input and outputs; returns the dimension d.
pub fn check(model: &pb::ModelProto) -> Result<usize, String> {
    if !IR_VERSIONS.contains(&model.ir_version) {
        return Err(format!(
            "ONNX file format (IR) version {} is not supported; expected {} to {}",
            model.ir_version,
            IR_VERSIONS.start(),
            IR_VERSIONS.end()
        ));
    }
    let graph = model.graph.as_ref().ok_or("the ONNX model has no graph: the file is cut short")?;
    check_opset(model)?;
    if !model.functions.is_empty() {
        return Err("the model defines functions of its own; inline them when exporting".into());
    }
    if !model.training_info.is_empty() || !graph.sparse_initializer.is_empty() {
        return Err("the model holds training graphs or sparse constants, which are not supported".into());
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    graph.node.iter().try_for_each(check_node)?;
    let dim = check_interface(graph)?;
    check_connections(graph)?;
    Ok(dim)
}

fn check_opset(model: &pb::ModelProto) -> Result<(), String> {
    let standard = model.opset_import.iter().find(|o| is_standard(&o.domain));
    let version = standard
        .ok_or("the model names no version of the standard operators: the file is cut short")?
        .version;
    if OPSETS.contains(&version) {
        return Ok(());
    }
    Err(format!(
        "operator set {version} is not supported; expected {} to {}: export the model for operator set 17",
        OPSETS.start(),
        OPSETS.end()
    ))
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn check_node(node: &pb::NodeProto) -> Result<(), String> {
    if !is_standard(&node.domain) || !OPERATORS.contains(&node.op_type.as_str()) {
        let domain = if is_standard(&node.domain) { "ai.onnx" } else { &node.domain };
        return Err(format!(
            "node {:?} uses the operator {domain}:{}; only the {} standard operators of arithmetic are allowed",
            node.name,
            node.op_type,
            OPERATORS.len()
        ));
    }
    // Of more operands neither the time nor the memory follows from the shapes.
    if node.op_type == "Einsum" && node.input.len() > 2 {
        return Err(format!(
            "node {:?} is an Einsum of {} operands; expected at most 2: use several nodes",
            node.name,
            node.input.len()
        ));
    }
    for attribute in &node.attribute {
        if attribute.g.is_some() || !attribute.graphs.is_empty() || attribute.sparse_tensor.is_some() {
            return Err(format!(
                "node {:?} holds a graph or sparse tensor, which is not supported",
                node.name
            ));
        }
        attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)?;
    }
    Ok(())
}

/// Checks that every tensor is made once, before it is used.
fn check_connections(graph: &pb::GraphProto) -> Result<(), String> {
    let mut made: HashSet<&str> = HashSet::new();
    // Older files list constants among the inputs too.
    let inputs: HashSet<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    let constants = graph.initializer.iter().map(|t| t.name.as_str());
    for name in inputs.iter().copied().chain(constants.filter(|c| !inputs.contains(c))) {
        if !made.insert(name) {
            return Err(format!("the tensor {name:?} is defined twice"));
        }
    }
    for node in &graph.node {
        for name in node.input.iter().filter(|n| !n.is_empty()) {
            if !made.contains(name.as_str()) {
                return Err(format!("node {:?} uses the tensor {name:?} before it is made", node.name));
            }
        }
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if !made.insert(name) {
                return Err(format!("the tensor {name:?} is made twice"));
            }
        }
    }
    match graph.output.iter().find(|o| !made.contains(o.name.as_str())) {
        Some(output) => Err(format!("nothing makes the output {:?}", output.name)),
        None => Ok(()),
    }
}

/// Bytes of one element of the types that are read.
fn element_size(data_type: i32) -> Option<u64> {
    match DataType::try_from(data_type).ok()? {
        DataType::Float | DataType::Int32 => Some(4),
        DataType::Double | DataType::Int64 => Some(8),
        DataType::Bool => Some(1),
        _ => None,
    }
}

/// Checks that a constant holds, in the file, the numbers that its shape claims.
fn check_tensor(tensor: &pb::TensorProto) -> Result<(), String> {
    let (name, dims) = (&tensor.name, &tensor.dims);
    if tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty() {
        return Err(format!(
            "the constant {name:?} lies in another file (external data); export the model as one file"
        ));
    }
    let size = element_size(tensor.data_type).ok_or_else(|| {
        format!("the constant {name:?} has the element type {}, which is not supported", tensor.data_type)
    })?;
    let claimed = dims
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?))
        .ok_or_else(|| format!("the constant {name:?} claims the shape {dims:?}, which is not possible"))?;
    let typed = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len();
    let raw = tensor.raw_data.len() as u64;
    let held = if raw > 0 { raw / size } else { typed as u64 };
    let mixed = raw > 0 && (typed > 0 || !raw.is_multiple_of(size));
    if held != claimed || mixed || tensor.segment.is_some() {
        return Err(format!(
            "the constant {name:?} claims the shape {dims:?}, {claimed} numbers, but holds {held}"
        ));
    }
    Ok(())
}

/// Checks for one input x [batch, d] and the outputs value [batch] and gradient [batch, d], and returns d.
fn check_interface(graph: &pb::GraphProto) -> Result<usize, String> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|i| !constants.contains(i.name.as_str())).collect();
    let wrong = |hint: &str| {
        format!(
            "found the inputs: {}; the outputs: {}; expected one input [batch, d] and the outputs value [batch] \
             and gradient [batch, d], all float32{hint}",
            list(&inputs),
            list(&graph.output.iter().collect::<Vec<_>>())
        )
    };
    let [input] = inputs[..] else { return Err(wrong("")) };
    let d = match axes(input).as_deref() {
        Some([None, Some(d)]) if *d > 0 => *d,
        Some([Some(_), Some(_)]) => return Err(wrong(": export it with a dynamic batch axis")),
        _ => return Err(wrong("")),
    };
    let fits = |name: &str, expected: &[Option<usize>]| {
        graph.output.iter().any(|output| {
            // A shape that the file leaves open is checked when the runtime has derived it.
            let found = axes(output).unwrap_or_else(|| expected.to_vec());
            let same =
                |(found, expected): (&Option<usize>, &Option<usize>)| found.is_none() || found == expected;
            output.name == name
                && is_float(output)
                && found.len() == expected.len()
                && found.iter().zip(expected).all(same)
        })
    };
    if is_float(input) && fits("value", &[None]) && fits("gradient", &[None, Some(d)]) {
        return Ok(d);
    }
    Err(wrong(""))
}

fn tensor_type(value: &pb::ValueInfoProto) -> Option<&pb::type_proto::Tensor> {
    let pb::type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    Some(tensor)
}

fn is_float(value: &pb::ValueInfoProto) -> bool {
    tensor_type(value).is_some_and(|t| t.elem_type == DataType::Float as i32)
}

/// The declared axes, if any: a length, or none where it is symbolic.
fn axes(value: &pb::ValueInfoProto) -> Option<Vec<Option<usize>>> {
    use pb::tensor_shape_proto::dimension::Value;
    let dims = &tensor_type(value)?.shape.as_ref()?.dim;
    let length = |d: &pb::tensor_shape_proto::Dimension| match d.value {
        Some(Value::DimValue(n)) => Some(usize::try_from(n).unwrap_or(0)),
        _ => None,
    };
    Some(dims.iter().map(length).collect())
}

/// Names and shapes, for a message.
fn list(values: &[&pb::ValueInfoProto]) -> String {
    let show = |value: &&pb::ValueInfoProto| {
        let axis = |a: Option<usize>| a.map_or("batch".into(), |n| n.to_string());
        let axes = axes(value).map(|all| all.into_iter().map(axis).collect::<Vec<_>>().join(", "));
        format!("{} [{}]", value.name, axes.unwrap_or_else(|| "?".into()))
    };
    match values {
        [] => "none".into(),
        _ => values.iter().map(show).collect::<Vec<_>>().join(", "),
    }
}
