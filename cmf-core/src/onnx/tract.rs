//! The network run by tract, an ONNX runtime in pure Rust.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::optim::Optimizer;

use super::differences;
use super::file::ModelFile;
use super::graph::{self, Function};
use super::lean::Evaluated;
use super::memory;
use super::probes;
use crate::error::{Error, Result};
use crate::head_factor::HeadFactor;
use crate::icnn::Icnn;
use crate::potential::{
    LogDetGradient, Potential, Purpose, SecondOrder, Subspace, Whitened, check_hessian, check_hvp,
    check_value_and_gradient,
};

/// The functions that tract evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Planned {
    ValueAndGradient,
    Hvp,
}

/// A graph that tract has optimised for one number of rows.
type Plan = Arc<TypedRunnableModel>;

/// A model file's potential, evaluated by tract in f32 on this machine's processor.
///
/// The value and gradient come from the graph of the file, or from one without its idle units; the graph of Hessian
/// products is made from the same weights when first asked for. Whole Hessians and their contractions are products
/// of large dense matrices per row: the host's interpreter takes them from the same weights, one triangle of a
/// Hessian only, in less than half of tract's time.
pub struct TractModel {
    dim: usize,
    network: Option<Icnn<f32>>,
    /// The graph of the value and gradient, and that of Hessian products once it was asked for.
    graphs: Mutex<HashMap<Planned, InferenceModel>>,
    plans: Mutex<HashMap<(Planned, usize), Plan>>,
}

impl TractModel {
    /// Makes the file's model ready and replays its probes, or evaluates a foreign model at 0.
    ///
    /// Fails if tract cannot run the graph or an answer is not the recorded one.
    pub fn load(file: &ModelFile) -> Result<Self> {
        let Evaluated { graph, network } = Evaluated::of(file)?;
        let first = translate(&graph.into_model()).map_err(|e| Error::file(file.path(), e))?;
        let model = TractModel::new(file.dim(), network, first);
        probes::check(&model, file)?;
        Ok(model)
    }

    /// `first` is the graph of the value and gradient.
    fn new(dim: usize, network: Option<Icnn<f32>>, first: InferenceModel) -> Self {
        let graphs = Mutex::new(HashMap::from([(Planned::ValueAndGradient, first)]));
        TractModel { dim, network, graphs, plans: Mutex::default() }
    }

    /// What a caller should know about the model's answers, if anything.
    pub fn note(&self) -> Option<&'static str> {
        match self.network {
            Some(_) => None,
            None => Some("a foreign ONNX model: Hessian products are finite differences of its gradient"),
        }
    }

    /// The plan of `function` for `rows` rows, made when first asked for.
    fn plan(&self, function: Planned, rows: usize) -> Result<Plan> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&(function, rows)) {
            return Ok(plan.clone());
        }
        let plan = optimise(self.graph(function)?, function, rows, self.dim)?;
        plans.insert((function, rows), plan.clone());
        Ok(plan)
    }

    fn graph(&self, function: Planned) -> Result<InferenceModel> {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = graphs.get(&function) {
            return Ok(graph.clone());
        }
        // That of the value and gradient is always there, so this one is asked for.
        let graph = translate(&graph::to_run(Function::Hvp, self.known("Hessian products")?)?.into_model())?;
        graphs.insert(function, graph.clone());
        Ok(graph)
    }

    /// The network, which a foreign model does not tell.
    fn known(&self, what: &str) -> Result<&Icnn<f32>> {
        self.network.as_ref().ok_or_else(|| failed(format!("a foreign ONNX model gives no {what}")))
    }

    /// Evaluates `function` on n rows, which the threads share in pieces.
    fn evaluate<const I: usize, const O: usize>(
        &self,
        function: Planned,
        n: usize,
        inputs: [&[f64]; I],
        outputs: [&mut [f64]; O],
    ) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let rows = n.div_ceil(rayon::current_num_threads()).clamp(LEAST_ROWS, MOST_ROWS);
        let columns = outputs.map(|out| (out.len() / n, out));
        // Plans are made before the threads start, so that none waits for another's.
        let mut pieces = Vec::new();
        let mut rest = columns;
        for from in (0..n).step_by(rows) {
            let held = rows.min(n - from);
            let plan = self.plan(function, plan_rows(held))?;
            let out: [&mut [f64]; O] = rest.each_mut().map(|(len, out)| {
                let (head, tail) = std::mem::take(out).split_at_mut(held * *len);
                *out = tail;
                head
            });
            pieces.push((from, held, plan, out));
        }
        pieces.into_par_iter().try_for_each(|(from, held, plan, out)| {
            let inputs = inputs.map(|a| &a[from * (a.len() / n)..][..held * (a.len() / n)]);
            run(&plan, self.dim, held, inputs, out)
        })
    }
}

