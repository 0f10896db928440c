//! What CMF knows by name: energies, data sets and tasks, built in or from dynamic libraries.
//!
//! Plugins are written with the small crate `cmf-plugin` or against `include/cmf_plugin.h`; the built-ins
//! implement the same traits, and this crate built as a dynamic library is a plugin that offers them.
//! [`host`] finds, loads and calls plugins.

// The one crate that crosses a binary boundary: each block says why it is sound.
#![allow(unsafe_code)]

pub mod check;
pub mod data;
pub mod digest;
pub mod energies;
mod error;
pub mod host;
pub mod tasks;

pub use cmf_plugin as sdk;
pub use error::{core_error, plugin_error};

cmf_plugin::export! {
    energies: energies::ENERGIES,
    datasets: data::DATASETS,
    tasks: tasks::TASKS,
}
