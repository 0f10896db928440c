//! The host's side: which plugins there are, whether they may run, and calling them.
//!
//! Native code can do anything that the user can. So nothing is loaded that was not asked for by name, a
//! library outside the platform's folder needs the user's word, files that anyone can write are refused, and
//! what a file is (library, architecture, symbol) is read from it before any of its code runs.

pub mod cuda;
mod discovery;
mod faults;
mod library;
mod manifest;
mod model_host;
mod objects;
pub mod onnxruntime;
mod plugins;
mod potential;
mod process;
mod table;
mod trust;

pub use discovery::{Found, Origin, Search, plugin_folder};
pub use faults::name_libraries_on_fault;
pub use library::{Inspected, Library, Offer, inspect};
pub use manifest::{Manifest, manifest_path};
pub use model_host::{Model, ModelHost};
pub(crate) use objects::explained;
pub use objects::{Offered, PluginDataSet, PluginEnergy, PluginTask};
pub use plugins::{KindOfPlugin, Plugins, Resolved};
pub use potential::EnergyPotential;
pub use process::output_within;
pub use trust::TrustStore;
