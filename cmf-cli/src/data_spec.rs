//! How a data set is named on the command line: `NAME`, `NAME:PATH` or `PATH`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cmf_core::Result;
use cmf_plugins::data::{self, Opened};

/// A data set to open.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSpec {
    /// By name, from a path if it reads files.
    Named(String, Option<PathBuf>),
    /// By what is found at a path.
    Path(PathBuf),
}

impl FromStr for DataSpec {
    type Err = String;

    /// The word before a colon, or all of it, is a name if the registry has it; otherwise it is a path.
    fn from_str(s: &str) -> Result<Self, String> {
        let known = |name: &str| data::builtins().any(|b| b.name == name);
        match s.split_once(':') {
            Some((name, path)) if known(name) => Ok(DataSpec::Named(name.into(), Some(path.into()))),
            None if known(s) => Ok(DataSpec::Named(s.into(), None)),
            _ if Path::new(s).exists() => Ok(DataSpec::Path(s.into())),
            _ => {
                let names: Vec<&str> = data::builtins().map(|b| b.name).collect();
                Err(format!("neither a file or folder that exists nor one of {}", names.join(", ")))
            }
        }
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataSpec::Named(name, Some(path)) => write!(f, "{name}:{}", path.display()),
            DataSpec::Named(name, None) => write!(f, "{name}"),
            DataSpec::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl DataSpec {
    /// What to call it in a model card: its name without its place on this machine.
    #[cfg(feature = "train")]
    pub fn name(&self) -> String {
        match self {
            DataSpec::Named(name, _) => name.clone(),
            DataSpec::Path(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The same data set, found from any working directory.
    #[cfg(feature = "train")]
    pub fn absolute(&self) -> std::io::Result<DataSpec> {
        Ok(match self {
            DataSpec::Named(name, Some(path)) => {
                DataSpec::Named(name.clone(), Some(std::path::absolute(path)?))
            }
            DataSpec::Named(name, None) => DataSpec::Named(name.clone(), None),
            DataSpec::Path(path) => DataSpec::Path(std::path::absolute(path)?),
        })
    }

    /// Opens it; `seed` makes generated data.
    pub fn open(&self, seed: u64) -> Result<Opened> {
        match self {
            DataSpec::Named(name, path) => data::open(name, path.as_deref(), seed),
            DataSpec::Path(path) => data::open(data::name_of(path)?, Some(path), seed),
        }
    }
}