/// Most rows that one thread takes at a time: enough for efficient products, few enough for the
/// intermediate arrays to stay in its cache.
const MOST_ROWS: usize = 64;

/// Fewest rows of a piece of a batch: tract's products work on about a dozen rows at a time, so fewer are not faster.
const LEAST_ROWS: usize = 8;

/// Rows of the plan that evaluates `held` rows: few sizes, so that few plans serve every batch.
fn plan_rows(held: usize) -> usize {
    [1, LEAST_ROWS, 16, 32].into_iter().find(|&rows| held <= rows).unwrap_or(MOST_ROWS)
}

/// Runs a plan on `held` rows, filled up with zeros to the plan's own number.
fn run<const I: usize, const O: usize>(
    plan: &Plan,
    d: usize,
    held: usize,
    inputs: [&[f64]; I],
    outputs: [&mut [f64]; O],
) -> Result<()> {
    let shape = [plan_rows(held), d];
    let tensors = inputs
        .into_iter()
        .map(|data| {
            let mut single: Vec<f32> = data.iter().map(|&v| v as f32).collect();
            single.resize(shape.iter().product(), 0.0);
            Ok(Tensor::from_shape(&shape, &single)?.into())
        })
        .collect::<TractResult<TVec<TValue>>>()
        .map_err(failed)?;
    let results = guarded(|| plan.run(tensors))?;
    for (result, out) in results.iter().zip(outputs) {
        let result = result.try_as_plain_ram().and_then(|r| r.as_slice::<f32>()).map_err(failed)?;
        out.iter_mut().zip(result).for_each(|(o, r)| *o = f64::from(*r));
    }
    Ok(())
}

fn translate(proto: &pb::ModelProto) -> Result<InferenceModel> {
    guarded(|| tract_onnx::onnx().model_for_proto_model(proto))
}

/// Optimises a graph for `rows` rows and checks that its outputs have the shapes that they should.
fn optimise(mut model: InferenceModel, function: Planned, rows: usize, d: usize) -> Result<Plan> {
    let (inputs, expected): (_, &[(&str, &[usize])]) = match function {
        Planned::ValueAndGradient => (1, &[("value", &[rows]), ("gradient", &[rows, d])]),
        Planned::Hvp => (2, &[("hvp", &[rows, d])]),
    };
    let typed = guarded(move || {
        for i in 0..inputs {
            model.set_input_fact(i, f32::fact([rows, d]).into())?;
        }
        let mut model = model.into_compact()?;
        memory::derive_within_bounds(&mut model)?;
        model.into_typed()
    })?;
    for (i, (name, shape)) in expected.iter().enumerate() {
        let found = typed.output_fact(i).map_err(failed)?;
        if found.datum_type != f32::datum_type() || found.shape.as_concrete() != Some(shape) {
            return Err(failed(format!(
                "the output {name} comes out as {found:?}; expected float32 {shape:?} for {rows} rows"
            )));
        }
    }
    guarded(move || {
        memory::check(&typed)?;
        optimised(typed)?.into_runnable()
    })
}

/// Runs tract's optimisers but for the pass that merges equal nodes.
///
/// In 0.23.9 that pass may merge two nodes each into the other, which leaves neither ("eval() called on a
/// Dummy op"); it happens where weights are zero. The graphs written here hold no equal nodes.
fn optimised(mut model: TypedModel) -> TractResult<TypedModel> {
    let [mut declutter, mut codegen] = [Optimizer::declutter(), Optimizer::codegen()];
    for optimiser in [&mut declutter, &mut codegen] {
        optimiser.passes.retain(|pass| format!("{pass:?}") != "PushSplitDown");
    }
    declutter.optimize(&mut model)?;
    model.optimize_with_session(&mut codegen.session())?;
    Ok(model)
}

/// Fails if a graph's arrays for `rows` rows would take too much memory; runs nothing of the size that it refuses.
#[cfg(feature = "ort")]
pub(super) fn check_memory(proto: &pb::ModelProto, rows: usize, d: usize) -> Result<()> {
    let mut model = translate(proto)?;
    guarded(move || {
        model.set_input_fact(0, f32::fact([rows, d]).into())?;
        memory::derive_within_bounds(&mut model.into_compact()?)
    })
}

/// Runs tract, which checks less of a foreign graph than it should: a panic of its becomes an error.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| failed(format!("{e:#}"))),
        Err(_) => Err(failed("the graph makes the runtime panic")),
    }
}

fn failed(message: impl ToString) -> Error {
    Error::Engine { engine: "tract", message: message.to_string() }
}

