//! `cmf-cli eval`: how far samples, or a model's draws, are from data.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cmf_core::{Error, Result};
use cmf_plugins::data::Split;
use serde_json::json;

use crate::compare::{Compared, Comparison, Metric};
use crate::data_spec::DataSpec;
use crate::drawing::{Drawing, MOST_DRAWS, Noise};
use crate::engine::{EngineArgs, Worker, signed};
use crate::model::Model;
use crate::points::{add_noise, split_rows};
use crate::report::{Outcome, Report};

/// Measure how far samples, or a model's draws, are from data.
///
/// Prints each figure as its mean and standard deviation over repeats, and beside it the floor: the same figure
/// between two batches of the data. No model can be told from the data by a figure at the floor.
#[derive(Args)]
#[command(after_help = "\
The Sinkhorn divergence has cost |x - y|^2 and epsilon = 0.05 E|x - x'|^2 over two batches of the
data, MMD a Gaussian kernel with 2 h^2 = E|x - x'|^2. Precision and recall are those of Kynkaanniemi
et al. (2019) with distances between pixels, not between features of a network: they compare with no
figures of that kind. The Sinkhorn divergence of N rows needs 8 N^2 bytes, 800 MB for 10,000.

Of files all rows are used, of other data sets the held-out ones, unless --split says otherwise. A
model's draws have the noise that it learned removed if they are images; otherwise they keep it and
it is added to the data.

Examples:
  cmf-cli eval --model models/eight-gaussians.onnx --data eight-gaussians
  cmf-cli eval --samples samples.npy --data real.npy --rows 10000 --repeats 1
  cmf-cli eval --model models/mnist.onnx --data mnist:data/mnist --rows 1000 --json",
    group(clap::ArgGroup::new("what").required(true)))]
pub struct Eval {
    /// The samples: a .npy or .csv file, a folder of images, or another data set
    #[arg(long, value_name = "DATA", group = "what", conflicts_with = "EngineArgs")]
    samples: Option<DataSpec>,
    /// A model to draw the samples from
    #[arg(long, short, value_name = "FILE", group = "what")]
    model: Option<PathBuf>,
    /// The data to compare with: NAME, NAME:PATH or PATH, as for `train`
    #[arg(long, value_name = "DATA")]
    data: DataSpec,
    /// Which rows of the data [default: all of a file, the held-out ones of other data sets]
    #[arg(long, value_enum)]
    split: Option<Rows>,
    /// What to measure [default: sinkhorn,sliced,mmd, and precision-recall for images]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METRIC")]
    metrics: Vec<Metric>,
    /// Rows on each side of a comparison, fewer if there are not as many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..=MOST_ROWS))]
    rows: u32,
    /// Comparisons of fresh batches; of a model rows x repeats samples are drawn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeats: u32,
    /// Epsilon of the Sinkhorn divergence, in squared units of the data
    #[arg(long)]
    epsilon: Option<f64>,
    /// Directions of the sliced distance
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    directions: u32,
    /// Neighbours of precision and recall
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    neighbours: u32,
    /// Langevin steps of a model's draws, where its source is not a Gaussian
    #[arg(long, default_value_t = 1000, requires = "model", value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    steps: u32,
    /// What to do with the noise that the model learned with its data [default: remove for images, keep otherwise]
    #[arg(long, value_enum, requires = "model")]
    noise: Option<Noise>,
    /// Seed of all randomness
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

/// Batches of more rows would need more than 3.2 GB.
const MOST_ROWS: i64 = 20_000;

/// Which rows of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// Those for training and those held out.
    All,
    /// Those for training.
    Train,
    /// Those held out from training.
    HeldOut,
}

/// Rows of a data set, with what is known of them.
struct Read {
    rows: Vec<f64>,
    dim: usize,
    is_image: bool,
}

/// What is compared with the data.
struct Samples {
    rows: Vec<f64>,
    /// How many draws were left out because their solve did not converge.
    unconverged: usize,
    /// What was done about the model's noise.
    noise: &'static str,
    /// Who evaluated the model that they were drawn from.
    worker: Option<Worker>,
}

