//! The one error type of plugins: a status of the binary interface and words.

use std::fmt;

use crate::abi;

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It did not work.
    Failed,
    /// An argument does not fit.
    Invalid,
    /// The object does not do that.
    Unsupported,
    /// The user asked to stop.
    Cancelled,
    /// The callee broke and caught itself.
    Panic,
}

impl Status {
    /// The code of `cmf_plugin.h`.
    pub fn code(self) -> i32 {
        match self {
            Status::Failed => abi::FAILED,
            Status::Invalid => abi::INVALID,
            Status::Unsupported => abi::UNSUPPORTED,
            Status::Cancelled => abi::CANCELLED,
            Status::Panic => abi::PANIC,
        }
    }

    /// The status of a code other than 0; codes of later versions count as failed.
    pub fn from_code(code: i32) -> Status {
        match code {
            abi::INVALID => Status::Invalid,
            abi::UNSUPPORTED => Status::Unsupported,
            abi::CANCELLED => Status::Cancelled,
            abi::PANIC => Status::Panic,
            _ => Status::Failed,
        }
    }
}

/// What went wrong, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub status: Status,
    /// Its words.
    pub text: String,
}

impl Error {
    /// It did not work.
    pub fn failed(text: impl ToString) -> Error {
        Error { status: Status::Failed, text: text.to_string() }
    }

    /// An argument or parameter does not fit.
    pub fn invalid(text: impl ToString) -> Error {
        Error { status: Status::Invalid, text: text.to_string() }
    }

    /// The object does not do that.
    pub fn unsupported(text: impl ToString) -> Error {
        Error { status: Status::Unsupported, text: text.to_string() }
    }

    /// The user asked to stop.
    pub fn cancelled() -> Error {
        Error { status: Status::Cancelled, text: "interrupted".into() }
    }

    /// The same error with words before it that say where it comes from; none if they are empty.
    pub fn of(self, source: &str) -> Error {
        match source {
            "" => self,
            source => Error { text: format!("{source}: {}", self.text), ..self },
        }
    }

    /// Fails with [`Status::Invalid`] unless a slice has the length that the call asks for.
    pub fn check_len(what: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::invalid(format!("{what}: expected {expected} numbers, found {found}")))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
