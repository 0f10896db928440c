//! Lattice models with periodic boundaries: φ⁴ theory and the continuous relaxation of the Ising model.

use cmf_core::linalg::{Cholesky, dot, matmul, view};
use cmf_core::potential::{check_hvp, check_value_and_gradient};
use cmf_plugin::{Energy, Entry, Error, Parameters, Result};

use super::{Rows, Rowwise, centred_box, positive};

pub(super) const PHI4: Entry<dyn Energy> = Entry {
    name: "phi4",
    about: "Scalar phi^4 theory on a square periodic lattice",
    parameters: r#"{"type":"object","properties":{
        "side":{"type":"integer","description":"Sites along a side; the dimension is its square","default":8,"minimum":3,"maximum":1000},
        "mass2":{"type":"number","description":"Mass squared; below 0 there are two phases","default":-1},
        "coupling":{"type":"number","description":"Quartic coupling","default":1,"minimum":0}}}"#,
    create: |p| {
        let (side, mass2, coupling) = (p.count("side")?, p.number("mass2")?, positive(p, "coupling")?);
        Ok(Box::new(Rows(Phi4 { side, mass2, coupling })))
    },
};

pub(super) const ISING: Entry<dyn Energy> = Entry {
    name: "ising",
    about: "The Ising model on a square periodic lattice, spins relaxed to real numbers (Zhang, E and Wang, 2018)",
    parameters: r#"{"type":"object","properties":{
        "side":{"type":"integer","description":"Spins along a side; the dimension is its square","default":8,"minimum":3,"maximum":48},
        "temperature":{"type":"number","description":"Temperature in units of the bond; the default is critical","default":2.269185314213022,"minimum":0}}}"#,
    create: |p| Ok(Box::new(Ising::new(p)?)),
};

/// The four neighbours of a site of the periodic lattice.
fn neighbours(site: usize, side: usize) -> [usize; 4] {
    let (row, column) = (site / side, site % side);
    let (down, right) = ((row + 1) % side, (column + 1) % side);
    let (up, left) = ((row + side - 1) % side, (column + side - 1) % side);
    [up * side + column, down * side + column, row * side + left, row * side + right]
}

/// E(φ) = Σ_x [½ Σ_μ (φ_{x+μ} - φ_x)² + ½ m² φ_x² + ¼ λ φ_x⁴].
struct Phi4 {
    side: usize,
    mass2: f64,
    coupling: f64,
}

impl Rowwise for Phi4 {
    fn dim(&self) -> usize {
        self.side * self.side
    }

    /// Three times the classical vacuum, or at least 2.
    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        let vacuum = (-self.mass2 / self.coupling).max(0.0).sqrt();
        centred_box(self.dim(), (3.0 * vacuum).max(2.0))
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let mut sum = 0.0;
        for (i, g) in gradient.iter_mut().enumerate() {
            let phi = x[i];
            // -(Laplacian of φ); ½ φ·(-Δφ) summed over sites is the gradient term by parts.
            let spread = 4.0 * phi - neighbours(i, self.side).iter().map(|&j| x[j]).sum::<f64>();
            sum += 0.5 * phi * spread + 0.5 * self.mass2 * phi * phi + 0.25 * self.coupling * phi.powi(4);
            *g = spread + self.mass2 * phi + self.coupling * phi.powi(3);
        }
        sum
    }

    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        for (i, h) in hv.iter_mut().enumerate() {
            let spread = 4.0 * v[i] - neighbours(i, self.side).iter().map(|&j| v[j]).sum::<f64>();
            *h = spread + (self.mass2 + 3.0 * self.coupling * x[i] * x[i]) * v[i];
        }
    }
}

/// E(x) = ½ x' (K + α I)^{-1} x - Σ log cosh x_i with K the bonds over T and α = 0.1 - λ_min(K).
///
/// Its marginal over spins s_i = ±1 with probability σ(±2 x_i) is the Ising model (Hubbard-Stratonovich).
struct Ising {
    d: usize,
    /// (K + α I)^{-1}: [d, d].
    inverse: Vec<f64>,
    reach: f64,
}

impl Ising {
    fn new(p: &Parameters) -> Result<Ising> {
        let (side, temperature) = (p.count("side")?, positive(p, "temperature")?);
        let (matrix, top) = coupling_matrix(side, temperature);
        let inverse = Cholesky::new(&matrix, side * side, "K + alpha I").map_err(Error::failed)?.inverse();
        // Given aligned spins, x has mean (K + α I) 1, of size `top`, and variance at most `top`.
        Ok(Ising { d: side * side, inverse, reach: top + 3.0 * top.sqrt() })
    }
}

