//! What a model file says about itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::icnn::{Architecture, GibbsFactor};
use crate::mixture::Mixture;
use crate::potential::{Potential, rows};
use crate::source::Source;

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
    pub gaussian: Option<Arc<Gaussian>>,
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
}
