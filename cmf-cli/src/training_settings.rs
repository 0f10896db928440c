//! Which network a run learns and how: the options of `train` and what they default to.

use clap::{Args, Command, FromArgMatches, ValueEnum};
use cmf_core::icnn::{Architecture, GibbsFactor, Head};
use cmf_core::ops::Activation;
use cmf_core::train::{Method, TrainConfig, least_squares_applies};
use cmf_core::{Error, Result};

/// Up to this dimension the head and the start's covariance are full matrices by default.
const MOST_FULL: usize = 2048;
/// Their leading directions above.
const DIRECTIONS: usize = 256;
/// Up to this dimension the default network of an energy is small enough for least-squares steps.
const MOST_SOLVED: usize = 10;
/// Up to this dimension data count as a plane: small networks learn them with large steps.
const MOST_PLANE: usize = 3;
/// Gaussians of the mixture in the head's Gibbs factor. Fitted to digits after training 40 added 9.4 nats to a held-out
/// row and 100 added 9.9.
const COMPONENTS: usize = 100;
/// Up to this dimension uniform points cover a domain.
const MOST_UNIFORM: usize = 3;

/// What decides a run.
#[derive(Args)]
#[group(id = "Settings", multiple = true)]
pub struct Settings {
    /// What carries which law to the data
    #[arg(long, value_enum, default_value_t = Choice::Cmf, conflicts_with = "energy")]
    method: Choice,
    /// Updates in all [default: 3000, for data of up to 3 coordinates 4000, of least-squares steps 300]
    #[arg(long, value_name = "N")]
    updates: Option<usize>,
    /// The first updates follow the conjugate objective (CMFGen), the others the likelihood
    #[arg(long, value_name = "N", default_value_t = 0)]
    conjugate_updates: usize,
    /// Weight of the conjugate objective beside the likelihood, after the first updates [default: 0, for data of up
    /// to 3 coordinates 1; --gibbs head takes none]
    #[arg(long, value_name = "W")]
    conjugate_weight: Option<f64>,
    /// Learn a network that guesses conjugates, and start their solves from its guesses instead of from the
    /// last update's conjugates; needs --conjugate-updates or --conjugate-weight
    #[arg(long)]
    amortise: bool,
    /// Standard deviation of the noise added to the data [default: 0.1 for images, 0.05 otherwise, and with --init
    /// that of the file]
    #[arg(long, conflicts_with = "energy")]
    sigma: Option<f64>,
    /// Units of each hidden layer [default: 768, for data of up to 3 coordinates 64,64, for energies 64 in up to 10
    /// dimensions and 256 above]
    #[arg(long, value_delimiter = ',')]
    widths: Vec<usize>,
    /// Rank of each unit's quadratic term
    #[arg(long, default_value_t = 1)]
    rank: usize,
    /// Give each unit a diagonal quadratic term as well
    #[arg(long)]
    diagonal: bool,
    /// The matrix of the quadratic head and the start's covariance: full, or the number of leading directions of
    /// the data with variances of their own [default: full up to 2048 numbers a row, 256 above]
    #[arg(long, value_name = "full|K", conflicts_with = "energy")]
    head: Option<HeadChoice>,
    /// What the Gibbs factor is of: all of the potential, or its quadratic head alone, a Gaussian that is drawn and
    /// normalised exactly [default: head for samples of more than 3 coordinates that the likelihood alone learns]
    #[arg(long, value_enum, conflicts_with = "energy")]
    gibbs: Option<GibbsChoice>,
    /// Most Gaussians of the mixture that the head's Gibbs factor becomes after an eighth of the updates, one for every
    /// 500 rows; 1 keeps the one Gaussian [default: 100 with --gibbs head]
    #[arg(long, value_name = "N", conflicts_with = "energy")]
    components: Option<usize>,
    /// The activation of hidden units
    #[arg(long, value_enum, default_value_t = Kind::Softplus)]
    activation: Kind,
    /// The sharpness of softplus [default: 1, for data of up to 3 coordinates 3]
    #[arg(long)]
    beta: Option<f64>,
    /// Data points per update, or uniform points of the energy's domain [default: 128, for data of up to
    /// 3 coordinates 512, for energies 1536 in up to 3 dimensions and 0 above]
    #[arg(long)]
    batch: Option<usize>,
    /// Persistent particles of the source, of which --gibbs head has none [default: 128, for data of up to 3 coordinates 512, for energies 1536 in up to
    /// 3 dimensions, 2048 in up to 10]
    #[arg(long)]
    particles: Option<usize>,
    /// Adam's step size on linear and quadratic forms; other parameters follow in proportion [default: 1.5e-2, for
    /// data of up to 3 coordinates 1.6e-2, for energies 3e-3]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of all randomness
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// A method of learning from samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// A conjugate moment measure: the Gibbs factor of the potential itself, as --gibbs says
    Cmf,
    /// The generative input-convex network: N(0, I)
    GaussianIcnn,
}

