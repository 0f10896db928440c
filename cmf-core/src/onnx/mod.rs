//! The model file, one self-describing ONNX graph, and the tract engine that runs it.
//!
//! [`export`] writes a network with its [`Metadata`]; [`ModelFile::open`] checks and reads any ONNX
//! model of a convex potential; [`TractModel::load`] makes it a [`crate::Potential`].

mod builder;
mod check;
mod differences;
mod engine;
mod file;
mod graph;
mod memory;
mod metadata;
mod moments;

pub use engine::TractModel;
pub use file::{ModelFile, export, export_function};
pub use graph::Function;
pub use metadata::{Data, FORMAT_VERSION, LogZ, Metadata, Probe, Shape};
