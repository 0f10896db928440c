//! `cmf-cli bench`: how long every engine takes for every task, beside the machine's fastest matrix product.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cmf_core::density::exact_log_density_from;
use cmf_core::draws;
use cmf_core::icnn::Icnn;
use cmf_core::inpaint::{Hole, Mode};
use cmf_core::onnx::{Metadata, ModelFile, Probe};
use cmf_core::{Error, Result, SecondOrder, Source};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Serialize;
use serde_json::json;

use crate::engine::{EngineArgs, present};
use crate::interrupt;
use crate::report::{Outcome, Report};
use crate::timing::{Ceiling, Times, Work, time};

/// Time every engine at every task, beside this machine's fastest matrix product.
///
/// The engines are those that are present, or the one chosen, and the interpreter on the host that training uses.
/// The first call is given apart: it makes plans and packs weights. Then the call is repeated; the shortest time
/// counts, since other work on the machine only ever adds time. Where the multiplications of a task can be
/// counted, `x ceiling` is that time in units of what the fastest f32 product found here would need for all of the
/// network's; tract and ONNX Runtime leave out units that rounding hides, and go through the few directions of a
/// spiked head as the host does.
#[derive(Args)]
#[command(after_help = "\
gradient, hvp and hessian are one call on a batch. score is the exact log-density of a point,
score-gradient with its gradient; sample is 16 points by 100 Langevin steps (exact draws of a
Gaussian source) and a conjugate solve; inpaint is the search for the mode in one half of a point;
train is one update from the model's weights by the default settings, with --device cuda on the GPU
if this build has the feature `cuda`.

Examples:
  cmf-cli bench models/mnist.onnx
  cmf-cli bench models/mnist.onnx --only gradient,hvp --batch 1,64,256 --ort-lib python
  cmf-cli bench models/mnist.onnx --json > bench.json")]
pub struct Bench {
    /// The model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What to time [default: everything]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TASK")]
    only: Vec<Task>,
    /// Sizes of the batches of gradient and hvp
    #[arg(long, value_delimiter = ',', value_name = "N", default_values_t = [1, 64, 256], value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Seconds for each figure
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

/// What can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    Gradient,
    Hvp,
    Hessian,
    Score,
    ScoreGradient,
    Sample,
    Inpaint,
    #[cfg(feature = "train")]
    Train,
}

/// Points and Langevin steps of the task `sample`.
const SAMPLES: usize = 16;
const STEPS: usize = 100;