impl Eval {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let split = self.split.unwrap_or(match self.data {
            DataSpec::Path(_) => Rows::All,
            _ => Rows::HeldOut,
        });
        let mut data = self.read(&self.data, split)?;
        let d = data.dim;
        let Samples { rows: samples, unconverged, noise, worker } = self.samples(&mut data)?;
        let metrics = match &self.metrics[..] {
            [] if data.is_image => {
                vec![Metric::Sinkhorn, Metric::Sliced, Metric::Mmd, Metric::PrecisionRecall]
            }
            [] => vec![Metric::Sinkhorn, Metric::Sliced, Metric::Mmd],
            chosen => chosen.to_vec(),
        };
        let comparison = Comparison {
            metrics,
            rows: self.rows as usize,
            repeats: self.repeats as usize,
            directions: self.directions as usize,
            neighbours: self.neighbours as usize,
            epsilon: self.epsilon,
            seed: self.seed,
        };
        let bar = self.report.progress(comparison.repeats, "comparing");
        let found = comparison.compare(&samples, &data.rows, d, &|done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        if found.rows < comparison.rows {
            self.report.note(format!(
                "comparing {} rows instead of {}: there are {} samples and {} rows of data, which two batches share",
                found.rows,
                comparison.rows,
                samples.len() / d,
                data.rows.len() / d
            ));
        }
        self.say(&found, unconverged)?;
        let document = json!({
            "samples": self.samples.as_ref().map(ToString::to_string),
            "model": self.model,
            "data": self.data.to_string(),
            "seed": self.seed,
            "noise": noise,
            "unconverged_samples": unconverged,
            "directions": self.directions,
            "neighbours": self.neighbours,
            "comparison": found,
        });
        self.report.document(&signed(worker.as_ref(), document))?;
        Ok(Outcome::of(found.unconverged == 0 && unconverged == 0))
    }

    /// The samples, read or drawn.
    fn samples(&self, data: &mut Read) -> Result<Samples> {
        let Some(path) = &self.model else {
            let Some(spec) = &self.samples else {
                return Err(Error::Invalid("give --samples or --model".into()));
            };
            let read = self.read(spec, Rows::All)?;
            self.check_dim(&spec.to_string(), read.dim, data.dim)?;
            return Ok(Samples { rows: read.rows, unconverged: 0, noise: "none", worker: None });
        };
        let model = Model::open(path, &self.engine, &self.report)?;
        self.check_dim(&path.display().to_string(), model.dim(), data.dim)?;
        let noise = self.noise.unwrap_or(Noise::usual(&model));
        // A batch for each repeat: repeats of one batch would agree with each other whatever they are off by.
        let rows = (self.rows as usize).min(data.rows.len() / data.dim / 2).max(2);
        let number = rows * self.repeats as usize;
        if number > MOST_DRAWS as usize {
            return Err(Error::Invalid(format!(
                "{rows} rows in {} repeats are {number} draws of the model, at most {MOST_DRAWS} are made: lower --rows \
                 or --repeats",
                self.repeats
            )));
        }
        let drawing = Drawing { number, steps: self.steps as usize, noise, seed: self.seed };
        let drawn = drawing.draw(&model, &self.report)?;
        if drawn.unconverged > 0 {
            self.report.warn(format!(
                "{} of {number} draws were left out: their transport solve did not converge",
                drawn.unconverged
            ));
        }
        let noise = match noise {
            Noise::Keep => {
                // Another stream than the chains'.
                add_noise(&mut data.rows, model.metadata.sigma, self.seed ^ 0x5eed);
                "added to data"
            }
            _ => "removed from samples",
        };
        let worker = Some(model.worker);
        Ok(Samples { rows: drawn.y, unconverged: drawn.unconverged, noise, worker })
    }

    fn check_dim(&self, what: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{what} has {found} numbers a row, the data {} have {expected}",
            self.data
        )))
    }

    fn read(&self, spec: &DataSpec, split: Rows) -> Result<Read> {
        let opened = spec.open(self.seed)?;
        let data = opened.data.as_ref();
        let mut rows = Vec::new();
        if split != Rows::HeldOut {
            rows.extend(split_rows(data, Split::Train)?);
        }
        if split != Rows::Train {
            rows.extend(split_rows(data, Split::HeldOut)?);
        }
        Ok(Read { rows, dim: data.shape().dim(), is_image: data.pixel_range().is_some() })
    }

    fn say(&self, found: &Compared, unconverged: usize) -> Result<()> {
        self.report.text("figure\tmean\tdeviation\tfloor\tfloor_deviation\tratio")?;
        for f in &found.figures {
            let or_none = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3e}"));
            self.report.text(format!(
                "{}\t{:.5}\t{}\t{:.5}\t{}\t{:.3}",
                f.name,
                f.mean,
                or_none(f.deviation),
                f.floor_mean,
                or_none(f.floor_deviation),
                f.mean / f.floor_mean
            ))?;
        }
        let epsilon = found.epsilon.map_or(String::new(), |e| format!(", epsilon {e:.4}"));
        let bandwidth = found.bandwidth.map_or(String::new(), |h| format!(", kernel width {h:.4}"));
        self.report
            .note(format!("{} rows on each side, {} repeats{epsilon}{bandwidth}", found.rows, found.repeats));
        if found.unconverged > 0 {
            self.report.warn(format!(
                "{} Sinkhorn problems did not converge, their values are lower bounds: try a larger --epsilon",
                found.unconverged
            ));
        }
        if unconverged > 0 {
            self.report.note(format!("{unconverged} draws left out"));
        }
        Ok(())
    }
}
