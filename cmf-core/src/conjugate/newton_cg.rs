//! Newton directions by conjugate gradients on Hessian products, batched over rows.

use super::iteration::{Oracle, Row, Rule};
use crate::error::Result;
use crate::linalg::dot;

/// The loosest relative residual of the Newton equations.
const LOOSEST: f64 = 0.3;
/// Eisenstat and Walker (1996), choice 2: the residual follows GAMMA times the squared reduction of the gradient.
const GAMMA: f64 = 0.9;

/// The last gradient norm of each slot's row, for the forcing sequence.
pub(super) struct NewtonCg {
    tolerance: f64,
    max_steps: usize,
    norms: Vec<Option<f64>>,
}

impl NewtonCg {
    /// For so many slots, whose rows are to reach `tolerance` within `max_steps` gradients and Hessian products.
    pub fn new(slots: usize, tolerance: f64, max_steps: usize) -> Self {
        NewtonCg { tolerance, max_steps, norms: vec![None; slots] }
    }

    /// The residual norm to which a row's Newton equations are solved.
    fn target(&mut self, row: &Row) -> f64 {
        let norm = dot(&row.at.gradient, &row.at.gradient).sqrt();
        let reduction = self.norms[row.slot].replace(norm).map_or(1.0, |last| norm / last);
        // Solving beyond half the tolerance is wasted (Kelley, 1995, equation 6.20).
        let enough = 0.5 * self.tolerance / row.at.residual;
        norm * (GAMMA * reduction * reduction).max(enough).min(LOOSEST)
    }
}

/// Conjugate gradients for the Newton equations ∇²w p = -g of one row.
struct Equations<'a, 'b> {
    row: &'a mut &'b mut Row,
    residual: Vec<f64>,
    search: Vec<f64>,
    /// |residual|².
    square: f64,
    target: f64,
}

impl<'a, 'b> Equations<'a, 'b> {
    fn new(row: &'a mut &'b mut Row, target: f64) -> Self {
        let residual: Vec<f64> = row.at.gradient.iter().map(|g| -g).collect();
        row.direction = vec![0.0; residual.len()];
        row.step = 1.0;
        Equations { search: residual.clone(), square: dot(&residual, &residual), residual, row, target }
    }

    /// Whether another product is both needed and within the budget, which keeps one gradient back.
    fn goes_on(&self, max_steps: usize) -> bool {
        !self.row.broken && self.square.sqrt() > self.target && self.row.spent + 1 < max_steps
    }

    /// One iteration with `product` = ∇²w · search; false ends the solve with what there is.
    fn advance(&mut self, product: &[f64]) -> bool {
        self.row.spent += 1;
        let curvature = dot(&self.search, product);
        if !curvature.is_finite() {
            self.row.broken = true;
            return false;
        }
        // A convex function has none of this but by rounding or on flat pieces; the direction so far, or
        // the negative gradient when there is none, still descends (Nocedal and Wright, 2006, algorithm 7.1).
        if curvature <= 0.0 {
            return false;
        }
        let alpha = self.square / curvature;
        self.row.direction.iter_mut().zip(&self.search).for_each(|(p, v)| *p += alpha * v);
        self.residual.iter_mut().zip(product).for_each(|(r, h)| *r -= alpha * h);
        let square = dot(&self.residual, &self.residual);
        let beta = square / self.square;
        self.square = square;
        self.search.iter_mut().zip(&self.residual).for_each(|(v, r)| *v = r + beta * *v);
        true
    }
}

impl Rule for NewtonCg {
    /// Newton's steps shrink the residual by a factor each once near. At the noise floor they jump about
    /// within it, by accurate curvature, so that monotonicity along a step shows nothing.
    fn patience(&self) -> usize {
        20
    }

    fn begin(&mut self, slot: usize) {
        self.norms[slot] = None;
    }

    fn propose(&mut self, oracle: &mut Oracle<'_>, rows: &mut [&mut Row]) -> Result<()> {
        let mut active: Vec<Equations<'_, '_>> = Vec::with_capacity(rows.len());
        for row in rows {
            let target = self.target(row);
            active.push(Equations::new(row, target));
        }
        loop {
            active.retain(|equations| equations.goes_on(self.max_steps));
            if active.is_empty() {
                return Ok(());
            }
            let y: Vec<f64> = active.iter().flat_map(|e| e.row.at.y.iter().copied()).collect();
            let v: Vec<f64> = active.iter().flat_map(|e| e.search.iter().copied()).collect();
            let product = oracle.hvp(&y, &v)?;
            let mut products = product.chunks_exact(v.len() / active.len());
            active.retain_mut(|equations| products.next().is_some_and(|h| equations.advance(h)));
        }
    }

    fn learn(&mut self, _: &[Option<&Row>]) {}
}