/// K + α I, and its largest eigenvalue.
fn coupling_matrix(side: usize, temperature: f64) -> (Vec<f64>, f64) {
    let d = side * side;
    // K has the eigenvalues (2 cos p + 2 cos q)/T at the momenta p, q = 2πk/side: the least is at the
    // momentum nearest to π.
    let momentum = std::f64::consts::TAU * (side / 2) as f64 / side as f64;
    let alpha = 0.1 - 4.0 * momentum.cos() / temperature;
    let mut matrix = vec![0.0; d * d];
    for i in 0..d {
        matrix[i * d + i] = alpha;
        neighbours(i, side).iter().for_each(|&j| matrix[i * d + j] += 1.0 / temperature);
    }
    (matrix, alpha + 4.0 / temperature)
}

impl Energy for Ising {
    fn dim(&self) -> usize {
        self.d
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        centred_box(self.d, self.reach)
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let n = check_value_and_gradient(self.d, x, value, gradient).map_err(Error::invalid)?;
        gradient.copy_from_slice(&matmul(x, &self.inverse, n, self.d, self.d));
        for ((x, value), g) in x.chunks_exact(self.d).zip(value).zip(gradient.chunks_exact_mut(self.d)) {
            *value = 0.5 * dot(x, g) - x.iter().map(|&x| log_cosh(x)).sum::<f64>();
            g.iter_mut().zip(x).for_each(|(g, x)| *g -= x.tanh());
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let n = check_hvp(self.d, x, v, hv).map_err(Error::invalid)?;
        let product = view(v, n, self.d) * view(&self.inverse, self.d, self.d);
        for (k, ((h, x), v)) in hv.iter_mut().zip(x).zip(v).enumerate() {
            *h = product[(k / self.d, k % self.d)] - v * (1.0 - x.tanh().powi(2));
        }
        Ok(())
    }
}

/// log cosh x = |x| + log(1 + e^{-2|x|}) - log 2, without overflow.
fn log_cosh(x: f64) -> f64 {
    x.abs() + (-2.0 * x.abs()).exp().ln_1p() - std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use cmf_core::gaussian::LN_2PI;

    use super::super::tests::{energy, value};
    use super::*;

    /// e^{-E} is, up to Z, the mixture over all 2^9 spin states s of N((K + α I) s, K + α I) with the weights
    /// of an Ising model, and log Z is known from the enumeration: -E(x) = log p(x) + log Z at every x.
    #[test]
    fn ising_is_the_relaxation_of_the_enumerated_model() {
        let (side, temperature) = (3, 2.5);
        let d = side * side;
        let (matrix, _) = coupling_matrix(side, temperature);
        let factor = Cholesky::new(&matrix, d, "matrix").unwrap();
        let inverse = factor.inverse();
        let energy = energy("ising", r#"{"side":3,"temperature":2.5}"#);
        let states: Vec<Vec<f64>> = (0..1 << d)
            .map(|bits: u32| (0..d).map(|i| if bits >> i & 1 == 1 { 1.0 } else { -1.0 }).collect())
            .collect();
        let form = |s: &[f64], m: &[f64]| -> f64 {
            s.iter().zip(m.chunks_exact(d)).map(|(si, row)| si * dot(row, s)).sum()
        };
        // ½ s'Ks; the diagonal α adds the same to every state.
        let alpha = matrix[0];
        let log_ising =
            states.iter().map(|s| (0.5 * (form(s, &matrix) - alpha * d as f64)).exp()).sum::<f64>().ln();
        // log Z = log Z_Ising + ½ log det + d/2 [α + log(π/2)].
        let log_z =
            log_ising + 0.5 * factor.log_det() + 0.5 * d as f64 * (alpha + std::f64::consts::FRAC_PI_2.ln());
        for k in 0..4 {
            let x: Vec<f64> = (0..d).map(|i| ((i * 7 + k * 5) % 11) as f64 / 4.0 - 1.2).collect();
            let density: f64 = states
                .iter()
                .map(|s| {
                    let mean = matmul(s, &matrix, 1, d, d);
                    let u: Vec<f64> = x.iter().zip(&mean).map(|(x, m)| x - m).collect();
                    let log_weight = 0.5 * (form(s, &matrix) - alpha * d as f64) - log_ising;
                    (log_weight - 0.5 * form(&u, &inverse) - 0.5 * (d as f64 * LN_2PI + factor.log_det()))
                        .exp()
                })
                .sum();
            let error = density.ln() + log_z + value(energy.as_ref(), &x);
            assert!(error.abs() < 1e-10, "{error}");
        }
    }
}
