//! Limited-memory BFGS directions.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::iteration::{Oracle, Row, Rule};
use crate::error::Result;
use crate::linalg::dot;

/// A step with its change of gradient.
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
            row.direction = direction(&self.pairs[row.index], &row.at.gradient);
            row.step = 1.0;
        });
        Ok(())
    }

    fn learn(&mut self, index: usize, s: Vec<f64>, dg: Vec<f64>) {
        let curvature = dot(&s, &dg);
        // Pairs that are rounding would destroy the estimate's positive definiteness.
        if curvature <= f64::EPSILON * (dot(&s, &s) * dot(&dg, &dg)).sqrt() {
            return;
        }
        let pairs = &mut self.pairs[index];
        if pairs.len() == self.memory {
            pairs.pop_front();
        }
        pairs.push_back(Pair { s, dg, curvature });
    }
}

/// The two-loop recursion for -H g (Nocedal and Wright, 2006, algorithm 7.4), with
/// H_0 = ⟨s,dg⟩/⟨dg,dg⟩ I of the newest pair.
fn direction(pairs: &VecDeque<Pair>, gradient: &[f64]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = dot(&pair.s, &q) / pair.curvature;
        q.iter_mut().zip(&pair.dg).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some(newest) = pairs.back() {
        let scale = newest.curvature / dot(&newest.dg, &newest.dg);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let k = alpha - dot(&pair.dg, &q) / pair.curvature;
        q.iter_mut().zip(&pair.s).for_each(|(q, s)| *q += k * s);
    }
    q
}
