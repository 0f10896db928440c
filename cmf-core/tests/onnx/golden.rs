//! The golden models: files made once, with answers from onnxruntime (tests/peers/check_onnx.py).

use std::path::PathBuf;

use cmf_core::Potential;
use cmf_core::onnx::{ModelFile, TractModel, export};
use cmf_core::ops::Activation;
use serde::Deserialize;

use crate::common::random_network;
use crate::{assert_close, metadata};

#[derive(Deserialize)]
struct Answers {
    x: Vec<Vec<f64>>,
    value: Vec<f64>,
    gradient: Vec<Vec<f64>>,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn tract_gives_the_answers_of_onnxruntime() {
    for name in ["elu_2d", "softplus_16d"] {
        let text = std::fs::read_to_string(golden(&format!("{name}.json"))).unwrap();
        let answers: Answers = serde_json::from_str(&text).unwrap();
        let engine = TractModel::load(&ModelFile::open(golden(&format!("{name}.onnx"))).unwrap()).unwrap();
        let (n, x) = (answers.x.len(), answers.x.concat());
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; x.len()]);
        engine.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        // Both engines round to f32 (6e-8) after each of a few dozen operations.
        assert_close(name, &value, &answers.value, 3e-6);
        assert_close(name, &gradient, &answers.gradient.concat(), 3e-6);
    }
}

/// Makes the golden models again; their answers come from tests/peers/check_onnx.py.
#[test]
#[ignore = "writes into the source tree"]
fn make_golden_models() {
    let softplus = Activation::Softplus { beta: 4.0 };
    for (name, network) in [
        ("elu_2d", random_network(2, &[8, 8], 1, false, Activation::Elu)),
        ("softplus_16d", random_network(16, &[24, 16], 2, true, softplus)),
    ] {
        let d = network.architecture().dim;
        let x: Vec<f64> = (0..3 * d).map(|i| (i as f64).sin()).collect();
        export(golden(&format!("{name}.onnx")), &network.cast().unwrap(), &metadata(&network, &x)).unwrap();
    }
}
