//! Saving a run so that it resumes and ends where an unbroken one would.

use std::io::Write;
use std::path::Path;

use burn::module::Module;
use burn::optim::Optimizer;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Record, Recorder};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::amortiser::{self, Amortiser, Mlp};
use super::average::Average;
use super::config::TrainConfig;
use super::least_squares::DAMPING;
use super::parameters::Parameters;
use super::trainer::{Backend, Optimisers, Trainer, optimisers};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::gaussian::QuadraticStart;
use crate::gibbs_start::GibbsStart;
use crate::icnn::{Icnn, initial_weights};
use crate::symmetric::Symmetric;

/// Increases when the layout of the file changes. Version 3 added the damping at the end; 2 is read too.
const VERSION: u32 = 3;
/// First bytes of every checkpoint.
const MAGIC: &[u8; 8] = b"cmf-ckpt";

/// Everything that the next update depends on.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    config: String,
    start: (Vec<f64>, Vec<f64>, f64),
    module: Vec<u8>,
    optimisers: [Vec<u8>; 3],
    average: Vec<Vec<f32>>,
    rng: ChaCha8Rng,
    particles: Vec<f64>,
    conjugates: Vec<f64>,
    /// Layers and optimiser.
    amortiser: Option<[Vec<u8>; 2]>,
    power: Vec<f64>,
    lambda: f64,
    update: usize,
    seconds: f64,
}

fn failed(what: &str) -> impl Fn(String) -> Error + '_ {
    move |message| Error::Engine { engine: "burn", message: format!("{what}: {message}") }
}

fn pack<R: Record<Backend>>(record: R) -> Result<Vec<u8>> {
    Recorder::<Backend>::record(&BinBytesRecorder::<FullPrecisionSettings>::default(), record, ())
        .map_err(|e| failed("saving a record")(e.to_string()))
}

fn unpack<R: Record<Backend>>(bytes: Vec<u8>) -> Result<R> {
    BinBytesRecorder::<FullPrecisionSettings>::default()
        .load(bytes, &Default::default())
        .map_err(|e| failed("loading a record")(e.to_string()))
}

impl Trainer {
    /// Writes the whole state to `path`, replacing a file there only once it is complete.
    pub fn save(&self, path: &Path) -> Result<()> {
        let parameters = self.parameters.clone().ok_or_else(|| {
            Error::Invalid("a run that stopped in the middle of an update cannot be saved".into())
        })?;
        let [a, b, c] = &self.optimisers;
        let state = State {
            version: VERSION,
            config: serde_json::to_string(&self.config).map_err(|e| Error::Invalid(e.to_string()))?,
            start: (self.start.hessian.numbers(), self.start.centre.clone(), self.start.log_z),
            module: pack(parameters.into_record())?,
            optimisers: [pack(a.to_record())?, pack(b.to_record())?, pack(c.to_record())?],
            average: self.average.arrays.clone(),
            rng: self.rng.clone(),
            particles: self.particles.clone(),
            conjugates: self.conjugates.clone(),
            amortiser: self
                .amortiser
                .as_ref()
                .map(|a| Ok([pack(a.mlp.clone().into_record())?, pack(a.optimiser.to_record())?]))
                .transpose()?,
            power: self.power.clone(),
            lambda: self.lambda,
            update: self.update,
            seconds: self.seconds,
        };
        let bytes = postcard::to_allocvec(&(state, self.damping)).map_err(|e| Error::file(path, e))?;
        write_atomically(path, |out| {
            out.write_all(MAGIC)?;
            out.write_all(&bytes)
        })
    }

    /// Reads a state that [`Trainer::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
            Error::file(path, "is not a checkpoint of this program (expected it to begin with cmf-ckpt)")
        })?;
        let damaged = |e: postcard::Error| Error::file(path, format!("the checkpoint is damaged: {e}"));
        let version: u32 = postcard::take_from_bytes(body).map_err(damaged)?.0;
        if version != VERSION && version != 2 {
            return Err(Error::file(
                path,
                format!("is a checkpoint of version {version}; this program reads versions 2 and {VERSION}"),
            ));
        }
        let (state, rest): (State, _) = postcard::take_from_bytes(body).map_err(damaged)?;
        let damping = if version == 2 { DAMPING } else { postcard::from_bytes(rest).map_err(damaged)? };
        let config: TrainConfig = serde_json::from_str(&state.config)
            .map_err(|e| Error::file(path, format!("the checkpoint's settings: {e}")))?;
        config.validate()?;
        let (hessian, centre, log_z) = state.start;
        let (d, head) = (config.architecture.dim, config.architecture.head);
        let hessian = Symmetric::from_numbers(hessian, d, head.rank()).map_err(|e| Error::file(path, e))?;
        let start = QuadraticStart { hessian, centre, log_z, source: config.method.source() };
        // Any network of the architecture gives the module its structure; the record fills it.
        let any = match &start.hessian {
            Symmetric::Full(_) => {
                (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect::<Vec<f64>>().into()
            }
            spiked => spiked.clone(),
        };
        let shape = QuadraticStart { hessian: any, centre: vec![0.0; d], log_z: 0.0, source: start.source };
        let network =
            Icnn::new(config.architecture.clone(), initial_weights(&config.architecture, &shape, 0)?)?;
        let parameters = Parameters::<Backend>::from_network(&network, &Default::default())?
            .load_record(unpack(state.module)?);
        let [a, b, c] = optimisers(&config);
        let [ra, rb, rc] = state.optimisers;
        let optimisers: Optimisers =
            [a.load_record(unpack(ra)?), b.load_record(unpack(rb)?), c.load_record(unpack(rc)?)];
        let gibbs = GibbsStart::new(&start)?;
        let amortiser = match state.amortiser {
            Some([layers, optimiser]) => {
                let mlp = Mlp::new(d, &mut state.rng.clone()).load_record(unpack(layers)?);
                let optimiser = amortiser::optimiser().load_record(unpack(optimiser)?);
                Some(Amortiser::new(mlp, optimiser, &gibbs))
            }
            None => None,
        };
        Ok(Trainer {
            metric: gibbs.covariance,
            start,
            amortiser,
            parameters: Some(parameters),
            optimisers,
            average: Average::from_arrays(config.architecture.clone(), state.average),
            rng: state.rng,
            particles: state.particles,
            conjugates: state.conjugates,
            power: state.power,
            lambda: state.lambda,
            damping,
            update: state.update,
            seconds: state.seconds,
            config,
        })
    }
}
