//! Ctrl-C: the first asks for a clean end, the second ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

use cmf_core::{Error, Result};

/// The exit code of an interrupted command, as shells have it (128 + SIGINT).
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C (and SIGTERM, SIGHUP) from now on.
pub fn catch() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
        eprintln!("interrupted: ending cleanly (once more to end at once)");
    })
    .map_err(|e| Error::Invalid(format!("cannot catch Ctrl-C: {e}")))
}

/// Whether the user has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// [`Error::Interrupted`] if the user has asked to stop.
pub fn check() -> Result<()> {
    if asked() { Err(Error::Interrupted) } else { Ok(()) }
}
