//! A training run on disk: settings, metrics and checkpoints, so that it can be resumed and exported.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use cmf_core::files::write_atomically;
use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::Head;
use cmf_core::train::{Metrics, TrainConfig, Trainer, Training};
use cmf_core::{Error, Result};
use cmf_plugins::data::{DataSet, Opened, Split};
use cmf_plugins::digest::sha256;
use serde::{Deserialize, Serialize};

use crate::data_spec::DataSpec;
use crate::energy_spec::{EnergySpec, OpenedEnergy};
use crate::health::Seen;
use crate::report::Report;
use crate::training_device::{DeviceArgs, Place};

/// A run in progress, or one to be exported.
pub struct Run {
    /// Where it is kept.
    pub directory: RunDirectory,
    /// What it learns from.
    pub lesson: Lesson,
    /// The model file that it started from.
    pub init: Option<Init>,
    /// Its state.
    pub trainer: Box<dyn Training>,
    /// Where that computes.
    pub place: Place,
}

/// A model file that a run started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Where it lay, as it was given.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

impl Init {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Init> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot read: {e}")))?;
        Ok(Init { path: path.into(), sha256: sha256(&bytes) })
    }
}

/// What a run learns from.
pub enum Lesson {
    /// A data set, with how it is named.
    Data(DataSpec, Opened),
    /// An energy, with how it is named.
    Energy(EnergySpec, OpenedEnergy),
}

/// What run.json says: enough to open the data or the energy again and to know that they are the same.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    energy: Option<String>,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    init: Option<Init>,
    /// Where the last session computed.
    #[serde(flatten)]
    place: Place,
    settings: TrainConfig,
}

impl Lesson {
    /// What to call it in a model card: its name without its place on this machine.
    pub fn card(&self) -> String {
        match self {
            Lesson::Data(spec, _) => spec.name(),
            Lesson::Energy(spec, _) => spec.card(),
        }
    }

    /// SHA-256 of the data, or of the library that has the energy.
    pub fn sha256(&self) -> &str {
        match self {
            Lesson::Data(_, data) => &data.sha256,
            Lesson::Energy(_, energy) => &energy.sha256,
        }
    }

    /// The data set, or nothing of an energy.
    pub fn data(&self) -> Option<&dyn DataSet> {
        match self {
            Lesson::Data(_, opened) => Some(opened.data.as_ref()),
            Lesson::Energy(..) => None,
        }
    }

    /// The data and the energy, of which a run has one, as run.json names them.
    fn names(&self) -> std::io::Result<[Option<String>; 2]> {
        Ok(match self {
            Lesson::Data(spec, _) => [Some(spec.absolute()?.to_string()), None],
            Lesson::Energy(spec, _) => [None, Some(spec.absolute()?.to_string())],
        })
    }

    /// Opens what `record` names.
    fn open(record: &Record) -> Result<Lesson> {
        let named = |text: &str, e: String| Error::Invalid(format!("{text}: {e}"));
        match (&record.data, &record.energy) {
            (Some(text), None) => {
                let Ok(spec) = text.parse::<DataSpec>();
                let data = spec.open_recorded(record.settings.seed)?;
                Ok(Lesson::Data(spec, data))
            }
            (None, Some(text)) => {
                let spec: EnergySpec = text.parse().map_err(|e| named(text, e))?;
                let energy = spec.open_recorded()?;
                Ok(Lesson::Energy(spec, energy))
            }
            _ => Err(Error::Invalid("expected either data or an energy".into())),
        }
    }
}

impl Run {
    /// Makes the folder of a new run and keeps it there, now that what it learns from and settings are known to be
    /// good.
    pub fn begin(&self) -> Result<()> {
        self.directory.make()?;
        self.write_record()?;
        self.directory.save(self.trainer.as_ref())?;
        write_atomically(&self.directory.file(METRICS), |file| writeln!(file, "{HEADER}"))
    }

    fn write_record(&self) -> Result<()> {
        let path = self.directory.file("run.json");
        let names = self.lesson.names();
        let [data, energy] =
            names.map_err(|e| Error::file(&path, format!("the path of what is learned from: {e}")))?;
        let record = Record {
            data,
            energy,
            sha256: self.lesson.sha256().into(),
            init: self.init.clone(),
            place: self.place.clone(),
            settings: self.trainer.config().clone(),
        };
        write_atomically(&path, |file| serde_json::to_writer_pretty(file, &record))
    }

