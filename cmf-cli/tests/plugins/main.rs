//! Plugins as a user meets them: real libraries, built by cargo and by the C compiler, in the real binary.
#![cfg(unix)]
#![allow(missing_docs)]

mod build;
#[path = "../common/mod.rs"]
mod common;
mod discovery;
mod hostile;
mod new;
mod tasks;
