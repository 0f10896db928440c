//! An energy as the samplers see it.

use cmf_core::potential::check_hvp;
use cmf_core::{Potential, Result};
use cmf_plugin::{Energy, Status};

use crate::error::core_error;

/// E in the place of w, to be sampled from e^{-E}.
///
/// The samplers of `cmf_core` ask for values and gradients only and do not need convexity; what does need it
/// (conjugates, log-densities) must not be given this. Hessian products are differences of gradients where
/// the energy has none.
pub struct EnergyPotential {
    energy: Box<dyn Energy>,
    has_hvp: bool,
}

/// Half-width of the central differences, relative to the largest coordinate and 1: the cube root of the
/// rounding of f64, which balances rounding against the third derivative.
const STEP: f64 = 6e-6;

impl EnergyPotential {
    /// Of an energy, which is asked once whether it has Hessian products.
    pub fn new(energy: Box<dyn Energy>) -> Result<Self> {
        let has_hvp = match energy.hvp(&[], &[], &mut []) {
            Ok(()) => true,
            Err(e) if e.status == Status::Unsupported => false,
            Err(e) => return Err(core_error(e)),
        };
        Ok(EnergyPotential { energy, has_hvp })
    }

    /// Whether Hessian products are the energy's own.
    pub fn has_hvp(&self) -> bool {
        self.has_hvp
    }
}

impl Potential for EnergyPotential {
    fn dim(&self) -> usize {
        self.energy.dim()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.energy.value_and_gradient(x, value, gradient).map_err(core_error)
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        if self.has_hvp {
            return self.energy.hvp(x, v, hv).map_err(core_error);
        }
        let d = self.dim();
        let n = check_hvp(d, x, v, hv)?;
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
        let largest = |row: &[f64]| row.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        // Steps of one length in x whatever the length of v.
        let steps: Vec<f64> = (x.chunks_exact(d).zip(v.chunks_exact(d)))
            .map(|(x, v)| STEP * largest(x).max(1.0) / largest(v).max(f64::MIN_POSITIVE))
            .collect();
        hv.fill(0.0);
        for sign in [1.0, -1.0] {
            let moved: Vec<f64> = (0..n * d).map(|i| x[i] + sign * steps[i / d] * v[i]).collect();
            self.value_and_gradient(&moved, &mut value, &mut gradient)?;
            for (i, (h, g)) in hv.iter_mut().zip(&gradient).enumerate() {
                *h += sign * g / (2.0 * steps[i / d]);
            }
        }
        Ok(())
    }
}
