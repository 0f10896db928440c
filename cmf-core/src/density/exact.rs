//! The exact log-density and its gradient, one dense Hessian a row.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::{factor, inverse};
use faer::{MatMut, Par};
use rayon::prelude::*;

use super::{Pushed, Status, finite};
use crate::error::{Result, check_len};
use crate::linalg::dot;
use crate::potential::{SecondOrder, rows};

/// Exact log-densities of a batch of rows.
#[derive(Debug, Clone)]
pub struct ExactLogDensity {
    /// log ρ(y_i) in nats, -∞ where the status says why: [n].
    pub value: Vec<f64>,
    /// How each row ended: [n].
    pub status: Vec<Status>,
}

/// Rows whose gradients are held at a time.
const BLOCK: usize = 256;

/// Bytes that the Hessians and inverses in flight may take; it bounds the rows evaluated at once.
const WORKSPACE_BYTES: usize = 512 << 20;

/// log ρ(y) = -w(G(y)) + log det H(y) - log Z of each row of `y` [n, d], by Cholesky of H.
///
/// `log_z` in nats; with 0 the density is unnormalised. Rows run in parallel on rayon's pool, each
/// with one [d, d] Hessian. Errors: shapes, and whatever the potential refuses; a row that has no
/// density has a status instead.
pub fn exact_log_density(w: &dyn SecondOrder, log_z: f64, y: &[f64]) -> Result<ExactLogDensity> {
    evaluate(w, log_z, y, None)
}

/// As [`exact_log_density`], with ∇ log ρ(y_i) written to `score` [n, d].
///
/// ∇ log ρ = -H G(G(y)) + ∇_y log det H; zero in a row without a density.
pub fn exact_log_density_and_score(
    w: &dyn SecondOrder,
    log_z: f64,
    y: &[f64],
    score: &mut [f64],
) -> Result<ExactLogDensity> {
    check_len("score", score.len(), y.len())?;
    evaluate(w, log_z, y, Some(score))
}

/// One row on its way through a lane.
struct Row<'a> {
    y: &'a [f64],
    pushed_value: f64,
    pushed_twice: &'a [f64],
    value: &'a mut f64,
    status: &'a mut Status,
    score: Option<&'a mut [f64]>,
}

fn evaluate(
    w: &dyn SecondOrder,
    log_z: f64,
    y: &[f64],
    mut score: Option<&mut [f64]>,
) -> Result<ExactLogDensity> {
    let d = w.dim();
    let n = rows(y, d)?;
    let mut value = vec![f64::NEG_INFINITY; n];
    let mut status = vec![Status::NotFinite; n];
    let affordable = (WORKSPACE_BYTES / (2 * d * d * size_of::<f64>())).max(1);
    for from in (0..n).step_by(BLOCK) {
        let to = (from + BLOCK).min(n);
        let pushed = Pushed::new(w, &y[from * d..to * d])?;
        let mut scores: Vec<Option<&mut [f64]>> = match score.as_deref_mut() {
            Some(all) => all[from * d..to * d].chunks_exact_mut(d).map(Some).collect(),
            None => (from..to).map(|_| None).collect(),
        };
        let mut block: Vec<Row> = y[from * d..to * d]
            .chunks_exact(d)
            .zip(&pushed.value)
            .zip(pushed.twice.chunks_exact(d))
            .zip(value[from..to].iter_mut().zip(&mut status[from..to]))
            .zip(scores.drain(..))
            .map(|((((y, &pushed_value), pushed_twice), (value, status)), score)| Row {
                y,
                pushed_value,
                pushed_twice,
                value,
                status,
                score,
            })
            .collect();
        // A lane walks its rows one after another in one workspace: memory is bounded by the number
        // of lanes, also when the potential's own parallel products make a thread steal a lane.
        let lanes = rayon::current_num_threads().min(affordable).min(block.len());
        let par = if lanes > 1 { Par::Seq } else { Par::rayon(0) };
        let per_lane = block.len().div_ceil(lanes);
        block.par_chunks_mut(per_lane).try_for_each(|lane| {
            let mut workspace = Workspace::new(d, par, lane[0].score.is_some());
            lane.iter_mut().try_for_each(|row| workspace.evaluate(w, log_z, row))
        })?;
    }
    Ok(ExactLogDensity { value, status })
}

/// The buffers of one lane.
struct Workspace {
    hessian: Vec<f64>,
    inverse: Vec<f64>,
    scratch: MemBuffer,
    par: Par,
    d: usize,
}

impl Workspace {
    fn new(d: usize, par: Par, with_inverse: bool) -> Self {
        let mut need = factor::cholesky_in_place_scratch::<f64>(d, par, Default::default());
        if with_inverse {
            need = need.or(inverse::inverse_scratch::<f64>(d, par));
        }
        Workspace {
            hessian: vec![0.0; d * d],
            inverse: vec![0.0; if with_inverse { d * d } else { 0 }],
            scratch: MemBuffer::new(need),
            par,
            d,
        }
    }

    fn evaluate(&mut self, w: &dyn SecondOrder, log_z: f64, row: &mut Row) -> Result<()> {
        let d = self.d;
        if let Some(score) = row.score.as_deref_mut() {
            score.fill(0.0);
        }
        if !(finite(row.y) && row.pushed_value.is_finite() && finite(row.pushed_twice)) {
            return Ok(());
        }
        w.hessian(row.y, &mut self.hessian)?;
        if !finite(&self.hessian) {
            return Ok(());
        }
        if let Some(score) = row.score.as_deref_mut() {
            for (s, h) in score.iter_mut().zip(self.hessian.chunks_exact(d)) {
                *s = -dot(h, row.pushed_twice);
            }
        }
        let Some(log_det) = self.factor() else {
            *row.status = Status::NotPositiveDefinite;
            if let Some(score) = row.score.as_deref_mut() {
                score.fill(0.0);
            }
            return Ok(());
        };
        if let Some(score) = row.score.as_deref_mut() {
            self.invert();
            let mut slope = vec![0.0; d];
            w.hessian_contraction(row.y, &self.inverse, &mut slope)?;
            score.iter_mut().zip(&slope).for_each(|(s, g)| *s += g);
            if !finite(score) {
                score.fill(0.0);
                return Ok(());
            }
        }
        *row.status = Status::Evaluated;
        *row.value = log_det - row.pushed_value - log_z;
        Ok(())
    }

    /// Replaces H by its Cholesky factor and returns log det H, or nothing where H is not positive
    /// definite. H is symmetric, so the row-major slice is its own column-major view.
    fn factor(&mut self) -> Option<f64> {
        let d = self.d;
        let h = MatMut::from_column_major_slice_mut(&mut self.hessian, d, d);
        let stack = MemStack::new(&mut self.scratch);
        factor::cholesky_in_place(h, Default::default(), self.par, stack, Default::default()).ok()?;
        let log_det = 2.0 * (0..d).map(|i| self.hessian[i * d + i].ln()).sum::<f64>();
        log_det.is_finite().then_some(log_det)
    }

    /// H^{-1}, both triangles, from the factor.
    fn invert(&mut self) {
        let d = self.d;
        let l = faer::MatRef::from_column_major_slice(&self.hessian, d, d);
        let mut out = MatMut::from_column_major_slice_mut(&mut self.inverse, d, d);
        inverse::inverse(out.as_mut(), l, self.par, MemStack::new(&mut self.scratch));
        for j in 0..d {
            for i in j + 1..d {
                out[(j, i)] = out[(i, j)];
            }
        }
    }
}
