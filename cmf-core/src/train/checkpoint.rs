//! Saving a run so that it resumes and ends where an unbroken one would, on any backend.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::Optimizer;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Record, Recorder};
use burn::tensor::backend::{AutodiffBackend, Backend};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::amortiser::{self, Amortiser, Mlp};
use super::average::Average;
use super::config::TrainConfig;
use super::least_squares::DAMPING;
use super::parameters::Parameters;
use super::solve_metric;
use super::source_mixture::{RunSource, SavedSource};
use super::trainer::{Optimisers, Trainer, optimisers};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::gaussian::QuadraticStart;
use crate::gibbs_start::GibbsStart;
use crate::icnn::{Icnn, initial_weights};
use crate::symmetric::Symmetric;

/// Increases when the layout of the file changes. Versions 3 to 7 added one number of [`Late`] after another; 2 to 6 are
/// read too.
const VERSION: u32 = 7;
/// First bytes of every checkpoint.
const MAGIC: &[u8; 8] = b"cmf-ckpt";

/// Everything that the next update depends on, wherever it is computed.
pub(super) struct State {
    pub(super) config: TrainConfig,
    pub(super) start: QuadraticStart,
    pub(super) learned: Packed,
    pub(super) numbers: Numbers,
    pub(super) late: Late,
}

/// What came to the file after its version 2, in the order of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Late {
    /// Of least-squares steps.
    pub(super) damping: f64,
    /// γ of the next Langevin steps; 0 before the first.
    pub(super) langevin_step: f64,
    /// κ of the likelihood's control variate; 0 before it is measured.
    pub(super) kappa: f64,
    /// The Hessian's mean over data when it was last looked at [d, d]; empty before.
    pub(super) mean_hessian: Vec<f64>,
    pub(super) source: SavedSource,
}

/// What backends keep as modules, as bytes that each of them reads.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Packed {
    module: Vec<u8>,
    optimisers: [Vec<u8>; 3],
}

/// The rest, in the order of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Numbers {
    pub(super) average: Vec<Vec<f32>>,
    pub(super) rng: ChaCha8Rng,
    pub(super) particles: Vec<f64>,
    pub(super) conjugates: Vec<f64>,
    /// Layers and optimiser.
    pub(super) amortiser: Option<[Vec<u8>; 2]>,
    pub(super) power: Vec<f64>,
    pub(super) lambda: f64,
    pub(super) update: usize,
    pub(super) seconds: f64,
}

fn failed(what: &str) -> impl Fn(String) -> Error + '_ {
    move |message| Error::Engine { engine: "burn", message: format!("{what}: {message}") }
}

fn pack<B: Backend, R: Record<B>>(record: R) -> Result<Vec<u8>> {
    Recorder::<B>::record(&BinBytesRecorder::<FullPrecisionSettings>::default(), record, ())
        .map_err(|e| failed("saving a record")(e.to_string()))
}

fn unpack<B: Backend, R: Record<B>>(bytes: Vec<u8>, device: &B::Device) -> Result<R> {
    Recorder::<B>::load(&BinBytesRecorder::<FullPrecisionSettings>::default(), bytes, device)
        .map_err(|e| failed("loading a record")(e.to_string()))
}

impl Packed {
    /// From a backend's modules; none of parameters is a run that stopped in the middle of an update.
    pub(super) fn new<B: AutodiffBackend>(
        parameters: &Option<Parameters<B>>,
        optimisers: &Optimisers<B>,
    ) -> Result<Packed> {
        let parameters = parameters.clone().ok_or_else(|| {
            Error::Invalid("a run that stopped in the middle of an update cannot be saved".into())
        })?;
        let [a, b, c] = optimisers;
        Ok(Packed {
            module: pack::<B, _>(parameters.into_record())?,
            optimisers: [
                pack::<B, _>(a.to_record())?,
                pack::<B, _>(b.to_record())?,
                pack::<B, _>(c.to_record())?,
            ],
        })
    }

