//! Times tract's evaluation of the MNIST-sized network against the same multiply-adds in one sgemm.

use std::time::Instant;

use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::{Architecture, Icnn, initial_weights};
use cmf_core::onnx::{Metadata, ModelFile, Probe, TractModel, export};
use cmf_core::ops::Activation;
use cmf_core::{Potential, SecondOrder};

const DIM: usize = 784;
const BATCH: usize = 256;

fn network(activation: Activation) -> Icnn<f64> {
    let arch = Architecture { dim: DIM, widths: vec![768], rank: 1, diagonal: false, activation };
    let covariance = (0..DIM * DIM).map(|i| if i % (DIM + 1) == 0 { 0.05 } else { 0.0 }).collect();
    let start = Gaussian { mean: vec![0.2; DIM], covariance }.quadratic_start().unwrap();
    let weights = initial_weights(&arch, &start, 1).unwrap();
    Icnn::new(arch, weights).unwrap()
}

/// Shortest of `repeats` runs, in milliseconds: other work on the machine only ever adds time.
fn shortest(repeats: usize, mut run: impl FnMut()) -> f64 {
    (0..repeats)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .fold(f64::INFINITY, f64::min)
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

fn main() {
    for activation in [Activation::Elu, Activation::Softplus { beta: 10.0 }] {
        println!("{activation:?}");
        let reference = network(activation);
        let x: Vec<f64> = (0..BATCH * DIM).map(|i| (i * 7919 % 1000) as f64 * 1e-3).collect();
        let mut metadata = Metadata::new(reference.architecture().clone());
        metadata.probes = Probe::record(&reference, &x[..4 * DIM]).unwrap();
        let network = reference.cast::<f32>().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        export(&path, &network, &metadata).unwrap();
        let start = Instant::now();
        let file = ModelFile::open(&path).unwrap();
        println!("open           {:8.2} ms", start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let model = TractModel::load(&file).unwrap();
        println!("load           {:8.2} ms", start.elapsed().as_secs_f64() * 1e3);
        let (mut value, mut gradient) = (vec![0.0; BATCH], vec![0.0; BATCH * DIM]);
        let start = Instant::now();
        model.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        println!("first gradient {:8.2} ms", start.elapsed().as_secs_f64() * 1e3);
        // Forward with all of the x side, backward without the head, mixing both ways.
        let arch = reference.architecture();
        let (forward, backward) = (arch.x_side_rows(), 2 * arch.units());
        let products =
            sgemm(BATCH, DIM, forward) + sgemm(BATCH, backward, DIM) + 4.0 * sgemm(BATCH, 256, 256);
        let tract = shortest(40, || model.value_and_gradient(&x, &mut value, &mut gradient).unwrap());
        let host = shortest(40, || network.value_and_gradient(&x, &mut value, &mut gradient).unwrap());
        println!("sgemm          {products:8.2} ms");
        println!("gradient       {tract:8.2} ms, {:.2} times the sgemm; host {host:.2} ms", tract / products);
        let one = shortest(100, || {
            model.value_and_gradient(&x[..DIM], &mut value[..1], &mut gradient[..DIM]).unwrap();
        });
        println!("gradient of 1  {one:8.2} ms");
        let v = x.clone();
        let mut hv = vec![0.0; BATCH * DIM];
        let tract = shortest(20, || model.hvp(&x, &v, &mut hv).unwrap());
        let host = shortest(20, || network.hvp(&x, &v, &mut hv).unwrap());
        println!("hvp            {tract:8.2} ms; host {host:.2} ms");
        for n in [1, 2] {
            let mut hessian = vec![0.0; n * DIM * DIM];
            let tract = shortest(5, || model.hessian(&x[..n * DIM], &mut hessian).unwrap());
            let host = shortest(5, || network.hessian(&x[..n * DIM], &mut hessian).unwrap());
            println!("hessian of {n}   {tract:8.2} ms; host {host:.2} ms");
            let mut out = vec![0.0; n * DIM];
            let tract = shortest(5, || model.hessian_contraction(&x[..n * DIM], &hessian, &mut out).unwrap());
            let host =
                shortest(5, || network.hessian_contraction(&x[..n * DIM], &hessian, &mut out).unwrap());
            println!("contraction {n}  {tract:8.2} ms; host {host:.2} ms");
        }
    }
}
