//! The network run by ONNX Runtime, a library that is found at run time, on the processor or a GPU.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::SessionInputValue;
use ort::value::TensorRef;
use rayon::prelude::*;
use tract_onnx::pb;

use super::differences;
use super::file::ModelFile;
use super::graph::{self, Function};
use super::lean::{Evaluated, Graph};
use super::probes;
use super::session::{Opened, Sessions, Source, Width};
use super::tract;
use crate::error::{Error, Result};
use crate::head_factor::HeadFactor;
use crate::icnn::Icnn;
use crate::potential::{
    LogDetGradient, Potential, Purpose, SecondOrder, Subspace, Whitened, check_contraction, check_hessian,
    check_hvp, check_value_and_gradient, hessian_then_contraction,
};

/// ONNX Runtime, started from one library for the whole process.
pub struct OnnxRuntime {
    library: PathBuf,
    pub(super) environment: Environment,
}

static STARTED: Mutex<Option<&'static OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// The oldest minor version of ONNX Runtime 1 whose interface serves.
    pub const OLDEST_MINOR: u32 = ort::MINOR_VERSION;

    /// Loads the library, which runs its code, and starts it; later calls must name the same file.
    ///
    /// Looks at nothing before that: `cmf_plugins::host::onnxruntime` finds a library and tells what is wrong
    /// with a file that is none.
    pub fn start(library: &Path) -> Result<&'static OnnxRuntime> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *started {
            if runtime.library == library {
                return Ok(runtime);
            }
            return Err(failed(format!("this process already uses {}", runtime.library.display())));
        }
        let environment = guarded(|| {
            // What goes wrong comes back as an error; the library's own log would repeat it.
            let silent = Arc::new(|_: ort::logging::LogLevel, _: &str, _: &str, _: &str, _: &str| ());
            let builder = ort::init_from(library).map_err(failed)?;
            builder.with_name("cmf").with_telemetry(false).with_logger(silent).build().map_err(failed)
        })
        .map_err(|e| Error::file(library, e))?;
        let runtime = OnnxRuntime { library: library.to_path_buf(), environment };
        Ok(started.insert(Box::leak(Box::new(runtime))))
    }

    /// Why this library cannot compute on a GPU, as far as it says without trying.
    pub fn cuda_missing(&self) -> Option<&'static str> {
        match guarded(|| CUDA::is_available().map_err(failed)) {
            Ok(true) => None,
            _ => Some("this libonnxruntime was built without CUDA; the releases have a build for GPUs"),
        }
    }
}

/// Where sessions compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// This machine's processor.
    Cpu,
    /// The GPU of this number, by CUDA.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => write!(f, "cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A graph that may ask for any memory: its arrays are bounded for each number of rows before it runs with that.
struct Stranger {
    proto: pb::ModelProto,
    bounded: Mutex<HashSet<usize>>,
}

impl Stranger {
    fn bound(&self, rows: usize, d: usize) -> Result<()> {
        let mut bounded = self.bounded.lock().unwrap_or_else(PoisonError::into_inner);
        if !bounded.contains(&rows) {
            tract::check_memory(&self.proto, rows, d)?;
            bounded.insert(rows);
        }
        Ok(())
    }
}

/// A model file's potential, evaluated by ONNX Runtime in f32.
///
/// The value and gradient come from the graph of the file, or from one without its idle units, Hessian products
/// from a graph made of the same weights. Whole Hessians and their contractions are graphs on a GPU; on the
/// processor the host's interpreter takes them, as for tract.
pub struct OrtModel {
    dim: usize,
    network: Option<Icnn<f32>>,
    runtime: &'static OnnxRuntime,
    device: Device,
    /// Whether Hessians and their contractions are graphs too.
    second_order_graphs: bool,
    /// Of the value and gradient, and of other functions once they were asked for.
    sessions: Mutex<HashMap<Function, Arc<Sessions>>>,
    /// The graph of the value and gradient, if it is not the one that is written here for its network.
    stranger: Option<Stranger>,
}

impl OrtModel {
    /// Makes the file's model ready on a device and replays its probes, or evaluates a foreign model near 0.
    ///
    /// Fails if the library cannot run the graph there (nothing falls back to another device) or an answer is
    /// not the recorded one.
    pub fn load(file: &ModelFile, runtime: &'static OnnxRuntime, device: Device) -> Result<Self> {
        let Evaluated { graph, network } = Evaluated::of(file)?;
        let (first, stranger) = match graph {
            Graph::Own(recording) => (Source::of_recording(*recording, device)?, None),
            Graph::Strange(proto) => {
                (Source::of_model(proto), Some(Stranger { proto: proto.clone(), bounded: Mutex::default() }))
            }
        };
        let model = OrtModel { stranger, ..OrtModel::new(file.dim(), network, first, runtime, device) };
        probes::check(&model, file)?;
        Ok(model)
    }

