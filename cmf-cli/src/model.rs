//! An opened model: what its file says, the engine that runs it, and its quadratic head.

use std::path::Path;

use cmf_core::gaussian::{Gaussian, QuadraticStart};
use cmf_core::onnx::{Metadata, ModelFile, Shape, TractModel};
use cmf_core::preconditioner::Preconditioner;
use cmf_core::{Error, Result};

use crate::grid::Grid;

/// A model ready to be evaluated.
pub struct Model {
    /// What the file says.
    pub metadata: Metadata,
    /// The potential w.
    pub engine: TractModel,
    /// The network's quadratic term ½ (x-a)' Q (x-a).
    head: QuadraticStart,
}

impl Model {
    /// Opens and checks the file, and replays its probes.
    pub fn open(path: &Path) -> Result<Model> {
        let file = ModelFile::open(path)?;
        let (Some(metadata), Some(network)) = (file.metadata().cloned(), file.network()?) else {
            let message = "has no cmf.* properties, so neither its network nor its data are known; \
                           expected a model that `cmf-cli export` wrote";
            return Err(Error::file(path, message));
        };
        let d = metadata.architecture.dim;
        let weights = network.weights();
        let x_side = weights.x_side.to_vec();
        let single = |a: &[f32]| a.iter().map(|&v| f64::from(v)).collect();
        let head = QuadraticStart {
            hessian: single(&x_side[x_side.len() - d * d..]),
            centre: single(&weights.centre.to_vec()),
            log_z: 0.0,
        };
        Ok(Model { metadata, engine: TractModel::load(&file)?, head })
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.metadata.architecture.dim
    }

    /// The pixels of an image model.
    pub fn grid(&self) -> Option<Grid> {
        let Shape::Image { height, width, channels } = self.metadata.shape else { return None };
        let [low, high] = self.metadata.pixel_range?;
        matches!(channels, 1 | 3).then_some(Grid { height, width, channels, low, high })
    }

    /// The pixels of an image model, or an error that says what the model is about instead.
    pub fn require_grid(&self, path: &Path) -> Result<Grid> {
        self.grid().ok_or_else(|| {
            let d = self.dim();
            Error::file(
                path,
                format!("is a model of points with {d} coordinates, expected a model of images"),
            )
        })
    }

    /// The Gibbs covariance of the closed-form potential of the data's Gaussian, near the inverse Hessian of w.
    pub fn preconditioner(&self) -> Result<Preconditioner> {
        self.gaussian()?.quadratic_start()?.gibbs_covariance()
    }

    /// N(m, S) of the noisy data; where the file does not say, the Gaussian that the head alone is the
    /// potential of.
    pub fn gaussian(&self) -> Result<Gaussian> {
        match &self.metadata.gaussian {
            Some(gaussian) => Ok(gaussian.clone()),
            None => self.head.gaussian(),
        }
    }

    /// Q: [d, d], the Hessian of the head.
    pub fn head_hessian(&self) -> &[f64] {
        &self.head.hessian
    }

    /// a: [d], where the head is smallest.
    pub fn centre(&self) -> &[f64] {
        &self.head.centre
    }
}
