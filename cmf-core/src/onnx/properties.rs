//! What a model file says about itself as the `cmf.*` properties of the file.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directions::Directions;
use super::metadata::Metadata;
use super::moments;
use crate::error::{Error, Result};
use crate::icnn::{Architecture, GibbsFactor, Head};
use crate::source::Source;

/// Version of the set of properties; files of a later version are refused.
///
/// Version 2 brought `cmf.source`, version 3 spiked heads, version 4 Gibbs factors of the head, version 5 mixtures in them,
/// version 6 coordinates in the directions of a spiked head: of forms (the constants `forms_along` and `directions` of the
/// graph), of the directions of `cmf.gaussian` and of those of mixtures. A file says the first version whose programs read it
/// rightly.
pub const FORMAT_VERSION: u32 = ALONG_DIRECTIONS;
/// The version since which all that can is written along the directions of the head.
const ALONG_DIRECTIONS: u32 = 6;

impl Metadata {
    /// The properties, by key, in a fixed order; along directions if there are any, whose span no row may leave.
    pub(super) fn to_properties(&self, directions: Option<&Directions>) -> Result<Vec<(String, String)>> {
        self.validate()?;
        let mixture = self.mixture.as_ref().or(self.data_mixture.as_ref());
        let version = match (mixture, self.architecture.gibbs, self.architecture.head, self.source) {
            _ if directions.is_some() => ALONG_DIRECTIONS,
            (Some(_), ..) => 5,
            (_, GibbsFactor::Head, ..) => 4,
            (_, _, Head::Spiked { .. }, _) => 3,
            (_, _, Head::Full, Source::Gaussian) => 2,
            (_, _, Head::Full, Source::Gibbs) => 1,
        };
        let mut properties = vec![
            ("cmf.format_version".into(), version.to_string()),
            ("cmf.architecture".into(), json(&self.architecture)?),
            ("cmf.shape".into(), json(&self.shape)?),
            ("cmf.pixel_range".into(), json(&self.pixel_range)?),
            ("cmf.sigma".into(), json(&self.sigma)?),
            ("cmf.log_z".into(), json(&self.log_z)?),
            ("cmf.recipe".into(), json(&self.recipe)?),
            ("cmf.data".into(), json(&self.data)?),
            ("cmf.licence".into(), json(&self.licence)?),
        ];
        if version > 1 {
            properties.push(("cmf.source".into(), json(&self.source)?));
        }
        if let Some(gaussian) = &self.gaussian {
            properties.push(("cmf.gaussian".into(), moments::gaussian_to_text(gaussian, directions)?));
        }
        for (key, mixture) in [("cmf.mixture", &self.mixture), ("cmf.data_mixture", &self.data_mixture)] {
            if let Some(mixture) = mixture {
                properties.push((key.into(), moments::mixture_to_text(mixture, directions)?));
            }
        }
        // Last and never absent, so that a file cut between two properties is noticed.
        properties.push(("cmf.probes".into(), json(&self.probes)?));
        Ok(properties)
    }

    /// Reads the properties back, and says whether they are along the directions of the head, as the forms are then; `None`
    /// if there are no `cmf.*` keys at all. `directions` are the numbers of the graph's constant of this name.
    pub(super) fn from_properties<'a>(
        properties: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        directions: impl FnOnce() -> Vec<f32>,
    ) -> Result<Option<(Self, bool)>> {
        if !properties.clone().any(|(key, _)| key.starts_with("cmf.")) {
            return Ok(None);
        }
        let find = Properties(properties.collect());
        let version: u32 = find.parse("cmf.format_version")?;
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(Error::Invalid(format!(
                "cmf.format_version is {version} and this program reads 1 to {FORMAT_VERSION}: update the program \
                 or export the model again"
            )));
        }
        let architecture: Architecture = find.parse("cmf.architecture")?;
        architecture.validate()?;
        let (dim, head) = (architecture.dim, architecture.head);
        let directions = match version >= ALONG_DIRECTIONS {
            true => Some(Directions::of_file(&architecture, &directions())?),
            false => None,
        };
        let directions = directions.as_ref();
        let gaussian =
            find.text("cmf.gaussian").map(|t| moments::gaussian_from_text(t, dim, head, directions));
        let gaussian = gaussian.transpose()?.map(Arc::new);
        let mixture = |key: &str| {
            let read = |text| moments::mixture_from_text(text, key, dim, directions).map(Arc::new);
            let named = |e: Error| Error::Invalid(format!("the property {key} cannot be read: {e}"));
            find.text(key).map(|text| read(text).map_err(named)).transpose()
        };
        let metadata = Metadata {
            architecture,
            gaussian,
            mixture: mixture("cmf.mixture")?,
            data_mixture: mixture("cmf.data_mixture")?,
            source: if version == 1 { Source::Gibbs } else { find.parse("cmf.source")? },
            shape: find.parse("cmf.shape")?,
            pixel_range: find.parse("cmf.pixel_range")?,
            sigma: find.parse("cmf.sigma")?,
            log_z: find.parse("cmf.log_z")?,
            recipe: find.parse("cmf.recipe")?,
            data: find.parse("cmf.data")?,
            licence: find.parse("cmf.licence")?,
            probes: find.parse("cmf.probes")?,
        };
        metadata.validate()?;
        Ok(Some((metadata, directions.is_some())))
    }
}

struct Properties<'a>(Vec<(&'a str, &'a str)>);

impl Properties<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, text)| *text)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self.text(key).ok_or_else(|| {
            Error::Invalid(format!("the property {key} is missing: the file is cut short or was edited"))
        })?;
        serde_json::from_str(text)
            .map_err(|e| Error::Invalid(format!("the property {key} cannot be read ({e})")))
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Invalid(format!("metadata cannot be written ({e})")))
}