    /// `first` is of the value and gradient, written here.
    fn new(
        dim: usize,
        network: Option<Icnn<f32>>,
        first: Source,
        runtime: &'static OnnxRuntime,
        device: Device,
    ) -> Self {
        let first = Sessions::new(first, runtime, device);
        OrtModel {
            dim,
            network,
            stranger: None,
            runtime,
            device,
            second_order_graphs: device != Device::Cpu,
            sessions: Mutex::new(HashMap::from([(Function::ValueAndGradient, Arc::new(first))])),
        }
    }

    fn known(&self, what: &str) -> Result<&Icnn<f32>> {
        self.network.as_ref().ok_or_else(|| failed(format!("a foreign ONNX model gives no {what}")))
    }

    /// The sessions of a function's graph.
    fn sessions(&self, function: Function) -> Result<Arc<Sessions>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sessions.get(&function) {
            return Ok(known.clone());
        }
        // Those of the value and gradient are always there, so others are asked for.
        let recording = graph::to_run(function, self.known("second derivatives")?)?;
        let source = Source::of_recording(recording, self.device)?;
        let new = Arc::new(Sessions::new(source, self.runtime, self.device));
        sessions.insert(function, new.clone());
        Ok(new)
    }

    /// Evaluates `function` on n rows, at most `most` in one run.
    ///
    /// On the processor threads share a large batch, each with a session of its own that uses no other: they wait for
    /// each other once, not at every node of the graph. (1,000 digits of 300 Langevin steps took 9.0 s instead of 10.3,
    /// on two threads.)
    fn evaluate<const I: usize, const O: usize>(
        &self,
        function: Function,
        n: usize,
        most: usize,
        inputs: [Input; I],
        mut outputs: [Output; O],
    ) -> Result<()> {
        let sessions = self.sessions(function)?;
        let threads = rayon::current_num_threads();
        let large = n >= threads * LEAST_ROWS;
        let width = match (self.device, threads) {
            (Device::Cuda(_), _) => Width::All,
            (Device::Cpu, 1) => Width::One,
            (Device::Cpu, _) => sessions.width(n, if large { Width::One } else { Width::All }),
        };
        let shared = large && width == Width::One;
        let rows = match shared {
            // As many pieces for each thread, of about the same size.
            true => n.div_ceil(threads * n.div_ceil(threads * most)),
            false => most,
        };
        if let (Function::ValueAndGradient, Some(stranger)) = (function, &self.stranger) {
            for rows in [rows.min(n), n % rows].into_iter().filter(|&rows| rows > 0) {
                stranger.bound(rows, self.dim)?;
            }
        }
        let mut pieces = (0..n).step_by(rows).map(|from| {
            let held = rows.min(n - from);
            let inputs =
                inputs.map(|a| Input { data: &a.data[from * size(a.row)..][..held * size(a.row)], ..a });
            let outputs = outputs.each_mut().map(|a| {
                let (piece, rest) = std::mem::take(&mut a.data).split_at_mut(held * size(a.row));
                a.data = rest;
                Output { data: piece, ..*a }
            });
            (held, inputs, outputs)
        });
        let run = |(n, inputs, outputs)| sessions.with(width, |session| run(session, n, inputs, outputs));
        match shared {
            true => pieces.collect::<Vec<_>>().into_par_iter().try_for_each(run),
            false => pieces.try_for_each(run),
        }
    }
}

/// Evaluates n rows at once.
fn run<const I: usize, const O: usize>(
    Opened { session, inputs: single }: &mut Opened,
    n: usize,
    inputs: [Input; I],
    outputs: [Output; O],
) -> Result<()> {
    for (single, input) in single.iter_mut().zip(&inputs) {
        single.clear();
        single.extend(input.data.iter().map(|&v| v as f32));
    }
    guarded(|| {
        let mut values = Vec::with_capacity(I);
        for (input, data) in inputs.iter().zip(&*single) {
            let shape = [&[n], input.row].concat();
            let tensor = TensorRef::from_array_view((shape, &data[..])).map_err(failed)?;
            values.push(SessionInputValue::from(tensor));
        }
        let results = session.run(&values[..]).map_err(failed)?;
        for Output { name, row, data } in outputs {
            let value = results.get(name).ok_or_else(|| failed(format!("no output {name}")))?;
            let (shape, found) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let expected = [&[n], row].concat();
            if shape.iter().map(|&d| d as usize).ne(expected.iter().copied()) {
                return Err(failed(format!(
                    "the output {name} comes out with the shape {shape}; expected {expected:?}"
                )));
            }
            data.iter_mut().zip(found).for_each(|(o, r)| *o = f64::from(*r));
        }
        Ok(())
    })
}

