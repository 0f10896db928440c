//! The metric of an update's linear solves: the inverse of the Hessian's mean over data.
//!
//! P = S^{1/3} is the inverse Hessian that a run starts with. Units then bend where the data are: at noisy digits the
//! Hessian of a trained network has eigenvalues up to 20 in the metric P, and a system takes 10.5 products; in that of the
//! mean Hessian 4.8, which takes 15 percent off the time of an update there.

use std::sync::Arc;

use super::config::TrainConfig;
use super::inner::MOST_PROBED;
use crate::error::{Error, Result};
use crate::icnn::Head;
use crate::preconditioner::Preconditioner;
use crate::symmetric::Symmetric;

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

/// The metric of a mean Hessian [d, d]: P where none was looked at yet, and where its rounding left it indefinite.
pub(super) fn metric_of(mean_hessian: &[f64], p: &Arc<Preconditioner>) -> Result<Arc<Preconditioner>> {
    if mean_hessian.is_empty() {
        return Ok(p.clone());
    }
    let inverse = Symmetric::from(mean_hessian.to_vec()).inverse("the mean Hessian");
    match inverse.and_then(|inverse| Preconditioner::new(&inverse)) {
        Ok(metric) => Ok(Arc::new(metric)),
        Err(Error::NotPositiveDefinite(_)) => Ok(p.clone()),
        Err(e) => Err(e),
    }
}
