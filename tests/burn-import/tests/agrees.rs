//! burn-onnx and tract give the same values and gradients for the same file.

use burn::backend::Flex;
use burn::tensor::{Bytes, Tensor, TensorData};
use cmf_burn_import::{eight_gaussians, faces, mnist};
use cmf_core::head_factor::HeadFactor;
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::potential::Potential;

/// Values [n] and gradients [n, d].
type Answers = (Tensor<Flex, 1>, Tensor<Flex, 2>);

/// What a model that burn-onnx wrote says of w at the rows x, and of its head where the file holds that.
type Imported = fn(Tensor<Flex, 2>) -> (Answers, Option<Answers>);

fn bytes(weights: &[u8]) -> Bytes {
    Bytes::from_bytes_vec(weights.to_vec())
}

/// Draws of nothing in particular around the mean of the data, in f32 so that both engines read the same numbers.
fn rows(mean: &[f64], n: usize) -> Vec<f32> {
    let wave = |i: usize| 2.0 * (1.7 * i as f64).sin();
    (0..n * mean.len()).map(|i| (mean[i % mean.len()] + wave(i)) as f32).collect()
}

fn agree(name: &str, imported: Imported) {
    let file = ModelFile::open(format!("{}/../../models/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mean = file.metadata().unwrap().gaussian.as_ref().unwrap().mean.clone();
    let tract = TractModel::load(&file).unwrap();
    let d = mean.len();
    for n in [1, 2, 7] {
        let x = rows(&mean, n);
        let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let (of_w, of_head) = imported(Tensor::from_data(TensorData::new(x, [n, d]), &Default::default()));
        compare(&format!("{name}, {n} rows"), &tract, &wide, of_w);
        assert_eq!(of_head.is_some(), tract.gibbs().is_some(), "{name}");
        if let Some((head, of_head)) = tract.gibbs().zip(of_head) {
            // A file holds the head alone: its mixture, if it has one, is metadata.
            let head = HeadFactor::new(head.precision().clone(), head.centre().to_vec()).unwrap();
            compare(&format!("{name}, head, {n} rows"), &head, &wide, of_head);
        }
    }
}

fn compare(what: &str, w: &dyn Potential, x: &[f64], (values, gradients): Answers) {
    let (mut value, mut gradient) = (vec![0.0; x.len() / w.dim()], vec![0.0; x.len()]);
    w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
    let (values, gradients): (Vec<f32>, Vec<f32>) =
        (values.into_data().into_vec().unwrap(), gradients.into_data().into_vec().unwrap());
    // The bars between engines: two orders in which f32 sums of thousands of terms may be taken.
    for (a, b) in value.iter().zip(&values) {
        assert!((a - f64::from(*b)).abs() <= 1e-5 * a.abs().max(1.0), "{what}: {a} {b}");
    }
    let largest = gradient.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
    assert!(largest > 1e-2, "{what}: a gradient that shows nothing");
    for (a, b) in gradient.iter().zip(&gradients) {
        assert!((a - f64::from(*b)).abs() <= 1e-4 * largest, "{what}: {a} {b}");
    }
}

/// The four outputs of a file that holds its head.
fn with_gibbs<A, B>((value, gradient, of_head, slope): (A, B, A, B)) -> ((A, B), Option<(A, B)>) {
    ((value, gradient), Some((of_head, slope)))
}

#[test]
fn mnist_read_by_burn_onnx_agrees_with_tract() {
    agree("mnist", |x| {
        with_gibbs(mnist::Model::from_bytes(bytes(mnist::WEIGHTS), &Default::default()).forward(x))
    });
}

#[test]
fn faces_read_by_burn_onnx_agree_with_tract() {
    agree("faces", |x| {
        with_gibbs(faces::Model::from_bytes(bytes(faces::WEIGHTS), &Default::default()).forward(x))
    });
}

#[test]
fn eight_gaussians_read_by_burn_onnx_agree_with_tract() {
    agree("eight-gaussians", |x| {
        let model = eight_gaussians::Model::from_bytes(bytes(eight_gaussians::WEIGHTS), &Default::default());
        (model.forward(x), None)
    });
}
