//! The interpreter of [`Ops`] that records an ONNX graph instead of computing.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use tract_onnx::pb;

use super::proto::{float_tensor, integer, integer_tensor, integers, node, number};
use crate::host::{Array, Host};
use crate::ops::{Activation, Ops};

/// Operator set of the graphs written here.
pub const OPSET: i64 = 17;

/// Points of more coordinates than this have their long sums cut into blocks.
const LONG: usize = 1024;
/// Terms of a block.
const BLOCK: usize = 512;

/// The length of one axis of a recorded tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The symbolic batch axis.
    Batch,
    /// A known length.
    Of(usize),
}

impl Dim {
    /// The length of an axis made by broadcasting two.
    fn broadcast(self, other: Dim) -> Dim {
        if self == Dim::Of(1) { other } else { self }
    }

    fn proto(self) -> pb::tensor_shape_proto::Dimension {
        use pb::tensor_shape_proto::dimension::Value;
        let value = match self {
            Dim::Batch => Value::DimParam("batch".into()),
            Dim::Of(n) => Value::DimValue(n as i64),
        };
        pb::tensor_shape_proto::Dimension { denotation: String::new(), value: Some(value) }
    }
}

/// A tensor of the recorded graph: its name and shape.
#[derive(Debug, Clone)]
pub struct Recorded {
    name: Rc<str>,
    shape: Rc<[Dim]>,
}

/// Records standard ONNX nodes; the same node on the same inputs is recorded once.
///
/// A constant is stored once, as an initialiser: its slices and transposes are nodes, which runtimes
/// evaluate when they load the file, unless the graph is to be run at once.
#[derive(Default)]
pub struct GraphBuilder {
    state: RefCell<State>,
    precise_tails: bool,
    in_blocks: bool,
    folded: bool,
}

#[derive(Default)]
struct State {
    graph: pb::GraphProto,
    /// Arrays of float32, which are not copied into the graph.
    arrays: Vec<(String, Array<f32>)>,
    /// Output name of every node and of every constant but those given, by what it computes.
    known: HashMap<String, Rc<str>>,
    /// How many nodes of each operator there are, for their names.
    count: HashMap<&'static str, usize>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph whose sigmoids are small with few wrong digits, at the price of three more nodes each.
    ///
    /// ONNX Runtime's `Sigmoid` on the processor is off by 1e-7 also where it is 1e-3 itself; second and third
    /// derivatives of softplus, which are such small numbers times large ones, lose digits by that.
    pub fn with_precise_tails() -> Self {
        GraphBuilder { precise_tails: true, ..Self::default() }
    }

    /// With transposes of constants and slices of their rows as constants: a larger graph, whose matrices a runtime need not
    /// turn and cut each time that it prepares it. (ONNX Runtime makes a session for the digits in 15 ms instead of 35.)
    pub fn folded(self) -> Self {
        GraphBuilder { folded: true, ..self }
    }

    /// For points of dimension `d`: above [`LONG`] products and sums add up blocks.
    ///
    /// tract adds terms one after the other. Of the 3072 pixels of a face in colour the sums were off by so much that
    /// values were by 1.4e-5 of the largest.
    pub fn for_dimension(self, d: usize) -> Self {
        GraphBuilder { in_blocks: d > LONG, ..self }
    }

    /// The ends of the blocks of so many terms, if they are to be cut.
    fn blocks(&self, terms: Dim) -> Option<Vec<(usize, usize)>> {
        match terms {
            Dim::Of(terms) if self.in_blocks && terms > BLOCK => {
                let block = terms.div_ceil(terms.div_ceil(BLOCK));
                Some((0..terms).step_by(block).map(|from| (from, (from + block).min(terms))).collect())
            }
            _ => None,
        }
    }

    /// The sum of at least one part.
    fn total(&self, parts: impl Iterator<Item = Recorded>) -> Recorded {
        parts.reduce(|sum, part| self.add(&sum, &part)).expect("an axis has a block at least")
    }

    /// Declares a float32 input.
    pub fn input(&self, name: &str, shape: &[Dim]) -> Recorded {
        self.state.borrow_mut().graph.input.push(value_info(name, shape));
        Recorded { name: name.into(), shape: shape.into() }
    }