/// An input of a graph: the shape of a row, and n rows.
#[derive(Clone, Copy)]
struct Input<'a> {
    row: &'a [usize],
    data: &'a [f64],
}

/// An output of a graph: its name, the shape of a row, and where n rows go.
struct Output<'a> {
    name: &'static str,
    row: &'a [usize],
    data: &'a mut [f64],
}

/// Numbers in a row.
fn size(row: &[usize]) -> usize {
    row.iter().product()
}

/// Fewest rows of each thread where each has its own: 16 of the digits on two threads took 0.58 ms in two halves and 0.62 ms
/// together, 64 2.3 and 2.4.
const LEAST_ROWS: usize = 8;

/// Most rows of one run: products are efficient, intermediate arrays stay small.
const MOST_ROWS: usize = 256;

/// Rows of one run where each has its own [d, d] matrix.
fn second_order_rows(d: usize) -> usize {
    ((1 << 24) / (d * d)).clamp(1, MOST_ROWS)
}

/// A panic in the binding, which trusts its library more than it should, becomes an error.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(failed("the library makes its binding panic")))
}

pub(super) fn failed(message: impl ToString) -> Error {
    Error::Engine { engine: "ort", message: message.to_string() }
}

impl Potential for OrtModel {
    fn dim(&self) -> usize {
        self.dim
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let n = check_value_and_gradient(self.dim, x, value, gradient)?;
        let row = &[self.dim][..];
        let outputs = [
            Output { name: "value", row: &[], data: value },
            Output { name: "gradient", row, data: gradient },
        ];
        self.evaluate(Function::ValueAndGradient, n, MOST_ROWS, [Input { row, data: x }], outputs)
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let n = check_hvp(self.dim, x, v, hv)?;
        let row = &[self.dim][..];
        match self.network {
            Some(_) => {
                let inputs = [x, v].map(|data| Input { row, data });
                self.evaluate(Function::Hvp, n, MOST_ROWS, inputs, [Output { name: "hvp", row, data: hv }])
            }
            None => differences::hvp(self, x, v, hv),
        }
    }

    fn gibbs(&self) -> Option<&HeadFactor> {
        self.network.as_ref()?.gibbs()
    }

    fn whitened(&self, purpose: Purpose<'_>) -> Result<Option<Whitened>> {
        let Some(network) = &self.network else { return Ok(None) };
        let Some((network, coordinates)) = network.whitened_network(purpose)? else { return Ok(None) };
        let first = Source::of_recording(graph::to_run(Function::ValueAndGradient, &network)?, self.device)?;
        let potential = OrtModel::new(self.dim, Some(network), first, self.runtime, self.device);
        Ok(Some(Whitened { potential: Box::new(potential), coordinates }))
    }
}

