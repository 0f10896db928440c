//! Where plugins are looked for: the command line, `CMF_PLUGIN_PATH`, the platform's folder; nowhere else.

use std::env::consts::DLL_EXTENSION;
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};

use super::manifest::Manifest;

/// How a library came to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Named on the command line: may run.
    Named,
    /// In the platform's folder, where the user put it: may run.
    Folder,
    /// By `CMF_PLUGIN_PATH` or what a file says: may run once its bytes are approved.
    Path,
}

/// A library that was found; none of its code has run.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
    /// What its manifest says; `None` without one.
    pub manifest: Result<Option<Manifest>>,
}

/// What the user says about plugins.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Libraries named on the command line.
    pub named: Vec<PathBuf>,
    /// Whether plugins are off altogether.
    pub off: bool,
}

/// The platform's folder for plugins, if there is a home folder.
pub fn plugin_folder() -> Option<PathBuf> {
    dirs::data_dir().map(|folder| folder.join("cmf").join("plugins"))
}

impl Search {
    /// The libraries there are, in the order in which a name is looked up.
    pub fn find(&self) -> Result<Vec<Found>> {
        if self.off {
            return Ok(Vec::new());
        }
        let mut all: Vec<(PathBuf, Origin)> = Vec::new();
        for path in &self.named {
            if !path.is_file() {
                return Err(Error::file(path, "there is no such file, expected a plugin library"));
            }
            all.push((path.clone(), Origin::Named));
        }
        let variable = std::env::var_os("CMF_PLUGIN_PATH").unwrap_or_default();
        // An empty part would be the working directory, from which nothing is loaded unasked.
        for part in std::env::split_paths(&variable).filter(|part| !part.as_os_str().is_empty()) {
            if part.is_dir() {
                all.extend(libraries(&part)?.into_iter().map(|path| (path, Origin::Path)));
            } else if part.is_file() {
                all.push((part, Origin::Path));
            } else {
                return Err(Error::file(part, "in CMF_PLUGIN_PATH: there is no such file or folder"));
            }
        }
        if let Some(folder) = plugin_folder().filter(|folder| folder.is_dir()) {
            all.extend(libraries(&folder)?.into_iter().map(|path| (path, Origin::Folder)));
        }
        let found = |(path, origin): (PathBuf, Origin)| Found { manifest: Manifest::of(&path), path, origin };
        Ok(all.into_iter().map(found).collect())
    }
}

/// The dynamic libraries in a folder, by name.
fn libraries(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| Error::file(folder, format!("cannot read the folder: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == DLL_EXTENSION) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
