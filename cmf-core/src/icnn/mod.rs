//! The input-convex neural network with quadratic input terms, as one potential w.
//!
//! With s_1 = q_1(x), s_l = W_l act(s_{l-1}) + q_l(x) and, for unit i of layer l,
//! q_{l,i}(x) = b_i·x + ½ Σ_r (a_{i,r}·x)² + ½ Σ_j δ_{ij} x_j² + c_i,
//!
//! w(x) = Σ_l u_l·act(s_l) + ½ (x-a)' Q (x-a) + c.
//!
//! Every layer feeds the output (a dense network), so that single units keep a direct say in deep ones.
//!
//! w is convex because W, u and δ are nonnegative, Q is positive definite and the activation is
//! convex and nondecreasing (Amos, Xu and Kolter, 2017; quadratic terms: Vesseron and Cuturi, 2024). [`Head`] says how Q
//! is made.

pub mod formula;
mod idle;
mod init;
mod potential;
pub(crate) mod subspace;
mod whitened;

pub use init::{initial_weights, initial_weights_for_samples};
pub use potential::{Icnn, LinearisedIcnn};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::{Activation, Ops};

/// How the matrix Q of the quadratic head is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Head {
    /// Any positive definite matrix: d² numbers.
    #[default]
    Full,
    /// Q = c (I - V'V) + V' diag(q) V: curvatures q along k orthonormal directions, the rows of V, which training
    /// leaves as they are, and one curvature c across them. The inverse cube root of a covariance with k leading
    /// directions ([`Spiked`](crate::symmetric::Spiked)) is of this form; a low-rank matrix plus a diagonal is not.
    /// Training keeps the units' forms in the span of V too: w(x) = f(V x) + ½ c |(I - V'V)(x - a)|², which leaves
    /// the data Gaussian across the directions.
    Spiked {
        /// k: above 0 and below d.
        rank: usize,
    },
}

impl Head {
    fn is_full(&self) -> bool {
        *self == Head::Full
    }

    /// The number k of directions, if Q is spiked.
    pub fn rank(self) -> Option<usize> {
        match self {
            Head::Full => None,
            Head::Spiked { rank } => Some(rank),
        }
    }
}

/// What the Gibbs factor e^{-V}/Z is of, the law that ∇w* carries to the data.
///
/// For data at y + t in place of y the conjugate moment measure has another potential, and the further t, the further lies
/// the mass of its Gibbs factor from the data: beyond the reach of units whose forms fall towards it, which leave the head
/// alone there. [`GibbsFactor::Head`] is this limit in the coordinates of the data: one function no longer has to bend for
/// the data and, at the same places, not to bend for the Gibbs factor. After 1,000 updates 200 test digits have 535.6 nats
/// instead of 512.1, and draws a variance of 7.0 along the leading axis instead of 0.9 (digits: 5.2); after 8,000 500 of them
/// 550.8 instead of 526.3, and draws 3.3 instead of 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GibbsFactor {
    /// All of w: V = w (Vesseron, Béthune and Cuturi, 2025, Theorem 1).
    #[default]
    Whole,
    /// Its quadratic head: V(x) = ½ (x-a)' Q (x-a), so that the factor is N(a, Q^{-1}) and log Z is known, or that with a
    /// [`Mixture`](crate::mixture::Mixture) along few directions.
    Head,
}

impl GibbsFactor {
    fn is_whole(&self) -> bool {
        *self == GibbsFactor::Whole
    }
}

/// The shape of a network: everything but its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Input dimension d.
    pub dim: usize,
    /// Units of each hidden layer, first to last.
    pub widths: Vec<usize>,
    /// Number r >= 1 of squared linear forms a unit owns (the rank of its low-rank quadratic term).
    pub rank: usize,
    /// Whether each unit owns a diagonal quadratic term as well.
    pub diagonal: bool,
    /// The activation of every hidden unit.
    pub activation: Activation,
    /// The matrix of the quadratic head; files that do not say have a full one.
    #[serde(default, skip_serializing_if = "Head::is_full")]
    pub head: Head,
    /// What the Gibbs factor is of; files that do not say mean all of w.
    #[serde(default, skip_serializing_if = "GibbsFactor::is_whole")]
    pub gibbs: GibbsFactor,
}

