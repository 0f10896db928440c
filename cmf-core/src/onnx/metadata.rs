//! What a model file says about itself: typed, and as the `cmf.*` properties of the file.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::check::MOST_BYTES;
use super::directions::Directions;
use super::graph::DIRECTIONS;
use super::moments;
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::icnn::subspace::is_affordable;
use crate::icnn::{Architecture, GibbsFactor, Head};
use crate::mixture::Mixture;
use crate::potential::{Potential, rows};
use crate::source::Source;

/// Version of the set of properties below; files of a later version are refused.
///
/// Version 2 brought `cmf.source`, version 3 spiked heads, version 4 Gibbs factors of the head, version 5 mixtures in them,
/// version 6 coordinates in the directions of a spiked head: of forms (the constants `forms_along` and `directions` of the
/// graph), of the directions of `cmf.gaussian` and of those of mixtures. A file says the first version whose programs read it
/// rightly.
pub const FORMAT_VERSION: u32 = ALONG_DIRECTIONS;
/// The version since which all that can is written along the directions of the head.
const ALONG_DIRECTIONS: u32 = 6;

/// Everything that a model file says about its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The network (`cmf.architecture`).
    pub architecture: Architecture,
    /// The law that ∇w* carries to the data (`cmf.source`, since version 2; before it was always e^{-w}/Z).
    pub source: Source,
    /// How a point is laid out (`cmf.shape`).
    pub shape: Shape,
    /// Smallest and largest pixel value, for images (`cmf.pixel_range`).
    pub pixel_range: Option<[f64; 2]>,
    /// Standard deviation of the noise that was added to the data (`cmf.sigma`).
    pub sigma: f64,
    /// The mixture along few directions of the head's Gibbs factor (`cmf.mixture`, since version 5).
    pub mixture: Option<Arc<Mixture>>,
    /// log Z of the source in nats, log ∫ e^{-V} of the Gibbs factor's potential, if it is known or was estimated
    /// (`cmf.log_z`).
    pub log_z: Option<LogZ>,
    /// Mean and covariance of the noisy data (`cmf.gaussian`): where samplers and inpainting start.
    pub gaussian: Option<Gaussian>,
    /// The mixture in the place of that Gaussian's marginal along few directions (`cmf.data_mixture`, since version 5):
    /// where inpainting starts.
    pub data_mixture: Option<Arc<Mixture>>,
    /// How the model was trained (`cmf.recipe`): any JSON.
    pub recipe: serde_json::Value,
    /// What it was trained on (`cmf.data`).
    pub data: Data,
    /// Licence of the model (`cmf.licence`), as an SPDX expression.
    pub licence: String,
    /// Points with their answers, replayed when the file is opened (`cmf.probes`).
    pub probes: Vec<Probe>,
}

/// How the d coordinates of a point are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Shape {
    /// No layout: d numbers.
    Flat {
        /// d.
        dim: usize,
    },
    /// Rows of pixels, the channels of a pixel together.
    Image {
        /// Rows.
        height: usize,
        /// Pixels a row.
        width: usize,
        /// Numbers a pixel.
        channels: usize,
    },
}

impl Shape {
    /// The dimension d, if it can be represented.
    pub fn dim(&self) -> Option<usize> {
        match *self {
            Shape::Flat { dim } => Some(dim),
            Shape::Image { height, width, channels } => height.checked_mul(width)?.checked_mul(channels),
        }
    }
}

/// log Z in nats, estimated or known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogZ {
    /// The number.
    pub value: f64,
    /// Its standard error, 0 where it is known.
    pub standard_error: f64,
}

impl std::fmt::Display for LogZ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.standard_error {
            0.0 => write!(f, "{:.3} nats, known exactly", self.value),
            error => write!(f, "{:.3} nats, standard error {error:.3}", self.value),
        }
    }
}

/// The data a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Data {
    /// Its name.
    pub name: String,
    /// SHA-256 of what was read, in hexadecimal.
    pub sha256: String,
    /// Its licence.
    pub licence: String,
}

/// A point with the answers that every engine must give there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// x: [d].
    pub x: Vec<f32>,
    /// w(x).
    pub value: f64,
    /// ∇w(x): [d].
    pub gradient: Vec<f32>,
    /// log ρ(x) in nats, where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_density: Option<f64>,
}

impl Probe {
    /// Records the answers of `potential` (the f64 reference, say) at the rows of `x` [n, d].
    pub fn record(potential: &dyn Potential, x: &[f64]) -> Result<Vec<Probe>> {
        let d = potential.dim();
        let n = rows(x, d)?;
        // The points that the file can hold, so that the answers are those at the stored points.
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v as f32)).collect();
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
        potential.value_and_gradient(&x, &mut value, &mut gradient)?;
        let single = |a: &[f64]| a.iter().map(|&v| v as f32).collect();
        let answers = x.chunks_exact(d).zip(value).zip(gradient.chunks_exact(d));
        Ok(answers
            .map(|((x, value), g)| Probe { x: single(x), value, gradient: single(g), log_density: None })
            .collect())
    }

    /// The points of `probes` [n, d].
    pub fn points<'a>(probes: impl IntoIterator<Item = &'a Probe>) -> Vec<f64> {
        probes.into_iter().flat_map(|p| &p.x).map(|&v| f64::from(v)).collect()
    }

    fn is_finite(&self) -> bool {
        self.x.iter().chain(&self.gradient).all(|v| v.is_finite())
            && self.value.is_finite()
            && self.log_density.is_none_or(f64::is_finite)
    }
}

