//! Learning from an energy: regression on the Monge-Ampère equation (CMFMA).
//!
//! With ρ ∝ e^{-E} the residual r(y) = E(y) + log ρ_w(y) = E(y) - w(∇w(y)) + log det ∇²w(y) must be constant.
//! An update descends Var_mu r, whose gradient in the parameters is E_mu 2 (r - E_mu r) ∂r: the likelihood's
//! directional passes with a weight a row, differentiated once (Vesseron, Béthune and Cuturi, 2025, section 5).
//! Small networks take least-squares steps instead (`least_squares.rs`).

use std::time::Instant;

use rand::RngExt;

use super::config::Method;
use super::inner;
use super::least_squares::{self, Problem};
use super::objective::{Regression, regression};
use super::ops::BurnOps;
use super::solve::hessian_solve;
use super::trainer::{Backend, Begun, Trainer};
use super::training::Metrics;
use crate::density::{Lanczos, estimated_log_density};
use crate::energy::Domain;
use crate::error::{Error, Result, check_len};
use crate::icnn::Icnn;
use crate::linalg::{Cholesky, dot};
use crate::potential::{Potential, SecondOrder};

/// Up to this dimension the log-determinant and its gradient come from the whole Hessian.
const MOST_FACTORED: usize = 64;
/// Uniform candidates for one uniform point of a batch.
const CANDIDATES: usize = 8;
/// Nats above the least energy from which on a point is relevant no more: errors of a tenth of a nat matter in
/// the bulk, and errors of ten where the density is e^{-100} of its mode do not.
const RELEVANT: f64 = 5.0;
/// Above `MOST_FACTORED`: the estimate of log det by which a row is weighed.
const LANCZOS: Lanczos = Lanczos { probes: 4, max_steps: 24, tolerance: 1e-2, seed: 0 };

impl Trainer {
    /// [`Training::step_on_energy`](super::Training::step_on_energy).
    pub(super) fn energy_update(&mut self, energy: &dyn Potential) -> Result<Metrics> {
        let Method::Energy { domain, least_squares } = self.config.method.clone() else {
            return Err(Error::Invalid("this run learns from samples, not from an energy".into()));
        };
        check_len("the dimension of the energy", energy.dim(), self.config.architecture.dim)?;
        let clock = Instant::now();
        let arch = self.config.architecture.clone();
        let Begun { parameters, weights, network } = self.begin()?;

        let (mut points, mut values) = self.uniform(energy, &domain)?;
        let (mut acceptance, mut residual, mut guess_residual) = (1.0, 0.0, None);
        if self.config.particles > 0 {
            acceptance = self.move_particles(&network)?;
            (residual, guess_residual) = self.solve_conjugates(&network)?;
            values.extend(evaluate(energy, &self.conjugates)?);
            points.extend_from_slice(&self.conjugates);
        }
        let (rate, deviation) = if least_squares {
            let counts = relevance(&values);
            let problem = Problem { arch: &arch, points: &points, energy: &values, relevance: &counts };
            let taken = least_squares::step(&problem, &parameters.shallow_numbers()?, self.damping)?;
            self.parameters = Some(parameters.with_shallow_numbers(&taken.free));
            self.damping = taken.damping;
            self.update += 1;
            (1.0, taken.deviation)
        } else {
            let log_dets = match arch.dim {
                0..=MOST_FACTORED => factored(&network, &points)?,
                _ => self.estimated(&network, &points)?,
            };
            let (parts, deviation) = regression_parts(&network, points, &values, log_dets)?;
            let device = Default::default();
            let ops = BurnOps::<Backend>::new(device);
            let loss = regression(&ops, &arch, &weights, &parts, &device);
            self.check(&loss)?;
            (self.descend(parameters, loss.backward()), deviation)
        };
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(Metrics {
            update: self.update,
            seconds: self.seconds,
            objective: "energy",
            lambda_max: self.lambda,
            residual,
            guess_residual,
            acceptance,
            rate,
            deviation: Some(deviation),
        })
    }

    /// The points of the domain with their energies: the relevant ones among uniform candidates.
    fn uniform(&mut self, energy: &dyn Potential, domain: &Domain) -> Result<(Vec<f64>, Vec<f64>)> {
        let (n, d) = (self.config.batch, domain.dim());
        if n == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let candidates = domain.draw(CANDIDATES * n, &mut self.rng);
        let values = evaluate(energy, &candidates)?;
        let weights = relevance(&values);
        // Systematic resampling: one uniform number places n equidistant marks on the running sum.
        let (mut points, mut chosen) = (Vec::with_capacity(n * d), Vec::with_capacity(n));
        let first: f64 = self.rng.random();
        let mut sum = 0.0;
        for ((row, value), weight) in candidates.chunks_exact(d).zip(&values).zip(&weights) {
            sum += weight;
            while chosen.len() < n && (chosen.len() as f64 + first) / (n as f64) < sum {
                points.extend_from_slice(row);
                chosen.push(*value);
            }
        }
        Ok((points, chosen))
    }