impl Architecture {
    /// Whether there is one layer without diagonal terms, whose mean Hessian over many points costs what one does.
    pub(crate) fn is_flat(&self) -> bool {
        self.widths.len() == 1 && !self.diagonal
    }

    /// Number N of hidden units.
    pub fn units(&self) -> usize {
        self.widths.iter().sum()
    }

    /// Rows of the x-side matrix: linear forms, squared forms, and the head.
    pub fn x_side_rows(&self) -> usize {
        (1 + self.rank) * self.units() + self.head_rows()
    }

    /// Rows of the x-side matrix that the head has: d of Q, or k of V.
    pub fn head_rows(&self) -> usize {
        self.head.rank().unwrap_or(self.dim)
    }

    /// The range of layer `layer`'s units among all units.
    pub fn layer(&self, layer: usize) -> std::ops::Range<usize> {
        let from = self.widths[..layer].iter().sum();
        from..from + self.widths[layer]
    }

    /// Numbers in the network.
    pub fn parameter_count(&self) -> usize {
        let mixing: usize = self.widths.windows(2).map(|w| w[0] * w[1]).sum();
        let diagonal = if self.diagonal { self.units() * self.dim } else { 0 };
        let spikes = self.head.rank().map_or(0, |k| k + 1);
        let vectors = 2 * self.units() + self.dim + self.head_rows() + 1;
        self.x_side_rows() * self.dim + diagonal + mixing + spikes + vectors
    }

    /// Checks that the sizes make a network and stay within what a machine can hold.
    pub fn validate(&self) -> Result<()> {
        const MOST_PARAMETERS: usize = 1 << 30;
        if self.dim == 0 || self.widths.is_empty() || self.widths.contains(&0) {
            return Err(Error::Invalid(format!(
                "a network needs dim >= 1 and at least one hidden layer of at least one unit, found dim {} and widths {:?}",
                self.dim, self.widths
            )));
        }
        if self.rank == 0 {
            return Err(Error::Invalid("the rank of the quadratic terms is at least 1, found 0".into()));
        }
        if let Head::Spiked { rank } = self.head
            && !(1..self.dim).contains(&rank)
        {
            return Err(Error::Invalid(format!(
                "the head needs between 1 and {} directions of {} dimensions, found {rank}",
                self.dim.saturating_sub(1),
                self.dim
            )));
        }
        if self.dim > 1 << 20 || self.rank > 64 || self.widths.len() > 64
            // Each, so that their sum is one.
            || self.widths.iter().any(|&width| width > 1 << 20) || self.units() > 1 << 20
        {
            return Err(Error::Invalid("the architecture is larger than this program handles".into()));
        }
        if self.parameter_count() > MOST_PARAMETERS {
            return Err(Error::Invalid(format!("{} parameters are too many", self.parameter_count())));
        }
        if let Activation::Softplus { beta } = self.activation
            && !(beta.is_finite() && beta > 0.0)
        {
            return Err(Error::Invalid(format!("softplus needs a finite beta > 0, found {beta}")));
        }
        Ok(())
    }
}

/// The effective numbers of a network: positivity is already applied.
///
/// Products with the input are stored together, one row a linear form, so that one evaluation is one
/// large product with `x_side` forwards and one backwards.
#[derive(Debug, Clone)]
pub struct Weights<T> {
    /// [(1 + r) N + h, d]: the N rows b_i, then r blocks of N rows a_{i,r}, then those of the head: the d rows of Q,
    /// or the k of V.
    pub x_side: T,
    /// The forms of `x_side` in the directions of a spiked head, through which values and gradients go where all forms lie in
    /// their span. It says again what `x_side` says, and [`Icnn::new`] does not take it over.
    pub along: Option<FormsAlong<T>>,
    /// [N, d]: the nonnegative δ, if the architecture has it.
    pub diagonal: Option<T>,
    /// W_2..W_L as [width of the layer before, width], nonnegative.
    pub mixing: Vec<T>,
    /// [1, N]: c_i.
    pub bias: T,
    /// [1, N]: u_i, nonnegative.
    pub output: T,
    /// [1, d]: a.
    pub centre: T,
    /// [1, h]: the head's rows times a, that is Q a or V a.
    pub pull: T,
    /// The numbers of a spiked head.
    pub spikes: Option<Spikes<T>>,
    /// [1, 1]: c.
    pub constant: T,
}

