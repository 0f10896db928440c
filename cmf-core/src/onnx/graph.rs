//! The network's functions as ONNX models.

use tract_onnx::pb;

use super::builder::{Dim, GraphBuilder, OPSET, Recorded};
use super::recording::Recording;
use crate::error::{Error, Result};
use crate::icnn::formula::Formula;
use crate::icnn::{FormsAlong, Icnn, Weights};
use crate::ops::Ops;
use crate::potential::Potential;

/// Version of the file format that goes with [`OPSET`] (ONNX 1.11).
const IR_VERSION: i64 = 8;

/// The constants of a network that goes through the directions of its head, in the place of `x_side`:
/// [`FormsAlong`].
pub(super) const FORMS_ALONG: &str = "forms_along";
pub(super) const DIRECTIONS: &str = "directions";

/// Who wrote a model file.
pub(super) const PRODUCER: &str = "cmf";

/// A function of the network that a graph can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// x [batch, d] -> value [batch], gradient [batch, d].
    ValueAndGradient,
    /// x, v [batch, d] -> hvp [batch, d].
    Hvp,
    /// x [batch, d] -> hessian [batch, d, d].
    Hessian,
    /// x [batch, d], m [batch, d, d] -> contraction [batch, d].
    HessianContraction,
}

impl Function {
    /// The four functions with the names that files and command lines use.
    pub const NAMED: [(Function, &str); 4] = [
        (Function::ValueAndGradient, "gradient"),
        (Function::Hvp, "hvp"),
        (Function::Hessian, "hessian"),
        (Function::HessianContraction, "contraction"),
    ];

    /// The function's name in [`Function::NAMED`].
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(f, _)| *f == self).map_or("", |(_, name)| name)
    }
}

/// The ONNX model of one function of the network.
pub(super) fn model(function: Function, network: &Icnn<f32>) -> Result<Recording> {
    recorded(builder(function), function, network, None)
}

/// The same for an engine of this process, which prepares it faster and needs more memory for it.
pub(super) fn to_run(function: Function, network: &Icnn<f32>) -> Result<Recording> {
    recorded(builder(function).folded(), function, network, None)
}

/// The graph of a model file: the value and gradient of w, and of V as gibbs_value [batch] and gibbs_gradient [batch, d]
/// where that is another function. With a mixture they are of the Gaussian that it takes a part of, and are named head_value
/// and head_gradient, so that nobody takes them for V.
pub(super) fn of_file(network: &Icnn<f32>) -> Result<Recording> {
    let head = network.gibbs().map(|head| match head.mixture() {
        None => ["gibbs_value", "gibbs_gradient"],
        Some(_) => ["head_value", "head_gradient"],
    });
    recorded(GraphBuilder::new(), Function::ValueAndGradient, network, head)
}

/// Whether `graph` is the one of a model file of this network, of whose outputs engines take the first two.
pub(super) fn is_of(network: &Icnn<f32>, graph: &pb::GraphProto) -> Result<bool> {
    let mut written = of_file(network)?;
    written.model.graph.iter_mut().for_each(keep_first_outputs);
    Ok(written.is(graph))
}

/// Leaves the outputs that engines take from a model file's graph, in their order.
pub(super) fn keep_first_outputs(graph: &mut pb::GraphProto) {
    graph.output.retain(|o| o.name == "value" || o.name == "gradient");
    graph.output.sort_by_key(|o| o.name != "value");
}

fn builder(function: Function) -> GraphBuilder {
    match function {
        Function::ValueAndGradient | Function::Hvp => GraphBuilder::new(),
        Function::Hessian | Function::HessianContraction => GraphBuilder::with_precise_tails(),
    }
}

/// `head` names further outputs: the value and gradient of the head alone.
fn recorded(
    ops: GraphBuilder,
    function: Function,
    network: &Icnn<f32>,
    head: Option<[&str; 2]>,
) -> Result<Recording> {
    let arch = network.architecture();
    let ops = ops.for_dimension(arch.dim);
    let (batch, d) = (Dim::Batch, Dim::Of(arch.dim));
    let x = ops.input("x", &[batch, d]);
    let constants = constants(&ops, network)?;
    let formula = Formula::new(&ops, arch, &constants);
    match function {
        Function::ValueAndGradient => {
            let (value, gradient) = formula.value_and_gradient(&x);
            ops.output("value", &ops.squeeze(&value, 1));
            ops.output("gradient", &gradient);
            if let Some(names) = head {
                let (value, gradient) = formula.head_value_and_gradient(&x);
                ops.output(names[0], &ops.squeeze(&value, 1));
                ops.output(names[1], &gradient);
            }
        }
        Function::Hvp => {
            let v = ops.input("v", &[batch, d]);
            ops.output("hvp", &formula.hvp(&formula.linearise(&x), &v));
        }
        Function::Hessian => ops.output("hessian", &formula.hessian(&formula.curved(&x))),
        Function::HessianContraction => {
            let m = ops.input("m", &[batch, d, d]);
            ops.output("contraction", &formula.hessian_contraction(&formula.curved(&x), &m));
        }
    }
    let (graph, constants) = ops.finish(function.name());
    let model = pb::ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: PRODUCER.into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..Default::default()
    };
    Ok(Recording { model, constants })
}

/// Stores the network's arrays under their names; of one that goes through its directions `x_side` is made from the two of
/// these.
fn constants(ops: &GraphBuilder, network: &Icnn<f32>) -> Result<Weights<Recorded>> {
    let (arch, weights) = (network.architecture(), network.weights());
    let named = weights.named(arch);
    let along = weights.along.as_ref().map(|along| FormsAlong {
        forms: ops.constant(FORMS_ALONG, &along.forms),
        directions: ops.constant(DIRECTIONS, &along.directions),
    });
    let built = Weights::build(arch, |name, _| {
        // Only what asks for whole Hessians needs it.
        if let ("x_side", Some(along)) = (name, &along) {
            return Ok(along.x_side(ops));
        }
        let (.., array) = named
            .iter()
            .find(|(n, ..)| n == name)
            .ok_or_else(|| Error::Invalid(format!("the weights have no array {name}")))?;
        Ok::<_, Error>(ops.constant(name, array))
    })?;
    Ok(Weights { along, ..built })
}
