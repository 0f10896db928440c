//! From a name to an energy, a data set or a task: built in, or from a plugin that may run.

use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};
use cmf_plugin::{DataSet, Energy, Entry, Parameters, Schema, Task};

use super::discovery::{Found, Origin, Search};
use super::library::{Library, Offer, inspect};
use super::manifest::{Item, Manifest};
use super::objects::{PluginDataSet, PluginEnergy, PluginTask};
use super::trust::TrustStore;
use crate::data::DATASETS;
use crate::energies::ENERGIES;
use crate::error::core_error;
use crate::tasks::TASKS;

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindOfPlugin {
    /// A function to be sampled.
    Energy,
    /// Examples.
    DataSet,
    /// Something done with a model.
    Task,
}

impl KindOfPlugin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            KindOfPlugin::Energy => "energy",
            KindOfPlugin::DataSet => "data set",
            KindOfPlugin::Task => "task",
        }
    }

    fn items(self, manifest: &Manifest) -> &[Item] {
        match self {
            KindOfPlugin::Energy => &manifest.energies,
            KindOfPlugin::DataSet => &manifest.datasets,
            KindOfPlugin::Task => &manifest.tasks,
        }
    }

    /// The built-in ones.
    pub fn builtins(self) -> Vec<Offer> {
        fn offers<T: ?Sized>(entries: &[Entry<T>]) -> Vec<Offer> {
            let offer = |e: &Entry<T>| Offer {
                name: e.name.to_string(),
                about: e.about.to_string(),
                parameters: e.parameters.to_string(),
            };
            entries.iter().map(offer).collect()
        }
        match self {
            KindOfPlugin::Energy => offers(&ENERGIES),
            KindOfPlugin::DataSet => offers(&DATASETS),
            KindOfPlugin::Task => offers(&TASKS),
        }
    }
}

/// A name that was found: what it offers, and the library it is in unless it is built in.
pub struct Resolved {
    /// What it says of itself.
    pub offer: Offer,
    /// Its parameters.
    pub schema: Schema,
    library: Option<Library>,
}

/// The plugins that the user has, ready to be asked for by name.
pub struct Plugins {
    search: Search,
    found: Vec<Found>,
}

/// What a library's own error is prefixed with.
fn of_library(library: &Library, name: &str, e: cmf_plugin::Error) -> cmf_plugin::Error {
    let text = format!("plugin {} ({}): {name}: {}", library.name(), library.path().display(), e.text);
    cmf_plugin::Error { text, ..e }
}

impl Plugins {
    /// Looks for libraries, without loading any.
    pub fn find(search: Search) -> Result<Plugins> {
        Ok(Plugins { found: search.find()?, search })
    }

    /// The libraries there are.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// What `NAME` or `plugin:PATH[#NAME]` stands for. Only what is needed to know is loaded.
    pub fn resolve(&self, kind: KindOfPlugin, spec: &str) -> Result<Resolved> {
        if let Some(path) = spec.strip_prefix("plugin:") {
            return self.named(kind, path);
        }
        if let Some(offer) = kind.builtins().into_iter().find(|o| o.name == spec) {
            return resolved(offer, None);
        }
        for found in &self.found {
            let listed = match &found.manifest {
                Ok(Some(manifest)) => kind.items(manifest).iter().any(|item| item.name == spec),
                // Named libraries need no manifest: they may be asked themselves.
                Ok(None) => found.origin == Origin::Named,
                Err(e) if found.origin == Origin::Named => return Err(Error::Invalid(e.to_string())),
                Err(_) => false,
            };
            if !listed {
                continue;
            }
            let library = self.load(&found.path, found.origin)?;
            if let Some(offer) = library.offers(kind)?.into_iter().find(|o| o.name == spec) {
                return resolved(offer, Some(library));
            }
            if matches!(found.manifest, Ok(Some(_))) {
                let message = format!(
                    "its manifest lists the {} {spec}, but the library does not offer it; \
                     write the manifest again with `cmf-cli plugin check --manifest`",
                    kind.word()
                );
                return Err(Error::file(&found.path, message));
            }
        }
        Err(Error::Invalid(format!(
            "there is no {} {spec}; expected one of {}, or plugin:PATH (`cmf-cli plugin list` shows what there is)",
            kind.word(),
            self.names(kind).join(", ")
        )))
    }

    /// The names that are known without running any plugin.
    pub fn names(&self, kind: KindOfPlugin) -> Vec<String> {
        let listed = self.found.iter().filter_map(|f| f.manifest.as_ref().ok()?.as_ref());
        let listed = listed.flat_map(|m| kind.items(m)).map(|item| item.name.clone());
        kind.builtins().into_iter().map(|o| o.name).chain(listed).collect()
    }

