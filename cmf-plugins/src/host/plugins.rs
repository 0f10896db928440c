//! From a name to an energy, a data set or a task: built in, or from a plugin that may run.

use std::path::Path;

use cmf_core::{Error, Result};
use cmf_plugin::{DataSet, Energy, Entry, Parameters, Schema, Task};

use super::discovery::{Found, Origin, Search};
use super::library::{Library, Offer, check_folder, inspect};
use super::manifest::{Item, Manifest};
use super::objects::{Offered, PluginDataSet, PluginEnergy, PluginTask};
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

impl Plugins {
    /// Looks for libraries, without loading any.
    pub fn find(search: Search) -> Result<Plugins> {
        Ok(Plugins { found: search.find()?, search })
    }

    /// The libraries there are.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// What `NAME` or `plugin:PATH[#NAME]` stands for, as a user says it: a library named here may run.
    pub fn resolve(&self, kind: KindOfPlugin, spec: &str) -> Result<Resolved> {
        match spec.strip_prefix("plugin:") {
            Some(path) => self.in_library(kind, path, |_| Origin::Named),
            None => self.by_name(kind, spec),
        }
    }

    /// As [`resolve`](Self::resolve) for what a file says, a run's settings say: that is not the user's word, so
    /// a library that it names must also be named by `--plugin`, lie in the platform's folder or be approved.
    pub fn resolve_recorded(&self, kind: KindOfPlugin, spec: &str) -> Result<Resolved> {
        match spec.strip_prefix("plugin:") {
            Some(path) => self.in_library(kind, path, |path| {
                let same = |found: &&Found| {
                    found.path.canonicalize().is_ok_and(|p| Some(p) == path.canonicalize().ok())
                };
                self.found.iter().find(same).map_or(Origin::Path, |found| found.origin)
            }),
            None => self.by_name(kind, spec),
        }
    }

    fn by_name(&self, kind: KindOfPlugin, name: &str) -> Result<Resolved> {
        if let Some(offer) = kind.builtins().into_iter().find(|o| o.name == name) {
            return resolved(offer, None);
        }
        for found in &self.found {
            let manifest = found.manifest.as_ref().ok().and_then(Option::as_ref);
            let listed = manifest.is_some_and(|m| kind.items(m).iter().any(|item| item.name == name));
            // Named libraries need no manifest: they may be asked themselves.
            if !listed && found.origin != Origin::Named {
                continue;
            }
            let library = self.load(&found.path, found.origin)?;
            if let Some(offer) = library.offers(kind)?.into_iter().find(|o| o.name == name) {
                return resolved(offer, Some(library));
            }
            if listed {
                let message = format!(
                    "its manifest lists the {} {name}, but the library does not offer it; \
                     write the manifest again with `cmf-cli plugin check --manifest`",
                    kind.word()
                );
                return Err(Error::file(&found.path, message));
            }
        }
        Err(Error::Invalid(self.unknown(kind, name)))
    }

    /// That there is no such name, with what a user may have meant.
    fn unknown(&self, kind: KindOfPlugin, name: &str) -> String {
        let mut text = format!(
            "there is no {} {name}; expected one of {}, or plugin:PATH (`cmf-cli plugin list` shows what there is)",
            kind.word(),
            self.names(kind).join(", ")
        );
        if Path::new(name).is_file() {
            text += &format!("; for the library at this path write plugin:{name}");
        }
        for found in self.found.iter().filter(|f| f.origin != Origin::Named) {
            if !matches!(found.manifest, Ok(Some(_))) {
                let path = found.path.display();
                text += &format!(
                    "; what {path} offers is not known, as it has no good manifest: write it with `cmf-cli plugin check {path} --manifest`"
                );
            }
        }
        text
    }

    /// The names that are known without running any plugin.
    pub fn names(&self, kind: KindOfPlugin) -> Vec<String> {
        let listed = self.found.iter().filter_map(|f| f.manifest.as_ref().ok()?.as_ref());
        let listed = listed.flat_map(|m| kind.items(m)).map(|item| item.name.clone());
        kind.builtins().into_iter().map(|o| o.name).chain(listed).collect()
    }

    /// PATH or PATH#NAME.
    fn in_library(
        &self,
        kind: KindOfPlugin,
        spec: &str,
        origin: impl FnOnce(&Path) -> Origin,
    ) -> Result<Resolved> {
        // The whole may be a path with a # in it.
        let (path, name) = match spec.rsplit_once('#') {
            Some((path, name)) if !Path::new(spec).exists() => (path, Some(name)),
            _ => (spec, None),
        };
        let path = Path::new(path);
        let library = self.load(path, origin(path))?;
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
                let message = format!(
                    "this plugin has several; say which: plugin:{}#NAME with one of {}",
                    path.display(),
                    names()
                );
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
        // What lies in the platform's folder runs because the user put it there.
        if let (Origin::Folder, Some(folder)) = (origin, path.parent()) {
            check_folder(folder).map_err(|e| Error::file(path, e))?;
        }
        if origin == Origin::Path && !TrustStore::open()?.contains(&file) {
            return Err(Error::file(
                path,
                format!(
                    "was not named on the command line and is not approved (SHA-256 {}): approve it with \
                     `cmf-cli plugin trust {path}`, or name it with --plugin {path}",
                    file.sha256,
                    path = path.display()
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
        let Some(library) = &self.library else { return create(&ENERGIES, &self.offer.name, parameters) };
        let table = library.energies().ok_or_else(|| self.gone(library))?;
        let source = self.source(library);
        Ok(Box::new(PluginEnergy::new(table, self.offered(&source, parameters)).map_err(core_error)?))
    }

    /// Opens the data set.
    pub fn dataset(&self, parameters: &Parameters) -> Result<Box<dyn DataSet>> {
        let Some(library) = &self.library else { return create(&DATASETS, &self.offer.name, parameters) };
        let table = library.datasets().ok_or_else(|| self.gone(library))?;
        let source = self.source(library);
        Ok(Box::new(PluginDataSet::new(table, self.offered(&source, parameters)).map_err(core_error)?))
    }

    /// Makes the task.
    pub fn task(&self, parameters: &Parameters) -> Result<Box<dyn Task>> {
        let Some(library) = &self.library else { return create(&TASKS, &self.offer.name, parameters) };
        let table = library.tasks().ok_or_else(|| self.gone(library))?;
        let source = self.source(library);
        Ok(Box::new(PluginTask::new(table, self.offered(&source, parameters)).map_err(core_error)?))
    }

    fn offered<'a>(&'a self, source: &'a str, parameters: &'a Parameters) -> Offered<'a> {
        Offered { source, name: &self.offer.name, parameters }
    }

    /// What the errors of a library's object begin with.
    fn source(&self, library: &Library) -> String {
        format!("plugin {} ({}): {}", library.name(), library.path().display(), self.offer.name)
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
