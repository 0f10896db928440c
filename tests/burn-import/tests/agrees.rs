//! burn-onnx and tract give the same values and gradients for the same file.

use burn::backend::Flex;
use burn::tensor::{Bytes, Tensor, TensorData};
use cmf_burn_import::{eight_gaussians, faces, mnist};
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::potential::Potential;

/// What a model that burn-onnx wrote says of the rows x.
type Imported = fn(Tensor<Flex, 2>) -> (Tensor<Flex, 1>, Tensor<Flex, 2>);

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
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
        tract.value_and_gradient(&wide, &mut value, &mut gradient).unwrap();
        let (values, gradients) =
            imported(Tensor::from_data(TensorData::new(x, [n, d]), &Default::default()));
        let (values, gradients): (Vec<f32>, Vec<f32>) =
            (values.into_data().into_vec().unwrap(), gradients.into_data().into_vec().unwrap());
        // The bars between engines: two orders in which f32 sums of thousands of terms may be taken.
        for (a, b) in value.iter().zip(&values) {
            assert!((a - f64::from(*b)).abs() <= 1e-5 * a.abs().max(1.0), "{name}, {n} rows: {a} {b}");
        }
        let largest = gradient.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
        assert!(largest > 1e-2, "{name}: a gradient that shows nothing");
        for (a, b) in gradient.iter().zip(&gradients) {
            assert!((a - f64::from(*b)).abs() <= 1e-4 * largest, "{name}, {n} rows: {a} {b}");
        }
    }
}

#[test]
fn mnist_read_by_burn_onnx_agrees_with_tract() {
    agree("mnist", |x| mnist::Model::from_bytes(bytes(mnist::WEIGHTS), &Default::default()).forward(x));
}

#[test]
fn faces_read_by_burn_onnx_agree_with_tract() {
    agree("faces", |x| faces::Model::from_bytes(bytes(faces::WEIGHTS), &Default::default()).forward(x));
}

#[test]
fn eight_gaussians_read_by_burn_onnx_agree_with_tract() {
    agree("eight-gaussians", |x| {
        eight_gaussians::Model::from_bytes(bytes(eight_gaussians::WEIGHTS), &Default::default()).forward(x)
    });
}
