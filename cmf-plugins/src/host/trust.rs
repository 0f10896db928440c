//! Which libraries the user has approved, by the SHA-256 of their bytes.

use std::io::Write;
use std::path::{Path, PathBuf};

use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::library::{Inspected, check_writers};

/// The user's approvals, `cmf/trusted-plugins.toml` in the platform's folder for settings.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct TrustStore {
    #[serde(default)]
    trusted: Vec<Approval>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Approval {
    /// Where the file was, for people.
    path: PathBuf,
    sha256: String,
}

impl TrustStore {
    /// Where approvals are kept.
    pub fn path() -> Result<PathBuf> {
        let folder = dirs::config_dir().ok_or_else(|| {
            Error::Invalid("there is no home folder to keep approvals in; set XDG_CONFIG_HOME or HOME".into())
        })?;
        Ok(folder.join("cmf").join("trusted-plugins.toml"))
    }

    /// Reads the approvals; there are none before the first.
    pub fn open() -> Result<TrustStore> {
        let Ok(path) = TrustStore::path() else { return Ok(TrustStore::default()) };
        if !path.exists() {
            return Ok(TrustStore::default());
        }
        let fail = |message: String| Error::file(&path, message);
        check_writers(&path).map_err(fail)?;
        let text = std::fs::read_to_string(&path).map_err(|e| fail(format!("cannot read: {e}")))?;
        toml::from_str(&text)
            .map_err(|e| fail(format!("is damaged ({}); remove it and approve again", e.message())))
    }

    /// Whether these very bytes were approved.
    pub fn contains(&self, file: &Inspected) -> bool {
        self.trusted.iter().any(|a| a.sha256 == file.sha256)
    }

    /// Approves a file and writes the store.
    pub fn approve(&mut self, file: &Inspected) -> Result<PathBuf> {
        let path = TrustStore::path()?;
        if !self.contains(file) {
            self.trusted.retain(|a| a.path != file.path);
            self.trusted.push(Approval { path: file.path.clone(), sha256: file.sha256.clone() });
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::file(folder, format!("cannot make the folder: {e}")))?;
        let text = toml::to_string(self).map_err(|e| Error::file(&path, e))?;
        write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
        Ok(path)
    }
}
