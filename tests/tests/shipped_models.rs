//! The models that ship: they open, answer their probes, and their densities are what their cards say.

use std::path::{Path, PathBuf};

use cmf_core::Potential;
use cmf_core::density::{Lanczos, estimated_log_density, exact_log_density, is_exact};
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_plugins::data::{self, Split};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_two_dimensional_density_integrates_to_one() {
    let file = ModelFile::open(root().join("models/eight-gaussians.onnx")).unwrap();
    let log_z = file.metadata().unwrap().log_z.unwrap();
    let w = TractModel::load(&file).unwrap();
    // The midpoint rule on a grid far finer than the density's features (width 0.3 and more).
    let (side, half) = (240, 9.0);
    let step = 2.0 * half / side as f64;
    let points: Vec<f64> = (0..side * side)
        .flat_map(|k| [k / side, k % side].map(|i| -half + step * (i as f64 + 0.5)))
        .collect();
    let density = exact_log_density(&w, log_z.value, &points).unwrap();
    let integral: f64 = density.value.iter().map(|v| v.exp()).sum::<f64>() * step * step;
    // log Z is an estimate: four of its standard errors, and 1e-3 for the grid and f32.
    let error = integral.ln().abs();
    assert!(error < 4.0 * log_z.standard_error + 1e-3, "integral {integral}, {log_z:?}");
}

#[test]
fn mnist_scores_held_out_digits_far_above_the_gaussian() {
    let file = ModelFile::open(root().join("models/mnist.onnx")).unwrap();
    let metadata = file.metadata().unwrap();
    let w = TractModel::load(&file).unwrap();
    let digits = data::open("mnist", Some(&root().join("tests/fixtures/mnist-small")), 0).unwrap();
    let n = 32;
    let mut y = vec![0.0; n * 784];
    digits.data.read(Split::HeldOut, &(0..n).collect::<Vec<_>>(), &mut y).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    y.iter_mut().for_each(|v| *v += metadata.sigma * rng.sample::<f64, _>(StandardNormal));
    let ours = exact_log_density(&w, metadata.log_z.unwrap().value, &y).unwrap().value;
    let gaussian = metadata.gaussian.as_ref().unwrap().log_density(&y).unwrap();
    let gains: Vec<f64> = ours.iter().zip(&gaussian).map(|(a, b)| a - b).collect();
    let mean = gains.iter().sum::<f64>() / n as f64;
    let spread = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / (n * (n - 1)) as f64).sqrt();
    // The card's figures put the gain near 120 nats; five standard errors of 32 digits stay clear of 50.
    assert!(mean - 5.0 * spread > 50.0, "{mean} ± {spread}");
}

#[test]
fn faces_score_above_the_gaussian() {
    let file = ModelFile::open(root().join("models/faces.onnx")).unwrap();
    let size = std::fs::metadata(file.path()).unwrap().len();
    // In all dimensions its forms and directions would take 21 MB.
    assert!(size < 5 << 20, "{size} bytes");
    let metadata = file.metadata().unwrap();
    let w = TractModel::load(&file).unwrap();
    let faces = data::open("synthetic-faces", None, 0).unwrap();
    let n = 32;
    let mut y = vec![0.0; n * file.dim()];
    faces.data.read(Split::HeldOut, &(0..n).collect::<Vec<_>>(), &mut y).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    y.iter_mut().for_each(|v| *v += metadata.sigma * rng.sample::<f64, _>(StandardNormal));
    let gaussian = metadata.gaussian.as_ref().unwrap();
    let log_z = metadata.log_z.unwrap().value;
    // The network bends along 128 directions alone, so that its densities are exact in 3072 dimensions.
    assert!(is_exact(&w));
    let ours = exact_log_density(&w, log_z, &y).unwrap();
    let theirs = gaussian.log_density(&y).unwrap();
    let gains: Vec<f64> = ours.value.iter().zip(&theirs).map(|(a, b)| a - b).collect();
    let mean = gains.iter().sum::<f64>() / n as f64;
    let spread = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / (n * (n - 1)) as f64).sqrt();
    // Estimates by Lanczos, which know nothing of directions, are as they say they are.
    let near = gaussian.quadratic_start().unwrap().inverse_hessian().unwrap();
    let lanczos = Lanczos { probes: 16, ..Lanczos::default() };
    let some = 4;
    let estimate = estimated_log_density(&w, log_z, &y[..some * file.dim()], &near, lanczos).unwrap();
    for ((value, exact), error) in estimate.value.iter().zip(&ours.value).zip(&estimate.standard_error) {
        assert!((value - exact).abs() < 4.0 * error, "{value} ± {error} against {exact}");
    }
    // The card's gain is 84 nats, some 10 from face to face: five standard errors of 32 faces stay clear of 70.
    assert!(mean - 5.0 * spread > 70.0, "{mean} ± {spread}");
}

/// What `cmf-cli verify` asks of every engine, asked of the one that is always there.
#[test]
fn tract_computes_what_the_reference_does() {
    for name in ["eight-gaussians", "mnist", "faces"] {
        let file = ModelFile::open(root().join(format!("models/{name}.onnx"))).unwrap();
        let reference = file.network().unwrap().cast::<f64>().unwrap();
        let gaussian = file.metadata().unwrap().gaussian.clone().unwrap();
        let (d, n) = (file.dim(), 256);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let spread: Vec<f64> = gaussian.covariance.diagonal().iter().map(|v| v.sqrt()).collect();
        // As the engine sees them, which reads f32.
        let x: Vec<f64> = (0..n * d)
            .map(|i| gaussian.mean[i % d] + spread[i % d] * rng.sample::<f64, _>(StandardNormal))
            .map(|v| f64::from(v as f32))
            .collect();
        let answers = |w: &dyn Potential| {
            let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
            w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            [value, gradient]
        };
        let [found, want] = [answers(&TractModel::load(&file).unwrap()), answers(&reference)];
        // The bars of the engines: 1e-5 of the largest value, 1e-4 of the largest component.
        for (what, bar) in [(0, 1e-5), (1, 1e-4)] {
            let largest = want[what].iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let off = found[what].iter().zip(&want[what]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(
                off <= bar * (1.0 + largest),
                "{name}, {}: {off:e} of {largest}",
                ["value", "gradient"][what]
            );
        }
    }
}