    /// The modules on `device`.
    pub(super) fn unpack<B: AutodiffBackend>(
        self,
        config: &TrainConfig,
        start: &QuadraticStart,
        device: &B::Device,
    ) -> Result<(Parameters<B>, Optimisers<B>)> {
        // Any network of the architecture gives the module its structure; the record fills it.
        let d = config.architecture.dim;
        let hessian = match &start.hessian {
            Symmetric::Full(_) => {
                (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect::<Vec<f64>>().into()
            }
            spiked => spiked.clone(),
        };
        let shape = QuadraticStart { hessian, centre: vec![0.0; d], log_z: 0.0, source: start.source };
        let network =
            Icnn::new(config.architecture.clone(), initial_weights(&config.architecture, &shape, 0)?)?;
        let parameters = Parameters::<B>::from_network(&network, device)?
            .load_record(unpack::<B, _>(self.module, device)?);
        let [a, b, c] = optimisers::<B>(config);
        let [ra, rb, rc] = self.optimisers;
        let optimisers = [
            a.load_record(unpack::<B, _>(ra, device)?),
            b.load_record(unpack::<B, _>(rb, device)?),
            c.load_record(unpack::<B, _>(rc, device)?),
        ];
        Ok((parameters, optimisers))
    }
}

/// The amortiser's layers and optimiser as bytes.
pub(super) fn pack_amortiser<B: AutodiffBackend>(a: &Option<Amortiser<B>>) -> Result<Option<[Vec<u8>; 2]>> {
    let pack_both = |a: &Amortiser<B>| {
        Ok([pack::<B, _>(a.mlp.clone().into_record())?, pack::<B, _>(a.optimiser.to_record())?])
    };
    a.as_ref().map(pack_both).transpose()
}

/// The amortiser on `device`.
pub(super) fn unpack_amortiser<B: AutodiffBackend>(
    packed: Option<[Vec<u8>; 2]>,
    rng: &ChaCha8Rng,
    gibbs: &GibbsStart,
    device: &B::Device,
) -> Result<Option<Amortiser<B>>> {
    let Some([layers, optimiser]) = packed else { return Ok(None) };
    let shape = Mlp::new(gibbs.centre.len(), &mut rng.clone(), device);
    let mlp = shape.load_record(unpack::<B, _>(layers, device)?);
    let optimiser = amortiser::optimiser::<B>().load_record(unpack::<B, _>(optimiser, device)?);
    Ok(Some(Amortiser::new(mlp, optimiser, gibbs)))
}

impl State {
    /// Writes the state to `path`, replacing a file there only once it is complete.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let config = serde_json::to_string(&self.config).map_err(|e| Error::Invalid(e.to_string()))?;
        let start = (self.start.hessian.numbers(), &self.start.centre, self.start.log_z);
        let body = (VERSION, config, start, &self.learned, &self.numbers, &self.late);
        let bytes = postcard::to_allocvec(&body).map_err(|e| Error::file(path, e))?;
        write_atomically(path, |out| {
            out.write_all(MAGIC)?;
            out.write_all(&bytes)
        })
    }