impl SecondOrder for OrtModel {
    fn subspace(&self) -> Option<Subspace<'_>> {
        self.network.as_ref()?.subspace()
    }

    fn kept(&self) -> usize {
        self.network.as_ref().map_or(self.dim * self.dim, SecondOrder::kept)
    }

    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        let d = self.dim;
        let n = check_hessian(d, x, hessian)?;
        match &self.network {
            None => differences::hessian(self, x, hessian),
            Some(network) if !self.second_order_graphs => network.hessian(x, hessian),
            Some(_) => {
                let output = Output { name: "hessian", row: &[d, d], data: hessian };
                let input = Input { row: &[d], data: x };
                self.evaluate(Function::Hessian, n, second_order_rows(d), [input], [output])
            }
        }
    }

    fn hessian_to_factor<'a>(&'a self, x: &'a [f64], hessian: &mut [f64]) -> Result<LogDetGradient<'a>> {
        let network = self.known("gradient of log det of its Hessian")?;
        match self.second_order_graphs {
            true => hessian_then_contraction(self, x, hessian),
            false => network.hessian_to_factor(x, hessian),
        }
    }

    /// Not available for a foreign model: third derivatives by differences of f32 gradients are noise.
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        let d = self.dim;
        let n = check_contraction(d, x, m, out)?;
        let network = self.known("contraction of its Hessian")?;
        if !self.second_order_graphs {
            return network.hessian_contraction(x, m, out);
        }
        let inputs = [Input { row: &[d], data: x }, Input { row: &[d, d], data: m }];
        let output = Output { name: "contraction", row: &[d], data: out };
        self.evaluate(Function::HessianContraction, n, second_order_rows(d), inputs, [output])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icnn::{Architecture, GibbsFactor, Head};
    use crate::onnx::{Metadata, Probe, export, fixture};
    use crate::ops::Activation;

    const D: usize = 6;

    /// A network, its file with so many probes, and the library.
    fn parts(rank: usize, diagonal: bool, probes: usize) -> (Icnn<f64>, ModelFile, &'static OnnxRuntime) {
        let arch = Architecture {
            dim: D,
            widths: vec![7, 5],
            rank,
            diagonal,
            activation: Activation::Softplus { beta: 2.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        };
        let reference = fixture::network(arch.clone(), vec![0.7; arch.units()]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let probes = Probe::record(&reference, &fixture::points(probes, D)).unwrap();
        export(&path, &reference.cast().unwrap(), &Metadata { probes, ..Metadata::new(arch) }).unwrap();
        let library = std::env::var_os("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH names a libonnxruntime");
        let runtime = OnnxRuntime::start(Path::new(&library)).unwrap();
        (reference, ModelFile::open(&path).unwrap(), runtime)
    }

    /// The first batches take the session of the probes; what is evaluated by whom agrees with the reference.
    #[test]
    #[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
    fn with_onnxruntime_sessions_are_opened_where_they_pay() {
        let (reference, file, runtime) = parts(1, false, 1);
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let engine = two.install(|| OrtModel::load(&file, runtime, Device::Cpu)).unwrap();
        let sessions = engine.sessions(Function::ValueAndGradient).unwrap();
        // By one thread and by all.
        let open = || [Width::One, Width::All].map(|width| sessions.idle(width));
        assert_eq!(open(), [0, 1]);
        for (n, expected) in [(1000, [0, 1]), (1000, [0, 1]), (15, [0, 1]), (100, [0, 1]), (1000, [2, 1])] {
            let x = &fixture::points(n, D)[..];
            let answers = |w: &dyn Potential| {
                let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * D]);
                w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
                [value, gradient].concat()
            };
            let found = two.install(|| answers(&engine));
            for (a, b) in found.iter().zip(&answers(&reference)) {
                // f32 rounds numbers of this size to 1e-7; sums of a few dozen terms lose a digit.
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert!(open().iter().zip(expected).all(|(found, most)| *found <= most), "{n}: {:?}", open());
        }
        assert!(open()[0] > 0 && open()[1] == 1, "{:?}", open());
        // A single thread has no use for others.
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let alone = one.install(|| OrtModel::load(&file, runtime, Device::Cpu)).unwrap();
        let sessions = alone.sessions(Function::ValueAndGradient).unwrap();
        assert_eq!([Width::One, Width::All].map(|width| sessions.idle(width)), [1, 0]);
    }

    /// The graphs that a GPU evaluates, evaluated on the processor.
    #[test]
    #[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
    fn with_onnxruntime_second_order_graphs_agree_with_the_reference() {
        let (d, n) = (D, 5);
        let (reference, file, runtime) = parts(2, true, n);
        let x = &fixture::points(n, d)[..];
        let mut engine = OrtModel::load(&file, runtime, Device::Cpu).unwrap();
        engine.second_order_graphs = true;
        let run = |w: &dyn SecondOrder, m: &[f64]| {
            let (mut hessian, mut contraction) = (vec![0.0; n * d * d], vec![0.0; n * d]);
            w.hessian(x, &mut hessian).unwrap();
            w.hessian_contraction(x, m, &mut contraction).unwrap();
            [hessian, contraction]
        };
        let unit: Vec<f64> = (0..d * d).map(|k| if k % (d + 1) == 0 { 1.0 } else { 0.1 }).collect();
        let m = unit.repeat(n);
        for (found, expected) in run(&engine, &m).iter().zip(&run(&reference, &m)) {
            let scale = expected.iter().fold(1.0f64, |s, v| s.max(v.abs()));
            for (a, b) in found.iter().zip(expected) {
                // f32 rounds to 6e-8; sums of a few hundred terms lose about two digits.
                assert!((a - b).abs() <= 1e-5 * scale, "{a} {b}");
            }
        }
    }
}
