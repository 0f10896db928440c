//! The figures of the paper, made again: each is a section with pictures, numbers, settings and seeds.
//!
//! A figure is an entry of [`Which`] and a function in a file of its own; [`make`] connects them.

#[cfg(feature = "train")]
mod digit_methods;
mod digits;
#[cfg(feature = "train")]
mod energies;
mod gaussians;
#[cfg(feature = "train")]
mod heat;
#[cfg(feature = "train")]
mod learning;
mod line;
#[cfg(feature = "train")]
mod plane;
mod report;

use std::path::PathBuf;

use clap::ValueEnum;
use cmf_core::Result;
use serde::Serialize;

use crate::engine::EngineArgs;
use crate::plot;
use crate::report::Report;

pub use report::{Made, html};

/// The figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// Every figure
    All,
    /// Gaussians, their Gibbs factors in closed form (figure 1)
    #[value(alias = "1")]
    Gaussians,
    /// Mixtures on the line, moment against conjugate moment (figures 2 and 8 to 11)
    #[value(aliases = ["2", "8", "9", "10", "11"])]
    Line,
    /// Densities learned from energies in the plane (figures 3 and 12)
    #[cfg(feature = "train")]
    #[value(aliases = ["3", "12"])]
    Energies,
    /// Laws in the plane, learned from samples and by the baseline (figures 4 and 13)
    #[cfg(feature = "train")]
    #[value(aliases = ["4", "13"])]
    Plane,
    /// Samples of the MNIST model (figure 5)
    #[value(alias = "5")]
    Digits,
    /// Half digits completed by the MNIST model (figures 7 and 16)
    #[value(aliases = ["7", "16"])]
    Completions,
}

/// What decides a figure.
pub struct Settings {
    /// Smaller settings that two cores manage in minutes.
    pub quick: bool,
    /// Seed of all randomness.
    pub seed: u64,
    /// The MNIST model.
    pub model: PathBuf,
    /// What evaluates it, and where.
    pub engine: EngineArgs,
    /// A folder with MNIST's four idx files.
    pub mnist: PathBuf,
}

/// A figure that was made.
pub struct Section {
    /// Its name on the command line.
    pub which: Which,
    /// Its heading.
    pub title: &'static str,
    /// Paragraphs that say what is to be seen.
    pub text: Vec<String>,
    /// Pictures: file stem, caption, figure.
    pub pictures: Vec<(String, String, plot::Figure)>,
    /// Numbers.
    pub tables: Vec<Table>,
    /// Settings and seeds.
    pub settings: serde_json::Value,
}

/// A table of numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    fn new(caption: impl Into<String>, header: &[&str]) -> Table {
        Table {
            caption: caption.into(),
            header: header.iter().map(ToString::to_string).collect(),
            rows: vec![],
        }
    }
}

/// Makes a figure; `All` stands for each of the others and is none itself.
pub fn make(which: Which, settings: &Settings, report: &Report) -> Result<Option<Section>> {
    Ok(Some(match which {
        Which::All => return Ok(None),
        Which::Gaussians => gaussians::make(settings)?,
        Which::Line => line::make(settings)?,
        #[cfg(feature = "train")]
        Which::Energies => energies::make(settings, report)?,
        #[cfg(feature = "train")]
        Which::Plane => plane::make(settings, report)?,
        Which::Digits => digits::samples(settings, report)?,
        Which::Completions => digits::completions(settings, report)?,
    }))
}
