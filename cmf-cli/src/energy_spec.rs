//! How an energy is named on the command line: `NAME` or `plugin:LIBRARY[#NAME]`, with `?NAME=VALUE&...`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use cmf_core::energy::Domain;
use cmf_core::{Error, Potential, Result};
use cmf_plugins::host::{EnergyPotential, KindOfPlugin, Resolved, inspect};

use crate::plugin_args::{parameters, parse_setting, plugins};

/// An energy to open.
#[derive(Debug, Clone, PartialEq)]
pub struct EnergySpec {
    /// NAME or plugin:PATH[#NAME].
    name: String,
    /// Its parameters.
    set: Vec<(String, String)>,
}

/// An energy, with what a model card says of it.
pub struct OpenedEnergy {
    /// E in the place of a potential.
    pub energy: EnergyPotential,
    /// The box that it suggests.
    pub domain: Domain,
    /// SHA-256 of the library that it comes from, empty for a built-in one.
    pub sha256: String,
}

impl FromStr for EnergySpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (name, query) = s.split_once('?').unwrap_or((s, ""));
        let set = query.split('&').filter(|word| !word.is_empty()).map(parse_setting);
        let set = set.collect::<Result<_, _>>().map_err(|e| format!("after the ?: {e}"))?;
        Ok(EnergySpec { name: name.into(), set })
    }
}

impl fmt::Display for EnergySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<String> = self.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mark = if set.is_empty() { "" } else { "?" };
        write!(f, "{}{mark}{}", self.name, set.join("&"))
    }
}

impl EnergySpec {
    /// The same energy with more parameters.
    pub fn with(&self, set: &[(String, String)]) -> EnergySpec {
        EnergySpec { name: self.name.clone(), set: [&self.set[..], set].concat() }
    }

    /// What to call it in a model card: without its place on this machine.
    pub fn card(&self) -> String {
        let name = match self.name.strip_prefix("plugin:") {
            Some(path) => Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => self.name.clone(),
        };
        format!("energy {}", EnergySpec { name, set: self.set.clone() })
    }

    /// The same energy, found from any working directory.
    pub fn absolute(&self) -> std::io::Result<EnergySpec> {
        let name = match self.name.strip_prefix("plugin:") {
            Some(path) => format!("plugin:{}", std::path::absolute(path)?.display()),
            None => self.name.clone(),
        };
        Ok(EnergySpec { name, set: self.set.clone() })
    }

    /// Opens it.
    pub fn open(&self) -> Result<OpenedEnergy> {
        self.opened(&plugins()?.resolve(KindOfPlugin::Energy, &self.name)?)
    }

    /// Opens what a run's settings say, which is not the user's word that a library may run.
    pub fn open_recorded(&self) -> Result<OpenedEnergy> {
        self.opened(&plugins()?.resolve_recorded(KindOfPlugin::Energy, &self.name)?)
    }

    fn opened(&self, found: &Resolved) -> Result<OpenedEnergy> {
        let energy = found.energy(&parameters(&found.schema, &self.set)?)?;
        let (low, high) = energy.domain();
        let domain = Domain { low, high };
        let sha256 = found.library().map(|library| inspect(library.path())).transpose()?;
        let energy = EnergyPotential::new(energy)?;
        domain.validate(energy.dim()).map_err(|e| Error::Invalid(format!("the energy {self}: {e}")))?;
        Ok(OpenedEnergy { energy, domain, sha256: sha256.map_or(String::new(), |file| file.sha256) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_written_as_it_is_read() {
        for text in ["ring", "ring?radius=2&std=0.5", "plugin:/a/libx.so#well?depth=3"] {
            assert_eq!(text.parse::<EnergySpec>().unwrap().to_string(), text);
        }
        let spec: EnergySpec = "plugin:/a/libx.so#well?depth=3".parse().unwrap();
        assert_eq!(spec.card(), "energy libx.so#well?depth=3");
        let more = spec.with(&[("width".into(), "1".into())]);
        assert_eq!(more.to_string(), "plugin:/a/libx.so#well?depth=3&width=1");
        assert!("ring?radius".parse::<EnergySpec>().unwrap_err().contains("NAME=VALUE"));
    }

    #[test]
    fn a_built_in_opens_with_its_parameters() {
        let opened = "ring?radius=2&std=0.5".parse::<EnergySpec>().unwrap().open().unwrap();
        assert_eq!(opened.domain, Domain { low: vec![-4.0; 2], high: vec![4.0; 2] });
        assert_eq!(opened.sha256, "");
        let message = "ring?radios=2".parse::<EnergySpec>().unwrap().open().err().unwrap().to_string();
        assert!(message.contains("radios") && message.contains("radius"), "{message}");
    }
}
