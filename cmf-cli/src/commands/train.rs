//! `cmf-cli train`: learns a potential from data into a run directory, which it can resume.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Command, FromArgMatches, ValueEnum};
use cmf_core::icnn::{Architecture, Icnn};
use cmf_core::onnx::ModelFile;
use cmf_core::ops::Activation;
use cmf_core::train::{Metrics, TrainConfig, Trainer};
use cmf_core::{Error, Result};
use cmf_plugins::data::Split;
use indicatif::ProgressBar;
use serde_json::json;

use crate::data_spec::DataSpec;
use crate::health::Health;
use crate::interrupt;
use crate::report::{Outcome, Report};
use crate::run_directory::{Run, RunDirectory, gaussian};

/// Learn a model from data and write a run directory.
///
/// The run directory holds run.json (settings and data), metrics.csv, checkpoint.bin, preview pictures of
/// image models, and at the end model.onnx. Training starts from the closed-form solution for the data's
/// mean and covariance and needs no Python and no GPU.
#[derive(Args)]
#[command(after_help = "\
Data sets: mnist:FOLDER (the four idx files, gzipped or not), a folder of images of one size, an .npy or
.csv file, or a toy: circles, s-curve, checkerboard, scaled-rotated-s-curve, diagonal-checkerboard,
eight-gaussians.
Ctrl-C writes a checkpoint and ends; --resume goes on from the last checkpoint, also after a crash, and
ends with the weights of an unbroken run.

Examples:
  cmf-cli train --data mnist:data/mnist --out runs/mnist
  cmf-cli train --data photos/ --out runs/photos --sigma 0.05 --widths 512,512
  cmf-cli train --data checkerboard --out runs/checkerboard --updates 2000
  cmf-cli train --data letters/ --init models/mnist.onnx --out runs/letters --learning-rate 1e-3
  cmf-cli train --resume --out runs/mnist")]
pub struct Train {
    /// What to learn from: NAME, NAME:PATH or PATH
    #[arg(long, value_name = "DATA", required_unless_present = "resume")]
    data: Option<DataSpec>,
    /// The run directory: a new or empty folder, or with --resume that of an earlier run
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// Go on from the checkpoint in the run directory, with the settings of the run
    #[arg(long, conflicts_with_all = ["data", "Settings", "init"])]
    resume: bool,
    /// Start from the weights in this model file, whose network is then that of the run
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["widths", "rank", "diagonal", "activation", "beta"])]
    init: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Updates between two looks at the model: the Sinkhorn divergence to held-out data, and a preview
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    look_every: u32,
    /// Seconds between two checkpoints
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,
    #[command(flatten)]
    report: Report,
}

/// What decides a run.
#[derive(Args)]
#[group(id = "Settings", multiple = true)]
struct Settings {
    /// Updates in all
    #[arg(long, value_name = "N", default_value_t = 3000)]
    updates: usize,
    /// The first updates follow the conjugate objective (CMFGen), the others the likelihood
    #[arg(long, value_name = "N", default_value_t = 0)]
    conjugate_updates: usize,
    /// Weight of the conjugate objective beside the likelihood, after the first updates
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    conjugate_weight: f64,
    /// Learn a network that guesses conjugates, and start their solves from its guesses instead of from the
    /// last update's conjugates; needs --conjugate-updates or --conjugate-weight
    #[arg(long)]
    amortise: bool,
    /// Standard deviation of the noise added to the data [default: 0.1 for images, 0.05 otherwise]
    #[arg(long)]
    sigma: Option<f64>,
    /// Units of each hidden layer
    #[arg(long, value_delimiter = ',', default_values_t = [768])]
    widths: Vec<usize>,
    /// Rank of each unit's quadratic term
    #[arg(long, default_value_t = 1)]
    rank: usize,
    /// Give each unit a diagonal quadratic term as well
    #[arg(long)]
    diagonal: bool,
    /// The activation of hidden units
    #[arg(long, value_enum, default_value_t = Kind::Softplus)]
    activation: Kind,
    /// The sharpness of softplus
    #[arg(long, default_value_t = 1.0)]
    beta: f64,
    /// Data points per update
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Persistent Gibbs particles
    #[arg(long, default_value_t = 128)]
    particles: usize,
    /// Adam's step size on linear and quadratic forms; other parameters follow in proportion
    #[arg(long, default_value_t = 3e-3)]
    learning_rate: f64,
    /// Seed of all randomness
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Elu,
    Softplus,
}

impl Settings {
    fn config(&self, dim: usize, is_image: bool) -> TrainConfig {
        let activation = match self.activation {
            Kind::Elu => Activation::Elu,
            Kind::Softplus => Activation::Softplus { beta: self.beta },
        };
        // The proportions of the three step sizes were found on MNIST.
        let pace = self.learning_rate / 3e-3;
        TrainConfig {
            architecture: Architecture {
                dim,
                widths: self.widths.clone(),
                rank: self.rank,
                diagonal: self.diagonal,
                activation,
            },
            sigma: self.sigma.unwrap_or(if is_image { 0.1 } else { 0.05 }),
            updates: self.updates,
            conjugate_updates: self.conjugate_updates,
            conjugate_weight: self.conjugate_weight,
            amortise: self.amortise,
            batch: self.batch,
            particles: self.particles,
            langevin_steps: 3,
            langevin_step: 0.3,
            conjugate_steps: 5,
            solve_tolerance: 5e-3,
            solve_steps: 30,
            learning_rate: self.learning_rate,
            learning_rate_positive: 2e-2 * pace,
            learning_rate_head: 5e-4 * pace,
            final_rate: 0.02,
            warm_up: 20,
            betas: (0.9, 0.99),
            average: 0.99,
            seed: self.seed,
        }
    }
}

