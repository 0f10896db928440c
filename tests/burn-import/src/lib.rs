//! The shipped models as burn-onnx writes them: a model file is plain ONNX, which other tools can read.
//!
//! Weights are compiled in: by itself the written code opens them by the path that the build had.
#![allow(missing_docs, clippy::all)]

pub mod mnist {
    include!(concat!(env!("OUT_DIR"), "/models/mnist.rs"));
    pub const WEIGHTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/models/mnist.bpk"));
}

pub mod faces {
    include!(concat!(env!("OUT_DIR"), "/models/faces.rs"));
    pub const WEIGHTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/models/faces.bpk"));
}

pub mod eight_gaussians {
    include!(concat!(env!("OUT_DIR"), "/models/eight-gaussians.rs"));
    pub const WEIGHTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/models/eight-gaussians.bpk"));
}
