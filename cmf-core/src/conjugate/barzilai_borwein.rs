//! Gradient steps with the adaptive Barzilai-Borwein length.

use super::iteration::{Oracle, Row, Rule};
use crate::error::Result;
use crate::linalg::dot;

/// Below this ratio of the short to the long length the short one is taken (Zhou, Gao and Dai, 2006).
const SHORT: f64 = 0.5;

/// The next step length of each slot's row.
pub(super) struct BarzilaiBorwein {
    lengths: Vec<f64>,
}

impl BarzilaiBorwein {
    /// For so many slots, whose rows have a first length of 1.
    pub fn new(slots: usize) -> Self {
        BarzilaiBorwein { lengths: vec![1.0; slots] }
    }
}

impl Rule for BarzilaiBorwein {
    /// Residuals rise and fall for long on ill-conditioned problems; lost monotonicity tells rounding apart.
    fn patience(&self) -> usize {
        usize::MAX
    }

    fn begin(&mut self, slot: usize) {
        self.lengths[slot] = 1.0;
    }

    fn propose(&mut self, _: &mut Oracle<'_>, rows: &mut [&mut Row]) -> Result<()> {
        for row in rows {
            row.descend();
            row.step = self.lengths[row.slot];
        }
        Ok(())
    }

    /// Lengths ⟨s,s⟩/⟨s,dg⟩ (long) and ⟨s,dg⟩/⟨dg,dg⟩ (short); without curvature, ten times the last.
    fn learn(&mut self, accepted: &[Option<&Row>]) {
        for (length, row) in self.lengths.iter_mut().zip(accepted) {
            let Some(row) = row else { continue };
            let (s, dg): (Vec<f64>, Vec<f64>) = row.moved().zip(row.turned()).unzip();
            let curvature = dot(&s, &dg);
            if curvature > 0.0 {
                let long = dot(&s, &s) / curvature;
                let short = curvature / dot(&dg, &dg);
                *length = if short < SHORT * long { short } else { long };
            } else {
                *length *= 10.0;
            }
        }
    }
}
