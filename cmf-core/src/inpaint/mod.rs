//! Fills hidden coordinates of a point with what the model's density makes likely.
//!
//! The target is the full log ρ(y), log-determinant included, over the hidden coordinates with the known
//! ones fixed: its maximiser is the mode ([`Mode`]), its law the posterior ([`Mala`], [`Langevin`]). All
//! three measure lengths by the curvature that the model has in the [`Hole`]; with the closed-form start
//! it is the inverse of the conditional covariance.
//!
//! A model of data with noise σ has the density of y = x + σ n. Tweedie's formula gives back the clean
//! point, E[x | y] = y + σ² ∇ log ρ(y). At a mode the hidden part of ∇ log ρ is zero and it changes nothing; draws have
//! their noise, and [`denoise`] takes it off. Known coordinates are read as they are: a clean one sits at the centre of its
//! noise, where the model finds it likely.

mod ascent;
mod hole;
mod mode;
mod posterior;
#[cfg(test)]
mod tests;
mod walk;
mod whitening;

pub use ascent::Outcome;
pub use hole::{Hole, denoise};
pub use mode::{Completion, Mode, Start};
pub use posterior::{Completions, Langevin, LangevinRun, Mala, MalaRun};

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// Hears the share of the work that is done, from 0 to 1, and says whether to go on.
pub type Monitor<'a> = dyn FnMut(f64) -> ControlFlow<()> + 'a;

fn report(monitor: &mut Monitor, done: f64) -> Result<()> {
    match monitor(done) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}
