//! Every function of the tract engine agrees with the f64 reference, whatever the batch.

use cmf_core::host::Array;
use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn, Weights};
use cmf_core::onnx::{Function, export_function};
use cmf_core::ops::Activation;
use cmf_core::{Potential, SecondOrder};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::common::{
    conformance, random_network, random_spiked, random_within, uniform, whitened_agrees, with_factor_of_head,
};
use crate::{assert_close, through_file};

const SOFTPLUS: Activation = Activation::Softplus { beta: 2.0 };

/// f32 rounds to 6e-8; sums of a few hundred terms through three layers lose about two digits.
const ROUNDING: f64 = 1e-5;

fn networks() -> Vec<Icnn<f64>> {
    let mut all = Vec::new();
    for activation in [SOFTPLUS, Activation::Elu] {
        for diagonal in [false, true] {
            all.push(random_network(2, &[5], 1, diagonal, activation));
            all.push(random_network(5, &[7, 5, 6], 2, diagonal, activation));
            all.push(random_network(16, &[24, 20], 1, diagonal, activation));
        }
        all.push(random_spiked(5, &[7, 5, 6], 2, activation));
        all.push(random_spiked(16, &[24], 15, activation));
        // Engines go through the directions of these.
        all.push(random_within(9, &[7, 6], 3, GibbsFactor::Whole));
        all.push(random_within(16, &[24], 5, GibbsFactor::Head));
    }
    all
}

#[test]
fn the_engine_evaluates_a_potential_in_whitened_coordinates() {
    for reference in networks() {
        let Architecture { head, diagonal, .. } = reference.architecture();
        if *head == Head::Full && !diagonal {
            // The same rounding, of Hessians that are scaled to the size of 1 while the units' forms are not.
            whitened_agrees(&through_file(&reference), &reference, 5.0 * ROUNDING);
            let reference = with_factor_of_head(&reference);
            whitened_agrees(&through_file(&reference), &reference, 5.0 * ROUNDING);
        }
    }
}

#[test]
fn every_function_agrees_with_the_reference() {
    for reference in networks() {
        agrees(&reference, 7, ROUNDING, &format!("{:?}", reference.architecture()));
    }
}

/// Asserts that tract, through a file, and the f64 reference agree at 7 points, evaluated some at once.
#[track_caller]
fn agrees(reference: &Icnn<f64>, at_once: usize, tolerance: f64, what: &str) {
    let (engine, d, n) = (through_file(reference), reference.dim(), 7);
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let (x, v) = (uniform(&mut rng, n * d), uniform(&mut rng, n * d));
    let single = |a: &[f64]| -> Vec<f64> { a.iter().map(|&v| f64::from(v as f32)).collect() };
    // The points as the engine sees them: near a kink of ELU's slope rounding may choose the side.
    let (x, v) = (single(&x), single(&v));
    let run = |w: &dyn SecondOrder, m: &[f64]| {
        let mut out =
            [vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d], vec![0.0; n * d * d], vec![0.0; n * d]];
        for from in (0..n).step_by(at_once) {
            let rows = from..n.min(from + at_once);
            let part = |size: usize| rows.start * size..rows.end * size;
            let [value, gradient, hv, hessian, contraction] = &mut out;
            let x = &x[part(d)];
            w.value_and_gradient(x, &mut value[part(1)], &mut gradient[part(d)]).unwrap();
            w.hvp(x, &v[part(d)], &mut hv[part(d)]).unwrap();
            w.hessian(x, &mut hessian[part(d * d)]).unwrap();
            w.hessian_contraction(x, &m[part(d * d)], &mut contraction[part(d)]).unwrap();
        }
        out
    };
    let mut m = vec![0.0; n * d * d];
    reference.hessian(&x, &mut m).unwrap();
    for (name, (a, b)) in ["value", "gradient", "hvp", "hessian", "contraction"]
        .iter()
        .zip(run(&engine, &m).iter().zip(&run(reference, &m)))
    {
        assert_close(&format!("{name} of {what}"), a, b, tolerance);
    }
}

/// What other programs get from `cmf-cli export --functions`.
#[test]
fn exported_second_order_graphs_agree_with_the_reference() {
    use tract_onnx::prelude::*;
    for reference in networks() {
        let what = format!("{:?}", reference.architecture());
        let (d, n) = (reference.dim(), 7);
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(21), n * d);
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v as f32)).collect();
        let (mut hessian, mut contraction) = (vec![0.0; n * d * d], vec![0.0; n * d]);
        reference.hessian(&x, &mut hessian).unwrap();
        let m = hessian.clone();
        reference.hessian_contraction(&x, &m, &mut contraction).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("function.onnx");
        let tensor = |shape: &[usize], a: &[f64]| -> TValue {
            let single: Vec<f32> = a.iter().map(|&v| v as f32).collect();
            Tensor::from_shape(shape, &single).unwrap().into()
        };
        let (points, matrices) = (tensor(&[n, d], &x), tensor(&[n, d, d], &m));
        for (function, inputs, expected) in [
            (Function::Hessian, tvec![points.clone()], hessian),
            (Function::HessianContraction, tvec![points, matrices], contraction),
        ] {
            export_function(&path, &reference.cast().unwrap(), function).unwrap();
            let mut graph = tract_onnx::onnx().model_for_path(&path).unwrap();
            for (i, input) in inputs.iter().enumerate() {
                graph.set_input_fact(i, f32::fact(input.shape()).into()).unwrap();
            }
            let found = graph.into_optimized().unwrap().into_runnable().unwrap().run(inputs).unwrap();
            let found: Vec<f64> = found[0]
                .try_as_plain_ram()
                .and_then(|a| a.as_slice::<f32>())
                .unwrap()
                .iter()
                .map(|&v| f64::from(v))
                .collect();
            assert_close(&format!("{function:?} of {what}"), &found, &expected, ROUNDING);
        }
    }
}

