//! The shipped models as burn-onnx writes them: a model file is plain ONNX, which other tools can read.
#![allow(missing_docs, clippy::all)]

pub mod mnist {
    include!(concat!(env!("OUT_DIR"), "/models/mnist.rs"));
}

pub mod faces {
    include!(concat!(env!("OUT_DIR"), "/models/faces.rs"));
}

pub mod eight_gaussians {
    include!(concat!(env!("OUT_DIR"), "/models/eight-gaussians.rs"));
}
