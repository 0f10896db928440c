//! The built-in tasks, written as plugins are: sample, score, inpaint.

mod inpaint;
mod model;
mod sample;
mod score;

use cmf_plugin::{DensityStatus, Entry, Error, Host, Result, Task};

/// The built-in tasks, by name.
pub static TASKS: [Entry<dyn Task>; 3] = [sample::SAMPLE, score::SCORE, inpaint::INPAINT];

/// y + σ² ∇ log ρ(y), the mean of the clean point given the noisy y (Robbins, 1956; Efron, 2011).
fn tweedie(host: &dyn Host, y: &[f64], sigma: f64) -> Result<Vec<f64>> {
    if sigma == 0.0 {
        return Ok(y.to_vec());
    }
    let mut score = vec![0.0; y.len()];
    let rows = host.log_density(y, Some(&mut score))?;
    if rows.iter().any(|row| row.status != DensityStatus::Evaluated) {
        return Err(Error::failed("a sample has no log-density to take its noise off by; use noise = keep"));
    }
    Ok(y.iter().zip(score).map(|(y, s)| y + sigma * sigma * s).collect())
}

/// [`Error::cancelled`] if the user has asked to stop.
fn check_cancelled(host: &dyn Host) -> Result<()> {
    if host.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}
