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

    /// Forgets the row that had this slot: another takes it.
    fn begin(&mut self, slot: usize);

    /// Writes the direction and the first step length of each row, both in preconditioned coordinates.
    fn propose(&mut self, oracle: &mut Oracle<'_>, rows: &mut [&mut Row]) -> Result<()>;

    /// Takes in the steps that rows have just accepted: of each slot its row, if it has.
    fn learn(&mut self, accepted: &[Option<&Row>]);
}

/// An iterate with what the potential said there.
#[derive(Clone)]
pub(super) struct Point {
    pub y: Vec<f64>,
    value: f64,
    /// L'(∇w(y) - x); of a solution any numbers.
    pub gradient: Vec<f64>,
    /// Root mean square of ∇w(y) - x.
    pub residual: f64,
}

impl Point {
    /// A point of d coordinates that has not been seen.
    fn unseen(d: usize) -> Self {
        Point { y: vec![0.0; d], gradient: vec![0.0; d], value: f64::NAN, residual: f64::INFINITY }
    }

    fn is_finite(&self) -> bool {
        self.value.is_finite() && self.residual.is_finite()
    }

    fn is_solution(&self, tolerance: f64) -> bool {
        self.is_finite() && self.residual <= tolerance
    }
}

/// The state of one row. Its arrays are used again at every step, and by the next row that has its slot.
pub(super) struct Row {
    index: usize,
    pub slot: usize,
    pub at: Point,
    /// The point to be judged, and after that, if it was accepted, the one before.
    trial: Point,
    /// An earlier iterate, where it is better than `at`.
    best: Option<Point>,
    pub direction: Vec<f64>,
    /// L times the direction, what moves y; empty where that is the direction itself.
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
    /// Gradients and Hessian products; 0 of a row whose start is its first trial.
    pub spent: usize,
}

impl Row {
    /// A slot without a row.
    fn vacant(slot: usize, d: usize) -> Self {
        Row {
            index: usize::MAX,
            slot,
            at: Point::unseen(d),
            trial: Point::unseen(d),
            best: None,
            direction: Vec::new(),
            displacement: Vec::new(),
            step: 1.0,
            slope: 0.0,
            fresh: false,
            broken: false,
            beyond: false,
            rejections: 0,
            violations: 0,
            mark: f64::INFINITY,
            since: 0,
            spent: 0,
        }
    }

    /// Gives the slot to row `index`, whose start is its first trial.
    fn begin(self, index: usize, start: &[f64]) -> Self {
        let Row { slot, at, mut trial, direction, displacement, .. } = self;
        trial.y.copy_from_slice(start);
        let at = Point { value: f64::NAN, residual: f64::INFINITY, ..at };
        Row { index, at, trial, direction, displacement, ..Row::vacant(slot, 0) }
    }

    /// Makes the direction one of descent: the proposal if it is, else the negative gradient.
    fn secure_descent(&mut self) {
        self.slope = dot(&self.at.gradient, &self.direction);
        if !(self.slope < 0.0 && self.slope.is_finite() && self.step > 0.0 && self.step.is_finite()) {
            self.descend();
            self.slope = -dot(&self.at.gradient, &self.at.gradient);
            self.step = 1.0;
        }
    }

    /// Makes the direction the negative gradient.
    pub fn descend(&mut self) {
        self.direction.clear();
        self.direction.extend(self.at.gradient.iter().map(|g| -g));
    }

    /// s, the step that was just accepted.
    pub fn moved(&self) -> impl Iterator<Item = f64> {
        self.direction.iter().map(|p| self.step * p)
    }

    /// dg, the change of the gradient along it.
    pub fn turned(&self) -> impl Iterator<Item = f64> {
        self.at.gradient.iter().zip(&self.trial.gradient).map(|(new, old)| new - old)
    }

    fn place_trial(&mut self) {
        if self.spent == 0 {
            return;
        }
        let displacement = if self.displacement.is_empty() { &self.direction } else { &self.displacement };
        let ends = self.at.y.iter().zip(displacement).map(|(y, v)| y + self.step * v);
        self.trial.y.iter_mut().zip(ends).for_each(|(out, y)| *out = y);
    }

