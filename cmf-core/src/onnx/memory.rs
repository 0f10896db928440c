//! How much memory a graph's arrays take, known before any of them is made.
//!
//! A small file can ask for a large array: two constants of 4 MiB, [2^20, 1] and [1, 2^20], multiply to 4 TiB.
//! tract evaluates what depends on constants alone while it still derives shapes, so sizes are checked node
//! by node, ahead of it.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModel};

/// Most bytes of one array.
const MOST_ARRAY: u128 = 1 << 30;
/// Most bytes of all arrays of a graph together, weights included.
const MOST_TOTAL: u128 = 4 << 30;

/// Adds up arrays and refuses those that are too large.
#[derive(Default)]
struct Budget {
    total: u128,
}

impl Budget {
    fn add(&mut self, node: &str, shape: &[usize], element: usize) -> TractResult<()> {
        let bytes = shape.iter().fold(element as u128, |n, &d| n.saturating_mul(d as u128));
        self.total = self.total.saturating_add(bytes);
        if bytes > MOST_ARRAY {
            bail!(
                "node {node:?} makes an array {shape:?} of {} MiB; at most {} MiB are allowed",
                bytes >> 20,
                MOST_ARRAY >> 20
            );
        }
        if self.total > MOST_TOTAL {
            bail!("the graph's arrays take more than the {} MiB that are allowed", MOST_TOTAL >> 20);
        }
        Ok(())
    }
}

/// Derives the shapes of a graph whose inputs are known, in the order of evaluation, and checks each array
/// before it is made.
pub fn derive_within_bounds(model: &mut InferenceModel) -> TractResult<()> {
    let mut budget = Budget::default();
    for id in model.eval_order()? {
        let (inputs, outputs) = model.node_facts(id)?;
        let inputs: TVec<_> = inputs.into_iter().cloned().collect();
        let outputs: TVec<_> = outputs.into_iter().cloned().collect();
        let node = model.node_mut(id);
        let (name, op) = (node.name.clone(), &mut node.op);
        // By the rules of the operator alone, which look at shapes.
        let (_, shapes, _) = op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), tvec![])?;
        let constant = !inputs.is_empty() && inputs.iter().all(|fact| fact.value.concretize().is_some());
        for fact in &shapes {
            match (fact.shape.as_concrete_finite()?, fact.datum_type.concretize()) {
                (Some(shape), kind) => budget.add(&name, &shape, kind.map_or(8, |t| t.size_of()))?,
                (None, _) if constant => bail!("the size of node {name:?} cannot be derived"),
                (None, _) => (),
            }
        }
        // Small, so that it may be evaluated now; others may need its numbers for their shapes.
        let (_, outputs, _) = op.infer(inputs.iter().collect(), shapes.iter().collect(), tvec![])?;
        for (slot, fact) in outputs.into_iter().enumerate() {
            model.set_outlet_fact(OutletId::new(id, slot), fact)?;
        }
    }
    Ok(())
}

/// Checks all arrays of a graph whose shapes are derived.
pub fn check(model: &TypedModel) -> TractResult<()> {
    let mut budget = Budget::default();
    for node in model.nodes() {
        for output in &node.outputs {
            let Some(shape) = output.fact.shape.as_concrete() else {
                bail!("the size of node {:?} cannot be derived", node.name);
            };
            budget.add(&node.name, shape, output.fact.datum_type.size_of())?;
        }
    }
    Ok(())
}
