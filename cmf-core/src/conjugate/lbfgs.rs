//! Limited-memory BFGS directions.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::iteration::{Oracle, Row, Rule};
use crate::error::Result;
use crate::linalg::dot;

/// A step with its change of gradient.
#[derive(Default)]
struct Pair {
    s: Vec<f64>,
    dg: Vec<f64>,
    /// ⟨s, dg⟩ > 0.
    curvature: f64,
}

/// The newest pairs of each row, oldest first.
pub(super) struct Lbfgs {
    memory: usize,
    pairs: Vec<VecDeque<Pair>>,
}

impl Lbfgs {
    /// For `n` rows that keep `memory` pairs each.
    pub fn new(n: usize, memory: usize) -> Self {
        Lbfgs { memory, pairs: (0..n).map(|_| VecDeque::with_capacity(memory)).collect() }
    }
}

impl Rule for Lbfgs {
    /// Residuals rise and fall for long on ill-conditioned problems; lost monotonicity tells rounding apart.
    fn patience(&self) -> usize {
        usize::MAX
    }

    fn propose(&mut self, _: &mut Oracle<'_>, rows: &mut [&mut Row]) -> Result<()> {
        rows.par_iter_mut().for_each(|row| {
            row.descend();
            turn(&self.pairs[row.index], &mut row.direction);
            row.step = 1.0;
        });
        Ok(())
    }

    fn learn(&mut self, accepted: &[Option<&Row>]) {
        let memory = self.memory;
        self.pairs.par_iter_mut().zip(accepted).for_each(|(pairs, row)| {
            let Some(row) = row else { return };
            // The oldest pair's arrays serve again.
            let oldest = if pairs.len() == memory { pairs.pop_front() } else { None };
            let mut pair = oldest.unwrap_or_default();
            pair.s.clear();
            pair.s.extend(row.moved());
            pair.dg.clear();
            pair.dg.extend(row.turned());
            pair.curvature = dot(&pair.s, &pair.dg);
            // Pairs that are rounding would destroy the estimate's positive definiteness.
            if pair.curvature > f64::EPSILON * (dot(&pair.s, &pair.s) * dot(&pair.dg, &pair.dg)).sqrt() {
                pairs.push_back(pair);
            }
        });
    }
}

/// The two-loop recursion, which makes H q of q (Nocedal and Wright, 2006, algorithm 7.4), with
/// H_0 = ⟨s,dg⟩/⟨dg,dg⟩ I of the newest pair.
fn turn(pairs: &VecDeque<Pair>, q: &mut [f64]) {
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = dot(&pair.s, q) / pair.curvature;
        q.iter_mut().zip(&pair.dg).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some(newest) = pairs.back() {
        let scale = newest.curvature / dot(&newest.dg, &newest.dg);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let k = alpha - dot(&pair.dg, q) / pair.curvature;
        q.iter_mut().zip(&pair.s).for_each(|(q, s)| *q += k * s);
    }
}
