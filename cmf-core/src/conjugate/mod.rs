//! The convex conjugate and its gradient ∇w*(x) = argmax_y ⟨x,y⟩ - w(y), solved for batches of rows.
//!
//! All methods use gradients and Hessian products only. A step is accepted on the slope along its
//! direction, never on a difference of values, which drowns in rounding long before the gradient does
//! when the potential is computed in f32.

mod barzilai_borwein;
mod iteration;
mod lbfgs;
mod newton_cg;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, check_len};
use crate::potential::{Potential, rows};
use crate::preconditioner::{self, Preconditioner};
use iteration::{Iteration, Rule};

/// How the direction and the length of a step are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Gradient steps with the adaptive Barzilai-Borwein length (Zhou, Gao and Dai, 2006): the least
    /// memory and arithmetic, for condition numbers up to about a hundred.
    BarzilaiBorwein,
    /// Limited-memory BFGS (Nocedal, 1980), `memory` pairs of [d] a row: fewer oracle calls for a
    /// larger share of the work outside the oracle.
    Lbfgs {
        /// Pairs of steps and gradient changes kept; at least 1.
        memory: usize,
    },
    /// Newton's method, its equations solved by conjugate gradients on Hessian products as accurately
    /// as progress deserves (Eisenstat and Walker, 1996): for ill-conditioned potentials and tight
    /// tolerances.
    NewtonCg,
}

/// How the solve of one row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The residual reached the tolerance.
    Converged,
    /// The budget of steps ran out first.
    OutOfSteps,
    /// No further progress, as at the noise floor of an f32 potential or without a maximiser.
    Stalled,
    /// The input, the potential or its derivatives are not finite here.
    NonFinite,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Converged => "converged",
            Status::OutOfSteps => "out of steps",
            Status::Stalled => "stalled",
            Status::NonFinite => "not finite",
        })
    }
}

/// The outcome of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowOutcome {
    /// How it ended.
    pub status: Status,
    /// Root mean square over the d coordinates of ∇w(y) - x at the returned y; infinite where no finite
    /// gradient was seen.
    pub residual: f64,
    /// Gradients and Hessian products evaluated for this row.
    pub steps: usize,
}

/// Solves ∇w(y) = x for batches of rows.
#[derive(Debug, Clone)]
pub struct ConjugateSolver {
    /// How steps are chosen.
    pub method: Method,
    /// A row has converged when the root mean square of ∇w(y) - x is at most this, in the units of x.
    pub tolerance: f64,
    /// Bound on [`RowOutcome::steps`].
    pub max_steps: usize,
    /// An approximate inverse Hessian of w, to solve in better-conditioned coordinates.
    pub preconditioner: Option<Arc<Preconditioner>>,
}

impl Default for ConjugateSolver {
    /// L-BFGS to 1e-4, which an f32 potential of pixels can reach.
    fn default() -> Self {
        ConjugateSolver {
            method: Method::Lbfgs { memory: 5 },
            tolerance: 1e-4,
            max_steps: 500,
            preconditioner: None,
        }
    }
}

/// The solved rows. Where a row has not converged, its best iterate is returned with its status.
#[derive(Debug, Clone)]
pub struct Solution {
    /// ∇w*(x_i): [n, d].
    pub y: Vec<f64>,
    /// w*(x_i) = ⟨x_i, y_i⟩ - w(y_i): [n]. A lower bound, with an error quadratic in the residual;
    /// minus infinity where no finite value was seen.
    pub value: Vec<f64>,
    /// Status, residual and steps: [n].
    pub rows: Vec<RowOutcome>,
    /// Batched calls of the potential, gradients and Hessian products together.
    pub oracle_calls: usize,
}

impl Solution {
    /// Whether every row converged.
    pub fn all_converged(&self) -> bool {
        self.count(Status::Converged) == self.rows.len()
    }

    /// Number of rows that ended with `status`.
    pub fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    /// The rows of y that converged: [m, d].
    pub fn converged(&self) -> Vec<f64> {
        let d = self.y.len() / self.rows.len().max(1);
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.status == Status::Converged);
        rows.flat_map(|(i, _)| &self.y[i * d..][..d]).copied().collect()
    }

    /// The largest residual of any row; 0 without rows.
    pub fn worst_residual(&self) -> f64 {
        self.rows.iter().map(|row| row.residual).fold(0.0, f64::max)
    }
}

/// Rows under way at once: bounds the memory that L-BFGS holds, beyond what speeds up an oracle. (1,000 digits took 1.15 s
/// with it and 1.25 with twice as much, by ONNX Runtime, and the same by tract.)
const SLOTS: usize = 512;

impl ConjugateSolver {
    /// Solves for the rows of `x` [n, d], from `start` [n, d] or else from 0.
    ///
    /// Rows are independent; one that ends makes room for the next. Errors: slices of the wrong length, settings out of range, a
    /// failing engine. An unconverged row is not an error.
    pub fn solve(&self, w: &dyn Potential, x: &[f64], start: Option<&[f64]>) -> Result<Solution> {
        let d = w.dim();
        let n = rows(x, d)?;
        self.check(d)?;
        if let Some(start) = start {
            check_len("start", start.len(), n * d)?;
        }
        let start = start.map_or_else(|| vec![0.0; x.len()], <[f64]>::to_vec);
        let slots = n.min(SLOTS);
        Iteration::new(self, w, x).run(start, slots, self.rule(slots).as_mut())
    }

    fn check(&self, d: usize) -> Result<()> {
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::Invalid(format!("conjugate tolerance {}: must be > 0", self.tolerance)));
        }
        if self.max_steps == 0 || self.method == (Method::Lbfgs { memory: 0 }) {
            return Err(Error::Invalid("conjugate steps and L-BFGS memory: must be at least 1".into()));
        }
        preconditioner::check(self.preconditioner.as_deref(), d)
    }

    fn rule(&self, slots: usize) -> Box<dyn Rule> {
        match self.method {
            Method::BarzilaiBorwein => Box::new(barzilai_borwein::BarzilaiBorwein::new(slots)),
            Method::Lbfgs { memory } => Box::new(lbfgs::Lbfgs::new(slots, memory)),
            Method::NewtonCg => Box::new(newton_cg::NewtonCg::new(slots, self.tolerance, self.max_steps)),
        }
    }
}
