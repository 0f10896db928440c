//! Learning a potential from samples or from an energy, on Burn.
//!
//! [`Training`] takes one update at a time; loops, pictures and progress belong to its caller. A [`Trainer`] does so on
//! this machine's processor; with the feature `cuda` it can go on on a GPU. Burn's types stay inside this module: what
//! comes out is a network on the host.
//!
//! Parameters are trained in the data's own coordinates, which every architecture allows (diagonal terms
//! survive no rotation); the inner loops are preconditioned by the start's Gibbs covariance S^{1/3}, near
//! whose inverse the Hessian stays.

mod activation;
mod amortiser;
mod average;
mod checkpoint;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(test, feature = "cuda"))]
mod device;
mod energy;
pub mod inner;
mod least_squares;
mod noise_control;
mod objective;
mod ops;
mod parameters;
mod solve;
mod solve_metric;
mod source_mixture;
mod trainer;
mod training;

pub use config::{Method, TrainConfig};
pub use least_squares::applies as least_squares_applies;
pub use trainer::Trainer;
pub use training::{Metrics, ReadRows, Training};

#[cfg(test)]
mod tests;
