//! `cmf-cli`: train, export, sample, score and inpaint with one convex potential.

mod args;
mod batch;
mod commands;
mod compare;
mod completion;
mod data_spec;
mod drawing;
#[cfg(feature = "train")]
mod energy_spec;
mod engine;
mod figures;
mod grid;
#[cfg(feature = "train")]
mod health;
mod images;
mod interrupt;
mod jpeg;
mod mask;
#[cfg(feature = "train")]
mod mixture;
mod model;
mod pictures;
mod plot;
mod plugin_args;
mod plugin_check;
mod plugin_new;
mod points;
mod report;
#[cfg(feature = "train")]
mod run_directory;
mod table;
mod task_files;
mod timing;
#[cfg(feature = "train")]
mod training_device;
#[cfg(feature = "train")]
mod training_settings;
mod workers;

use std::process::ExitCode;

use clap::Parser;
use cmf_core::{Error, Result};
use mimalloc::MiMalloc;

/// Formulas make and drop arrays of megabytes at every step, which the system's allocator hands back to the kernel and
/// asks for again: page faults cost a third of a training in the plane.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Stack of each thread, in bytes: what a main thread has.
const STACK: usize = 8 << 20;

/// Runs the command on one of the threads that share its work. From any other thread each sweep that is shared waits until
/// one of them has woken up: a sixth of a training in the plane.
fn run(cli: args::Cli) -> Result<report::Outcome> {
    rayon::ThreadPoolBuilder::new()
        .stack_size(STACK)
        .build_global()
        .map_err(|e| Error::Invalid(format!("threads cannot be started: {e}")))?;
    rayon::scope(|_| cli.run())
}

fn main() -> ExitCode {
    cmf_plugins::host::name_libraries_on_fault();
    let outcome = interrupt::catch().and_then(|()| run(args::Cli::parse()));
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(Error::Interrupted) => report::Outcome::Interrupted.exit_code(),
        Err(e) => {
            eprintln!("error: {e}");
            report::Outcome::Failed.exit_code()
        }
    }
}
