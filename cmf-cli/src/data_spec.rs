//! How a data set is named on the command line: `NAME`, `NAME:PATH` or `PATH`, and `?NAME=VALUE&...` after a name.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cmf_core::{Error, Result};
use cmf_plugins::data::{self, Opened};
use cmf_plugins::host::{KindOfPlugin, Resolved};

use crate::plugin_args::{parameters, parse_setting, plugins};

/// A data set to open.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSpec {
    /// By name, from a path if it reads files, with `?NAME=VALUE&...` after the path for parameters.
    Named(String, Option<PathBuf>),
    /// By what is found at a path.
    Path(PathBuf),
    /// Of a plugin: `NAME` or `plugin:LIBRARY[#NAME]`, with `?NAME=VALUE&...` for parameters.
    Plugin(String),
}

impl FromStr for DataSpec {
    type Err = Infallible;

    /// The word before a colon, or all of it, is a name if the registry has it; otherwise it is a path, if there is
    /// something there; otherwise a plugin's.
    fn from_str(s: &str) -> Result<Self, Infallible> {
        let known = |name: &str| data::builtins().any(|b| b.name == name);
        match s.split_once(':') {
            Some(("plugin", _)) => Ok(DataSpec::Plugin(s.into())),
            Some((name, path)) if known(name) => Ok(DataSpec::Named(name.into(), Some(path.into()))),
            None if known(s) => Ok(DataSpec::Named(s.into(), None)),
            _ if Path::new(s).exists() => Ok(DataSpec::Path(s.into())),
            // What plugins offer is known once all arguments are: --plugin may be among them.
            _ => Ok(DataSpec::Plugin(s.into())),
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
        self.open_with(seed, |name| {
            plugins()?.resolve(KindOfPlugin::DataSet, name).map_err(|e| match name.starts_with("plugin:") {
                true => e,
                false => Error::Invalid(format!("{e}; nor is there a file or folder of this name")),
            })
        })
    }

    /// Opens what a run's settings say, which is not the user's word that a library may run.
    #[cfg(feature = "train")]
    pub fn open_recorded(&self, seed: u64) -> Result<Opened> {
        self.open_with(seed, |name| plugins()?.resolve_recorded(KindOfPlugin::DataSet, name))
    }

    fn open_with(&self, seed: u64, resolve: impl FnOnce(&str) -> Result<Resolved>) -> Result<Opened> {
        match self {
            DataSpec::Named(name, Some(path)) if let Some((path, query)) = path_and_query(path) => {
                open_plugin(&resolve(name)?, &self.to_string(), Some(path), query, seed)
            }
            DataSpec::Named(name, path) => data::open(name, path.as_deref(), seed),
            DataSpec::Path(path) => data::open(data::name_of(path)?, Some(path), seed),
            DataSpec::Plugin(spec) => {
                let (name, query) = spec.split_once('?').unwrap_or((spec, ""));
                open_plugin(&resolve(name)?, spec, None, query, seed)
            }
        }
    }
}

/// The path and the parameters of `PATH?NAME=VALUE&...`, unless there is something whose name this is.
fn path_and_query(path: &Path) -> Option<(&str, &str)> {
    path.to_str().filter(|_| !path.exists())?.rsplit_once('?')
}

/// Opens a data set with parameters; a parameter `seed` that is not given gets the command's seed.
fn open_plugin(found: &Resolved, spec: &str, path: Option<&str>, query: &str, seed: u64) -> Result<Opened> {
    let set: Result<Vec<_>, String> =
        query.split('&').filter(|word| !word.is_empty()).map(parse_setting).collect();
    let mut set = set.map_err(|e| Error::Invalid(format!("{spec}: after the ?: {e}")))?;
    set.extend(path.map(|path| ("path".to_string(), path.to_string())));
    let has_seed = found.schema.properties.iter().any(|p| p.name == "seed");
    if has_seed && set.iter().all(|(name, _)| name != "seed") {
        set.push(("seed".into(), seed.to_string()));
    }
    let parameters = parameters(&found.schema, &set)?;
    match found.library() {
        None => data::open_with(&found.offer.name, &parameters),
        Some(_) => data::opened(found.dataset(&parameters)?),
    }
}