#[derive(Serialize)]
struct Figure {
    task: Task,
    engine: String,
    batch: usize,
    #[serde(flatten)]
    times: Times,
    /// Of the matrix products of the whole network.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflop: Option<f64>,
    /// The shortest time in units of the ceiling's.
    #[serde(skip_serializing_if = "Option::is_none")]
    times_ceiling: Option<f64>,
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(Error::Invalid(format!(
                "--seconds {}: expected more than 0, at most 3600",
                self.seconds
            )));
        }
        let file = ModelFile::open(&self.model)?;
        let (Some(metadata), Some(host)) = (file.metadata(), file.network()) else {
            return Err(Error::file(&self.model, "is a foreign ONNX file, whose network is not known"));
        };
        let largest = self.batch.iter().max().copied().unwrap_or(1) as usize;
        let mut engines: Vec<(String, Box<dyn SecondOrder>)> = Vec::new();
        if self.wants_engines() {
            for (_, loaded) in present(&self.engine, &file, &self.report) {
                let loaded = loaded?;
                engines.push((loaded.worker.to_string(), loaded.potential));
            }
            if self.engine.engine.is_none() {
                // As training has it.
                engines.push(("host".into(), Box::new(host.clone().through_directions())));
            }
        }
        let ceiling = Ceiling::measure(&metadata.architecture, largest, self.budget())?;
        let threads = rayon::current_num_threads();
        let [n, k, m] = ceiling.product;
        self.report.text(format!(
            "{threads} threads; ceiling {:.0} GFLOP/s, an f32 product [{n}, {k}] x [{k}, {m}]\n{:<15}{:<22}{:>6}{:>12}{:>12}{:>12}{:>11}",
            ceiling.gflops, "task", "engine", "batch", "cold ms", "warm ms", "median ms", "x ceiling"
        ))?;
        let mut figures = Vec::new();
        for (name, w) in &engines {
            self.engine_figures(name, w.as_ref(), metadata, ceiling, &mut figures)?;
        }
        #[cfg(feature = "train")]
        if self.wants(Task::Train) {
            let (device, batch, times) = self.training(host, metadata)?;
            let name = format!("burn on {device}");
            self.add(&mut figures, ceiling, (Task::Train, &name, batch), times, None)?;
        }
        self.report.document(&json!({
            "model": self.model, "threads": threads, "ceiling": ceiling, "figures": figures,
        }))?;
        Ok(Outcome::Done)
    }

    fn wants(&self, task: Task) -> bool {
        self.only.is_empty() || self.only.contains(&task)
    }

    /// Whether an engine has anything to do: training is Burn's.
    fn wants_engines(&self) -> bool {
        #[cfg(feature = "train")]
        let others = |task: &Task| *task != Task::Train;
        #[cfg(not(feature = "train"))]
        let others = |_: &Task| true;
        self.only.is_empty() || self.only.iter().any(others)
    }

    fn budget(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn add(
        &self,
        figures: &mut Vec<Figure>,
        ceiling: Ceiling,
        (task, engine, batch): (Task, &str, usize),
        times: Times,
        gflop: Option<f64>,
    ) -> Result<()> {
        let times_ceiling = gflop.map(|gflop| times.warm_ms / ceiling.ms(gflop));
        let or_dash = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.2}"));
        let name = task.to_possible_value().map_or(String::new(), |v| v.get_name().to_string());
        self.report.text(format!(
            "{name:<15}{engine:<22}{batch:>6}{:>12.2}{:>12.2}{:>12.2}{:>11}",
            times.cold_ms,
            times.warm_ms,
            times.median_ms,
            or_dash(times_ceiling)
        ))?;
        figures.push(Figure { task, engine: engine.into(), batch, times, gflop, times_ceiling });
        interrupt::check()
    }

    fn engine_figures(
        &self,
        engine: &str,
        w: &dyn SecondOrder,
        metadata: &Metadata,
        ceiling: Ceiling,
        figures: &mut Vec<Figure>,
    ) -> Result<()> {
        let (d, work, budget, source) =
            (w.dim(), Work(&metadata.architecture), self.budget(), metadata.source);
        let point: Vec<f64> = metadata.probes.first().map_or(vec![0.0; d], |p| Probe::points([p]));
        for n in self.batch.iter().map(|&n| n as usize) {
            let x = noisy(&point, n, metadata.sigma);
            if self.wants(Task::Gradient) {
                let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
                let times = time(budget, || w.value_and_gradient(&x, &mut value, &mut gradient))?;
                let gflop = Some(work.gradient(n));
                self.add(figures, ceiling, (Task::Gradient, engine, n), times, gflop)?;
            }
            if self.wants(Task::Hvp) {
                let mut hv = vec![0.0; n * d];
                let times = time(budget, || w.hvp(&x, &x, &mut hv))?;
                self.add(figures, ceiling, (Task::Hvp, engine, n), times, Some(work.hvp(n)))?;
            }
        }
        if self.wants(Task::Hessian) {
            let mut hessian = vec![0.0; d * d];
            let times = time(budget, || w.hessian(&point, &mut hessian))?;
            self.add(figures, ceiling, (Task::Hessian, engine, 1), times, work.hessian(1))?;
        }
        if self.wants(Task::Score) {
            let times = time(budget, || exact_log_density_from(w, source, 0.0, &point, None).map(|_| ()))?;
            self.add(figures, ceiling, (Task::Score, engine, 1), times, None)?;
        }
        if self.wants(Task::ScoreGradient) {
            let mut score = vec![0.0; d];
            let times = time(budget, || {
                exact_log_density_from(w, source, 0.0, &point, Some(&mut score)).map(|_| ())
            })?;
            self.add(figures, ceiling, (Task::ScoreGradient, engine, 1), times, None)?;
        }
        let Some(gaussian) = &metadata.gaussian else {
            self.report.note("no sampling or inpainting: the file has no cmf.gaussian");
            return Ok(());
        };
        if self.wants(Task::Sample) {
            let go_on = &mut |_| !interrupt::asked();
            let times =
                time(budget, || draws::samples(w, gaussian, source, SAMPLES, STEPS, 0, go_on).map(|_| ()))?;
            self.add(figures, ceiling, (Task::Sample, engine, SAMPLES), times, None)?;
        }
        if self.wants(Task::Inpaint) && source == Source::Gaussian {
            self.report.note("no inpainting: the source is N(0, I), which `inpaint` does not take");
        } else if self.wants(Task::Inpaint) {
            let hidden: Vec<usize> = (d / 2..d).collect();
            let mixture = metadata.data_mixture.as_deref();
            let hole = Hole::new(gaussian, &point, &hidden)?.with_mixture(gaussian, mixture)?;
            let mut monitor = |_: f64| match interrupt::asked() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let times = time(budget, || Mode::default().complete(w, &hole, &mut monitor).map(|_| ()))?;
            self.add(figures, ceiling, (Task::Inpaint, engine, 1), times, None)?;
        }
        Ok(())
    }

    /// Updates of a run from the file's network, on the mean of the data with noise, and how many rows one takes.
    #[cfg(feature = "train")]
    fn training(&self, network: &Icnn<f32>, metadata: &Metadata) -> Result<(String, usize, Times)> {
        use crate::engine::DeviceChoice;
        use crate::training_device::DeviceArgs;
        use cmf_core::train::{Method, Trainer};
        let Some(gaussian) = &metadata.gaussian else {
            return Err(Error::file(&self.model, "has no cmf.gaussian, from which training starts"));
        };
        let method = match metadata.source {
            Source::Gibbs => Method::Samples,
            Source::Gaussian => Method::GaussianIcnn,
        };
        let config = crate::training_settings::default_settings(
            method,
            metadata.architecture.clone(),
            metadata.sigma,
        )?;
        let (batch, mean) = (config.batch, gaussian.mean.clone());
        // On the GPU that the engines were told to take, if this build trains on GPUs or nothing else was asked for.
        let trains = cfg!(feature = "cuda") || !self.wants_engines();
        let on_gpu = |d: &DeviceChoice| trains && matches!(d, DeviceChoice::Cuda(_));
        let device = DeviceArgs::one(self.engine.device.filter(on_gpu));
        let (mut trainer, place) =
            device.place(Trainer::from_network(config, gaussian, network)?, &self.report)?;
        let times = time(self.budget(), || {
            let read = |_: &[usize], out: &mut [f64]| {
                out.chunks_exact_mut(mean.len()).for_each(|row| row.copy_from_slice(&mean));
                Ok(())
            };
            trainer.step(batch, &read).map(|_| ())
        })?;
        Ok((place.device, batch, times))
    }
}

/// `n` copies of a point with noise.
fn noisy(point: &[f64], n: usize, sigma: f64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut one = || -> f64 { rng.sample(StandardNormal) };
    (0..n).flat_map(|_| point.iter().map(|p| p + sigma * one()).collect::<Vec<_>>()).collect()
}
