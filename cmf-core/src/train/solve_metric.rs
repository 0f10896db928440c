//! The metric of an update's linear solves: the inverse of the Hessian's mean over data.
//!
//! P = S^{1/3} is the inverse Hessian that a run starts with. Units then bend where the data are: at noisy digits the
//! Hessian of a trained network has eigenvalues up to 20 in the metric P, and a system takes 10.5 products; in that of the
//! mean Hessian 4.8, which takes 15 percent off the time of an update there.

use super::config::TrainConfig;
use super::inner::MOST_PROBED;
use crate::error::Result;
use crate::icnn::Head;
use crate::preconditioner::Preconditioner;

/// Updates between two looks at the Hessian, and the first.
const EVERY: usize = 50;
const FIRST: usize = 10;
/// Points of the batch over which it is averaged in other than flat networks, where every point costs.
const POINTS: usize = 16;

/// How many rows of its batch an update averages the Hessian over: none between two looks, in the plane, where two products
/// solve a system, and beside a spiked head, which stands for matrices that are too large.
pub(super) fn points(config: &TrainConfig, update: usize) -> usize {
    let arch = &config.architecture;
    let useful = arch.head == Head::Full && arch.dim > MOST_PROBED;
    match useful && update % EVERY == FIRST {
        true if arch.is_flat() => config.batch,
        true => POINTS.min(config.batch),
        false => 0,
    }
}

/// The metric that a checkpoint's mean Hessian stands for; none before the first look.
pub(super) fn kept(mean_hessian: &[f64]) -> Result<Option<Preconditioner>> {
    match mean_hessian.is_empty() {
        true => Ok(None),
        false => Preconditioner::of_mean_hessian(mean_hessian),
    }
}
