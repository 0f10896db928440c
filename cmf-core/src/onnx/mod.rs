//! The model file, one self-describing ONNX graph, and the engines that run it.
//!
//! [`export`] writes a network with its [`Metadata`]; [`ModelFile::open`] checks and reads any ONNX
//! model of a convex potential; [`TractModel::load`] makes it a [`crate::Potential`], and so does
//! `OrtModel::load` with the feature `ort`.

mod builder;
mod check;
mod constants;
mod differences;
mod directions;
mod file;
#[cfg(test)]
mod fixture;
mod graph;
mod lean;
mod memory;
mod metadata;
mod moments;
#[cfg(feature = "ort")]
mod onnxruntime;
mod probes;
mod properties;
mod proto;
mod recording;
#[cfg(feature = "ort")]
mod session;
mod tract;

pub use file::{ModelFile, export, export_function};
pub use graph::Function;
pub use metadata::{Data, LogZ, Metadata, Probe, Shape};
#[cfg(feature = "ort")]
pub use onnxruntime::{Device, OnnxRuntime, OrtModel};
pub use properties::FORMAT_VERSION;
pub use tract::TractModel;