/// A Gibbs factor by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GibbsChoice {
    /// e^-w/Z, drawn by Langevin dynamics
    Whole,
    /// Of the quadratic head alone
    Head,
}

/// A head by its word or its number of directions.
#[derive(Debug, Clone, Copy)]
struct HeadChoice(Head);

impl std::str::FromStr for HeadChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("full", _) => Ok(HeadChoice(Head::Full)),
            (_, Ok(rank @ 1..)) => Ok(HeadChoice(Head::Spiked { rank })),
            _ => Err("expected \"full\" or a number of directions from 1 on".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Elu,
    Softplus,
}

impl Settings {
    pub fn method(&self) -> Method {
        match self.method {
            Choice::Cmf => Method::Samples,
            Choice::GaussianIcnn => Method::GaussianIcnn,
        }
    }

    /// Whether no update was asked to follow the conjugate objective.
    pub fn by_likelihood(&self) -> bool {
        self.conjugate_updates == 0 && self.conjugate_weight.unwrap_or(0.0) == 0.0
    }

    /// The network that the settings ask for.
    pub fn architecture(&self, method: &Method, dim: usize) -> Architecture {
        let plane = is_plane(method, dim);
        let activation = match self.activation {
            Kind::Elu => Activation::Elu,
            // Thin curves need sharp bends. Of the scaled and rotated S, seeds 0 and 1, after 2,000 updates with a conjugate
            // weight of 0.3, held-out log-densities were -2.52 and -2.55 nats with softplus of beta 1 and -2.39 twice with 3,
            // divergences 2.0 and 1.7 floors and 1.7 and 1.5 (within 0.2); with beta 5, seed 0, -2.41 nats and 2.5 floors.
            Kind::Softplus => {
                Activation::Softplus { beta: self.beta.unwrap_or(if plane { 3.0 } else { 1.0 }) }
            }
        };
        let widths = match (&self.widths[..], method) {
            ([], Method::Energy { .. }) => vec![if dim <= MOST_SOLVED { 64 } else { 256 }],
            ([], _) if plane => vec![64, 64],
            ([], _) => vec![768],
            (given, _) => given.to_vec(),
        };
        let head = match (self.head, method) {
            (Some(HeadChoice(head)), _) => head,
            (None, Method::Energy { .. }) => Head::Full,
            (None, _) if dim <= MOST_FULL => Head::Full,
            (None, _) => Head::Spiked { rank: DIRECTIONS },
        };
        let gibbs = match (self.gibbs, method) {
            (Some(GibbsChoice::Whole), _) => GibbsFactor::Whole,
            (Some(GibbsChoice::Head), _) => GibbsFactor::Head,
            (None, Method::Samples) if !plane && self.by_likelihood() => GibbsFactor::Head,
            (None, _) => GibbsFactor::Whole,
        };
        Architecture { dim, widths, rank: self.rank, diagonal: self.diagonal, activation, head, gibbs }
    }

