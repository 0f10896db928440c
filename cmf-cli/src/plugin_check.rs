//! The two processes of `plugin check`: a child that runs the suite, a parent that survives it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cmf_core::{Error, Result};
use cmf_plugins::check::{self, Event, Settings};
use serde_json::json;

use crate::interrupt;
use crate::report::{Outcome, Report};

/// Runs the suite here, writing each event to the file `events` before anything else happens.
pub fn child(path: &Path, settings: &Settings, events: &Path) -> Result<Outcome> {
    let fail = |e: std::io::Error| Error::file(events, format!("cannot write: {e}"));
    let mut file = OpenOptions::new().append(true).open(events).map_err(fail)?;
    let mut broken = None;
    check::run(path, settings, &mut |event| {
        let line = serde_json::to_string(&event).unwrap_or_default();
        // One write a line: the parent reads while this goes on, and a crash must find it written.
        if let Err(e) = file.write_all(format!("{line}\n").as_bytes()) {
            broken = Some(e);
        }
    });
    match broken {
        Some(e) => Err(fail(e)),
        None => Ok(Outcome::Done),
    }
}

/// Runs the suite in a child; true if all of it passed.
pub fn parent(path: &Path, settings: &Settings, limit: Duration, report: &Report) -> Result<bool> {
    let folder = tempfile::tempdir().map_err(|e| Error::file("the temporary folder", e))?;
    let events = folder.path().join("events");
    std::fs::write(&events, "").map_err(|e| Error::file(&events, e))?;
    let program = std::env::current_exe().map_err(|e| Error::file("this program", e))?;
    let mut command = Command::new(program);
    command.args(["plugin", "check-here", "--seed", &settings.seed.to_string(), "--events"]).arg(&events);
    for (name, value) in &settings.set {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    // What a plugin prints is no part of the report.
    command.arg("--").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| Error::Invalid(format!("cannot start the check: {e}")))?;
    let mut reader = Reader { seen: 0, open: None, passed: 0, failed: Vec::new(), ended: false };
    let ended = reader.watch(&mut child, &events, limit, report);
    if ended.is_err() {
        // It is ours, and on an error nobody else will end it.
        let _ = child.kill();
        let _ = child.wait();
    }
    if let Some((check, message)) = ended? {
        report.text(format!("FAILED  {check}: {message}"))?;
        reader.failed.push(json!({ "check": check, "message": message }));
    }
    let (passed, failed) = (reader.passed, reader.failed.len());
    report.text(format!("{passed} passed, {failed} failed"))?;
    if failed > 0 {
        let set: String = settings.set.iter().map(|(name, value)| format!(" --set {name}={value}")).collect();
        report.note(format!(
            "run it again with: cmf-cli plugin check {} --seed {}{set}",
            path.display(),
            settings.seed
        ));
    }
    report.document(&json!({
        "library": path, "seed": settings.seed, "passed": passed, "failed": reader.failed,
    }))?;
    Ok(failed == 0)
}

/// Follows the child's events.
struct Reader {
    /// Bytes of the file that were read.
    seen: usize,
    /// The check that is running.
    open: Option<String>,
    passed: usize,
    failed: Vec<serde_json::Value>,
    ended: bool,
}

impl Reader {
    /// Follows the child to its end; what ended it, if that was no end of the suite.
    fn watch(
        &mut self,
        child: &mut Child,
        events: &Path,
        limit: Duration,
        report: &Report,
    ) -> Result<Option<(String, String)>> {
        let mut since = Instant::now();
        loop {
            let status =
                child.try_wait().map_err(|e| Error::Invalid(format!("cannot watch the check: {e}")))?;
            if self.read(events, report)? {
                since = Instant::now();
            }
            let running = || self.open.clone().unwrap_or_else(|| "between two checks".into());
            if let Some(status) = status {
                return Ok((!self.ended).then(|| (running(), in_words(status))));
            }
            interrupt::check()?;
            if since.elapsed() > limit {
                child
                    .kill()
                    .and_then(|()| child.wait())
                    .map_err(|e| Error::Invalid(format!("cannot end the check: {e}")))?;
                let message =
                    format!("hangs: it did not return within {} seconds (--timeout)", limit.as_secs());
                return Ok(Some((running(), message)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads what is new; whether there was something.
    fn read(&mut self, events: &Path, report: &Report) -> Result<bool> {
        let text = std::fs::read(events).map_err(|e| Error::file(events, e))?;
        let new = &text[self.seen.min(text.len())..];
        let Some(end) = new.iter().rposition(|&b| b == b'\n') else { return Ok(false) };
        let lines = String::from_utf8_lossy(&new[..end]).into_owned();
        self.seen += end + 1;
        for line in lines.lines() {
            let event =
                serde_json::from_str(line).map_err(|e| Error::file(events, format!("is damaged: {e}")))?;
            match event {
                Event::Begin { check } => self.open = Some(check),
                Event::Passed { check, note } => {
                    self.open = None;
                    self.passed += 1;
                    let note = if note.is_empty() { note } else { format!(" ({note})") };
                    report.text(format!("passed  {check}{note}"))?;
                }
                Event::Failed { check, message } => {
                    self.open = None;
                    report.text(format!("FAILED  {check}: {message}"))?;
                    self.failed.push(json!({ "check": check, "message": message }));
                }
                Event::End => self.ended = true,
            }
        }
        Ok(true)
    }
}

/// How a process ended that should not have.
fn in_words(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        // The numbers are the same on all Unix systems, but for SIGBUS.
        match status.signal() {
            Some(6) => return "aborts: the process ended itself (SIGABRT)".into(),
            Some(11) => return "segfaults: it touched memory that is not its own (SIGSEGV)".into(),
            Some(4 | 5) => return "crashes: an illegal instruction or a trap".into(),
            Some(7 | 10) => return "crashes: memory that is not there (SIGBUS)".into(),
            Some(8) => return "crashes: a division by zero (SIGFPE)".into(),
            Some(signal) => return format!("ended by signal {signal}"),
            None => {}
        }
    }
    format!("ended the process ({status})")
}
