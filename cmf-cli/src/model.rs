//! An opened model: what its file says, the engine that runs it, and its quadratic head.

use std::path::Path;

use cmf_core::gaussian::Gaussian;
use cmf_core::linalg::{Cholesky, matmul};
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
    head: Head,
}

/// The network's quadratic term ½ (x-a)' Q (x-a): close to w, with everything in closed form.
struct Head {
    /// Q: [d, d].
    hessian: Vec<f64>,
    /// a: [d].
    centre: Vec<f64>,
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
        let head = Head {
            hessian: single(&x_side[x_side.len() - d * d..]),
            centre: single(&weights.centre.to_vec()),
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

    /// Q^{-1} = L L', the inverse Hessian of the head.
    pub fn preconditioner(&self) -> Result<Preconditioner> {
        let d = self.dim();
        Preconditioner::new(&Cholesky::new(&self.head.hessian, d, "the model's head")?.inverse(), d)
    }

    /// The Gaussian N(m, S) that the head alone is the potential of: S = Q^{-3}, m = a + Q^{-1} a
    /// (Vesseron, Béthune and Cuturi, 2025, Proposition 2).
    pub fn gaussian(&self) -> Result<Gaussian> {
        let d = self.dim();
        let inverse = Cholesky::new(&self.head.hessian, d, "the model's head")?.inverse();
        let square = matmul(&inverse, &inverse, d, d, d);
        let moved = matmul(&inverse, &self.head.centre, d, d, 1);
        let mean = self.head.centre.iter().zip(moved).map(|(a, b)| a + b).collect();
        Ok(Gaussian { mean, covariance: matmul(&square, &inverse, d, d, d) })
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
