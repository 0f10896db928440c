//! The box in which an energy is looked at.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_len};

/// The box Π [low_i, high_i].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Lower ends: [d].
    pub low: Vec<f64>,
    /// Upper ends: [d].
    pub high: Vec<f64>,
}

impl Domain {
    /// Fails unless this is a box in dimension `d` with an interior.
    pub fn validate(&self, d: usize) -> Result<()> {
        check_len("the lower ends of the domain", self.low.len(), d)?;
        check_len("the upper ends of the domain", self.high.len(), d)?;
        let sides = || self.low.iter().zip(&self.high);
        match sides().position(|(l, h)| !(l.is_finite() && h.is_finite() && l < h)) {
            None => Ok(()),
            Some(i) => Err(Error::Invalid(format!(
                "the domain of coordinate {i} is [{}, {}]; expected two finite numbers, the lower first",
                self.low[i], self.high[i]
            ))),
        }
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.low.len()
    }

    /// `n` uniform draws: [n, d].
    pub fn draw(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let d = self.dim();
        (0..n * d).map(|i| self.at(i % d, rng.random())).collect()
    }

    /// The point of coordinate `i` at the share `t` of the way from the lower to the upper end.
    pub fn at(&self, i: usize, t: f64) -> f64 {
        self.low[i] + t * (self.high[i] - self.low[i])
    }

    /// The box of `factor` times the size about the same centre.
    pub fn scaled(&self, factor: f64) -> Domain {
        let end = |sign: f64| {
            let sides = self.low.iter().zip(&self.high);
            sides.map(|(l, h)| 0.5 * (l + h) + sign * factor * 0.5 * (h - l)).collect()
        };
        Domain { low: end(-1.0), high: end(1.0) }
    }

    /// How far `x` [d] lies from the centre in units of the half sides, in the worst coordinate; 1 at the faces.
    pub fn distance(&self, x: &[f64]) -> f64 {
        let sides = self.low.iter().zip(&self.high);
        let each = sides.zip(x).map(|((l, h), x)| (x - 0.5 * (l + h)).abs() / (0.5 * (h - l)));
        each.fold(0.0, f64::max)
    }

    /// The centres of the cells of a regular grid with `n` cells a side: [n^d, d].
    pub fn grid(&self, n: usize) -> Vec<f64> {
        let d = self.dim();
        let cells = n.pow(d as u32);
        let mut points = Vec::with_capacity(cells * d);
        for cell in 0..cells {
            points.extend((0..d).map(|i| {
                let k = cell / n.pow((d - 1 - i) as u32) % n;
                self.at(i, (k as f64 + 0.5) / n as f64)
            }));
        }
        points
    }

    /// ∏ (high_i - low_i), as a logarithm.
    pub fn log_volume(&self) -> f64 {
        self.low.iter().zip(&self.high).map(|(l, h)| (h - l).ln()).sum()
    }
}
