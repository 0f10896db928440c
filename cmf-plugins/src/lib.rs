//! What CMF knows by name: the built-in data sets.
//!
//! Names resolve in the process, through traits that are object-safe, batched over rows and write into
//! slices of the caller, so that a dynamic library can implement them later.

pub mod data;