impl Metadata {
    /// What a network says of itself before anything else is known: flat, without data or probes.
    pub fn new(architecture: Architecture) -> Self {
        let shape = Shape::Flat { dim: architecture.dim };
        Metadata {
            architecture,
            source: Source::Gibbs,
            shape,
            pixel_range: None,
            sigma: 0.0,
            mixture: None,
            log_z: None,
            gaussian: None,
            data_mixture: None,
            recipe: serde_json::Value::Null,
            data: Data::default(),
            licence: String::new(),
            probes: Vec::new(),
        }
    }

    /// Checks that the parts agree with each other and that every number is finite.
    pub fn validate(&self) -> Result<()> {
        self.architecture.validate()?;
        let d = self.architecture.dim;
        if self.shape.dim() != Some(d) {
            return Err(Error::Invalid(format!("cmf.shape {:?} does not have {d} coordinates", self.shape)));
        }
        if let Some([low, high]) = self.pixel_range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return Err(Error::Invalid(format!("cmf.pixel_range [{low}, {high}] is not an interval")));
        }
        if !(self.sigma.is_finite() && self.sigma >= 0.0) {
            return Err(Error::Invalid(format!("cmf.sigma {} is not a standard deviation", self.sigma)));
        }
        if let Some(LogZ { value, standard_error }) = self.log_z
            && !(value.is_finite() && standard_error.is_finite() && standard_error >= 0.0)
        {
            return Err(Error::Invalid(format!("cmf.log_z {value} ± {standard_error} is not an estimate")));
        }
        if let Some(mixture) = &self.mixture {
            check_len("the directions of cmf.mixture", mixture.dim(), d)?;
            if self.architecture.gibbs != GibbsFactor::Head {
                return Err(Error::Invalid("cmf.mixture goes with the Gibbs factor of the head".into()));
            }
        }
        if let Some(mixture) = &self.data_mixture {
            check_len("the directions of cmf.data_mixture", mixture.dim(), d)?;
        }
        if let Some(gaussian) = &self.gaussian {
            check_len("the mean of the data", gaussian.mean.len(), d)?;
            check_len("the covariance of the data", gaussian.covariance.dim(), d)?;
            let (found, head) = (gaussian.covariance.rank(), self.architecture.head);
            if found != head.rank() {
                return Err(Error::Invalid(format!(
                    "the covariance of the data has {} leading directions, the head of the network is {head:?}",
                    found.map_or("all".into(), |k| k.to_string())
                )));
            }
        }
        for probe in &self.probes {
            check_len("a probe's point", probe.x.len(), d)?;
            check_len("a probe's gradient", probe.gradient.len(), d)?;
            if !probe.is_finite() {
                return Err(Error::NotFinite("a number of cmf.probes".into()));
            }
        }
        Ok(())
    }

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
            properties.push(("cmf.gaussian".into(), moments::to_text(gaussian, directions)?));
        }
        for (key, mixture) in [("cmf.mixture", &self.mixture), ("cmf.data_mixture", &self.data_mixture)] {
            let Some(mixture) = mixture else { continue };
            let numbers = match directions {
                None => mixture.numbers(),
                Some(v) => mixture.as_ref().clone().placed(v.coordinates(mixture.rows())?)?.numbers(),
            };
            properties.push((key.into(), moments::encode(&numbers)));
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
            true => Some(directions_of(&architecture, &directions())?),
            false => None,
        };
        let directions = directions.as_ref();
        let gaussian = find.text("cmf.gaussian").map(|t| moments::from_text(t, dim, head, directions));
        let gaussian = gaussian.transpose()?;
        let mixture = |key: &str| {
            let read = |text| -> Result<Arc<Mixture>> {
                let numbers = moments::decode(text, key)?;
                let Some(directions) = directions else {
                    return Mixture::from_numbers(&numbers, dim).map(Arc::new);
                };
                let k = directions.count();
                let along = Mixture::from_numbers(&numbers, k)?;
                if along.directions() > k {
                    return Err(Error::Invalid(format!(
                        "{} directions in the span of {k}",
                        along.directions()
                    )));
                }
                let rows = directions.rows(along.rows());
                along.placed(rows).map(Arc::new)
            };
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

/// The directions that a file of this architecture holds, which may hold few numbers in the place of many.
fn directions_of(architecture: &Architecture, found: &[f32]) -> Result<Directions> {
    check_forms(architecture)?;
    let (dim, head) = (architecture.dim, architecture.head);
    match head.rank().filter(|k| found.len() == k * dim) {
        Some(k) => Ok(Directions::new(found, k)),
        None => Err(Error::Invalid(format!(
            "cmf.format_version {ALONG_DIRECTIONS} needs a spiked head and its directions [k, {dim}] as a constant of float32; \
             found {head:?} and {} numbers of {DIRECTIONS:?}",
            found.len()
        ))),
    }
}

/// Whether a file may hold the forms by their coordinates: what comes of a few numbers takes no more memory than a file can,
/// and no more time than it takes to look whether forms lie in the span.
fn check_forms(architecture: &Architecture) -> Result<()> {
    let (rows, d) = (architecture.x_side_rows(), architecture.dim);
    if (rows * d) as u64 * 4 > MOST_BYTES
        || architecture.head.rank().is_some() && !is_affordable(architecture)
    {
        return Err(Error::Invalid(format!(
            "the network has {rows} rows in {d} dimensions, more than a file may hold by their coordinates"
        )));
    }
    Ok(())
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
