//! An opened model: what its file says and the engine that runs it.

use std::path::Path;

use cmf_core::gaussian::Gaussian;
use cmf_core::gibbs_start::GibbsStart;
use cmf_core::onnx::{Metadata, ModelFile, Shape, TractModel};
use cmf_core::{Error, Result, Source};

use crate::grid::Grid;

/// A model ready to be evaluated.
pub struct Model {
    /// What the file says.
    pub metadata: Metadata,
    /// The potential w.
    pub engine: TractModel,
    /// Mean and covariance of the noisy data: where samplers and inpainting start.
    pub gaussian: Gaussian,
}

impl Model {
    /// Opens and checks the file, and replays its probes.
    pub fn open(path: &Path) -> Result<Model> {
        let file = ModelFile::open(path)?;
        let Some(metadata) = file.metadata().cloned() else {
            let message = "has no cmf.* properties, so neither its network nor its data are known; \
                           expected a model that `cmf-cli export` wrote";
            return Err(Error::file(path, message));
        };
        let Some(gaussian) = metadata.gaussian.clone() else {
            let message = "has no cmf.gaussian, the data's mean and covariance; export the model again";
            return Err(Error::file(path, message));
        };
        Ok(Model { metadata, engine: TractModel::load(&file)?, gaussian })
    }

    /// Fails for a model whose source is N(0, I), about which `what` knows nothing.
    pub fn require_gibbs(&self, path: &Path, what: &str) -> Result<()> {
        match self.metadata.source {
            Source::Gibbs => Ok(()),
            Source::Gaussian => Err(Error::file(
                path,
                format!(
                    "is a generative input-convex network, whose source is N(0, I); {what} expects a conjugate moment \
                     measure, whose source is e^-w/Z (`sample` and `score` take both)"
                ),
            )),
        }
    }

    /// The closed-form start of the model's potential.
    pub fn start(&self) -> Result<GibbsStart> {
        GibbsStart::new(&self.gaussian.quadratic_start_from(self.metadata.source)?)
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
}
