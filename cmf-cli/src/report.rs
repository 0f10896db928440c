//! What a command says: results on standard output, messages and progress on standard error.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use cmf_core::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::interrupt;

/// How a command ended, short of an error that ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// Some of it failed; what and why has been said.
    Failed,
    /// The user stopped it; what was done has been said.
    Interrupted,
}

impl Outcome {
    /// Done or failed.
    pub fn of(success: bool) -> Outcome {
        if success { Outcome::Done } else { Outcome::Failed }
    }

    /// The process's exit code.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::FAILURE,
            Outcome::Interrupted => ExitCode::from(interrupt::EXIT_CODE),
        }
    }
}

/// How results and messages are written.
#[derive(clap::Args)]
pub struct Report {
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// No progress and no remarks on standard error, only errors and warnings
    #[arg(long, short)]
    pub quiet: bool,
}

impl Report {
    /// A remark, left out when quiet.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Something the user should know even when quiet.
    pub fn warn(&self, text: impl AsRef<str>) {
        eprintln!("warning: {}", text.as_ref());
    }

    /// A result as text, one or more lines; nothing where JSON was asked for.
    pub fn text(&self, text: impl AsRef<str>) -> Result<()> {
        if self.json { Ok(()) } else { print(text.as_ref()) }
    }

    /// The results as one JSON document, if that was asked for.
    pub fn document(&self, value: &impl Serialize) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::Invalid(format!("the results cannot be written as JSON: {e}")))?;
        print(&text)
    }

    /// A progress bar of `length` steps; hidden when quiet and where standard error is no terminal.
    pub fn progress(&self, length: usize, what: &str) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(length as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Writes a line to standard output; a reader that has gone away (`| head`) ends the program quietly.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::file("standard output", format!("cannot write: {e}"))),
        Ok(()) => Ok(()),
    }
}
