//! Engines and devices as a user meets them: libraries of ONNX Runtime that do not serve, devices that are not
//! there, what `verify`, `doctor` and `bench` say.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod libraries;
mod machine;
mod with_onnxruntime;