    /// Estimates of log det ∇²w, and one probe a row, drawn after the estimates and so independent of them.
    pub(super) fn estimated(&mut self, network: &Icnn<f32>, points: &[f64]) -> Result<LogDets> {
        let settings = Lanczos { seed: self.rng.random(), ..LANCZOS };
        // -w(∇w(y)) + log det ∇²w(y), of which the second is wanted.
        let density = estimated_log_density(network, 0.0, points, &self.metric, settings)?.value;
        let image = inner::gradient(network, points)?;
        let mut potential = vec![0.0; density.len()];
        network.value_and_gradient(&image, &mut potential, &mut vec![0.0; image.len()])?;
        let value = density.iter().zip(&potential).map(|(l, w)| l + w).collect();
        let probe = inner::signs(&mut self.rng, points.len());
        let (tolerance, most) = (self.config.solve_tolerance, self.config.solve_steps);
        let (solved, _) = hessian_solve(network, &self.metric, points, &probe, tolerance, most)?;
        Ok(LogDets { value, solved, probe })
    }
}

/// log det ∇²w at n points, with what its gradient needs.
pub(super) struct LogDets {
    /// [n].
    pub(super) value: Vec<f64>,
    /// u and v as in [`Regression`].
    pub(super) solved: Vec<f64>,
    pub(super) probe: Vec<f64>,
}

/// What the loss's gradient needs at `points`, and the standard deviation of the residual there.
pub(super) fn regression_parts(
    network: &Icnn<f32>,
    points: Vec<f64>,
    energy: &[f64],
    log_dets: LogDets,
) -> Result<(Regression, f64)> {
    let n = energy.len();
    let image = inner::gradient(network, &points)?;
    let (mut potential, mut along) = (vec![0.0; n], vec![0.0; points.len()]);
    network.value_and_gradient(&image, &mut potential, &mut along)?;
    let LogDets { value: log_det, solved, probe } = log_dets;
    let r: Vec<f64> = (0..n).map(|i| energy[i] - potential[i] + log_det[i]).collect();
    let relevance = relevance(energy);
    let mean = dot(&r, &relevance);
    let variance = r.iter().zip(&relevance).map(|(r, a)| a * (r - mean).powi(2)).sum::<f64>();
    if !variance.is_finite() {
        return Err(Error::NotFinite("the residual of the Monge-Ampère equation".into()));
    }
    // r has minus what the weights multiply.
    let weight = r.iter().zip(&relevance).map(|(r, a)| -2.0 * a * (r - mean)).collect();
    Ok((Regression { weight, points, image, along, solved, probe }, variance.sqrt()))
}

/// a = (1 + (E - min E)/5)^{-2}, in units of their sum.
fn relevance(energy: &[f64]) -> Vec<f64> {
    let least = energy.iter().copied().fold(f64::INFINITY, f64::min);
    let mut all: Vec<f64> = energy.iter().map(|e| (1.0 + (e - least) / RELEVANT).powi(-2)).collect();
    let total: f64 = all.iter().sum();
    all.iter_mut().for_each(|a| *a /= total);
    all
}

/// E at the rows of `points`; fails where it is not finite.
fn evaluate(energy: &dyn Potential, points: &[f64]) -> Result<Vec<f64>> {
    let d = energy.dim();
    let (mut value, mut gradient) = (vec![0.0; points.len() / d], vec![0.0; points.len()]);
    energy.value_and_gradient(points, &mut value, &mut gradient)?;
    match value.iter().position(|v| !v.is_finite()) {
        None => Ok(value),
        Some(i) => Err(Error::Invalid(format!(
            "the energy is {} at {:?}; learning needs finite energies in the domain and where the model's samples lie",
            value[i],
            &points[i * d..][..d]
        ))),
    }
}

/// log det ∇²w at the rows of `points`, and the d pairs (u, v) = (H^{-1} e_k, e_k) of each row.
pub(super) fn factored(network: &Icnn<f32>, points: &[f64]) -> Result<LogDets> {
    let d = network.dim();
    let mut hessians = vec![0.0; points.len() * d];
    network.hessian(points, &mut hessians)?;
    let n = points.len() / d;
    let (mut value, mut solved) = (Vec::with_capacity(n), vec![0.0; hessians.len()]);
    for (i, hessian) in hessians.chunks_exact(d * d).enumerate() {
        let factor = Cholesky::new(hessian, d, "a Hessian in training")?;
        value.push(factor.log_det());
        for (k, row) in factor.inverse().chunks_exact(d).enumerate() {
            solved[(k * n + i) * d..][..d].copy_from_slice(row);
        }
    }
    Ok(LogDets { value, solved, probe: inner::coordinates(n, d) })
}
