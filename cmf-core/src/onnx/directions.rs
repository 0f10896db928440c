//! Rows of a model file by their coordinates in the directions of the network's head.

use super::check::MOST_BYTES;
use super::graph::DIRECTIONS;
use crate::error::{Error, Result};
use crate::host::{Array, Host};
use crate::icnn::Architecture;
use crate::icnn::subspace::{coordinates_within, is_affordable};
use crate::ops::Ops;

/// The orthonormal directions V [k, d] of a spiked head, which the graph of a file of version 6 holds once. What lies in their
/// span is k numbers a row there, not d.
pub(super) struct Directions(Array<f64>);

impl Directions {
    /// Those of a file of this architecture, whose constant holds these numbers. What a file has in few numbers may be many.
    pub fn of_file(architecture: &Architecture, found: &[f32]) -> Result<Self> {
        check_forms(architecture)?;
        let (dim, head) = (architecture.dim, architecture.head);
        match head.rank().filter(|k| found.len() == k * dim) {
            Some(k) => Ok(Directions::new(found, k)),
            None => Err(Error::Invalid(format!(
                "a file of this cmf.format_version needs a spiked head and its directions [k, {dim}] as a constant of \
                 float32; found {head:?} and {} numbers of {DIRECTIONS:?}",
                found.len()
            ))),
        }
    }

    /// From V [k, d].
    pub fn new(numbers: &[f32], k: usize) -> Self {
        let wide = numbers.iter().map(|&v| f64::from(v)).collect();
        Directions(Array::matrix(wide, k, numbers.len() / k))
    }

    /// k.
    pub fn count(&self) -> usize {
        self.0.shape()[0]
    }

    /// The C with R = C V of rows R [m, d]: [m, k]; fails where one leaves the span.
    pub fn coordinates(&self, rows: &[f64]) -> Result<Vec<f64>> {
        let d = self.0.shape()[1];
        let rows = Array::from_f64(rows, rows.len() / d, d);
        match coordinates_within(&rows, &self.0, &Host::parallel()) {
            Some(inside) => Ok(inside.to_vec()),
            None => Err(Error::Invalid("a row leaves the span of the head's directions".into())),
        }
    }

    /// C V of coordinates C [m, k]: [m, d].
    pub fn rows(&self, coordinates: &[f64]) -> Vec<f64> {
        let k = self.count();
        let coordinates = Array::from_f64(coordinates, coordinates.len() / k, k);
        Host::parallel().matmul(&coordinates, &self.0).to_vec()
    }
}

/// Whether a file may hold the forms by their coordinates: what comes of a few numbers takes no more memory than a file can,
/// and no more time than it takes to look whether forms lie in the span.
fn check_forms(architecture: &Architecture) -> Result<()> {
    let (rows, d) = (architecture.x_side_rows(), architecture.dim);
    if (rows * d) as u64 * 4 > MOST_BYTES
        || architecture.head.rank().is_some() && !is_affordable(architecture)
    {
        return Err(Error::Invalid(format!(
            "the network has {rows} rows in {d} dimensions, more than a file may hold by their coordinates"
        )));
    }
    Ok(())
}
