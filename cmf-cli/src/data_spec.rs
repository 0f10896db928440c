//! How a data set is named on the command line: `NAME`, `NAME:PATH` or `PATH`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cmf_core::{Error, Result};
use cmf_plugins::data::{self, Opened};
use cmf_plugins::host::{KindOfPlugin, Plugins, Search};

use crate::plugin_args::{parameters, parse_setting, plugins};

/// A data set to open.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSpec {
    /// By name, from a path if it reads files.
    Named(String, Option<PathBuf>),
    /// By what is found at a path.
    Path(PathBuf),
    /// Of a plugin: `NAME` or `plugin:LIBRARY[#NAME]`, with `?NAME=VALUE&...` for parameters.
    Plugin(String),
}

impl FromStr for DataSpec {
    type Err = String;

    /// The word before a colon, or all of it, is a name if the registry has it; otherwise it is a path.
    fn from_str(s: &str) -> Result<Self, String> {
        let known = |name: &str| data::builtins().any(|b| b.name == name);
        match s.split_once(':') {
            Some(("plugin", _)) => Ok(DataSpec::Plugin(s.into())),
            Some((name, path)) if known(name) => Ok(DataSpec::Named(name.into(), Some(path.into()))),
            None if known(s) => Ok(DataSpec::Named(s.into(), None)),
            _ if Path::new(s).exists() => Ok(DataSpec::Path(s.into())),
            _ => {
                // Arguments are read before --plugin is known: its data sets go by plugin:LIBRARY.
                let plugins = Plugins::find(Search::default()).map_err(|e| e.to_string())?;
                let names = plugins.names(KindOfPlugin::DataSet);
                if names.iter().any(|name| name == s.split('?').next().unwrap_or(s)) {
                    return Ok(DataSpec::Plugin(s.into()));
                }
                Err(format!(
                    "neither a file or folder that exists nor plugin:LIBRARY nor one of {}",
                    names.join(", ")
                ))
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
            DataSpec::Plugin(spec) => write!(f, "{spec}"),
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
            DataSpec::Plugin(spec) => match spec.strip_prefix("plugin:") {
                Some(path) => Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned(),
                None => spec.clone(),
            },
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
            DataSpec::Plugin(spec) => DataSpec::Plugin(match spec.strip_prefix("plugin:") {
                Some(path) => format!("plugin:{}", std::path::absolute(path)?.display()),
                None => spec.clone(),
            }),
        })
    }

    /// Opens it; `seed` makes generated data.
    pub fn open(&self, seed: u64) -> Result<Opened> {
        match self {
            DataSpec::Named(name, path) => data::open(name, path.as_deref(), seed),
            DataSpec::Path(path) => data::open(data::name_of(path)?, Some(path), seed),
            DataSpec::Plugin(spec) => open_plugin(spec, seed),
        }
    }
}

/// Opens a plugin's data set; a parameter `seed` that is not given gets the command's seed.
fn open_plugin(spec: &str, seed: u64) -> Result<Opened> {
    let (name, query) = spec.split_once('?').unwrap_or((spec, ""));
    let found = plugins()?.resolve(KindOfPlugin::DataSet, name)?;
    let set: Result<Vec<_>, String> =
        query.split('&').filter(|word| !word.is_empty()).map(parse_setting).collect();
    let mut set = set.map_err(|e| Error::Invalid(format!("{spec}: after the ?: {e}")))?;
    let has_seed = found.schema.properties.iter().any(|p| p.name == "seed");
    if has_seed && set.iter().all(|(name, _)| name != "seed") {
        set.push(("seed".into(), seed.to_string()));
    }
    data::opened(found.dataset(&parameters(&found.schema, &set)?)?)
}
