//! Learning a potential from samples, on Burn.
//!
//! [`Trainer`] takes one update at a time; loops, pictures and progress belong to its caller. Burn's
//! types stay inside this module: what comes out is a network on the host.

mod average;
mod checkpoint;
mod config;
pub mod inner;
mod objective;
mod ops;
mod parameters;
mod precondition;
mod trainer;

pub use config::TrainConfig;
pub use precondition::Preconditioner;
pub use trainer::{Metrics, Samples, Trainer};
