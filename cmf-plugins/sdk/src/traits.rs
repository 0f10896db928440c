//! The traits that plugins implement, and the host's tools that a task is given.

use crate::abi;
use crate::error::{Error, Result};
use crate::parameters::Parameters;

/// What a plugin offers under one name; `T` is `dyn Energy`, `dyn DataSet` or `dyn Task`.
pub struct Entry<T: ?Sized> {
    /// Lower case letters, digits and hyphens.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// JSON schema of the parameters; `cmf_plugin.h` says which part of the language is understood.
    pub parameters: &'static str,
    /// Makes the object from parameters that have passed the schema, defaults filled in.
    pub create: fn(&Parameters) -> Result<Box<T>>,
}

/// A function E on R^d that is to be sampled from e^{-E}, convex or not, evaluated on batches of rows.
pub trait Energy: Send + Sync {
    /// The dimension d, at least 1.
    fn dim(&self) -> usize;

    /// The suggested domain [low, high], each [d]: where to start, not a wall.
    fn domain(&self) -> (Vec<f64>, Vec<f64>);

    /// Values E(x_i), in nats, and gradients. `x`: [n, d], `value`: [n], `gradient`: [n, d].
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()>;

    /// Hessian-vector products ∇²E(x_i) v_i. `x`, `v`, `hv`: [n, d].
    ///
    /// Optional: by default there are none, and the host takes differences of gradients.
    fn hvp(&self, _x: &[f64], _v: &[f64], _hv: &mut [f64]) -> Result<()> {
        Err(Error::unsupported("this energy has no Hessian-vector products"))
    }
}

/// Shape of one example; its values lie in a row in this order, the last axis fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// [height, width, channels] with 1 (grey) or 3 (RGB) channels.
    Image {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// 1 or 3.
        channels: usize,
    },
    /// [dim].
    Vector {
        /// Number of values.
        dim: usize,
    },
}

impl Shape {
    /// The number of values d of one example.
    pub fn dim(&self) -> usize {
        match *self {
            Shape::Image { height, width, channels } => height * width * channels,
            Shape::Vector { dim } => dim,
        }
    }

    /// Rank and axes as `cmf_plugin.h` has them.
    pub fn axes(self) -> (usize, [usize; 3]) {
        match self {
            Shape::Image { height, width, channels } => (3, [height, width, channels]),
            Shape::Vector { dim } => (1, [dim, 1, 1]),
        }
    }

    /// From rank and axes; the number of values must be at least 1 and fit in memory.
    pub fn from_axes(rank: usize, axes: [usize; 3]) -> Result<Shape> {
        let [a, b, c] = axes;
        let dim = a.checked_mul(b).and_then(|ab| ab.checked_mul(c)).filter(|d| (1..=1 << 32).contains(d));
        match (rank, dim) {
            (1, Some(dim)) if b == 1 && c == 1 => Ok(Shape::Vector { dim }),
            (3, Some(_)) if c == 1 || c == 3 => Ok(Shape::Image { height: a, width: b, channels: c }),
            _ => Err(Error::invalid(format!(
                "the shape {axes:?} of rank {rank}: expected [d, 1, 1] of rank 1, or [height, width, 1 or 3] of rank 3"
            ))),
        }
    }
}

/// The two disjoint parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Split {
    /// What a model learns from.
    Train = abi::TRAIN,
    /// What it is judged by.
    HeldOut = abi::HELD_OUT,
}

impl Split {
    /// The split of a code of `cmf_plugin.h`.
    pub fn from_code(code: u32) -> Result<Split> {
        match code {
            abi::TRAIN => Ok(Split::Train),
            abi::HELD_OUT => Ok(Split::HeldOut),
            other => Err(Error::invalid(format!("split: expected 0 or 1, found {other}"))),
        }
    }
}

/// A finite set of examples with random access.
pub trait DataSet: Send + Sync {
    /// The shape of every example.
    fn shape(&self) -> Shape;

    /// The values that show as black and white, for images; values of vectors have no such range.
    fn pixel_range(&self) -> Option<(f64, f64)>;

    /// The number of examples of a split; at least 1.
    fn rows(&self, split: Split) -> usize;