impl Potential for TractModel {
    fn dim(&self) -> usize {
        self.dim
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let n = check_value_and_gradient(self.dim, x, value, gradient)?;
        self.evaluate(Planned::ValueAndGradient, n, [x], [value, gradient])
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let n = check_hvp(self.dim, x, v, hv)?;
        match self.network {
            Some(_) => self.evaluate(Planned::Hvp, n, [x, v], [hv]),
            None => differences::hvp(self, x, v, hv),
        }
    }

    fn gibbs(&self) -> Option<&HeadFactor> {
        self.network.as_ref()?.gibbs()
    }

    fn whitened(&self, purpose: Purpose<'_>) -> Result<Option<Whitened>> {
        let Some(network) = &self.network else { return Ok(None) };
        let Some((network, coordinates)) = network.whitened_network(purpose)? else { return Ok(None) };
        let first = translate(&graph::to_run(Function::ValueAndGradient, &network)?.into_model())?;
        let potential = Box::new(TractModel::new(self.dim, Some(network), first));
        Ok(Some(Whitened { potential, coordinates }))
    }
}

impl SecondOrder for TractModel {
    fn subspace(&self) -> Option<Subspace<'_>> {
        self.network.as_ref()?.subspace()
    }

    fn kept(&self) -> usize {
        self.network.as_ref().map_or(self.dim * self.dim, SecondOrder::kept)
    }

    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        check_hessian(self.dim, x, hessian)?;
        match &self.network {
            Some(network) => network.hessian(x, hessian),
            None => differences::hessian(self, x, hessian),
        }
    }

    fn hessian_to_factor<'a>(&'a self, x: &'a [f64], hessian: &mut [f64]) -> Result<LogDetGradient<'a>> {
        self.known("gradient of log det of its Hessian")?.hessian_to_factor(x, hessian)
    }

    /// Not available for a foreign model: third derivatives by differences of f32 gradients are noise.
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        self.known("contraction of its Hessian")?.hessian_contraction(x, m, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icnn::{Architecture, GibbsFactor, Head};
    use crate::onnx::fixture;
    use crate::ops::Activation;

    const ROWS: usize = 2;

    fn network(dim: usize, widths: &[usize], diagonal: bool, head: Head) -> Icnn<f32> {
        let activation = Activation::Softplus { beta: 2.0 };
        let gibbs = GibbsFactor::Whole;
        let arch = Architecture { dim, widths: widths.to_vec(), rank: 2, diagonal, activation, head, gibbs };
        let output = vec![0.7; arch.units()];
        fixture::network(arch, output).cast().unwrap()
    }

    /// The outputs of a graph at inputs of these shapes.
    fn outputs(proto: &pb::ModelProto, shapes: &[&[usize]]) -> Vec<f32> {
        let mut model = translate(proto).unwrap();
        let inputs = shapes.iter().enumerate().map(|(i, shape)| {
            model.set_input_fact(i, f32::fact(*shape).into()).unwrap();
            let numbers: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32).sin()).collect();
            Tensor::from_shape(shape, &numbers).unwrap().into()
        });
        let inputs = inputs.collect();
        let plan = optimised(model.into_typed().unwrap()).unwrap().into_runnable().unwrap();
        let found = plan.run(inputs).unwrap();
        let numbers = |t: &TValue| t.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
        found.iter().flat_map(numbers).collect()
    }

    #[test]
    fn graphs_to_run_compute_what_graphs_for_files_do() {
        let spiked = Head::Spiked { rank: 2 };
        let networks = [
            network(6, &[7], false, Head::Full),
            network(6, &[7, 5], true, Head::Full),
            network(6, &[7, 5], false, spiked),
            // In blocks.
            network(1030, &[4, 3], false, spiked),
            // Whose rows in all dimensions are made in the graph.
            network(6, &[7, 5], false, spiked).through_directions(),
        ];
        assert!(networks[4].weights().along.is_some());
        for w in &networks {
            let d = w.dim();
            let (row, matrix) = (&[ROWS, d][..], &[ROWS, d, d][..]);
            for (function, name) in Function::NAMED {
                let shapes = match function {
                    Function::ValueAndGradient => vec![row],
                    Function::Hvp => vec![row, row],
                    // Their arrays have d² numbers and more.
                    _ if d > 1024 => continue,
                    Function::Hessian => vec![row],
                    Function::HessianContraction => vec![row, matrix],
                };
                let [found, expected] = [graph::to_run(function, w), graph::model(function, w)]
                    .map(|graph| outputs(&graph.unwrap().into_model(), &shapes));
                let scale = expected.iter().fold(1.0f32, |s, v| s.max(v.abs()));
                assert_eq!(found.len(), expected.len());
                for (a, b) in found.iter().zip(&expected) {
                    // The same sums, by kernels that may add in another order: a few hundred terms lose two digits of f32.
                    assert!((a - b).abs() <= 1e-5 * scale, "{name} of {d} coordinates: {a} {b}");
                }
            }
        }
    }
}