    /// The settings of a run that learns this network; `noise` is the σ of data for which none was given.
    pub fn config(&self, method: Method, architecture: Architecture, noise: f64) -> TrainConfig {
        let (dim, energy) = (architecture.dim, matches!(method, Method::Energy { .. }));
        let plane = is_plane(&method, dim);
        let head_alone = architecture.gibbs == GibbsFactor::Head;
        // The proportions of the three step sizes were found on MNIST, and so was that of data: after 1,000 updates of
        // layers of 768 and 256 units, 200 test digits had 493.5 nats by 1e-2, 497.7 by 2e-2 and 467.7 by 4e-2. Long runs
        // keep some distance from where it breaks. Few coordinates bear larger ones.
        let learning_rate = self.learning_rate.unwrap_or(match (energy, plane) {
            (true, _) => 3e-3,
            (false, true) => 1.6e-2,
            (false, false) => 1.5e-2,
        });
        let pace = learning_rate / 3e-3;
        let method = match method {
            Method::Energy { domain, .. } => {
                Method::Energy { domain, least_squares: least_squares_applies(&architecture) }
            }
            other => other,
        };
        let solved = matches!(method, Method::Energy { least_squares: true, .. });
        let (batch, particles) = match (energy, solved) {
            (true, _) if dim <= MOST_UNIFORM => (1536, 1536),
            (true, true) => (0, 2048),
            (true, false) => (0, 128),
            // Of 128 points the masses of far parts come out uneven.
            (false, _) if plane => (512, 512),
            (false, _) => (128, 128),
        };
        TrainConfig {
            method,
            architecture,
            sigma: self.sigma.unwrap_or(noise),
            updates: self.updates.unwrap_or(match (solved, plane) {
                (true, _) => 300,
                (false, true) => 4000,
                (false, false) => 3000,
            }),
            conjugate_updates: self.conjugate_updates,
            // The likelihood hardly minds a percent of the mass on the way between two arms of a curve; a distance does.
            conjugate_weight: self.conjugate_weight.unwrap_or(if plane && !head_alone { 1.0 } else { 0.0 }),
            amortise: self.amortise,
            batch: self.batch.unwrap_or(batch),
            particles: self.particles.unwrap_or(particles),
            langevin_steps: 3,
            langevin_step: 0.5,
            langevin_acceptance: 0.7,
            // In the plane Langevin steps go far, and conjugates that lag behind them shift mass along curves. Of `s-curve`,
            // seed 0, with 5 calls two bins of twelve in the middle lacked a third of their mass, with either probe; to within
            // 1e-2 they lacked 0.14, to within 1e-3 nothing.
            conjugate_steps: match (energy, plane) {
                (true, _) => 20,
                (false, true) => 40,
                (false, false) => 5,
            },
            conjugate_tolerance: if plane { 1e-3 } else { 1e-2 },
            // In many coordinates an iteration costs, and the likelihood's probes are noisier by far: in 1,000 updates 5e-2
            // and 2e-2 led to 497.3 and 497.7 nats of digits, and an update took 0.16 and 0.17 s. The traces are
            // 0.1 percent too small at the one, 0.02 at the other.
            solve_tolerance: if energy || plane { 5e-3 } else { 5e-2 },
            solve_steps: 30,
            learning_rate,
            learning_rate_positive: 2e-2 * pace,
            learning_rate_head: 5e-4 * pace,
            final_rate: 0.02,
            warm_up: 20,
            betas: (0.9, 0.99),
            // Least-squares steps have little noise to average away.
            average: if solved { 0.9 } else { 0.99 },
            components: self.components.unwrap_or(if head_alone { COMPONENTS } else { 1 }),
            seed: self.seed,
        }
    }
}

/// Whether a run learns data of few coordinates.
fn is_plane(method: &Method, dim: usize) -> bool {
    dim <= MOST_PLANE && !matches!(method, Method::Energy { .. })
}

/// The network of a run without options.
pub fn default_architecture(method: &Method, dim: usize) -> Result<Architecture> {
    Ok(defaults()?.architecture(method, dim))
}

/// The settings of a run without options, for a network of this shape.
pub fn default_settings(method: Method, architecture: Architecture, sigma: f64) -> Result<TrainConfig> {
    Ok(defaults()?.config(method, architecture, sigma))
}

/// What no option at all means.
fn defaults() -> Result<Settings> {
    let matches = Settings::augment_args(Command::new("train")).get_matches_from(["train"]);
    Settings::from_arg_matches(&matches).map_err(|e| Error::Invalid(e.to_string()))
}