    /// Keeps a float32 constant.
    pub fn constant(&self, name: &str, array: &Array<f32>) -> Recorded {
        self.state.borrow_mut().arrays.push((name.into(), array.clone()));
        Recorded { name: name.into(), shape: array.shape().iter().map(|&n| Dim::Of(n)).collect() }
    }

    /// Declares `a` as the graph's output `name`.
    pub fn output(&self, name: &str, a: &Recorded) {
        let mut state = self.state.borrow_mut();
        state.graph.node.push(node(name, "Identity", &[&a.name], Vec::new()));
        state.graph.output.push(value_info(name, &a.shape));
    }

    /// The graph, without the nodes and constants that no output needs, and its arrays.
    pub fn finish(self, name: &str) -> (pb::GraphProto, Vec<(String, Array<f32>)>) {
        let State { mut graph, mut arrays, .. } = self.state.into_inner();
        graph.name = name.into();
        let mut needed: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
        // A node comes after the nodes it reads, so one pass backwards finds all that is needed.
        for node in graph.node.iter().rev() {
            if node.output.iter().any(|o| needed.contains(o)) {
                needed.extend(node.input.iter().cloned());
            }
        }
        graph.node.retain(|n| n.output.iter().any(|o| needed.contains(o)));
        graph.initializer.retain(|t| needed.contains(&t.name));
        arrays.retain(|(name, _)| needed.contains(name));
        (graph, arrays)
    }

    /// Records `op` on `inputs` unless it is there already.
    fn record(
        &self,
        op: &'static str,
        inputs: &[&Recorded],
        attributes: Vec<pb::AttributeProto>,
        shape: Rc<[Dim]>,
    ) -> Recorded {
        let inputs: Vec<&str> = inputs.iter().map(|t| &*t.name).collect();
        let key = format!("{op} {inputs:?} {attributes:?}");
        let mut state = self.state.borrow_mut();
        if let Some(name) = state.known.get(&key) {
            return Recorded { name: name.clone(), shape };
        }
        let count = state.count.entry(op).or_default();
        *count += 1;
        let name: Rc<str> = format!("{}_{count}", op.to_lowercase()).into();
        state.graph.node.push(node(&name, op, &inputs, attributes));
        state.known.insert(key, name.clone());
        Recorded { name, shape }
    }

    fn unary(&self, op: &'static str, a: &Recorded) -> Recorded {
        self.record(op, &[a], Vec::new(), a.shape.clone())
    }

    /// Records an elementwise node; a number (rank 0) goes with any shape.
    fn binary(&self, op: &'static str, a: &Recorded, b: &Recorded) -> Recorded {
        let (long, short) = if a.shape.len() >= b.shape.len() { (a, b) } else { (b, a) };
        let mut shape = long.shape.to_vec();
        for (axis, other) in shape.iter_mut().rev().zip(short.shape.iter().rev()) {
            *axis = axis.broadcast(*other);
        }
        self.record(op, &[a, b], Vec::new(), shape.into())
    }

    /// A constant that is known by what it holds: `tensor` makes it under the name it is given.
    fn shared(
        &self,
        key: String,
        shape: Rc<[Dim]>,
        tensor: impl FnOnce(&str) -> pb::TensorProto,
    ) -> Recorded {
        let mut state = self.state.borrow_mut();
        if let Some(name) = state.known.get(&key) {
            return Recorded { name: name.clone(), shape };
        }
        let name: Rc<str> = key.as_str().into();
        state.graph.initializer.push(tensor(&name));
        state.known.insert(key, name.clone());
        Recorded { name, shape }
    }

    /// A view of the constant `a` as a constant of its own. None where `a` is no constant, or where it is left to the runtime.
    fn folded_constant(
        &self,
        a: &Recorded,
        how: &str,
        shape: &Rc<[Dim]>,
        view: impl FnOnce(&Array<f32>) -> Array<f32>,
    ) -> Option<Recorded> {
        if !self.folded {
            return None;
        }
        let name: Rc<str> = format!("{}_{how}", a.name).into();
        let state = &mut *self.state.borrow_mut();
        if !state.known.contains_key(&*name) {
            let (_, whole) = state.arrays.iter().find(|(known, _)| **known == *a.name)?;
            let part = view(whole);
            state.arrays.push((name.to_string(), part));
            state.known.insert(name.to_string(), name.clone());
        }
        Some(Recorded { name, shape: shape.clone() })
    }

