//! Gaussians and their mixtures, normalised: E is -log of a density.

use cmf_core::gaussian::LN_2PI;
use cmf_core::linalg::dot;
use cmf_plugin::{Energy, Entry, Error, Parameters, Result};

use super::{Rows, Rowwise, positive};

pub(super) const GAUSSIAN: Entry<dyn Energy> = Entry {
    name: "gaussian",
    about: "A Gaussian; any two coordinates have the same correlation",
    parameters: r#"{"type":"object","properties":{
        "mean":{"type":"array","description":"Means of the coordinates","default":[0,0],"minItems":1},
        "std":{"type":"array","description":"Standard deviations of the coordinates","default":[1,1],"minItems":1},
        "correlation":{"type":"number","description":"Correlation of two coordinates","default":0,"minimum":-0.999,"maximum":0.999}}}"#,
    create: |p| Ok(Box::new(Rows(Gaussian::new(p)?))),
};

pub(super) const MIXTURE: Entry<dyn Energy> = Entry {
    name: "mixture",
    about: "A mixture of Gaussians of one isotropic width",
    parameters: r#"{"type":"object","properties":{
        "dim":{"type":"integer","description":"Dimension","default":2,"minimum":1,"maximum":10000},
        "means":{"type":"array","description":"Centres, one after the other","default":[-3,-3,-3,3,3,-3,3,3],"minItems":1},
        "weights":{"type":"array","description":"Weights of the centres, in any unit; equal if there are none","default":[],"minimum":0},
        "std":{"type":"number","description":"Standard deviation of each Gaussian","default":0.7,"minimum":0}}}"#,
    create: |p| Ok(Box::new(Rows(Mixture::new(p)?))),
};

/// E(x) = ½ z' R^{-1} z + ½ log det(2π S), z_i = (x_i - m_i)/s_i, R = (1-ρ) I + ρ 11'.
///
/// By Sherman and Morrison R^{-1} z = (z - k 1'z 1)/(1-ρ) with k = ρ/(1 + (d-1) ρ).
struct Gaussian {
    mean: Vec<f64>,
    std: Vec<f64>,
    rho: f64,
    constant: f64,
}

impl Gaussian {
    fn new(p: &Parameters) -> Result<Gaussian> {
        let (mean, std, rho) = (p.numbers("mean")?, p.numbers("std")?, p.number("correlation")?);
        let d = mean.len() as f64;
        if mean.len() != std.len() {
            let (m, s) = (mean.len(), std.len());
            return Err(Error::invalid(format!(
                "expected as many means as standard deviations, found {m} and {s}"
            )));
        }
        if std.iter().any(|&s| s <= 0.0) {
            return Err(Error::invalid("parameter std: expected numbers above 0"));
        }
        let common = 1.0 + (d - 1.0) * rho;
        if common <= 0.0 {
            let least = -1.0 / (d - 1.0);
            return Err(Error::invalid(format!(
                "parameter correlation: in {d} dimensions it must be above {least}, found {rho}"
            )));
        }
        // det R = (1-ρ)^{d-1} (1 + (d-1) ρ).
        let log_det =
            (d - 1.0) * (1.0 - rho).ln() + common.ln() + 2.0 * std.iter().map(|s| s.ln()).sum::<f64>();
        Ok(Gaussian { mean, std, rho, constant: 0.5 * (d * LN_2PI + log_det) })
    }

    /// S^{-1} u, given u.
    fn precision(&self, u: impl Iterator<Item = f64>, out: &mut [f64]) {
        let d = self.mean.len() as f64;
        out.iter_mut().zip(u).zip(&self.std).for_each(|((o, u), s)| *o = u / s);
        let shared = self.rho / (1.0 + (d - 1.0) * self.rho) * out.iter().sum::<f64>();
        out.iter_mut().zip(&self.std).for_each(|(o, s)| *o = (*o - shared) / ((1.0 - self.rho) * s));
    }
}

impl Rowwise for Gaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        let end = |sign: f64| self.mean.iter().zip(&self.std).map(|(m, s)| m + sign * 4.0 * s).collect();
        (end(-1.0), end(1.0))
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let centred = || x.iter().zip(&self.mean).map(|(x, m)| x - m);
        self.precision(centred(), gradient);
        0.5 * centred().zip(&*gradient).map(|(u, g)| u * g).sum::<f64>() + self.constant
    }

    fn row_hvp(&self, _x: &[f64], v: &[f64], hv: &mut [f64]) {
        self.precision(v.iter().copied(), hv);
    }
}