    /// Accepts the trial or shortens the step. A start is accepted whatever it is.
    fn judge(&mut self, tolerance: f64) {
        self.spent += 1;
        if self.spent == 1 || self.trial.is_solution(tolerance) {
            return self.accept();
        }
        self.since += 1;
        self.beyond = !self.trial.is_finite();
        if self.beyond {
            self.step *= 0.1;
            self.rejections += 1;
            return;
        }
        let slope = dot(&self.trial.gradient, &self.direction);
        if slope > -OVERSHOOT * self.slope {
            // The root of the secant through both slopes: exact for a quadratic.
            self.step *= -self.slope / (slope - self.slope);
            self.rejections += 1;
            return;
        }
        if slope <= self.slope {
            self.violations += 1;
        }
        self.accept();
    }

    fn accept(&mut self) {
        std::mem::swap(&mut self.at, &mut self.trial);
        let previous = &self.trial;
        match &self.best {
            None if previous.residual < self.at.residual => self.best = Some(previous.clone()),
            Some(best) if best.residual >= self.at.residual => self.best = None,
            _ => {}
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
    /// Points and gradients of the last call: [k, d] each.
    points: Vec<f64>,
    gradients: Vec<f64>,
}

impl Oracle<'_> {
    /// Evaluates the trials of `rows`, of which those with residuals up to `tolerance` are solutions.
    fn evaluate(&mut self, rows: &mut [Row], tolerance: f64) -> Result<()> {
        let (d, k) = (self.d, rows.len());
        if k == 0 {
            return Ok(());
        }
        let mut values = vec![0.0; k];
        self.points.resize(k * d, 0.0);
        self.gradients.resize(k * d, 0.0);
        let points = self.points.par_chunks_mut(d).zip(&*rows).with_min_len(least_rows(d));
        points.for_each(|(point, row)| point.copy_from_slice(&row.trial.y));
        self.w.value_and_gradient(&self.points, &mut values, &mut self.gradients)?;
        self.calls += 1;
        let seen = self.gradients.par_chunks_mut(d).zip(&values).zip(&mut *rows).with_min_len(least_rows(d));
        seen.for_each(|((g, value), row)| {
            let x = &self.x[row.index * d..][..d];
            row.trial.value = dot(x, &row.trial.y) - value;
            g.iter_mut().zip(x).for_each(|(g, x)| *g -= x);
            row.trial.residual = (dot(g, g) / d as f64).sqrt();
            row.trial.gradient.copy_from_slice(g);
        });
        let Some(preconditioner) = self.preconditioner else { return Ok(()) };
        // Of a solution nobody asks for more than its residual.
        let mut going: Vec<&mut Row> =
            rows.iter_mut().filter(|row| !row.trial.is_solution(tolerance)).collect();
        self.gradients.clear();
        going.iter().for_each(|row| self.gradients.extend_from_slice(&row.trial.gradient));
        let pulled = preconditioner.pull_back(&self.gradients)?;
        let pairs = going.par_iter_mut().zip(pulled.par_chunks(d)).with_min_len(least_rows(d));
        pairs.for_each(|(row, g)| row.trial.gradient.copy_from_slice(g));
        Ok(())
    }

    /// L' ∇²w(y) L v for `y`, `v` [k, d].
    pub fn hvp(&mut self, y: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let mut hv = vec![0.0; v.len()];
        self.w.hvp(y, &colour(self.preconditioner, v)?, &mut hv)?;
        self.calls += 1;
        pull_back(self.preconditioner, &hv)
    }
}

/// One solve.
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
        let (points, gradients) = (Vec::new(), Vec::new());
        let oracle = Oracle { w, x, preconditioner, d, calls: 0, points, gradients };
        Iteration { solver, oracle, n: x.len() / d }
    }

    /// Runs every row to its end from `start` [n, d], so many at once.
    pub fn run(mut self, start: Vec<f64>, slots: usize, rule: &mut dyn Rule) -> Result<Solution> {
        let (n, d, tolerance) = (self.n, self.oracle.d, self.solver.tolerance);
        let unseen = RowOutcome { status: Status::NonFinite, residual: f64::INFINITY, steps: 0 };
        let mut solution =
            Solution { y: start, value: vec![f64::NEG_INFINITY; n], rows: vec![unseen; n], oracle_calls: 0 };
        let finite = |v: &[f64], i: usize| v[i * d..][..d].iter().all(|v| v.is_finite());
        let sound = (0..n).filter(|&i| finite(self.oracle.x, i) && finite(&solution.y, i));
        let mut waiting = sound.collect::<Vec<_>>().into_iter();
        let mut vacant: Vec<Row> = (0..slots).map(|slot| Row::vacant(slot, d)).collect();
        let mut active: Vec<Row> = Vec::new();
        loop {
            let room = vacant.len().min(waiting.len());
            for (row, i) in vacant.drain(vacant.len() - room..).zip(&mut waiting) {
                rule.begin(row.slot);
                active.push(row.begin(i, &solution.y[i * d..][..d]));
            }
            if active.is_empty() {
                solution.oracle_calls = self.oracle.calls;
                return Ok(solution);
            }
            self.direct(&mut active, rule)?;
            active.par_iter_mut().with_min_len(least_rows(d)).for_each(Row::place_trial);
            self.oracle.evaluate(&mut active, tolerance)?;
            active.par_iter_mut().with_min_len(least_rows(d)).for_each(|row| row.judge(tolerance));
            let mut accepted = vec![None; slots];
            let learned = active.iter().filter(|row| row.fresh && row.spent > 1);
            learned
                .filter(|row| !row.at.is_solution(tolerance))
                .for_each(|row| accepted[row.slot] = Some(row));
            rule.learn(&accepted);
            active = self.retire(active, &mut vacant, rule.patience(), &mut solution);
        }
    }

    /// Gives a direction to the rows that need a new one.
    fn direct(&mut self, active: &mut [Row], rule: &mut dyn Rule) -> Result<()> {
        let mut fresh: Vec<&mut Row> = active.iter_mut().filter(|row| row.fresh).collect();
        rule.propose(&mut self.oracle, &mut fresh)?;
        let d = self.oracle.d;
        fresh.par_iter_mut().with_min_len(least_rows(d)).for_each(|row| {
            row.secure_descent();
            row.fresh = false;
        });
        let Some(preconditioner) = self.oracle.preconditioner else { return Ok(()) };
        let directions: Vec<f64> = fresh.iter().flat_map(|row| row.direction.iter().copied()).collect();
        let displacements = preconditioner.colour(&directions)?;
        for (row, displacement) in fresh.into_iter().zip(displacements.chunks_exact(d)) {
            row.displacement.clear();
            row.displacement.extend_from_slice(displacement);
        }
        Ok(())
    }

    /// Writes the rows that have ended to the solution, which makes their slots vacant, and returns the others.
    fn retire(
        &self,
        active: Vec<Row>,
        vacant: &mut Vec<Row>,
        patience: usize,
        solution: &mut Solution,
    ) -> Vec<Row> {
        let mut going = Vec::with_capacity(active.len());
        for row in active {
            let Some(status) = self.verdict(&row, patience) else {
                going.push(row);
                continue;
            };
            let (i, d, point) = (row.index, self.oracle.d, row.best.as_ref().unwrap_or(&row.at));
            let finite = point.is_finite();
            let residual = if finite { point.residual } else { f64::INFINITY };
            solution.rows[i] = RowOutcome { status, residual, steps: row.spent };
            if finite {
                solution.y[i * d..][..d].copy_from_slice(&point.y);
                solution.value[i] = point.value;
            }
            vacant.push(row);
        }
        going
    }

    fn verdict(&self, row: &Row, patience: usize) -> Option<Status> {
        let rejected = row.rejections >= MAX_REJECTIONS;
        if !row.at.is_finite() || row.broken || (row.beyond && rejected) {
            Some(Status::NonFinite)
        } else if row.at.is_solution(self.solver.tolerance) {
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
