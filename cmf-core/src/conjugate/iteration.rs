//! The iteration that every method shares: propose, evaluate, accept on the slope, retire.

use rayon::prelude::*;

use super::{ConjugateSolver, RowOutcome, Solution, Status};
use crate::error::Result;
use crate::linalg::{dot, least_rows};
use crate::potential::Potential;
use crate::preconditioner::{Preconditioner, colour, pull_back};

/// A step may overshoot to at most this fraction of the first slope: the upper approximate Wolfe
/// condition φ'(t) ≤ (1 - 2δ) |φ'(0)| with δ = 0.1 (Hager and Zhang, 2005, equation 4.1).
const OVERSHOOT: f64 = 0.8;
/// A convex function's slopes increase: this many steps along which they did not, without progress of the
/// residual between them, mean that rounding is all that is left. It tells a noise floor from slow progress.
const MAX_VIOLATIONS: usize = 3;
/// Shortenings of one step before giving up; each is by a third or more.
const MAX_REJECTIONS: usize = 40;
/// Progress means a residual below this fraction of the last that counted.
const PROGRESS: f64 = 0.9;

/// What a method adds: directions, and what it learns from accepted steps.
pub(super) trait Rule {
    /// Steps without progress of the residual after which a row counts as stalled.
    fn patience(&self) -> usize;

    /// Writes the direction and the first step length of each row, both in preconditioned coordinates.
    fn propose(&mut self, oracle: &mut Oracle<'_>, rows: &mut [&mut Row]) -> Result<()>;

    /// Takes in an accepted step of row `index`: s = step, dg = change of the gradient.
    fn learn(&mut self, index: usize, s: Vec<f64>, dg: Vec<f64>);
}

/// An iterate with what the potential said there.
pub(super) struct Point {
    pub y: Vec<f64>,
    value: f64,
    /// L'(∇w(y) - x).
    pub gradient: Vec<f64>,
    /// Root mean square of ∇w(y) - x.
    pub residual: f64,
}

impl Point {
    fn is_finite(&self) -> bool {
        self.value.is_finite() && self.residual.is_finite()
    }
}

/// The state of one row.
pub(super) struct Row {
    pub index: usize,
    pub at: Point,
    /// An earlier iterate, where it is better than `at`.
    best: Option<Point>,
    pub direction: Vec<f64>,
    /// L times the direction: what moves y.
    displacement: Vec<f64>,
    pub step: f64,
    /// ⟨gradient, direction⟩ < 0 at `at`.
    slope: f64,
    /// Whether the next trial needs a new direction.
    fresh: bool,
    /// Whether the Hessian is not finite at `at`, which no shorter step mends.
    pub broken: bool,
    /// Whether the last trial was not finite.
    beyond: bool,
    rejections: usize,
    violations: usize,
    /// The last residual that counted as progress, and the trials since.
    mark: f64,
    since: usize,
    pub spent: usize,
}

impl Row {
    fn new(index: usize, at: Point) -> Self {
        Row {
            index,
            mark: at.residual,
            at,
            best: None,
            direction: Vec::new(),
            displacement: Vec::new(),
            step: 1.0,
            slope: 0.0,
            fresh: true,
            broken: false,
            beyond: false,
            rejections: 0,
            violations: 0,
            since: 0,
            spent: 1,
        }
    }

    /// Makes the direction one of descent: the proposal if it is, else the negative gradient.
    fn secure_descent(&mut self) {
        self.slope = dot(&self.at.gradient, &self.direction);
        if !(self.slope < 0.0 && self.slope.is_finite() && self.step > 0.0 && self.step.is_finite()) {
            self.direction = self.at.gradient.iter().map(|g| -g).collect();
            self.slope = -dot(&self.at.gradient, &self.at.gradient);
            self.step = 1.0;
        }
    }

    fn write_trial(&self, out: &mut [f64]) {
        let ends = self.at.y.iter().zip(&self.displacement).map(|(y, v)| y + self.step * v);
        out.iter_mut().zip(ends).for_each(|(out, y)| *out = y);
    }