    /// Copies the examples `rows` of a split, in that order, into `out` [rows.len(), d].
    ///
    /// Values are finite. Fails if a row is not below [`rows`](Self::rows) or `out` has another length.
    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()>;

    /// The licence of the data and whom to credit, where known.
    fn licence(&self) -> Option<&str> {
        None
    }
}

/// Something done with a model, by the tools of the host.
pub trait Task: Send + Sync {
    /// Runs to the end; [`Error::cancelled`] soon after [`Host::cancelled`] says so.
    fn run(&self, host: &dyn Host) -> Result<()>;
}

/// What is known of the model w, with data y = ∇w*(x), x ~ P_w. P_w is e^{-w}/Z, or the Gaussian of the same form with w's
/// quadratic part alone: draw from it with [`Host::gibbs`], and take densities of the data from [`Host::log_density`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelInfo {
    /// How the d values of a point y are laid out.
    pub shape: Shape,
    /// The values of black and white.
    pub pixel_range: Option<(f64, f64)>,
    /// Standard deviation of the noise in the data.
    pub sigma: f64,
    /// log Z in nats with its standard error (0 where it is known exactly), if the model has one.
    pub log_z: Option<(f64, f64)>,
    /// Whether Hessians, contractions and exact log-densities are all to be had. Log-densities may be exact without the
    /// others: those with a standard error of 0 are, and where they are, their gradients are to be had too.
    pub has_hessian: bool,
}

/// How a Gibbs run went.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GibbsReport {
    /// Mean probability of acceptance.
    pub acceptance: f64,
    /// In the sampler's unit.
    pub step_size: f64,
    /// The worst split R-hat of several quantities; `None` where the draws are too few to tell.
    pub r_hat: Option<f64>,
    /// The least effective sample size.
    pub effective_sample_size: Option<f64>,
}

/// How the conjugate's solve of one row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum RowStatus {
    /// The residual reached the tolerance.
    Converged = abi::CONVERGED,
    /// The budget of steps ran out.
    OutOfSteps = abi::OUT_OF_STEPS,
    /// No further progress.
    Stalled = abi::STALLED,
    /// Something is not finite.
    NonFinite = abi::NON_FINITE,
}

impl RowStatus {
    /// From the code of `cmf_plugin.h`; codes of later versions count as stalled.
    pub fn from_code(code: i32) -> RowStatus {
        match code {
            abi::CONVERGED => RowStatus::Converged,
            abi::OUT_OF_STEPS => RowStatus::OutOfSteps,
            abi::NON_FINITE => RowStatus::NonFinite,
            _ => RowStatus::Stalled,
        }
    }
}

/// One row of a conjugate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConjugateRow {
    /// How it ended.
    pub status: RowStatus,
    /// Root mean square of ∇w(y) - x.
    pub residual: f64,
}

/// How the evaluation of one log-density ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DensityStatus {
    /// The value holds.
    Evaluated = abi::EVALUATED,
    /// The value is -∞: the Hessian has no Cholesky factor.
    NotPositiveDefinite = abi::NOT_POSITIVE_DEFINITE,
    /// The value is -∞: something is not finite.
    NotFinite = abi::NOT_FINITE,
    /// An estimate whose error may exceed its standard error.
    Unconverged = abi::UNCONVERGED,
}

impl DensityStatus {
    /// From the code of `cmf_plugin.h`; codes of later versions count as unconverged.
    pub fn from_code(code: i32) -> DensityStatus {
        match code {
            abi::EVALUATED => DensityStatus::Evaluated,
            abi::NOT_POSITIVE_DEFINITE => DensityStatus::NotPositiveDefinite,
            abi::NOT_FINITE => DensityStatus::NotFinite,
            _ => DensityStatus::Unconverged,
        }
    }
}

/// One log-density.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DensityRow {
    /// log ρ(y) in nats; lacks its constant where the model has no log Z.
    pub value: f64,
    /// Of an estimate; 0 for an exact value.
    pub standard_error: f64,
    /// How it ended.
    pub status: DensityStatus,
}