    /// PATH or PATH#NAME.
    fn named(&self, kind: KindOfPlugin, spec: &str) -> Result<Resolved> {
        // The whole may be a path with a # in it.
        let (path, name) = match spec.rsplit_once('#') {
            Some((path, name)) if !Path::new(spec).exists() => (path, Some(name)),
            _ => (spec, None),
        };
        let library = self.load(&PathBuf::from(path), Origin::Named)?;
        let offers = library.offers(kind)?;
        let names = || offers.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = match (name, &offers[..]) {
            (_, []) => return Err(Error::file(path, format!("this plugin offers no {}", kind.word()))),
            (Some(name), offers) => offers.iter().find(|o| o.name == name).ok_or_else(|| {
                Error::file(
                    path,
                    format!("this plugin has no {} {name}; expected one of {}", kind.word(), names()),
                )
            })?,
            (None, [only]) => only,
            (None, _) => {
                let message =
                    format!("this plugin has several; say which: plugin:{path}#NAME with one of {}", names());
                return Err(Error::file(path, message));
            }
        };
        resolved(chosen.clone(), Some(library))
    }

    /// Loads a library, if it may run.
    fn load(&self, path: &Path, origin: Origin) -> Result<Library> {
        if self.search.off {
            return Err(Error::file(path, "plugins are off (--no-plugins)"));
        }
        let file = inspect(path)?;
        if origin == Origin::Path && !TrustStore::open()?.contains(&file) {
            return Err(Error::file(
                path,
                format!(
                    "was found by CMF_PLUGIN_PATH and is not approved (SHA-256 {}): approve it with \
                     `cmf-cli plugin trust {}`, or name it with --plugin",
                    file.sha256,
                    path.display()
                ),
            ));
        }
        Library::load(&file)
    }
}

fn resolved(offer: Offer, library: Option<Library>) -> Result<Resolved> {
    Ok(Resolved { schema: Schema::parse(&offer.parameters).map_err(core_error)?, offer, library })
}

impl Resolved {
    /// The library it comes from; `None` if it is built in.
    pub fn library(&self) -> Option<&Library> {
        self.library.as_ref()
    }

    /// Makes the energy.
    pub fn energy(&self, parameters: &Parameters) -> Result<Box<dyn Energy>> {
        let name = &self.offer.name;
        match &self.library {
            None => create(&ENERGIES, name, parameters),
            Some(library) => {
                let table = library.energies().ok_or_else(|| self.gone(library))?;
                let made = PluginEnergy::new(table, name, parameters);
                Ok(Box::new(Labelled {
                    inner: made.map_err(|e| core_error(of_library(library, name, e)))?,
                    library: *library,
                    name: name.clone(),
                }))
            }
        }
    }

    /// Opens the data set.
    pub fn dataset(&self, parameters: &Parameters) -> Result<Box<dyn DataSet>> {
        let name = &self.offer.name;
        match &self.library {
            None => create(&DATASETS, name, parameters),
            Some(library) => {
                let table = library.datasets().ok_or_else(|| self.gone(library))?;
                let made = PluginDataSet::new(table, name, parameters);
                Ok(Box::new(made.map_err(|e| core_error(of_library(library, name, e)))?))
            }
        }
    }

    /// Makes the task.
    pub fn task(&self, parameters: &Parameters) -> Result<Box<dyn Task>> {
        let name = &self.offer.name;
        match &self.library {
            None => create(&TASKS, name, parameters),
            Some(library) => {
                let table = library.tasks().ok_or_else(|| self.gone(library))?;
                let made = PluginTask::new(table, name, parameters);
                let inner = made.map_err(|e| core_error(of_library(library, name, e)))?;
                Ok(Box::new(Labelled { inner, library: *library, name: name.clone() }))
            }
        }
    }

    fn gone(&self, library: &Library) -> Error {
        Error::file(library.path(), "does not offer any more what it offered before")
    }
}

fn create<T: ?Sized>(entries: &[Entry<T>], name: &str, parameters: &Parameters) -> Result<Box<T>> {
    let entry = entries.iter().find(|e| e.name == name);
    let entry = entry.ok_or_else(|| Error::Invalid(format!("there is no built-in {name}")))?;
    (entry.create)(parameters).map_err(core_error)
}

/// An object of a plugin whose errors say which plugin they come from.
struct Labelled<T> {
    inner: T,
    library: Library,
    name: String,
}

impl<T> Labelled<T> {
    fn label(&self, e: cmf_plugin::Error) -> cmf_plugin::Error {
        of_library(&self.library, &self.name, e)
    }
}

impl Energy for Labelled<PluginEnergy> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        self.inner.domain()
    }

    fn value_and_gradient(
        &self,
        x: &[f64],
        value: &mut [f64],
        gradient: &mut [f64],
    ) -> cmf_plugin::Result<()> {
        self.inner.value_and_gradient(x, value, gradient).map_err(|e| self.label(e))
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> cmf_plugin::Result<()> {
        self.inner.hvp(x, v, hv).map_err(|e| self.label(e))
    }
}

impl Task for Labelled<PluginTask> {
    fn run(&self, host: &dyn cmf_plugin::Host) -> cmf_plugin::Result<()> {
        self.inner.run(host).map_err(|e| self.label(e))
    }
}
