//! Precision and recall by nearest neighbours: what of the samples is data-like, what of the data is reached.

use super::{Distances, check_sample};
use crate::error::{Error, Result};

/// Shares in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of generated points within the data's balls.
    pub precision: f64,
    /// Share of data points within the generated points' balls.
    pub recall: f64,
}

/// Improved precision and recall of `generated` [m, d] against `data` [n, d] (Kynkäänniemi, Karras, Laine,
/// Lehtinen and Aila, 2019, equations 1 and 2): around each point of a sample lies a ball that reaches its
/// `k`-th nearest neighbour in that sample, and the union of the balls stands for the sample's support.
///
/// Distances are Euclidean in the points as given; the paper takes them between features of a network, so its
/// figures compare with none of these.
///
/// # Errors
/// A shape that does not fit, not more than `k` points on a side, a value that is not finite, `k` = 0.
pub fn precision_recall(data: &[f64], generated: &[f64], d: usize, k: usize) -> Result<PrecisionRecall> {
    if k == 0 {
        return Err(Error::Invalid("the number of neighbours must be at least 1".into()));
    }
    check_sample(data, d, k + 1)?;
    check_sample(generated, d, k + 1)?;
    Ok(PrecisionRecall {
        precision: covered(data, generated, d, k)?,
        recall: covered(generated, data, d, k)?,
    })
}

/// The share of `points` that lie in a ball of `centres`.
fn covered(centres: &[f64], points: &[f64], d: usize, k: usize) -> Result<f64> {
    let radius = |i: usize, squares: &mut [f64]| {
        // A point is not its own neighbour, but a copy of it is.
        squares[i] = f64::INFINITY;
        *squares.select_nth_unstable_by(k - 1, f64::total_cmp).1
    };
    let radii = Distances::new(centres, centres, d)?.map_rows(radius);
    let inside = |_: usize, squares: &mut [f64]| squares.iter().zip(&radii).any(|(s, r)| s <= r);
    let hits = Distances::new(points, centres, d)?.map_rows(inside);
    Ok(hits.iter().filter(|&&hit| hit).count() as f64 / hits.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balls_on_the_line() {
        // With k = 1 the data's balls are [-1, 1], [0, 2], [1, 5] at 3 (radius 2), [-3, 9] would need k = 2.
        let data = [0.0, 1.0, 3.0];
        let generated = [-0.5, 4.9, 6.0, 20.0];
        let found = precision_recall(&data, &generated, 1, 1).unwrap();
        assert_eq!(found.precision, 0.5);
        // The generated points' radii are 5.4, 1.1, 1.1 and 14: balls [-5.9, 4.9], [3.8, 6], [4.9, 7.1], [6, 34].
        assert_eq!(found.recall, 1.0);
        let far = [100.0, 101.0];
        let none = precision_recall(&data, &far, 1, 1).unwrap();
        assert_eq!((none.precision, none.recall), (0.0, 0.0));
        let same = precision_recall(&data, &data, 1, 2).unwrap();
        assert_eq!((same.precision, same.recall), (1.0, 1.0));
    }

    #[test]
    fn copies_are_neighbours_at_distance_zero() {
        let found = precision_recall(&[1.0, 1.0, 5.0, 5.0], &[1.0, 1.1, 1.2], 1, 1).unwrap();
        // Balls of radius 0 around the data hold the exact copy alone.
        assert!((found.precision - 1.0 / 3.0).abs() < 1e-15 && found.recall == 0.5, "{found:?}");
    }

    #[test]
    fn misuse_is_an_error() {
        let x = [0.0, 1.0, 2.0];
        assert!(precision_recall(&x, &x, 1, 0).is_err());
        assert!(precision_recall(&x, &x, 1, 3).is_err());
        assert!(precision_recall(&x, &[0.0, f64::NAN, 1.0], 1, 1).is_err());
        assert!(precision_recall(&x, &x, 2, 1).is_err());
    }
}