/// The network in a model file for data of dimension d, and the noise that it was trained with.
fn known_network(path: &Path, data: &DataSpec, d: usize) -> Result<(Icnn<f32>, f64)> {
    let file = ModelFile::open(path)?;
    let (Some(network), Some(metadata)) = (file.network()?, file.metadata()) else {
        return Err(Error::file(path, "has no cmf.* properties, so its network is not known"));
    };
    if network.architecture().dim != d {
        return Err(Error::file(
            path,
            format!(
                "is a model of {} numbers a row, the data set {data} has {d}",
                network.architecture().dim
            ),
        ));
    }
    Ok((network, metadata.sigma))
}

/// The settings of a run without options, for a network of this shape.
pub fn default_settings(architecture: Architecture, sigma: f64) -> Result<TrainConfig> {
    let matches = Settings::augment_args(Command::new("train")).get_matches_from(["train"]);
    let settings = Settings::from_arg_matches(&matches).map_err(|e| Error::Invalid(e.to_string()))?;
    let config = settings.config(architecture.dim, false);
    Ok(TrainConfig { architecture, sigma, ..config })
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let mut run = self.start()?;
        let rows = run.data.data.rows(Split::Train);
        let total = run.trainer.config().updates;
        let health = Health::new(&run)?;
        let bar = self.report.progress(total, "training");
        let mut saved = Instant::now();
        let mut sinkhorn = None;
        while run.trainer.updates_done() < total {
            if interrupt::asked() {
                bar.finish_and_clear();
                run.directory.save(&run.trainer)?;
                self.report.warn(format!(
                    "stopped after {} of {total} updates; checkpoint written, go on with: cmf-cli train --resume --out {}",
                    run.trainer.updates_done(),
                    self.out.display()
                ));
                return Ok(Outcome::Interrupted);
            }
            let Run { trainer, data, .. } = &mut run;
            let metrics = trainer.step(rows, |indices, out| {
                data.data.read(Split::Train, indices, out).map_err(cmf_plugins::core_error)
            })?;
            let done = run.trainer.updates_done();
            let look = done % self.look_every as usize == 0 || done == total;
            let seen = look.then(|| health.look(&run)).transpose()?;
            sinkhorn = seen.or(sinkhorn);
            run.directory.record(&metrics, seen)?;
            say(&bar, &metrics, sinkhorn);
            if saved.elapsed() > Duration::from_secs(self.checkpoint_every) {
                run.directory.save(&run.trainer)?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        run.directory.save(&run.trainer)?;
        let model = self.out.join("model.onnx");
        crate::commands::export::write_model(&run, &model, "", &self.report)?;
        self.report.text(model.display().to_string())?;
        self.report.document(&json!({
            "run": self.out, "model": model, "updates": total, "sinkhorn_divergence": sinkhorn,
        }))?;
        Ok(Outcome::Done)
    }

    /// The run to go on with: a new one, or the one in the run directory.
    fn start(&self) -> Result<Run> {
        if self.resume {
            let run = Run::open(&self.out)?;
            run.directory.forget_after(run.trainer.updates_done())?;
            self.report.note(format!("resumed after {} updates", run.trainer.updates_done()));
            return Ok(run);
        }
        let Some(spec) = &self.data else {
            return Err(Error::Invalid("--data is missing".into()));
        };
        let directory = RunDirectory::vacant(&self.out)?;
        let data = spec.open(self.settings.seed)?;
        let is_image = data.data.pixel_range().is_some();
        let mut config = self.settings.config(data.data.shape().dim(), is_image);
        let known = self.init.as_deref().map(|path| known_network(path, spec, config.architecture.dim));
        let known = known.transpose()?;
        if let Some((network, sigma)) = &known {
            config.architecture = network.architecture().clone();
            config.sigma = self.settings.sigma.unwrap_or(*sigma);
        }
        let gaussian = gaussian(data.data.as_ref(), config.sigma)?;
        let trainer = match &known {
            Some((network, _)) => Trainer::from_network(config, &gaussian, network)?,
            None => Trainer::new(config, &gaussian)?,
        };
        Run::new(directory, spec.clone(), data, trainer)
    }
}

/// The health figures in the progress bar.
fn say(bar: &ProgressBar, metrics: &Metrics, sinkhorn: Option<f64>) {
    bar.set_position(metrics.update as u64);
    let sinkhorn = sinkhorn.map_or(String::new(), |s| format!(", Sinkhorn {s:.3}"));
    bar.set_message(format!(
        "update {}, residual {:.1e}, lambda max {:.1}, spread {:.1}{sinkhorn}",
        metrics.update, metrics.residual, metrics.lambda_max, metrics.particle_spread
    ));
}
