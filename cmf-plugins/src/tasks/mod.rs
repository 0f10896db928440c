//! The built-in tasks, written as plugins are: sample, score, inpaint.

mod inpaint;
mod model;
mod sample;
mod score;

use cmf_plugin::{Entry, Error, Host, Result, Task};

/// The built-in tasks, by name.
pub static TASKS: [Entry<dyn Task>; 3] = [sample::SAMPLE, score::SCORE, inpaint::INPAINT];

/// [`Error::cancelled`] if the user has asked to stop.
fn check_cancelled(host: &dyn Host) -> Result<()> {
    if host.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}
