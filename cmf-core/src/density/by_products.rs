//! Second-order answers for a potential that has only gradients and Hessian-vector products.

use crate::error::Result;
use crate::head_factor::HeadFactor;
use crate::potential::{Potential, SecondOrder, check_contraction, check_hessian};

/// Makes any [`Potential`] a [`SecondOrder`]: a Hessian by d products, a contraction by 2d.
///
/// For foreign models of small d. The contraction is a central difference of products along the
/// coordinates, ⟨M, ∂H⟩ = Σ_i (H(x + t e_i) - H(x - t e_i)) M e_i / 2t, with t = ε^{1/3} max(1, |x|_∞) for
/// products of relative rounding ε: an absolute error of about ε^{2/3} (|H||M| + |∂³H||M|) √d, that is
/// 10 digits for f64 products and 5 for f32.
pub struct ByProducts<P> {
    potential: P,
    rounding: f64,
}

/// Rows of one call to the potential.
const BATCH: usize = 256;

impl<P: Potential> ByProducts<P> {
    /// Wraps `potential`, whose products carry the relative rounding error `rounding`
    /// (`f64::EPSILON`, `f32::EPSILON`).
    pub fn new(potential: P, rounding: f64) -> Self {
        ByProducts { potential, rounding }
    }
}

impl<P: Potential> Potential for ByProducts<P> {
    fn dim(&self) -> usize {
        self.potential.dim()
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.potential.value_and_gradient(x, value, gradient)
    }
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.potential.hvp(x, v, hv)
    }
    fn gibbs(&self) -> Option<&HeadFactor> {
        self.potential.gibbs()
    }
}

impl<P: Potential> SecondOrder for ByProducts<P> {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_hessian(d, x, hessian)?;
        for (x, h) in x.chunks_exact(d).zip(hessian.chunks_exact_mut(d * d)) {
            for (block, out) in h.chunks_mut(BATCH * d).enumerate() {
                let n = out.len() / d;
                let mut units = vec![0.0; n * d];
                for i in 0..n {
                    units[i * d + block * BATCH + i] = 1.0;
                }
                self.potential.hvp(&x.repeat(n), &units, out)?;
            }
            for i in 0..d {
                for j in 0..i {
                    let mean = 0.5 * (h[i * d + j] + h[j * d + i]);
                    h[i * d + j] = mean;
                    h[j * d + i] = mean;
                }
            }
        }
        Ok(())
    }

    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_contraction(d, x, m, out)?;
        for ((x, m), out) in x.chunks_exact(d).zip(m.chunks_exact(d * d)).zip(out.chunks_exact_mut(d)) {
            let t = self.rounding.cbrt() * x.iter().fold(1.0_f64, |top, v| top.max(v.abs()));
            out.fill(0.0);
            for (block, m) in m.chunks(BATCH * d).enumerate() {
                let n = m.len() / d;
                for side in [t, -t] {
                    let mut points = x.repeat(n);
                    for i in 0..n {
                        points[i * d + block * BATCH + i] += side;
                    }
                    let mut products = vec![0.0; n * d];
                    self.potential.hvp(&points, m, &mut products)?;
                    for row in products.chunks_exact(d) {
                        out.iter_mut().zip(row).for_each(|(o, p)| *o += p / (2.0 * side));
                    }
                }
            }
        }
        Ok(())
    }
}
