//! The manifest beside a library, so that listing plugins need not run them.

use std::path::{Path, PathBuf};

use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};
use cmf_plugin::abi;
use serde::{Deserialize, Serialize};

use super::library::{Library, Offer, check_version};
use super::plugins::KindOfPlugin;

/// `libNAME.toml` beside `libNAME.so`: what the library offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The interface it needs, MAJOR.MINOR.
    pub abi: String,
    /// Its energies.
    #[serde(default, rename = "energy")]
    pub energies: Vec<Item>,
    /// Its data sets.
    #[serde(default, rename = "dataset")]
    pub datasets: Vec<Item>,
    /// Its tasks.
    #[serde(default, rename = "task")]
    pub tasks: Vec<Item>,
}

/// One of the things that a plugin offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// What it is, in one line.
    #[serde(default)]
    pub about: String,
}

/// Larger manifests are refused.
const MOST_BYTES: u64 = 1 << 20;

/// Where the manifest of a library is.
pub fn manifest_path(library: &Path) -> PathBuf {
    library.with_extension("toml")
}

impl Manifest {
    /// Reads the manifest of a library, if it has one.
    pub fn of(library: &Path) -> Result<Option<Manifest>> {
        let path = manifest_path(library);
        let fail = |message: String| Error::file(&path, message);
        match path.metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(format!("cannot read: {e}"))),
            Ok(found) if !found.is_file() => {
                return Err(fail("is no file, expected a plugin manifest".into()));
            }
            Ok(found) if found.len() > MOST_BYTES => return Err(fail("is too large for a manifest".into())),
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|e| fail(format!("cannot read: {e}")))?;
        let manifest = toml::from_str(&text).map_err(|e| {
            fail(format!(
                "is no plugin manifest ({}); `cmf-cli plugin check --manifest` writes one",
                e.message()
            ))
        })?;
        Ok(Some(manifest))
    }

    /// Fails, with what is needed, supported and to be done, if this program is not made for such a plugin.
    pub fn supported(&self) -> Result<(), String> {
        let needed = self
            .abi
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let needed =
            needed.ok_or_else(|| format!("its manifest says abi {:?}, expected MAJOR.MINOR", self.abi))?;
        check_version(needed, (abi::MAJOR, abi::MINOR))
    }

    /// What a loaded library says of itself.
    pub fn from_library(library: &Library) -> Result<Manifest> {
        let items =
            |offers: Vec<Offer>| offers.into_iter().map(|o| Item { name: o.name, about: o.about }).collect();
        let (major, minor) = library.abi();
        Ok(Manifest {
            name: library.name().to_string(),
            version: library.version().to_string(),
            abi: format!("{major}.{minor}"),
            energies: items(library.offers(KindOfPlugin::Energy)?),
            datasets: items(library.offers(KindOfPlugin::DataSet)?),
            tasks: items(library.offers(KindOfPlugin::Task)?),
        })
    }

    /// Writes it beside the library and says where.
    pub fn write(&self, library: &Path) -> Result<PathBuf> {
        use std::io::Write;
        let path = manifest_path(library);
        let text = toml::to_string(self).map_err(|e| Error::file(&path, e))?;
        write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
        Ok(path)
    }
}
