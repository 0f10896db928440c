//! `cmf-cli plugin`: list, check, trust and start plugins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use cmf_core::{Error, Result};
use cmf_plugins::check::Settings;
use cmf_plugins::host::{KindOfPlugin, Library, Manifest, Origin, TrustStore, inspect, plugin_folder};
use serde_json::json;

use crate::plugin_args::{parse_setting, plugins};
use crate::plugin_check;
use crate::plugin_new::{Language, New};
use crate::report::{Outcome, Report};

/// List, check, trust and start plugins.
#[derive(Args)]
#[command(after_help = "\
A plugin is a dynamic library that offers energies, data sets or tasks. It runs when it is named
on the command line (--plugin LIBRARY or plugin:LIBRARY), lies in the platform's folder
(`plugin list` prints it), or lies in CMF_PLUGIN_PATH and was approved with `plugin trust`.
A plugin is native code: it can do what you can do.

Examples:
  cmf-cli plugin new my-energy --kind energy --lang c
  cmf-cli plugin check ./libmy_energy.so
  cmf-cli sample --energy plugin:./libmy_energy.so --out samples.png
  cmf-cli plugin list")]
pub struct Plugin {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Show built-in energies, data sets and tasks, and the plugins there are, without running any
    List {
        #[command(flatten)]
        report: Report,
    },
    /// Test a plugin in a process of its own and say what is wrong with it
    Check(Check),
    /// Write a new plugin project that builds and passes `plugin check`
    New(New),
    /// Approve a library in CMF_PLUGIN_PATH, by the SHA-256 of its bytes
    Trust {
        /// The library
        #[arg(value_name = "LIBRARY")]
        path: PathBuf,
    },
    /// The tests themselves, in the child process
    #[command(hide = true)]
    CheckHere(Here),
}

#[derive(Args)]
#[command(after_help = "\
Tests run in a child process, one after the other, and each is named before it begins: what
crashes, hangs or ends the process is found too. A plugin is native code all the same: check only
what you would run.

Examples:
  cmf-cli plugin check ./libmy_energy.so
  cmf-cli plugin check ./libmy_energy.so --manifest
  cmf-cli plugin check ./libmy_data.so --set path=points.csv --seed 7")]
struct Check {
    /// The library
    #[arg(value_name = "LIBRARY")]
    path: PathBuf,
    /// Seed of the tests; the same seed gives the same tests
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seconds that one test may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// A parameter, for every entry that has it: those without a default need one
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// If all tests pass, write the manifest that `plugin list` reads beside the library
    #[arg(long)]
    manifest: bool,
    #[command(flatten)]
    report: Report,
}

#[derive(Args)]
struct Here {
    path: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    events: PathBuf,
    #[arg(long, value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

impl Plugin {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        match self.command {
            What::List { report } => list(&report),
            What::Check(check) => check.run(),
            What::New(new) => new.run(),
            What::Trust { path } => trust(&path),
            What::CheckHere(here) => {
                let settings = Settings { seed: here.seed, set: here.set };
                plugin_check::child(&here.path, &settings, &here.events)
            }
        }
    }
}

fn list(report: &Report) -> Result<Outcome> {
    let plugins = plugins()?;
    let kinds = [KindOfPlugin::Energy, KindOfPlugin::DataSet, KindOfPlugin::Task];
    let mut builtin = serde_json::Map::new();
    for kind in kinds {
        let offers = kind.builtins();
        for offer in &offers {
            report.text(format!("{:9} {:24} built in     {}", kind.word(), offer.name, offer.about))?;
        }
        let names: Vec<_> = offers.iter().map(|o| json!({ "name": o.name, "about": o.about })).collect();
        builtin.insert(kind.word().replace(' ', ""), names.into());
    }
    let trusted = TrustStore::open()?;
    let mut found = Vec::new();
    for library in plugins.found() {
        let file = inspect(&library.path);
        let (may_run, origin) = match library.origin {
            Origin::Named => (file.is_ok(), "named"),
            Origin::Folder => (file.is_ok(), "platform folder"),
            Origin::Path => (file.as_ref().is_ok_and(|f| trusted.contains(f)), "CMF_PLUGIN_PATH"),
        };
        let path = library.path.display();
        let state = match (&file, may_run) {
            (Err(e), _) => e.to_string(),
            (Ok(_), true) => "may run".to_string(),
            (Ok(_), false) => format!("not approved: cmf-cli plugin trust {path}"),
        };
        let needed = library.manifest.as_ref().ok().and_then(Option::as_ref).map(Manifest::supported);
        let (may_run, state) = match needed {
            Some(Err(why)) => (false, why),
            _ => (may_run, state),
        };
        let problem = match &library.manifest {
            Ok(Some(m)) => {
                report.text(format!("plugin    {:24} {path}: version {}, {state}", m.name, m.version))?;
                for (word, items) in [("energy", &m.energies), ("data set", &m.datasets), ("task", &m.tasks)]
                {
                    for item in items {
                        report.text(format!("{word:9} {:24} {:12} {}", item.name, m.name, item.about))?;
                    }
                }
                None
            }
            Ok(None) => {
                report.text(format!(
                    "plugin    {:24} {path}: no manifest (cmf-cli plugin check {path} --manifest), {state}",
                    "?"
                ))?;
                None
            }
            Err(e) => {
                report.text(format!("plugin    {:24} {path}: {e}", "?"))?;
                Some(e.to_string())
            }
        };
        found.push(json!({
            "path": library.path, "origin": origin, "may_run": may_run, "state": state,
            "manifest": library.manifest.as_ref().ok(), "problem": problem,
        }));
    }
    let folder = plugin_folder();
    if let Some(folder) = &folder {
        report.note(format!("the platform's folder for plugins is {}", folder.display()));
    }
    report.document(&json!({ "builtin": builtin, "plugins": found, "folder": folder }))?;
    Ok(Outcome::Done)
}

impl Check {
    fn run(self) -> Result<Outcome> {
        // What is no plugin at all is said without a child.
        inspect(&self.path)?;
        let settings = Settings { seed: self.seed, set: self.set.clone() };
        let limit = Duration::from_secs(self.timeout);
        let checked = plugin_check::parent(&self.path, &settings, limit, &self.report)?;
        if checked && self.manifest {
            let library = Library::load(&inspect(&self.path)?)?;
            let written = Manifest::from_library(&library)?.write(&self.path)?;
            self.report.note(format!("manifest {}", written.display()));
        }
        Ok(Outcome::of(checked))
    }
}

fn trust(path: &Path) -> Result<Outcome> {
    let file = inspect(path)?;
    let mut store = TrustStore::open()?;
    let kept = store.approve(&file)?;
    println!("approved {} (SHA-256 {}) in {}", file.path.display(), file.sha256, kept.display());
    Ok(Outcome::Done)
}

/// The language of a new plugin, in words.
impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Language::Rust => "Rust",
            Language::C => "C",
        })
    }
}

/// Kept here so that the error says what the option is.
pub fn bad_name(name: &str) -> Error {
    Error::Invalid(format!(
        "{name:?}: expected a name of lower case letters, digits and hyphens, from a letter on"
    ))
}
