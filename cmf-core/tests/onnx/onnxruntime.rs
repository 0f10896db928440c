//! Every function of the ONNX Runtime engine agrees with the f64 reference. These tests need its library, named by
//! `ORT_DYLIB_PATH`: `cargo test -- --ignored with_onnxruntime` runs them.

use std::path::PathBuf;

use cmf_core::icnn::Icnn;
use cmf_core::onnx::{Device, ModelFile, OnnxRuntime, OrtModel, export};
use cmf_core::ops::Activation;
use cmf_core::{Potential, SecondOrder};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::common::{conformance, random_network, uniform, whitened_agrees, with_factor_of_head};
use crate::{assert_close, metadata};

pub fn runtime() -> &'static OnnxRuntime {
    let library = std::env::var_os("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH names a libonnxruntime");
    OnnxRuntime::start(&PathBuf::from(library)).unwrap()
}

fn through_file(reference: &Icnn<f64>) -> OrtModel {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let d = reference.architecture().dim;
    export(&path, &reference.cast().unwrap(), &metadata(reference, &vec![0.3; d])).unwrap();
    OrtModel::load(&ModelFile::open(&path).unwrap(), runtime(), Device::Cpu).unwrap()
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn with_onnxruntime_every_function_agrees_with_the_reference() {
    for activation in [Activation::Softplus { beta: 2.0 }, Activation::Elu] {
        for (dim, widths, diagonal) in [(2, &[5][..], false), (5, &[7, 5, 6], true), (16, &[24, 20], true)] {
            let reference = random_network(dim, widths, 1, diagonal, activation);
            let engine = through_file(&reference);
            // One row, and more than go into one run.
            for n in [1, 300] {
                let mut rng = ChaCha8Rng::seed_from_u64(31);
                let mut points = || -> Vec<f64> {
                    uniform(&mut rng, n * dim).iter().map(|&v| f64::from(v as f32)).collect()
                };
                let (x, v) = (points(), points());
                let run = |w: &dyn SecondOrder| {
                    let (mut value, mut gradient, mut hv) =
                        (vec![0.0; n], vec![0.0; n * dim], vec![0.0; n * dim]);
                    w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
                    w.hvp(&x, &v, &mut hv).unwrap();
                    [value, gradient, hv]
                };
                let what = ["value", "gradient", "hvp"];
                for (what, (a, b)) in what.iter().zip(run(&engine).iter().zip(&run(&reference))) {
                    // f32 rounds to 6e-8; sums of a few hundred terms through three layers lose about two digits.
                    assert_close(&format!("{what} of {n} rows, {dim}"), a, b, 1e-5);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn with_onnxruntime_the_conformance_suite_passes() {
    let reference = random_network(4, &[6, 5], 2, true, Activation::Softplus { beta: 2.0 });
    let x = uniform(&mut ChaCha8Rng::seed_from_u64(22), 4 * 4);
    // f32 rounding of sums of about ten terms.
    conformance(&through_file(&reference), &x, 5e-7);
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn with_onnxruntime_a_potential_is_evaluated_in_whitened_coordinates() {
    let reference = random_network(16, &[24, 20], 1, false, Activation::Softplus { beta: 2.0 });
    for reference in [with_factor_of_head(&reference), reference] {
        whitened_agrees(&through_file(&reference), &reference, 5e-5);
    }
}

/// Callers at once, as the threads of a program are: each gets the answers that it would get alone.
#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn with_onnxruntime_callers_at_once_do_not_disturb_each_other() {
    let engine = through_file(&random_network(16, &[24, 20], 1, false, Activation::Elu));
    let evaluate = |seed: u64| {
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(seed), 9 * 16);
        let (mut value, mut gradient) = (vec![0.0; 9], vec![0.0; 9 * 16]);
        engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        (value, gradient)
    };
    let alone: Vec<_> = (0..8).map(evaluate).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || evaluate(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(alone == together);
    let message = engine.value_and_gradient(&[0.0; 3], &mut [0.0], &mut [0.0; 3]).unwrap_err().to_string();
    assert!(message.contains("a multiple of 16"), "{message}");
    assert!(engine.value_and_gradient(&[], &mut [], &mut []).is_ok(), "an empty batch is no error");
}
