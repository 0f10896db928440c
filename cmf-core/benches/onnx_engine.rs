//! Times a model file's potential, by tract and on the host, beside the same multiply-adds in plain products.
//!
//!     cargo bench --workspace --bench onnx_engine -- [--model FILE] [--batch N]
//!
//! The model is models/mnist.onnx unless another is named. tests/peers/speed.py runs the same program with
//! `--engine tract|host --points FILE --answers FILE --repeats N`: it evaluates the points (f64 as the machine
//! has them, [batch, d]), writes values [batch] and gradients [batch, d] in the same way, and prints the
//! milliseconds of each repetition as JSON.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cmf_core::icnn::{Architecture, Icnn};
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::{Potential, SecondOrder};

struct Options {
    model: PathBuf,
    batch: usize,
    repeats: usize,
    engine: Option<String>,
    points: PathBuf,
    answers: PathBuf,
}

fn options() -> Options {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist.onnx");
    let (points, answers) = (PathBuf::new(), PathBuf::new());
    let mut options = Options { model: shipped, batch: 256, repeats: 40, engine: None, points, answers };
    // Cargo adds --bench.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{word}: expected a number, found {value}"));
        match word.as_str() {
            "--model" => options.model = value.into(),
            "--batch" => options.batch = number(),
            "--repeats" => options.repeats = number(),
            "--engine" => options.engine = Some(value),
            "--points" => options.points = value.into(),
            "--answers" => options.answers = value.into(),
            _ => panic!("unknown option {word}"),
        }
    }
    options
}

/// Milliseconds of each of `repeats` runs.
fn times(repeats: usize, mut run: impl FnMut()) -> Vec<f64> {
    let one = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..repeats).map(one).collect()
}

/// Shortest of `repeats` runs, in milliseconds: other work on the machine only ever adds time.
fn shortest(repeats: usize, run: impl FnMut()) -> f64 {
    times(repeats, run).into_iter().fold(f64::INFINITY, f64::min)
}

/// Milliseconds of one [n, k] x [k, m] product in f32 on all threads.
fn sgemm(n: usize, k: usize, m: usize) -> f64 {
    use faer::linalg::matmul::matmul;
    let a = faer::Mat::<f32>::from_fn(n, k, |i, j| (i + j) as f32 * 1e-3);
    let b = faer::Mat::<f32>::from_fn(k, m, |i, j| (i * j % 7) as f32);
    let mut c = faer::Mat::<f32>::zeros(n, m);
    shortest(30, || {
        matmul(c.as_mut(), faer::Accum::Replace, a.as_ref(), b.as_ref(), 1.0, faer::Par::rayon(0));
    })
}

/// Milliseconds of the products of one gradient: the x side forwards, forms backwards, mixing both ways.
fn products(arch: &Architecture, n: usize) -> f64 {
    let mixing = |w: &[usize]| sgemm(n, w[0], w[1]) + sgemm(n, w[1], w[0]);
    sgemm(n, arch.dim, arch.x_side_rows())
        + sgemm(n, (1 + arch.rank) * arch.units(), arch.dim)
        + arch.widths.windows(2).map(mixing).sum::<f64>()
}

/// What speed.py asks for: answers to its points, and the time of each repetition.
fn serve(options: &Options, engine: &dyn Potential) {
    let bytes = std::fs::read(&options.points).unwrap();
    let x: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_ne_bytes(*b)).collect();
    let n = x.len() / engine.dim();
    let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; x.len()]);
    // The first call makes the plans.
    engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    let times = times(options.repeats, || engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap());
    let answers: Vec<u8> = value.iter().chain(&gradient).flat_map(|v| v.to_ne_bytes()).collect();
    std::fs::write(&options.answers, answers).unwrap();
    println!("{}", serde_json::json!({ "milliseconds": times }));
}

/// The table for people.
fn table(options: &Options, tract: &TractModel, host: &Icnn<f32>) {
    let (n, arch) = (options.batch, host.architecture());
    let d = arch.dim;
    let x: Vec<f64> = (0..n * d).map(|i| (i * 7919 % 1000) as f64 * 1e-3).collect();
    println!("{}: {arch:?}, batch {n}", options.model.display());
    let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
    let first = shortest(1, || tract.value_and_gradient(&x, &mut value, &mut gradient).unwrap());
    println!("first gradient {first:8.2} ms");
    let ceiling = products(arch, n);
    println!("products alone {ceiling:8.2} ms");
    let row = |what: &str, tract: f64, host: f64| println!("{what:<14} {tract:8.2} ms; host {host:.2} ms");
    let mut of = |w: &dyn Potential, rows: usize| {
        shortest(options.repeats, || {
            w.value_and_gradient(&x[..rows * d], &mut value[..rows], &mut gradient[..rows * d]).unwrap();
        })
    };
    let (by_tract, by_host) = (of(tract, n), of(host, n));
    row("gradient", by_tract, by_host);
    println!("  that is {:.2} and {:.2} times the products", by_tract / ceiling, by_host / ceiling);
    row("gradient of 1", of(tract, 1), of(host, 1));
    let mut hv = vec![0.0; n * d];
    let mut of = |w: &dyn Potential| shortest(options.repeats / 2, || w.hvp(&x, &x, &mut hv).unwrap());
    row("hvp", of(tract), of(host));
    // The engine takes these two from the host.
    let mut hessian = vec![0.0; d * d];
    let whole = shortest(5, || host.hessian(&x[..d], &mut hessian).unwrap());
    let mut out = vec![0.0; d];
    let contraction = shortest(5, || host.hessian_contraction(&x[..d], &hessian, &mut out).unwrap());
    println!("hessian of 1   {whole:8.2} ms; contraction {contraction:.2} ms");
}

fn main() {
    let options = options();
    let start = Instant::now();
    let file = ModelFile::open(&options.model).unwrap();
    let opened = start.elapsed();
    let tract = TractModel::load(&file).unwrap();
    let loaded = start.elapsed() - opened;
    let host = file.network().unwrap().expect("a model file of cmf-cli");
    match options.engine.as_deref() {
        Some("tract") => serve(&options, &tract),
        Some("host") => serve(&options, &host),
        Some(other) => panic!("unknown engine {other}; expected tract or host"),
        None => {
            println!("open {opened:.1?}, load {loaded:.1?}");
            table(&options, &tract, &host);
        }
    }
}
