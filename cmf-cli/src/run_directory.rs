//! A training run on disk: settings, metrics and checkpoints, so that it can be resumed and exported.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use cmf_core::files::write_atomically;
use cmf_core::gaussian::Gaussian;
use cmf_core::train::{Metrics, Trainer};
use cmf_core::{Error, Result};
use cmf_plugins::data::{DataSet, Opened, Split};
use serde::{Deserialize, Serialize};

use crate::data_spec::DataSpec;

/// A run in progress, or one to be exported.
pub struct Run {
    /// Where it is kept.
    pub directory: RunDirectory,
    /// How its data are named.
    pub spec: DataSpec,
    /// Its data.
    pub data: Opened,
    /// Its state.
    pub trainer: Trainer,
}

/// What run.json says: enough to open the data again and to know that they are the same.
#[derive(Serialize, Deserialize)]
struct Record {
    data: String,
    sha256: String,
    settings: cmf_core::train::TrainConfig,
}

impl Run {
    /// Keeps a new run in `directory`, which is made now that data and settings are known to be good.
    pub fn new(directory: RunDirectory, spec: DataSpec, data: Opened, trainer: Trainer) -> Result<Run> {
        directory.make()?;
        let path = directory.file("run.json");
        let spec = spec.absolute().map_err(|e| Error::file(&path, format!("the data's path: {e}")))?;
        let record = Record {
            data: spec.to_string(),
            sha256: data.sha256.clone(),
            settings: trainer.config().clone(),
        };
        write_atomically(&path, |file| serde_json::to_writer_pretty(file, &record))?;
        directory.save(&trainer)?;
        write_atomically(&directory.file(METRICS), |file| writeln!(file, "{HEADER}"))?;
        Ok(Run { directory, spec, data, trainer })
    }

    /// The run kept in `folder`, at its last checkpoint. Fails if the data are not those of the run.
    pub fn open(folder: &Path) -> Result<Run> {
        let directory = RunDirectory(folder.to_path_buf());
        let path = directory.file("run.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::file(&path, format!("cannot read: {e}; expected the run directory of `cmf-cli train`"))
        })?;
        let record: Record =
            serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("is damaged: {e}")))?;
        let Ok(spec) = record.data.parse::<DataSpec>();
        let data = spec
            .open_recorded(record.settings.seed)
            .map_err(|e| Error::file(&path, format!("data {}: {e}", record.data)))?;
        if data.sha256 != record.sha256 {
            return Err(Error::file(
                &path,
                format!(
                    "the data {spec} have changed since the run began (SHA-256 {}, expected {})",
                    data.sha256, record.sha256
                ),
            ));
        }
        let trainer = Trainer::load(&directory.file(CHECKPOINT))?;
        Ok(Run { directory, spec, data, trainer })
    }
}

/// The folder of a run.
pub struct RunDirectory(PathBuf);

const CHECKPOINT: &str = "checkpoint.bin";
const METRICS: &str = "metrics.csv";
const HEADER: &str =
    "update,seconds,objective,residual,lambda_max,particle_spread,rate,sinkhorn_divergence,guess_residual";

impl RunDirectory {
    /// The folder of a new run, not made yet; a folder with content is refused.
    pub fn vacant(path: &Path) -> Result<RunDirectory> {
        let taken = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::file(path, format!("cannot be a run directory: {e}"))),
        };
        if taken {
            let message =
                "is not empty, expected a new run directory; to go on with the run in it, use --resume";
            return Err(Error::file(path, message));
        }
        Ok(RunDirectory(path.to_path_buf()))
    }

    /// Makes the folder.
    fn make(&self) -> Result<()> {
        std::fs::create_dir_all(&self.0)
            .map_err(|e| Error::file(&self.0, format!("cannot make the run directory: {e}")))
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the checkpoint.
    pub fn save(&self, trainer: &Trainer) -> Result<()> {
        trainer.save(&self.file(CHECKPOINT))
    }

    /// Adds a row to the metrics.
    pub fn record(&self, m: &Metrics, sinkhorn: Option<f64>) -> Result<()> {
        let path = self.file(METRICS);
        let optional = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        let (sinkhorn, guess) = (optional(sinkhorn), optional(m.guess_residual));
        let row = format!(
            "{},{:.3},{},{:e},{},{},{},{sinkhorn},{guess}\n",
            m.update, m.seconds, m.objective, m.residual, m.lambda_max, m.particle_spread, m.rate
        );
        let append = || -> std::io::Result<()> {
            let mut file: File = OpenOptions::new().append(true).open(&path)?;
            file.write_all(row.as_bytes())
        };
        append().map_err(|e| Error::file(&path, format!("cannot write: {e}")))
    }

    /// Drops the metrics of updates that the checkpoint does not know: a resumed run makes them again.
    pub fn forget_after(&self, updates: usize) -> Result<()> {
        let path = self.file(METRICS);
        let text =
            std::fs::read_to_string(&path).map_err(|e| Error::file(&path, format!("cannot read: {e}")))?;
        // A full disk may have cut the last line, so a number counts with the comma after it.
        let known = |line: &&str| {
            line.split_once(',').and_then(|(n, _)| n.parse::<usize>().ok()).is_some_and(|n| n <= updates)
        };
        write_atomically(&path, |file| {
            writeln!(file, "{HEADER}")?;
            text.lines().filter(known).try_for_each(|line| writeln!(file, "{line}"))
        })
    }
}

/// Numbers that the fit of the Gaussian may hold at once.
const MOST_FITTED: usize = 1 << 26;

/// Mean and covariance of the training rows with noise of standard deviation `sigma` added.
///
/// Of a data set that is too large, as many rows as fit are taken, evenly spread.
pub fn gaussian(data: &dyn DataSet, sigma: f64) -> Result<Gaussian> {
    let (n, d) = (data.rows(Split::Train), data.shape().dim());
    let most = (MOST_FITTED / d).max(1);
    let rows: Vec<usize> = (0..n).step_by(n.div_ceil(most)).collect();
    let mut y = vec![0.0; rows.len() * d];
    data.read(Split::Train, &rows, &mut y).map_err(cmf_plugins::core_error)?;
    Gaussian::fit(&y, d, sigma)
}
