//! Other programs, which may never end.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a program prints and how it ends, given no input; nothing if it took longer than `limit`, when it is killed.
///
/// It may print what fits into a pipe: nobody reads before it has ended.
pub fn output_within(command: &mut Command, limit: Duration) -> std::io::Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().map(Some)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let run =
            |script: &str, limit| output_within(Command::new("sh").args(["-c", script]), limit).unwrap();
        let output = run("echo out; echo err >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        let begun = Instant::now();
        assert!(run("exec sleep 600", Duration::from_millis(50)).is_none());
        assert!(begun.elapsed() < Duration::from_secs(300));
    }
}