/// The forms of a network in the directions of its spiked head: `x_side` is forms · directions, and directions below.
#[derive(Debug, Clone)]
pub struct FormsAlong<T> {
    /// [(1 + r) N, k].
    pub forms: T,
    /// V: [k, d].
    pub directions: T,
}

impl<T: Clone> FormsAlong<T> {
    /// The `x_side` of a network that has these: [(1 + r) N + k, d].
    pub fn x_side(&self, ops: &impl Ops<Tensor = T>) -> T {
        ops.concat(&[ops.matmul(&self.forms, &self.directions), self.directions.clone()], 0)
    }
}

impl<T> FormsAlong<T> {
    /// The same two arrays, each as `f` makes it of these.
    pub fn try_map<U, E>(
        &self,
        mut f: impl FnMut(&T) -> std::result::Result<U, E>,
    ) -> std::result::Result<FormsAlong<U>, E> {
        Ok(FormsAlong { forms: f(&self.forms)?, directions: f(&self.directions)? })
    }
}

/// The curvatures of a spiked head.
#[derive(Debug, Clone)]
pub struct Spikes<T> {
    /// [1, 1]: c.
    pub floor: T,
    /// [1, k]: q - c.
    pub excess: T,
}

impl<T> Weights<T> {
    /// Every array but those of `along` with its name and the shape `arch` gives it, in the order of the struct.
    pub fn named(&self, arch: &Architecture) -> Vec<(String, [usize; 2], &T)> {
        let (d, n) = (arch.dim, arch.units());
        let mut all = vec![("x_side".to_string(), [arch.x_side_rows(), d], &self.x_side)];
        all.extend(self.diagonal.as_ref().map(|t| ("diagonal".to_string(), [n, d], t)));
        for (l, t) in self.mixing.iter().enumerate() {
            all.push((format!("mixing_{}", l + 2), [arch.widths[l], arch.widths[l + 1]], t));
        }
        all.push(("bias".to_string(), [1, n], &self.bias));
        all.push(("output".to_string(), [1, n], &self.output));
        all.push(("centre".to_string(), [1, d], &self.centre));
        all.push(("pull".to_string(), [1, arch.head_rows()], &self.pull));
        if let Some(Spikes { floor, excess }) = &self.spikes {
            all.push(("head_floor".to_string(), [1, 1], floor));
            all.push(("head_excess".to_string(), [1, arch.head_rows()], excess));
        }
        all.push(("constant".to_string(), [1, 1], &self.constant));
        all
    }

    /// Builds the weights of `arch` by asking for each array by name and shape.
    pub fn build<E>(
        arch: &Architecture,
        mut get: impl FnMut(&str, [usize; 2]) -> std::result::Result<T, E>,
    ) -> std::result::Result<Self, E> {
        let (d, n) = (arch.dim, arch.units());
        Ok(Weights {
            x_side: get("x_side", [arch.x_side_rows(), d])?,
            along: None,
            diagonal: if arch.diagonal { Some(get("diagonal", [n, d])?) } else { None },
            mixing: (1..arch.widths.len())
                .map(|l| get(&format!("mixing_{}", l + 1), [arch.widths[l - 1], arch.widths[l]]))
                .collect::<std::result::Result<_, E>>()?,
            bias: get("bias", [1, n])?,
            output: get("output", [1, n])?,
            centre: get("centre", [1, d])?,
            pull: get("pull", [1, arch.head_rows()])?,
            spikes: match arch.head {
                Head::Full => None,
                Head::Spiked { rank } => {
                    Some(Spikes { floor: get("head_floor", [1, 1])?, excess: get("head_excess", [1, rank])? })
                }
            },
            constant: get("constant", [1, 1])?,
        })
    }
}