/// A file that the user named, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its path as given.
    pub name: String,
    /// [n, d] of a table, [height, width, channels] of an image.
    pub shape: Vec<usize>,
    /// Its values, row-major; images in the units of y.
    pub values: Vec<f64>,
    /// The opacity of each pixel of an image that has an alpha channel: [height, width], 0 to 1.
    pub alpha: Option<Vec<f64>>,
}

/// How important a line for the user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// A remark.
    Info = abi::INFO,
    /// Something to know even when quiet.
    Warning = abi::WARNING,
}

/// The host's files and its terminal; all may be called from several threads.
pub trait Files: Sync {
    /// The number of files that the user named.
    fn input_count(&self) -> usize;
    /// One of them.
    fn input(&self, index: usize) -> Result<Input>;
    /// Writes an image [height, width, channels] as NAME.label.png beside input `input`, or as the user says.
    fn write_image(&self, input: Option<usize>, label: &str, shape: [usize; 3], values: &[f64])
    -> Result<()>;
    /// Writes a table [n, d] as NAME.label.npy, likewise.
    fn write_table(&self, input: Option<usize>, label: &str, d: usize, values: &[f64]) -> Result<()>;
    /// A result for standard output: one flat JSON object.
    fn result(&self, json: &str) -> Result<()>;
    /// The share of the work that is done, 0 to 1.
    fn progress(&self, fraction: f64);
    /// A line for the user.
    fn log(&self, level: Level, text: &str);
    /// Whether the user has asked to stop.
    fn cancelled(&self) -> bool;
}

/// A Gaussian that a model may have a mixture in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Of [`Host::head_factor`].
    Source = 0,
    /// Of [`Host::gaussian`].
    Data = 1,
}

/// The host's tools: the model, random numbers, and [`Files`].
pub trait Host: Files {
    /// What is known of the model.
    fn model(&self) -> Result<ModelInfo>;
    /// w(x_i) and ∇w(x_i). `x`: [n, d], `value`: [n], `gradient`: [n, d].
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()>;
    /// ∇²w(x_i) v_i. `x`, `v`, `hv`: [n, d].
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()>;
    /// ∇²w(x_i). `x`: [n, d], `hessian`: [n, d, d].
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()>;
    /// Gradients in x_i of ⟨m_i, ∇²w(x_i)⟩. `x`, `out`: [n, d], `m`: [n, d, d] symmetric.
    fn contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()>;
    /// y_i = ∇w*(x_i), with how each row ended. `x`, `y`: [n, d].
    fn conjugate(&self, x: &[f64], y: &mut [f64]) -> Result<Vec<ConjugateRow>>;
    /// Draws of P_w, each the end of its own chain of `steps` steps, or exact where P_w is a Gaussian; other draws at every call. `x`: [n, d].
    fn gibbs(&self, steps: usize, x: &mut [f64]) -> Result<GibbsReport>;
    /// log ρ(y_i), and ∇ log ρ(y_i) if `score` is given. `y`, `score`: [n, d].
    fn log_density(&self, y: &[f64], score: Option<&mut [f64]>) -> Result<Vec<DensityRow>>;
    /// Mean [d] and covariance [d, d] of the noisy data.
    fn gaussian(&self) -> Result<(Vec<f64>, Vec<f64>)>;
    /// Centre a [d] and precision Q [d, d] of a model whose Gibbs factor is of its quadratic head alone: N(a, Q^{-1}), or that
    /// with a [`mixture`](Self::mixture); none where it is e^{-w}/Z.
    fn head_factor(&self) -> Result<Option<(Vec<f64>, Vec<f64>)>>;
    /// The mixture in the place of a Gaussian's marginal along few directions F, as numbers: K, k, F [k, d], and of each of K
    /// components its weight, mean [k] and the rows of its Cholesky factor up to the diagonal; none where there is none.
    fn mixture(&self, law: Law) -> Result<Option<Vec<f64>>>;
    /// Uniform random numbers on [0, 1).
    fn uniform(&self, out: &mut [f64]) -> Result<()>;
    /// Standard normal random numbers.
    fn normal(&self, out: &mut [f64]) -> Result<()>;
    /// The seed of all this, for generators of the task's own.
    fn seed(&self) -> u64;
}
