//! Rows of a model file by their coordinates in the directions of the network's head.

use crate::icnn::subspace::OUTSIDE;
use crate::linalg::{dot, matmul, to_rows, view};

/// The orthonormal directions V [k, d] of a spiked head, which the graph of a file of version 6 holds once. All that lies in
/// their span is k numbers a row there, not d.
pub(super) struct Directions {
    numbers: Vec<f64>,
    k: usize,
}

impl Directions {
    /// From V [k, d].
    pub fn new(numbers: Vec<f64>, k: usize) -> Self {
        Directions { numbers, k }
    }

    /// k.
    pub fn count(&self) -> usize {
        self.k
    }

    fn dim(&self) -> usize {
        self.numbers.len() / self.k
    }

    /// C = R V' of rows R [m, d]: [m, k].
    pub fn coordinates(&self, rows: &[f64]) -> Vec<f64> {
        let (k, d) = (self.k, self.dim());
        to_rows((view(rows, rows.len() / d, d) * view(&self.numbers, k, d).transpose()).as_ref())
    }

    /// C V of coordinates C [m, k]: [m, d].
    pub fn rows(&self, coordinates: &[f64]) -> Vec<f64> {
        let k = self.k;
        matmul(coordinates, &self.numbers, coordinates.len() / k, k, self.dim())
    }

    /// Whether the rows [m, d] lie in the span.
    pub fn span(&self, rows: &[f64]) -> bool {
        let d = self.dim();
        let inside = self.rows(&self.coordinates(rows));
        rows.chunks_exact(d).zip(inside.chunks_exact(d)).all(|(row, inside)| {
            let off: Vec<f64> = row.iter().zip(inside).map(|(a, b)| a - b).collect();
            dot(&off, &off) <= OUTSIDE * OUTSIDE * dot(row, row)
        })
    }
}
