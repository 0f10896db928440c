//! What the user says about plugins, on every command: `--plugin`, `--no-plugins`, `NAME=VALUE`.

use std::path::PathBuf;
use std::sync::OnceLock;

use cmf_core::{Error, Result};
use cmf_plugins::core_error;
use cmf_plugins::host::{Plugins, Search};
use cmf_plugins::sdk::{Parameters, Schema};

/// The options of every command.
#[derive(clap::Args, Clone, Default)]
pub struct PluginArgs {
    /// Also know what this plugin library offers; naming it here says that it may run; several times for several
    #[arg(long, value_name = "LIBRARY", global = true, help_heading = "Plugins")]
    pub plugin: Vec<PathBuf>,
    /// Know built-in energies, data sets and tasks only
    #[arg(long, global = true, help_heading = "Plugins")]
    pub no_plugins: bool,
}

static SEARCH: OnceLock<Search> = OnceLock::new();

impl PluginArgs {
    /// Holds for the rest of the process.
    pub fn apply(&self) {
        let search = Search { named: self.plugin.clone(), off: self.no_plugins };
        // Set once, by `main`.
        let _ = SEARCH.set(search);
    }
}

/// The plugins there are.
pub fn plugins() -> Result<Plugins> {
    Plugins::find(SEARCH.get().cloned().unwrap_or_default())
}

/// `NAME=VALUE`.
pub fn parse_setting(word: &str) -> Result<(String, String), String> {
    let (name, value) = word.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_string(), value.to_string()))
}

/// The parameters that words like `NAME=VALUE` give, defaults filled in.
pub fn parameters(schema: &Schema, set: &[(String, String)]) -> Result<Parameters> {
    let mut given = serde_json::Map::new();
    for (name, word) in set {
        let Some(property) = schema.properties.iter().find(|p| &p.name == name) else {
            let known: Vec<&str> = schema.properties.iter().map(|p| p.name.as_str()).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(Error::Invalid(format!("there is no parameter {name}; expected one of: {known}")));
        };
        given.insert(name.clone(), property.parse_word(word).map_err(core_error)?);
    }
    schema.complete(&serde_json::Value::Object(given).to_string()).map_err(core_error)
}
