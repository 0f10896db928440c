//! How far samples are from data: distances between two samples and what they miss of each other.
//!
//! All of them also measure two independent samples of one law as more than nothing; that floor belongs beside
//! every figure. The Sinkhorn divergence stands in [`sinkhorn`](crate::sinkhorn).

mod mmd;
mod neighbours;
mod sliced;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::view;
use crate::potential::rows;

pub use mmd::{Mmd, suggested_bandwidth};
pub use neighbours::{PrecisionRecall, precision_recall};
pub use sliced::{directions, sliced_wasserstein};

/// Number of rows of a finite batch of at least `least` points.
fn check_sample(x: &[f64], d: usize, least: usize) -> Result<usize> {
    let n = rows(x, d)?;
    if n < least {
        return Err(Error::Invalid(format!("found a sample of {n} points, expected at least {least}")));
    }
    if x.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite("a point of a sample".into()));
    }
    Ok(n)
}

/// Rows whose distances to a whole sample are alive at once in a thread.
const BLOCK: usize = 64;

/// Squared distances between the rows of two samples, made and dropped in blocks: memory stays at some blocks
/// of [BLOCK, m] whatever the sizes.
struct Distances {
    /// The samples less the first one's mean, so that squares do not cancel: [n, d] and [m, d].
    x: Vec<f64>,
    y: Vec<f64>,
    y_squares: Vec<f64>,
    d: usize,
}

impl Distances {
    fn new(x: &[f64], y: &[f64], d: usize) -> Result<Self> {
        let n = x.len() / d;
        let mut mean = vec![0.0; d];
        for row in x.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n as f64);
        }
        let centred = |x: &[f64]| -> Vec<f64> {
            x.chunks_exact(d).flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect()
        };
        let (x, y) = (centred(x), centred(y));
        let y_squares: Vec<f64> = y.chunks_exact(d).map(square).collect();
        let finite = y_squares.iter().copied().chain(x.chunks_exact(d).map(square)).all(f64::is_finite);
        if !finite {
            return Err(Error::NotFinite("a squared distance between points".into()));
        }
        Ok(Distances { x, y, y_squares, d })
    }

    /// `f(i, |x_i - y_j|² for all j)` for each i, in order: [n].
    fn map_rows<T: Send>(&self, f: impl Fn(usize, &mut [f64]) -> T + Sync) -> Vec<T> {
        let (d, m) = (self.d, self.y_squares.len());
        let blocks = self.x.par_chunks(BLOCK * d).enumerate().map(|(b, x)| {
            let product = view(x, x.len() / d, d) * view(&self.y, m, d).transpose();
            let mut squares = vec![0.0; m];
            let row = |(i, x): (usize, &[f64])| {
                let x_square = square(x);
                for (j, s) in squares.iter_mut().enumerate() {
                    *s = (x_square + self.y_squares[j] - 2.0 * product[(i, j)]).max(0.0);
                }
                f(b * BLOCK + i, &mut squares)
            };
            x.chunks_exact(d).enumerate().map(row).collect::<Vec<T>>()
        });
        blocks.collect::<Vec<_>>().into_iter().flatten().collect()
    }
}

fn square(row: &[f64]) -> f64 {
    row.iter().map(|v| v * v).sum()
}