    /// The run kept in `folder`, at its last checkpoint, to be exported. Fails if the data or the energy's library have
    /// changed.
    pub fn open(folder: &Path) -> Result<Run> {
        let (directory, lesson, record, trainer) = Run::read(folder)?;
        let Record { init, place, .. } = record;
        Ok(Run { directory, lesson, init, trainer: Box::new(trainer), place })
    }

    /// The same, to go on with on `device`; if that is another than before, run.json says so.
    pub fn resume(folder: &Path, device: &DeviceArgs, report: &Report) -> Result<Run> {
        let (directory, lesson, record, trainer) = Run::read(folder)?;
        let (trainer, place) = device.place(trainer, report)?;
        let elsewhere = place != record.place;
        let run = Run { directory, lesson, init: record.init, trainer, place };
        if elsewhere {
            run.write_record()?;
        }
        Ok(run)
    }

    fn read(folder: &Path) -> Result<(RunDirectory, Lesson, Record, Trainer)> {
        let directory = RunDirectory(folder.to_path_buf());
        let path = directory.file("run.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::file(&path, format!("cannot read: {e}; expected the run directory of `cmf-cli train`"))
        })?;
        let record: Record =
            serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("is damaged: {e}")))?;
        let lesson =
            Lesson::open(&record).map_err(|e| Error::file(&path, format!("what it learns from: {e}")))?;
        if lesson.sha256() != record.sha256 {
            return Err(Error::file(
                &path,
                format!(
                    "{} has changed since the run began (SHA-256 {}, expected {})",
                    record.data.or(record.energy).unwrap_or_default(),
                    lesson.sha256(),
                    record.sha256
                ),
            ));
        }
        let trainer = Trainer::load(&directory.file(CHECKPOINT))?;
        Ok((directory, lesson, record, trainer))
    }
}

/// The folder of a run.
pub struct RunDirectory(PathBuf);

const CHECKPOINT: &str = "checkpoint.bin";
const METRICS: &str = "metrics.csv";
const HEADER: &str = "update,seconds,objective,residual,lambda_max,acceptance,rate,sinkhorn_divergence,guess_residual,energy_deviation,effective_share";

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
    pub fn save(&self, trainer: &dyn Training) -> Result<()> {
        trainer.save(&self.file(CHECKPOINT))
    }

    /// Adds a row to the metrics.
    pub fn record(&self, m: &Metrics, seen: Option<Seen>) -> Result<()> {
        let path = self.file(METRICS);
        let optional = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        let (sinkhorn, share) = match seen {
            Some(Seen::Sinkhorn(divergence)) => (Some(divergence), None),
            Some(Seen::EffectiveShare(share)) => (None, Some(share)),
            None => (None, None),
        };
        let (sinkhorn, share) = (optional(sinkhorn), optional(share));
        let (guess, deviation) = (optional(m.guess_residual), optional(m.deviation));
        let row = format!(
            "{},{:.3},{},{:e},{},{},{},{sinkhorn},{guess},{deviation},{share}\n",
            m.update, m.seconds, m.objective, m.residual, m.lambda_max, m.acceptance, m.rate
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

/// Mean and covariance of the training rows with noise of standard deviation `sigma` added, as the `head` of the
/// network needs them.
///
/// Of a data set that is too large, as many rows as fit are taken, evenly spread.
pub fn gaussian(data: &dyn DataSet, sigma: f64, head: Head) -> Result<Gaussian> {
    let (n, d) = (data.rows(Split::Train), data.shape().dim());
    let most = (MOST_FITTED / d).max(1);
    let rows: Vec<usize> = (0..n).step_by(n.div_ceil(most)).collect();
    let mut y = vec![0.0; rows.len() * d];
    data.read(Split::Train, &rows, &mut y).map_err(cmf_plugins::core_error)?;
    match head {
        Head::Full => Gaussian::fit(&y, d, sigma),
        Head::Spiked { rank } => Gaussian::fit_leading(&y, d, sigma, rank),
    }
}