/// E(x) = -log Σ_k π_k N(x; m_k, s² I).
struct Mixture {
    /// [k, d].
    means: Vec<f64>,
    /// log π_k - d/2 log 2π s²: [k].
    logs: Vec<f64>,
    d: usize,
    variance: f64,
}

impl Mixture {
    fn new(p: &Parameters) -> Result<Mixture> {
        let (d, means, weights, std) =
            (p.count("dim")?, p.numbers("means")?, p.numbers("weights")?, positive(p, "std")?);
        if !means.len().is_multiple_of(d) {
            let found = means.len();
            return Err(Error::invalid(format!(
                "parameter means: expected a multiple of {d} numbers, found {found}"
            )));
        }
        let k = means.len() / d;
        let weights = if weights.is_empty() { vec![1.0; k] } else { weights };
        let total: f64 = weights.iter().sum();
        if weights.len() != k || weights.iter().any(|&w| w <= 0.0) {
            return Err(Error::invalid(format!("parameter weights: expected {k} numbers above 0, or none")));
        }
        let constant = 0.5 * d as f64 * (LN_2PI + 2.0 * std.ln());
        let logs = weights.iter().map(|w| (w / total).ln() - constant).collect();
        Ok(Mixture { means, logs, d, variance: std * std })
    }

    /// E(x), and the posterior weights [k] of the centres.
    fn responsibilities(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let log = |(mean, log): (&[f64], &f64)| {
            log - 0.5 * x.iter().zip(mean).map(|(x, m)| (x - m).powi(2)).sum::<f64>() / self.variance
        };
        let mut r: Vec<f64> = self.means.chunks_exact(self.d).zip(&self.logs).map(log).collect();
        let top = r.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        r.iter_mut().for_each(|r| *r = (*r - top).exp());
        let total: f64 = r.iter().sum();
        r.iter_mut().for_each(|r| *r /= total);
        (-top - total.ln(), r)
    }
}

impl Rowwise for Mixture {
    fn dim(&self) -> usize {
        self.d
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        let margin = 4.0 * self.variance.sqrt();
        let end = |start: f64, sign: f64, pick: fn(f64, f64) -> f64| {
            let of = |i: usize| {
                self.means.iter().skip(i).step_by(self.d).copied().fold(start, pick) + sign * margin
            };
            (0..self.d).map(of).collect()
        };
        (end(f64::INFINITY, -1.0, f64::min), end(f64::NEG_INFINITY, 1.0, f64::max))
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let (value, r) = self.responsibilities(x);
        gradient.fill(0.0);
        for (mean, r) in self.means.chunks_exact(self.d).zip(r) {
            for ((g, x), m) in gradient.iter_mut().zip(x).zip(mean) {
                *g += r * (x - m) / self.variance;
            }
        }
        value
    }

    /// v/s² - Σ r_k u_k (u_k·v) + ū (ū·v) with u_k = (x - m_k)/s² and ū = Σ r_k u_k.
    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        let (_, r) = self.responsibilities(x);
        let mut mean = vec![0.0; self.d];
        hv.iter_mut().zip(v).for_each(|(h, v)| *h = v / self.variance);
        for (centre, r) in self.means.chunks_exact(self.d).zip(r) {
            let u: Vec<f64> = x.iter().zip(centre).map(|(x, m)| (x - m) / self.variance).collect();
            let along = dot(&u, v);
            for ((h, m), u) in hv.iter_mut().zip(&mut mean).zip(&u) {
                *h -= r * u * along;
                *m += r * u;
            }
        }
        let along = dot(&mean, v);
        hv.iter_mut().zip(&mean).for_each(|(h, m)| *h += m * along);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{energy, value};

    #[test]
    fn densities_integrate_to_one() {
        for (name, parameters) in [
            ("gaussian", r#"{"mean":[1,-1],"std":[0.5,2],"correlation":0.8}"#),
            ("mixture", r#"{"weights":[1,2,3,4]}"#),
        ] {
            let energy = energy(name, parameters);
            // The midpoint rule over twice the domain (8 standard deviations) is exact to rounding for
            // functions that are smooth on this grid.
            let (low, high) = energy.domain();
            let n = 400;
            let at = |i: usize, k: usize| {
                let middle = 0.5 * (low[i] + high[i]);
                middle + 2.0 * (high[i] - low[i]) * ((k as f64 + 0.5) / n as f64 - 0.5)
            };
            let cell: f64 = (0..2).map(|i| 2.0 * (high[i] - low[i]) / n as f64).product();
            let sum: f64 =
                (0..n * n).map(|k| (-value(energy.as_ref(), &[at(0, k / n), at(1, k % n)])).exp()).sum();
            assert!((sum * cell - 1.0).abs() < 1e-9, "{name}: {}", sum * cell);
        }
    }
}
