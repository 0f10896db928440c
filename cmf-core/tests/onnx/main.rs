//! The model file and the tract engine: against the f64 reference, against golden answers, and against
//! files that must be refused.

#[path = "../common/mod.rs"]
mod common;
mod directions;
mod engine;
mod file;
mod foreign;
mod golden;
#[cfg(feature = "ort")]
mod onnxruntime;

use cmf_core::icnn::Icnn;
use cmf_core::onnx::{Metadata, ModelFile, Probe, TractModel, export};

/// Metadata of a network with the reference's answers at the rows of `x`.
fn metadata(reference: &Icnn<f64>, x: &[f64]) -> Metadata {
    let mut metadata = Metadata::new(reference.architecture().clone());
    metadata.probes = Probe::record(reference, x).unwrap();
    metadata
}

/// The network after a trip through a file.
fn through_file(reference: &Icnn<f64>) -> TractModel {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let d = reference.architecture().dim;
    export(&path, &reference.cast().unwrap(), &metadata(reference, &vec![0.3; d])).unwrap();
    TractModel::load(&ModelFile::open(&path).unwrap()).unwrap()
}

/// Asserts |a - b| <= tolerance max(1, max |b|) for all elements.
#[track_caller]
fn assert_close(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    let scale = b.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "{what}: differs by {worst:e}, of numbers up to {scale:e}");
    assert!(a.iter().all(|v| v.is_finite()), "{what}: not finite");
}
