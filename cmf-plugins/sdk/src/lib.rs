//! Write energies, data sets and tasks for CMF: implement one small trait, name it in one macro line.
//!
//! ```
//! use cmf_plugin::{Energy, Entry, Parameters, Result};
//!
//! struct Well { depth: f64 }
//!
//! impl Energy for Well {
//!     fn dim(&self) -> usize {
//!         1
//!     }
//!     fn domain(&self) -> (Vec<f64>, Vec<f64>) {
//!         (vec![-2.0], vec![2.0])
//!     }
//!     fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
//!         for ((x, value), gradient) in x.iter().zip(value).zip(gradient) {
//!             *value = self.depth * (x * x - 1.0).powi(2);
//!             *gradient = self.depth * 4.0 * x * (x * x - 1.0);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn create(parameters: &Parameters) -> Result<Box<dyn Energy>> {
//!     Ok(Box::new(Well { depth: parameters.number("depth")? }))
//! }
//!
//! cmf_plugin::export! {
//!     energies: [Entry {
//!         name: "well",
//!         about: "A double well on the line",
//!         parameters: r#"{"type":"object","properties":{"depth":{"type":"number","default":1,"minimum":0}}}"#,
//!         create,
//!     }],
//! }
//! # fn main() {}
//! ```
//!
//! The crate type is `cdylib`. No code here or in a plugin need be `unsafe`: the macro writes the exported
//! symbol, and every call from outside passes one guard that checks pointers and lengths, catches panics and
//! turns errors into a code with words. `cmf_plugin.h` is the same interface for C.

pub mod abi;
mod error;
mod export;
#[doc(hidden)]
pub mod guard; // Public for the host, which lends out tables of functions itself.
mod parameters;
mod schema;
mod table_host;
mod traits;

pub use error::{Error, Result, Status};
pub use export::{Exports, Registry, Tables};
pub use guard::{call, text_of};
pub use parameters::Parameters;
pub use schema::{Kind, Property, Schema};
pub use traits::{
    ConjugateRow, DataSet, DensityRow, DensityStatus, Energy, Entry, Files, GibbsReport, Host, Input, Law,
    Level, ModelInfo, RowStatus, Shape, Split, Task,
};
