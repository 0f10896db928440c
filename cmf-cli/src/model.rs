//! An opened model: what its file says and the engine that runs it.

use std::path::Path;
use std::sync::Arc;

use cmf_core::density::{MOST_EXACT, is_exact};
use cmf_core::gaussian::Gaussian;
use cmf_core::inpaint::Hole;
use cmf_core::onnx::{Metadata, ModelFile, Shape};
use cmf_core::{Error, Result, SecondOrder, Source};
use cmf_plugins::host::Model as HostModel;
use cmf_plugins::sdk::{self, ModelInfo};

use crate::engine::{EngineArgs, Loaded, Worker};
use crate::grid::Grid;
use crate::report::Report;

/// A model ready to be evaluated.
pub struct Model {
    /// What the file says.
    pub metadata: Metadata,
    /// The potential w.
    pub engine: Box<dyn SecondOrder>,
    /// Who evaluates it.
    pub worker: Worker,
    /// Mean and covariance of the noisy data: where samplers and inpainting start.
    pub gaussian: Arc<Gaussian>,
}

impl Model {
    /// Opens and checks the file, and replays its probes through the engine of the user's choice.
    pub fn open(path: &Path, engine: &EngineArgs, report: &Report) -> Result<Model> {
        let (file, ()) = rayon::join(|| ModelFile::open(path), || engine.start());
        let file = file?;
        let Some(metadata) = file.metadata().cloned() else {
            let message = "has no cmf.* properties, so neither its network nor its data are known; \
                           expected a model that `cmf-cli export` wrote";
            return Err(Error::file(path, message));
        };
        let Some(gaussian) = metadata.gaussian.clone() else {
            let message = "has no cmf.gaussian, the data's mean and covariance; export the model again";
            return Err(Error::file(path, message));
        };
        let Loaded { potential, worker } = engine.load(&file, report)?;
        Ok(Model { metadata, engine: potential, worker, gaussian })
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

    /// The hole `hidden` in the point `y`, with what the model's start says of it.
    pub fn hole(&self, y: &[f64], hidden: &[usize]) -> Result<Hole> {
        Hole::new(&self.gaussian, y, hidden)?
            .with_mixture(&self.gaussian, self.metadata.data_mixture.as_deref())
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.metadata.architecture.dim
    }

    /// Whether its log-densities are exact.
    pub fn is_exact(&self) -> bool {
        is_exact(self.engine.as_ref())
    }

    /// The model as tasks and log-densities take it.
    pub fn host(&self) -> HostModel<'_> {
        let m = &self.metadata;
        let info = ModelInfo {
            shape: match m.shape {
                Shape::Image { height, width, channels } => sdk::Shape::Image { height, width, channels },
                Shape::Flat { dim } => sdk::Shape::Vector { dim },
            },
            pixel_range: m.pixel_range.map(|[low, high]| (low, high)),
            sigma: m.sigma,
            log_z: m.log_z.map(|z| (z.value, z.standard_error)),
            has_hessian: self.dim() <= MOST_EXACT,
        };
        HostModel {
            w: self.engine.as_ref(),
            source: m.source,
            gaussian: &self.gaussian,
            data_mixture: m.data_mixture.as_deref(),
            info,
        }
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