    /// Accepts the trial, and returns the step with its change of the gradient, or shortens the step.
    fn judge(&mut self, trial: Point) -> Option<(Vec<f64>, Vec<f64>)> {
        self.spent += 1;
        self.since += 1;
        self.beyond = !trial.is_finite();
        if self.beyond {
            self.step *= 0.1;
            self.rejections += 1;
            return None;
        }
        let slope = dot(&trial.gradient, &self.direction);
        if slope > -OVERSHOOT * self.slope {
            // The root of the secant through both slopes: exact for a quadratic.
            self.step *= -self.slope / (slope - self.slope);
            self.rejections += 1;
            return None;
        }
        let s: Vec<f64> = self.direction.iter().map(|p| self.step * p).collect();
        let dg: Vec<f64> = trial.gradient.iter().zip(&self.at.gradient).map(|(new, old)| new - old).collect();
        if slope <= self.slope {
            self.violations += 1;
        }
        self.accept(trial);
        Some((s, dg))
    }

    fn accept(&mut self, trial: Point) {
        let previous = std::mem::replace(&mut self.at, trial);
        let best = self.best.take().unwrap_or(previous);
        if best.residual < self.at.residual {
            self.best = Some(best);
        }
        if self.at.residual < PROGRESS * self.mark {
            self.mark = self.at.residual;
            self.violations = 0;
            self.since = 0;
        }
        self.fresh = true;
        self.rejections = 0;
    }
}

/// The potential seen from preconditioned coordinates, with its calls counted.
pub(super) struct Oracle<'a> {
    w: &'a dyn Potential,
    x: &'a [f64],
    preconditioner: Option<&'a Preconditioner>,
    d: usize,
    calls: usize,
}

impl Oracle<'_> {
    /// Evaluates the candidates `y` [k, d] of the rows `indices` [k].
    fn evaluate(&mut self, indices: &[usize], y: Vec<f64>) -> Result<Vec<Point>> {
        let d = self.d;
        let mut value = vec![0.0; indices.len()];
        let mut gradient = vec![0.0; y.len()];
        if !indices.is_empty() {
            self.w.value_and_gradient(&y, &mut value, &mut gradient)?;
            self.calls += 1;
        }
        let mut residual = vec![0.0; indices.len()];
        let rows = gradient.par_chunks_mut(d).zip(&mut value).zip(&mut residual);
        let rows = rows.zip(y.par_chunks(d)).zip(indices).with_min_len(least_rows(d));
        rows.for_each(|((((g, value), residual), y), &i)| {
            let x = &self.x[i * d..][..d];
            *value = dot(x, y) - *value;
            g.iter_mut().zip(x).for_each(|(g, x)| *g -= x);
            *residual = (dot(g, g) / d as f64).sqrt();
        });
        let gradient = pull_back(self.preconditioner, &gradient)?;
        let rows = y.par_chunks(d).zip(gradient.par_chunks(d)).zip(&value).zip(&residual);
        let points = rows.with_min_len(least_rows(d)).map(|(((y, gradient), &value), &residual)| Point {
            y: y.to_vec(),
            value,
            gradient: gradient.to_vec(),
            residual,
        });
        Ok(points.collect())
    }

    /// L' ∇²w(y) L v for `y`, `v` [k, d].
    pub fn hvp(&mut self, y: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let mut hv = vec![0.0; v.len()];
        self.w.hvp(y, &colour(self.preconditioner, v)?, &mut hv)?;
        self.calls += 1;
        pull_back(self.preconditioner, &hv)
    }
}

/// One solve of a block of rows.
pub(super) struct Iteration<'a> {
    solver: &'a ConjugateSolver,
    oracle: Oracle<'a>,
    n: usize,
}

impl<'a> Iteration<'a> {
    /// For the rows of `x` [n, d].
    pub fn new(solver: &'a ConjugateSolver, w: &'a dyn Potential, x: &'a [f64]) -> Self {
        let d = w.dim();
        let preconditioner = solver.preconditioner.as_deref();
        Iteration { solver, oracle: Oracle { w, x, preconditioner, d, calls: 0 }, n: x.len() / d }
    }