    fn number(&self, k: f64) -> Recorded {
        let k = k as f32;
        self.shared(format!("number_{k:?}"), Rc::new([]), |name| number(name, k))
    }

    /// An integer operand [1], such as an axis.
    fn integer(&self, k: usize) -> Recorded {
        self.shared(format!("integer_{k}"), Rc::new([Dim::Of(1)]), |name| integer_tensor(name, k as i64))
    }
}

impl Ops for GraphBuilder {
    type Tensor = Recorded;

    fn matmul(&self, a: &Recorded, b: &Recorded) -> Recorded {
        let (last_a, last_b) = (a.shape.len() - 1, b.shape.len() - 1);
        let mut shape: Vec<Dim> = match (last_a, last_b) {
            (2, 2) => vec![a.shape[0].broadcast(b.shape[0])],
            (2, _) => vec![a.shape[0]],
            (_, 2) => vec![b.shape[0]],
            _ => Vec::new(),
        };
        shape.extend([a.shape[last_a - 1], b.shape[last_b]]);
        let shape: Rc<[Dim]> = shape.into();
        let product = |a: &Recorded, b: &Recorded| self.record("MatMul", &[a, b], Vec::new(), shape.clone());
        match self.blocks(a.shape[last_a]) {
            Some(blocks) => self.total(blocks.into_iter().map(|(from, to)| {
                product(&self.slice(a, last_a, from, to), &self.slice(b, last_b - 1, from, to))
            })),
            None => product(a, b),
        }
    }

    fn transpose(&self, a: &Recorded) -> Recorded {
        let mut axes: Vec<usize> = (0..a.shape.len()).collect();
        let last = axes.len() - 1;
        axes.swap(last - 1, last);
        let shape: Rc<[Dim]> = axes.iter().map(|&i| a.shape[i]).collect();
        if a.shape.len() == 2
            && let Some(turned) =
                self.folded_constant(a, "transposed", &shape, |a| Host::sequential().transpose(a))
        {
            return turned;
        }
        let axes = axes.iter().map(|&i| i as i64).collect();
        self.record("Transpose", &[a], vec![integers("perm", axes)], shape)
    }

    fn add(&self, a: &Recorded, b: &Recorded) -> Recorded {
        self.binary("Add", a, b)
    }

    fn sub(&self, a: &Recorded, b: &Recorded) -> Recorded {
        self.binary("Sub", a, b)
    }

    fn mul(&self, a: &Recorded, b: &Recorded) -> Recorded {
        self.binary("Mul", a, b)
    }

    fn scale(&self, a: &Recorded, k: f64) -> Recorded {
        self.mul(a, &self.number(k))
    }

    fn offset(&self, a: &Recorded, k: f64) -> Recorded {
        self.add(a, &self.number(k))
    }

    fn relu(&self, a: &Recorded) -> Recorded {
        self.unary("Relu", a)
    }

    fn exp(&self, a: &Recorded) -> Recorded {
        self.unary("Exp", a)
    }

    fn ln(&self, a: &Recorded) -> Recorded {
        self.unary("Log", a)
    }

    fn sigmoid(&self, a: &Recorded) -> Recorded {
        if self.precise_tails {
            // Where e^{-a} overflows, its reciprocal is the right 0.
            let tail = self.exp(&self.scale(a, -1.0));
            return self.unary("Reciprocal", &self.offset(&tail, 1.0));
        }
        self.unary("Sigmoid", a)
    }

    fn positive(&self, a: &Recorded) -> Recorded {
        self.unary("Sign", &self.relu(a))
    }

    fn sum(&self, a: &Recorded, axis: usize) -> Recorded {
        let mut shape = a.shape.to_vec();
        shape[axis] = Dim::Of(1);
        let shape: Rc<[Dim]> = shape.into();
        let sum = |a: &Recorded| {
            let keep = vec![integer("keepdims", 1)];
            self.record("ReduceSum", &[a, &self.integer(axis)], keep, shape.clone())
        };
        match self.blocks(a.shape[axis]) {
            Some(blocks) => {
                self.total(blocks.into_iter().map(|(from, to)| sum(&self.slice(a, axis, from, to))))
            }
            None => sum(a),
        }
    }

