//! The random numbers of an update, which a thread draws while the device works on the update before.
//!
//! They are those of the host's update, in its order, so that a seed gives one run.

use std::thread::{JoinHandle, spawn};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::config::TrainConfig;
use super::super::inner;
use super::super::trainer::{DataRows, draw_rows};
use crate::error::{Error, Result};
use crate::icnn::GibbsFactor;
use crate::sampler::standard_normals;
use crate::source::Source;

/// The random numbers of a Langevin step.
pub(super) struct Chance {
    /// Standard normal ξ: [n, d].
    pub noise: Vec<f64>,
    /// Uniform on [0, 1): [n].
    pub uniform: Vec<f64>,
}

impl Chance {
    pub fn draw(rng: &mut ChaCha8Rng, n: usize, d: usize) -> Self {
        let noise = standard_normals(rng, n * d);
        Chance { noise, uniform: (0..n).map(|_| rng.random()).collect() }
    }
}

/// Part `i` of `n` equal parts of `a`.
pub(super) fn part(a: &[f64], i: usize, n: usize) -> &[f64] {
    let len = a.len() / n;
    &a[i * len..(i + 1) * len]
}

/// What moves the particles.
pub(super) enum Moves {
    /// Langevin steps towards the Gibbs factor.
    Langevin(Vec<Chance>),
    /// Nothing: the Gibbs factor of the head needs none.
    Nothing,
    /// One exact step of N(0, I)'s Ornstein-Uhlenbeck process: [n, d].
    Exact(Vec<f64>),
}

/// The random numbers of one update.
pub(super) struct Draws {
    /// Which data, with their noise.
    pub rows: DataRows,
    pub moves: Moves,
    /// The probes of the likelihood, if the update follows it: [k batch, d].
    pub probes: Option<Vec<f64>>,
    /// The generator as they leave it.
    pub rng: ChaCha8Rng,
}

/// What one of several devices has of an update: an equal part of each batch of rows.
pub(super) struct Part {
    /// Noisy data: [share of the batch, d].
    pub y: Vec<f64>,
    /// Their noise ε: [share of the batch, d].
    pub noise: Vec<f64>,
    pub moves: Moves,
    /// [k times the share of the batch, d].
    pub probes: Option<Vec<f64>>,
}

impl Draws {
    /// The parts of `n` devices; `y` is the noisy data of the whole batch.
    pub fn shared_out(self, y: Vec<f64>, n: usize) -> Vec<Part> {
        let noise = self.rows.noise;
        if n == 1 {
            return vec![Part { y, noise, moves: self.moves, probes: self.probes }];
        }
        let chance = |chance: &Chance, i| Chance {
            noise: part(&chance.noise, i, n).to_vec(),
            uniform: part(&chance.uniform, i, n).to_vec(),
        };
        // The first probe of each point comes before the second of any.
        let probes =
            |all: &Vec<f64>, i| all.chunks_exact(y.len()).flat_map(|all| part(all, i, n)).copied().collect();
        let of = |i| Part {
            y: part(&y, i, n).to_vec(),
            noise: part(&noise, i, n).to_vec(),
            moves: match &self.moves {
                Moves::Langevin(chances) => Moves::Langevin(chances.iter().map(|c| chance(c, i)).collect()),
                Moves::Nothing => Moves::Nothing,
                Moves::Exact(noise) => Moves::Exact(part(noise, i, n).to_vec()),
            },
            probes: self.probes.as_ref().map(|all| probes(all, i)),
        };
        (0..n).map(of).collect()
    }

    fn new(config: &TrainConfig, update: usize, of: usize, mut rng: ChaCha8Rng) -> Result<Self> {
        let (n, d) = (config.particles, config.architecture.dim);
        let rows = draw_rows(config, &mut rng, of)?;
        let moves = match config.method.source() {
            Source::Gaussian => Moves::Exact(inner::normal(&mut rng, n * d)),
            Source::Gibbs if config.architecture.gibbs == GibbsFactor::Head => Moves::Nothing,
            Source::Gibbs => {
                Moves::Langevin((0..config.langevin_steps).map(|_| Chance::draw(&mut rng, n, d)).collect())
            }
        };
        let probes = config.objective(update).0.then(|| inner::probes(&mut rng, config.batch, d));
        Ok(Draws { rows, moves, probes, rng })
    }
}

/// The thread that draws ahead, for which update and on how many rows of data.
#[derive(Default)]
pub(super) struct Ahead(Option<([usize; 2], JoinHandle<Result<Draws>>)>);

impl Ahead {
    /// The random numbers of update number `update` on `of` rows, from `rng`; begins with those of the next.
    pub fn next(
        &mut self,
        config: &TrainConfig,
        update: usize,
        of: usize,
        rng: &ChaCha8Rng,
    ) -> Result<Draws> {
        let draws = match self.0.take() {
            Some((same, thread)) if same == [update, of] => thread
                .join()
                .map_err(|_| Error::Invalid("the thread that draws random numbers panicked".into()))?,
            _ => Draws::new(config, update, of, rng.clone()),
        }?;
        let (config, rng) = (config.clone(), draws.rng.clone());
        let next = update + 1;
        self.0 = Some(([next, of], spawn(move || Draws::new(&config, next, of, rng))));
        Ok(draws)
    }
}
