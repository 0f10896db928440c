//! What fills a hole: the mode, the mean, and different draws.

use std::ops::ControlFlow;
use std::path::Path;

use clap::ValueEnum;
use cmf_core::inpaint::{Completions, Langevin, Mode, Start};
use cmf_core::{Error, Result};
use serde::Serialize;

use crate::engine::{EngineArgs, check_results};
use crate::grid::{Grid, Problem};
use crate::model::Model;
use crate::report::Report;

/// Which completion is the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimate {
    /// A likely completion: on the way up to the mode, and at it with more --evaluations.
    Mode,
    /// The average completion.
    Mean,
}

/// What is wanted for a hole.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The estimate.
    pub estimate: Estimate,
    /// Number of different completions beside it.
    pub samples: usize,
    /// The search for the mode; its seed is that of all randomness.
    pub search: Mode,
}

/// What was found; rows are [d] in the model's coordinates.
pub struct Completed {
    /// The estimate.
    pub estimate: Vec<f64>,
    /// Where the mode was found, if it is the estimate.
    pub mode: Option<Start>,
    /// As many draws as asked for, or more, with their spread.
    pub draws: Option<Completions>,
}

/// The fewest chains that a mean or a standard deviation is taken over.
const FEWEST_DRAWS: usize = 8;

/// Bytes that the holes in work may take together.
const WORKSPACE_BYTES: usize = 1 << 30;

/// An image model ready to fill holes.
pub struct Painter {
    /// The model.
    pub model: Model,
    /// Its pixels.
    pub grid: Grid,
}

impl Painter {
    /// Opens the image model at `path`.
    pub fn open(path: &Path, engine: &EngineArgs, report: &Report) -> Result<Painter> {
        let model = Model::open(path, engine, report)?;
        model.require_gibbs(path, "inpainting")?;
        Ok(Painter { grid: model.require_grid(path)?, model })
    }

    /// Holes to fill at once where each has `rows` starts or draws: as many as their memory allows, on a GPU one.
    pub fn at_once(&self, rows: usize) -> usize {
        if self.model.worker.device != "cpu" {
            return 1;
        }
        // Hessians and arrays of their size, then a few of each row.
        let d = self.model.dim();
        (WORKSPACE_BYTES / (size_of::<f64>() * d * (16 * d + 8 * rows))).max(1)
    }

    /// Fills one hole. `go_on` hears the share that is done and says whether to go on; if not, the result
    /// is [`Error::Interrupted`].
    pub fn complete(
        &self,
        problem: &Problem,
        request: Request,
        go_on: &dyn Fn(f64) -> bool,
    ) -> Result<Completed> {
        let w = self.model.engine.as_ref();
        let hole = self.model.hole(&problem.row, &problem.hidden)?;
        let monitor = |from: f64, to: f64| {
            move |share: f64| match go_on(from + (to - from) * share) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let draw = |from: f64| {
            let draws = FEWEST_DRAWS.max(request.samples);
            let langevin = Langevin { draws, seed: request.search.seed, ..Langevin::default() };
            let run = langevin.draw(w, &hole, self.model.metadata.sigma, &mut monitor(from, 1.0))?;
            Ok::<_, Error>(run.completions)
        };
        let completed = match request.estimate {
            Estimate::Mean => {
                let draws = draw(0.0)?;
                Completed { estimate: draws.mean.clone(), mode: None, draws: Some(draws) }
            }
            Estimate::Mode => {
                let until = if request.samples > 0 { 0.5 } else { 1.0 };
                let mode = request.search.complete(w, &hole, &mut monitor(0.0, until))?;
                let draws = (request.samples > 0).then(|| draw(until)).transpose()?;
                Completed { mode: Some(mode.starts[mode.best]), estimate: mode.filled, draws }
            }
        };
        let d = self.model.dim();
        check_results("completion", &completed.estimate, d)?;
        if let Some(draws) = &completed.draws {
            check_results("draw", &draws.denoised, d)?;
        }
        Ok(completed)
    }
}