    /// Runs every row to its end from `start` [n, d].
    pub fn run(mut self, start: Vec<f64>, rule: &mut dyn Rule) -> Result<Solution> {
        let (n, d) = (self.n, self.oracle.d);
        let unseen = RowOutcome { status: Status::NonFinite, residual: f64::INFINITY, steps: 0 };
        let mut solution =
            Solution { y: start, value: vec![f64::NEG_INFINITY; n], rows: vec![unseen; n], oracle_calls: 0 };
        let finite = |v: &[f64], i: usize| v[i * d..][..d].iter().all(|v| v.is_finite());
        let indices: Vec<usize> =
            (0..n).filter(|&i| finite(self.oracle.x, i) && finite(&solution.y, i)).collect();
        let y = indices.iter().flat_map(|&i| solution.y[i * d..][..d].to_vec()).collect();
        let points = self.oracle.evaluate(&indices, y)?;
        let mut active: Vec<Row> = indices.iter().zip(points).map(|(&i, p)| Row::new(i, p)).collect();
        loop {
            active = self.retire(active, rule.patience(), &mut solution);
            if active.is_empty() {
                solution.oracle_calls = self.oracle.calls;
                return Ok(solution);
            }
            self.direct(&mut active, rule)?;
            let indices: Vec<usize> = active.iter().map(|row| row.index).collect();
            let mut trials = vec![0.0; active.len() * d];
            let rows = trials.par_chunks_mut(d).zip(&active).with_min_len(least_rows(d));
            rows.for_each(|(out, row)| row.write_trial(out));
            let points = self.oracle.evaluate(&indices, trials)?;
            let rows = active.par_iter_mut().zip(points).with_min_len(least_rows(d));
            let steps: Vec<_> = rows.map(|(row, point)| row.judge(point)).collect();
            for (index, step) in indices.into_iter().zip(steps) {
                if let Some((s, dg)) = step {
                    rule.learn(index, s, dg);
                }
            }
        }
    }

    /// Gives a direction to the rows that need a new one.
    fn direct(&mut self, active: &mut [Row], rule: &mut dyn Rule) -> Result<()> {
        let mut fresh: Vec<&mut Row> = active.iter_mut().filter(|row| row.fresh).collect();
        rule.propose(&mut self.oracle, &mut fresh)?;
        fresh.iter_mut().for_each(|row| row.secure_descent());
        let directions: Vec<f64> = fresh.iter().flat_map(|row| row.direction.iter().copied()).collect();
        let displacements = colour(self.oracle.preconditioner, &directions)?;
        for (row, displacement) in fresh.into_iter().zip(displacements.chunks_exact(self.oracle.d)) {
            row.displacement = displacement.to_vec();
            row.fresh = false;
        }
        Ok(())
    }

    /// Writes the rows that have ended to the solution and returns the others.
    fn retire(&self, active: Vec<Row>, patience: usize, solution: &mut Solution) -> Vec<Row> {
        let mut going = Vec::with_capacity(active.len());
        for row in active {
            let Some(status) = self.verdict(&row, patience) else {
                going.push(row);
                continue;
            };
            let (i, d, steps) = (row.index, self.oracle.d, row.spent);
            let point = row.best.unwrap_or(row.at);
            let finite = point.is_finite();
            let residual = if finite { point.residual } else { f64::INFINITY };
            solution.rows[i] = RowOutcome { status, residual, steps };
            if finite {
                solution.y[i * d..][..d].copy_from_slice(&point.y);
                solution.value[i] = point.value;
            }
        }
        going
    }

    fn verdict(&self, row: &Row, patience: usize) -> Option<Status> {
        let rejected = row.rejections >= MAX_REJECTIONS;
        if !row.at.is_finite() || row.broken || (row.beyond && rejected) {
            Some(Status::NonFinite)
        } else if row.at.residual <= self.solver.tolerance {
            Some(Status::Converged)
        } else if rejected || row.violations >= MAX_VIOLATIONS || row.since >= patience {
            Some(Status::Stalled)
        } else if row.spent >= self.solver.max_steps {
            Some(Status::OutOfSteps)
        } else {
            None
        }
    }
}
