//! Potentials in closed form: the quadratic and the log-sum-exp.

use crate::error::{Error, Result, check_len};
use crate::linalg::{centred, dot, view};
use crate::potential::{
    Potential, SecondOrder, check_contraction, check_hessian, check_hvp, check_value_and_gradient,
};
use crate::symmetric::Symmetric;

/// w(x) = ½ (x-a)' Q (x-a) + c with Q symmetric positive definite.
#[derive(Debug, Clone)]
pub struct Quadratic {
    hessian: Vec<f64>,
    centre: Vec<f64>,
    constant: f64,
}

impl Quadratic {
    /// From Q [d, d] (row-major, symmetric) and the centre a [d].
    pub fn new(hessian: impl Into<Symmetric>, centre: Vec<f64>) -> Result<Self> {
        let hessian = hessian.into().dense().into_owned();
        check_len("hessian", hessian.len(), centre.len() * centre.len())?;
        if hessian.iter().chain(&centre).any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a coefficient of the quadratic".into()));
        }
        Ok(Quadratic { hessian, centre, constant: 0.0 })
    }

    /// ½ |x|² in dimension d.
    pub fn isotropic(d: usize) -> Self {
        let mut hessian = vec![0.0; d * d];
        hessian.iter_mut().step_by(d + 1).for_each(|v| *v = 1.0);
        Quadratic { hessian, centre: vec![0.0; d], constant: 0.0 }
    }

    /// The same function with the constant c added.
    pub fn with_constant(self, constant: f64) -> Self {
        Quadratic { constant, ..self }
    }

    fn times_hessian(&self, v: &[f64]) -> faer::Mat<f64> {
        let d = self.centre.len();
        view(v, v.len() / d, d) * view(&self.hessian, d, d)
    }
}

impl Potential for Quadratic {
    fn dim(&self) -> usize {
        self.centre.len()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_value_and_gradient(d, x, value, gradient)?;
        let centred = centred(x, &self.centre);
        let product = self.times_hessian(&centred);
        for (i, row) in gradient.chunks_exact_mut(d).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, g)| *g = product[(i, j)]);
            value[i] = 0.5 * dot(row, &centred[i * d..][..d]) + self.constant;
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_hvp(d, x, v, hv)?;
        let product = self.times_hessian(v);
        for (i, row) in hv.chunks_exact_mut(d).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, h)| *h = product[(i, j)]);
        }
        Ok(())
    }
}

impl SecondOrder for Quadratic {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_hessian(d, x, hessian)?;
        hessian.chunks_exact_mut(d * d).for_each(|h| h.copy_from_slice(&self.hessian));
        Ok(())
    }

    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        check_contraction(self.dim(), x, m, out)?;
        out.fill(0.0);
        Ok(())
    }
}

/// w(x) = log Σ_k exp(b_k + a_k·x) + ½ ε |x|²: smooth, convex, with closed-form derivatives.
#[derive(Debug, Clone)]
pub struct LogSumExp {
    slopes: Vec<f64>,
    offsets: Vec<f64>,
    epsilon: f64,
}

impl LogSumExp {
    /// From slopes a [k, d], offsets b [k] and the curvature ε ≥ 0 added to keep it strongly convex.
    pub fn new(slopes: Vec<f64>, offsets: Vec<f64>, epsilon: f64) -> Result<Self> {
        let finite = slopes.iter().chain(&offsets).chain([&epsilon]).all(|v| v.is_finite());
        if offsets.is_empty() || slopes.is_empty() || !slopes.len().is_multiple_of(offsets.len()) {
            return Err(Error::Shape {
                what: "slopes",
                expected: format!("a positive multiple of {}", offsets.len()),
                found: slopes.len().to_string(),
            });
        }
        if !finite || epsilon < 0.0 {
            return Err(Error::Invalid("log-sum-exp needs finite coefficients and epsilon >= 0".into()));
        }
        Ok(LogSumExp { slopes, offsets, epsilon })
    }

    /// The value without the quadratic, the softmax weights [k] and the mean slope Σ p_k a_k [d].
    fn softmax(&self, x: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let d = x.len();
        let scores: Vec<f64> =
            self.slopes.chunks_exact(d).zip(&self.offsets).map(|(a, b)| b + dot(a, x)).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut p: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|v| *v /= total);
        let mut mean = vec![0.0; d];
        for (a, pk) in self.slopes.chunks_exact(d).zip(&p) {
            mean.iter_mut().zip(a).for_each(|(m, v)| *m += pk * v);
        }
        (top + total.ln(), p, mean)
    }
}

impl Potential for LogSumExp {
    fn dim(&self) -> usize {
        self.slopes.len() / self.offsets.len()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_value_and_gradient(d, x, value, gradient)?;
        for ((row, v), g) in x.chunks_exact(d).zip(value).zip(gradient.chunks_exact_mut(d)) {
            let (log_sum, _, mean) = self.softmax(row);
            *v = log_sum + 0.5 * self.epsilon * dot(row, row);
            for ((g, m), r) in g.iter_mut().zip(mean).zip(row) {
                *g = m + self.epsilon * r;
            }
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_hvp(d, x, v, hv)?;
        for ((row, v), h) in x.chunks_exact(d).zip(v.chunks_exact(d)).zip(hv.chunks_exact_mut(d)) {
            let (_, p, mean) = self.softmax(row);
            let along = dot(&mean, v);
            h.iter_mut().zip(v).for_each(|(h, v)| *h = self.epsilon * v);
            for (a, pk) in self.slopes.chunks_exact(d).zip(&p) {
                let k = pk * (dot(a, v) - along);
                h.iter_mut().zip(a).for_each(|(h, a)| *h += k * a);
            }
        }
        Ok(())
    }
}

impl SecondOrder for LogSumExp {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_hessian(d, x, hessian)?;
        for (row, h) in x.chunks_exact(d).zip(hessian.chunks_exact_mut(d * d)) {
            let (_, p, mean) = self.softmax(row);
            for i in 0..d {
                for j in 0..d {
                    let second: f64 =
                        self.slopes.chunks_exact(d).zip(&p).map(|(a, pk)| pk * a[i] * a[j]).sum();
                    h[i * d + j] = second - mean[i] * mean[j] + if i == j { self.epsilon } else { 0.0 };
                }
            }
        }
        Ok(())
    }

    /// With c_k = a_k - ā: ∂/∂x Σ_k p_k c_k' M c_k = Σ_k p_k (c_k' M c_k) c_k.
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_contraction(d, x, m, out)?;
        for ((row, m), out) in x.chunks_exact(d).zip(m.chunks_exact(d * d)).zip(out.chunks_exact_mut(d)) {
            let (_, p, mean) = self.softmax(row);
            out.fill(0.0);
            for (a, pk) in self.slopes.chunks_exact(d).zip(&p) {
                let c: Vec<f64> = a.iter().zip(&mean).map(|(a, m)| a - m).collect();
                let form: f64 = m.chunks_exact(d).zip(&c).map(|(row, ci)| ci * dot(row, &c)).sum();
                out.iter_mut().zip(&c).for_each(|(o, c)| *o += pk * form * c);
            }
        }
        Ok(())
    }
}
