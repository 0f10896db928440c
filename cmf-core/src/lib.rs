//! The mathematics of conjugate moment measures.
//!
//! A conjugate moment measure writes a distribution as ρ = (∇w*)#P_w with P_w = e^{-w}/Z_w and one
//! convex potential w (Vesseron, Béthune and Cuturi, 2025, Theorem 1). Sampling draws x ~ P_w by
//! Langevin dynamics and returns y = ∇w*(x), a convex solve; the density is
//! ρ(y) = exp(-w(∇w(y))) det ∇²w(y) / Z_w (their equation 9). [`icnn::GibbsFactor`] says when P_w is of a part of w.
//!
//! Everything here works on one noun, [`Potential`]: solvers, samplers, densities and inpainting are
//! written once for every engine. The optional halves are `onnx` (the model file and the tract
//! engine; with `ort` ONNX Runtime as well) and `train` (Burn).

pub mod closed_form;
mod components;
pub mod conjugate;
pub mod density;
pub mod draws;
pub mod energy;
pub mod error;
pub mod evaluation;
pub mod files;
pub mod gaussian;
pub mod gibbs_start;
mod halves;
pub mod head_factor;
pub mod host;
pub mod icnn;
pub mod inpaint;
pub mod linalg;
pub mod line;
pub mod mixture;
pub mod normaliser;
pub mod ops;
pub mod potential;
pub mod preconditioner;
pub mod sampler;
pub mod sinkhorn;
pub mod source;
pub mod symmetric;

#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
pub use potential::{Potential, SecondOrder};
pub use source::Source;