    /// Reads a state that [`State::write`] wrote.
    pub(super) fn read(path: &Path) -> Result<State> {
        type Body = (u32, String, (Vec<f64>, Vec<f64>, f64), Packed, Numbers);
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
            Error::file(path, "is not a checkpoint of this program (expected it to begin with cmf-ckpt)")
        })?;
        let damaged = |e: postcard::Error| Error::file(path, format!("the checkpoint is damaged: {e}"));
        let version: u32 = postcard::take_from_bytes(body).map_err(damaged)?.0;
        if !(2..=VERSION).contains(&version) {
            return Err(Error::file(
                path,
                format!("is a checkpoint of version {version}; this program reads versions 2 to {VERSION}"),
            ));
        }
        let (read, rest): (Body, _) = postcard::take_from_bytes(body).map_err(damaged)?;
        let (_, config, (hessian, centre, log_z), learned, numbers) = read;
        let config: TrainConfig = serde_json::from_str(&config)
            .map_err(|e| Error::file(path, format!("the checkpoint's settings: {e}")))?;
        config.validate()?;
        let by_lambda = config.langevin_step / numbers.lambda;
        let mut late = Late {
            damping: DAMPING,
            langevin_step: by_lambda,
            kappa: 0.0,
            mean_hessian: Vec::new(),
            source: SavedSource::default(),
        };
        match version {
            2 => {}
            3 => late.damping = postcard::from_bytes(rest).map_err(damaged)?,
            4 => (late.damping, late.langevin_step) = postcard::from_bytes(rest).map_err(damaged)?,
            5 => {
                (late.damping, late.langevin_step, late.kappa) =
                    postcard::from_bytes(rest).map_err(damaged)?;
            }
            6 => {
                (late.damping, late.langevin_step, late.kappa, late.mean_hessian) =
                    postcard::from_bytes(rest).map_err(damaged)?;
            }
            _ => late = postcard::from_bytes(rest).map_err(damaged)?,
        }
        let (d, head) = (config.architecture.dim, config.architecture.head);
        let hessian = Symmetric::from_numbers(hessian, d, head.rank()).map_err(|e| Error::file(path, e))?;
        let start = QuadraticStart { hessian, centre, log_z, source: config.method.source() };
        if ![0, d * d].contains(&late.mean_hessian.len()) {
            return Err(Error::file(path, "the checkpoint is damaged: its mean Hessian is not [d, d]"));
        }
        RunSource::load(late.source.clone(), d).map_err(|e| Error::file(path, e))?;
        Ok(State { config, start, learned, numbers, late })
    }
}

impl Trainer {
    /// Reads a run that was saved, on this machine's processor or on a device.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_state(State::read(path)?)
    }

    /// Goes on from a state.
    pub(super) fn from_state(state: State) -> Result<Self> {
        let State { config, start, learned, numbers, late } = state;
        let Late { damping, langevin_step, kappa, mean_hessian, source } = late;
        let device = Default::default();
        let gibbs = GibbsStart::new(&start)?;
        let (parameters, optimisers) = learned.unpack(&config, &start, &device)?;
        let Numbers { average, rng, particles, conjugates, amortiser, power, lambda, update, seconds } =
            numbers;
        Ok(Trainer {
            source: RunSource::load(source, config.architecture.dim)?,
            amortiser: unpack_amortiser(amortiser, &rng, &gibbs, &device)?,
            solve_metric: solve_metric::kept(&mean_hessian)?
                .map_or_else(|| gibbs.covariance.clone(), Arc::new),
            mean_hessian,
            metric: gibbs.covariance,
            start,
            parameters: Some(parameters),
            optimisers,
            average: Average::from_arrays(config.architecture.clone(), average),
            rng,
            particles,
            conjugates,
            power,
            lambda,
            langevin_step,
            kappa,
            damping,
            update,
            seconds,
            config,
        })
    }

    /// The state that the next update goes on from.
    pub(super) fn state(&self) -> Result<State> {
        Ok(State {
            config: self.config.clone(),
            start: self.start.clone(),
            learned: Packed::new(&self.parameters, &self.optimisers)?,
            numbers: Numbers {
                average: self.average.arrays.clone(),
                rng: self.rng.clone(),
                particles: self.particles.clone(),
                conjugates: self.conjugates.clone(),
                amortiser: pack_amortiser(&self.amortiser)?,
                power: self.power.clone(),
                lambda: self.lambda,
                update: self.update,
                seconds: self.seconds,
            },
            late: Late {
                damping: self.damping,
                langevin_step: self.langevin_step,
                kappa: self.kappa,
                mean_hessian: self.mean_hessian.clone(),
                source: self.source.save(),
            },
        })
    }
}
