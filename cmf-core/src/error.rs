//! The one error type of the crate: broken or misused. An unconverged solve is not an error, it has a
//! status.

use std::path::PathBuf;

/// What went wrong, in words a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A slice or matrix has another size than the call asks for.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// The size or shape that the call needs.
        expected: String,
        /// The size or shape that came.
        found: String,
    },
    /// A setting is outside its range.
    #[error("{0}")]
    Invalid(String),
    /// A value that must be finite is NaN or infinite.
    #[error("{0} is not finite")]
    NotFinite(String),
    /// A matrix that must be symmetric positive definite is not.
    #[error("{0} is not positive definite")]
    NotPositiveDefinite(String),
    /// A file is not what it should be.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// An engine or backend failed.
    #[error("{engine}: {message}")]
    Engine {
        /// Which engine.
        engine: &'static str,
        /// Its words.
        message: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An I/O or content failure of one file.
    pub fn file(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Error::File { path: path.into(), message: message.to_string() }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Fails with [`Error::Shape`] unless `found == expected` (element counts).
pub fn check_len(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_string(), found: found.to_string() })
}