    fn slice(&self, a: &Recorded, axis: usize, from: usize, to: usize) -> Recorded {
        if from == 0 && a.shape[axis] == Dim::Of(to) {
            return a.clone();
        }
        let mut shape = a.shape.to_vec();
        shape[axis] = Dim::Of(to - from);
        let shape = shape.into();
        if axis == 0 {
            let rows = |all: &Array<f32>| Host::sequential().slice(all, 0, from, to);
            if let Some(part) = self.folded_constant(a, &format!("{from}_{to}"), &shape, rows) {
                return part;
            }
        }
        let (from, to, axis) = (self.integer(from), self.integer(to), self.integer(axis));
        self.record("Slice", &[a, &from, &to, &axis], Vec::new(), shape)
    }

    fn concat(&self, parts: &[Recorded], axis: usize) -> Recorded {
        if let [only] = parts {
            return only.clone();
        }
        let mut shape = parts[0].shape.to_vec();
        shape[axis] = parts.iter().fold(Dim::Of(0), |sum, part| match (sum, part.shape[axis]) {
            (Dim::Of(a), Dim::Of(b)) => Dim::Of(a + b),
            _ => Dim::Batch,
        });
        let inputs: Vec<&Recorded> = parts.iter().collect();
        self.record("Concat", &inputs, vec![integer("axis", axis as i64)], shape.into())
    }

    fn unsqueeze(&self, a: &Recorded, axis: usize) -> Recorded {
        let mut shape = a.shape.to_vec();
        shape.insert(axis, Dim::Of(1));
        self.record("Unsqueeze", &[a, &self.integer(axis)], Vec::new(), shape.into())
    }

    fn squeeze(&self, a: &Recorded, axis: usize) -> Recorded {
        let mut shape = a.shape.to_vec();
        shape.remove(axis);
        self.record("Squeeze", &[a, &self.integer(axis)], Vec::new(), shape.into())
    }

    fn identity(&self, d: usize) -> Recorded {
        let shape = Rc::new([Dim::Of(d), Dim::Of(d)]);
        self.shared(format!("identity_{d}"), shape, |name| {
            float_tensor(name, &Host::sequential().identity(d))
        })
    }

    /// The same functions as the default's, in fewer passes over the array.
    fn activation(&self, t: &Recorded, kind: Activation, order: u8) -> Recorded {
        match kind {
            Activation::Elu => {
                let slope = self.exp(&self.binary("Min", t, &self.number(0.0)));
                match order {
                    // e^t - 1 >= t, with equality of value and slope at 0.
                    0 => self.binary("Max", t, &self.offset(&slope, -1.0)),
                    1 => slope,
                    _ => self.sub(&slope, &self.positive(t)),
                }
            }
            Activation::Softplus { beta } => {
                let t = self.scale(t, beta);
                let first = self.sigmoid(&t);
                let rest = self.sub(&self.number(1.0), &first);
                match order {
                    // relu(t) - ln sigmoid(|t|), which does not overflow.
                    0 => {
                        let tail = self.ln(&self.binary("Max", &first, &rest));
                        self.scale(&self.sub(&self.relu(&t), &tail), 1.0 / beta)
                    }
                    1 => first,
                    2 => self.scale(&self.mul(&first, &rest), beta),
                    _ => {
                        let second = self.scale(&self.mul(&first, &rest), beta);
                        self.mul(&second, &self.scale(&self.sub(&rest, &first), beta))
                    }
                }
            }
        }
    }
}

fn value_info(name: &str, shape: &[Dim]) -> pb::ValueInfoProto {
    let shape = pb::TensorShapeProto { dim: shape.iter().map(|d| d.proto()).collect() };
    let tensor =
        pb::type_proto::Tensor { elem_type: pb::tensor_proto::DataType::Float as i32, shape: Some(shape) };
    let r#type =
        pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: name.into(), r#type: Some(r#type), doc_string: String::new() }
}