#[test]
fn tract_passes_the_conformance_suite() {
    let reference = random_network(4, &[6, 5], 2, true, SOFTPLUS);
    let x = uniform(&mut ChaCha8Rng::seed_from_u64(22), 4 * 4);
    // f32 rounding of sums of about ten terms.
    conformance(&through_file(&reference), &x, 5e-7);
}

#[test]
fn a_row_has_the_same_answer_in_every_batch() {
    let engine = through_file(&random_network(16, &[24, 20], 1, true, SOFTPLUS));
    let d = 16;
    let x = uniform(&mut ChaCha8Rng::seed_from_u64(23), 256 * d);
    let run = |n: usize| {
        let (mut value, mut gradient, mut hv) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d]);
        engine.value_and_gradient(&x[..n * d], &mut value, &mut gradient).unwrap();
        engine.hvp(&x[..n * d], &x[..n * d], &mut hv).unwrap();
        [value, gradient, hv]
    };
    let whole = run(256);
    for n in [1, 2, 7, 255] {
        for (part, whole) in run(n).iter().zip(&whole) {
            // The order of summation may depend on the batch; the terms do not.
            assert_close(&format!("batch {n}"), part, &whole[..part.len()], 1e-6);
        }
    }
    let none = engine.value_and_gradient(&[], &mut [], &mut []);
    assert!(none.is_ok(), "an empty batch is no error");
}

#[test]
fn large_arguments_do_not_overflow() {
    // Far out the activations are linear or flat; naive exponentials overflow f32 beyond 88.
    for activation in [Activation::Softplus { beta: 20.0 }, Activation::Elu] {
        let reference = random_network(5, &[7, 5], 1, false, activation);
        let engine = through_file(&reference);
        let x: Vec<f64> =
            uniform(&mut ChaCha8Rng::seed_from_u64(24), 5 * 8).iter().map(|v| 100.0 * v).collect();
        let run = |w: &dyn Potential| {
            let (mut value, mut gradient) = (vec![0.0; 8], vec![0.0; 40]);
            w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            [value, gradient]
        };
        for (a, b) in run(&engine).iter().zip(&run(&reference)) {
            assert_close("far out", a, b, ROUNDING);
        }
    }
}

#[test]
fn wrong_lengths_are_shape_errors() {
    let engine = through_file(&random_network(2, &[5], 1, false, SOFTPLUS));
    let message = engine.value_and_gradient(&[0.0; 3], &mut [0.0], &mut [0.0; 3]).unwrap_err().to_string();
    assert!(message.contains("a multiple of 2"), "{message}");
    let message = engine.hessian(&[0.0; 4], &mut [0.0; 4]).unwrap_err().to_string();
    assert!(message.contains("expected 8, found 4"), "{message}");
}

#[test]
fn constants_that_are_all_equal_or_zero_change_nothing() {
    // Runtimes treat uniform constants apart: a product with zeros, say, is folded to zeros.
    type Change = fn(&str, usize, f64) -> f64;
    let changes: [(&str, Change); 6] = [
        ("output weights of zero", |name, _, v| if name == "output" { 0.0 } else { v }),
        ("output weights of one", |name, _, v| if name == "output" { 1.0 } else { v }),
        ("equal output weights", |name, _, v| if name == "output" { 0.3 } else { v }),
        (
            "no bias and no centre",
            |name, _, v| if ["bias", "centre", "pull"].contains(&name) { 0.0 } else { v },
        ),
        ("equal mixing", |name, _, v| if name.starts_with("mixing") { 0.2 } else { v }),
        ("no mixing", |name, _, v| if name.starts_with("mixing") { 0.0 } else { v }),
    ];
    for reference in networks() {
        for (what, change) in changes {
            let arch = reference.architecture();
            let named = reference.weights().named(arch);
            let mut arrays = named.iter();
            let weights = Weights::build::<()>(arch, |_, [rows, cols]| {
                let (name, _, array) = arrays.next().unwrap();
                let data = array.to_vec().iter().enumerate().map(|(i, v)| change(name, i, *v)).collect();
                Ok(Array::matrix(data, rows, cols))
            })
            .unwrap();
            let changed = Icnn::new(arch.clone(), weights).unwrap();
            // tract's sigmoid is a fit within 5e-7, which the forms of saturated units multiply by up to 100 in
            // third derivatives; a wrong fold is wrong in the first digits.
            // Folding depends on the batch: with one row, arrays of a row and weights have the same shape.
            for at_once in [1, 7] {
                agrees(&changed, at_once, 5.0 * ROUNDING, &format!("{what}, {at_once} at once, {arch:?}"));
            }
        }
    }
}
