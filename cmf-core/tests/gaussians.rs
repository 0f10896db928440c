//! Gaussians learned from samples, from an energy, and as the baseline, against their closed forms.
#![cfg(feature = "train")]
#![allow(missing_docs)]

use cmf_core::closed_form::Quadratic;
use cmf_core::density::exact_log_density_from_gaussian;
use cmf_core::draws::{self, Draws};
use cmf_core::energy::Domain;
use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn};
use cmf_core::linalg::{Cholesky, SymmetricEigen, matmul};
use cmf_core::ops::Activation;
use cmf_core::train::{Method, TrainConfig, Trainer, Training};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Draws of a law that is measured, and of data that are learned from.
const DRAWS: usize = 8000;
const DATA: usize = 40_000;
/// Adam's updates of a run.
const UPDATES: usize = 800;

fn normal(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| StandardNormal.sample(rng)).collect()
}

/// N(m, S) with correlated coordinates, eigenvalues of S from 0.3 to about 3, and a mean or none.
fn law(d: usize, with_mean: bool) -> Gaussian {
    let mut rng = ChaCha8Rng::seed_from_u64(17 + d as u64);
    let mut a = normal(&mut rng, d * d);
    a.iter_mut().for_each(|v| *v /= (d as f64).sqrt());
    let transposed: Vec<f64> = (0..d * d).map(|k| a[k % d * d + k / d]).collect();
    let mut covariance = matmul(&a, &transposed, d, d, d);
    covariance.iter_mut().step_by(d + 1).for_each(|v| *v += 0.3);
    let mean = if with_mean { normal(&mut rng, d) } else { vec![0.0; d] };
    Gaussian { mean, covariance: covariance.into() }
}

/// What a run begins with: another mean and 1.7 times the covariance.
fn wrong(law: &Gaussian) -> Gaussian {
    Gaussian {
        mean: law.mean.iter().map(|m| m + 0.4).collect(),
        covariance: law.covariance.dense().iter().map(|s| 1.7 * s).collect::<Vec<_>>().into(),
    }
}

fn config(method: Method, d: usize) -> TrainConfig {
    let of_energy = matches!(method, Method::Energy { .. });
    TrainConfig {
        method,
        architecture: Architecture {
            dim: d,
            widths: vec![8],
            rank: 1,
            diagonal: false,
            activation: Activation::Softplus { beta: 1.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        },
        sigma: 0.0,
        updates: UPDATES,
        conjugate_updates: 0,
        conjugate_weight: 0.0,
        amortise: false,
        batch: if of_energy && d > 3 { 0 } else { 128 },
        particles: 128,
        langevin_steps: 3,
        langevin_step: 0.1,
        langevin_acceptance: 0.7,
        conjugate_steps: 6,
        conjugate_tolerance: 1e-2,
        solve_tolerance: 1e-3,
        solve_steps: 30,
        learning_rate: 3e-3,
        learning_rate_positive: 2e-2,
        learning_rate_head: 1e-2,
        final_rate: 0.01,
        warm_up: 20,
        betas: (0.9, 0.99),
        average: 0.99,
        components: 1,
        seed: 2,
    }
}

fn learn_from_energy(law: &Gaussian, least_squares: bool) -> Trainer {
    let d = law.dim();
    let precision = Cholesky::new(&law.covariance.dense(), d, "S").unwrap().inverse();
    let energy = Quadratic::new(precision, law.mean.clone()).unwrap().with_constant(7.0);
    let end =
        |sign: f64| (0..d).map(|i| law.mean[i] + sign * 4.0 * law.covariance.diagonal()[i].sqrt()).collect();
    let domain = Domain { low: end(-1.0), high: end(1.0) };
    let method = Method::Energy { domain, least_squares };
    let updates = if least_squares { 60 } else { UPDATES };
    let (average, particles) = if least_squares { (0.8, 512) } else { (0.99, 128) };
    let config = TrainConfig { updates, average, particles, ..config(method, d) };
    let mut trainer = Trainer::new(config, &wrong(law)).unwrap();
    for _ in 0..updates {
        trainer.step_on_energy(&energy).unwrap();
    }
    trainer
}

fn learn_from_samples(law: &Gaussian, method: Method) -> Trainer {
    let d = law.dim();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut data = normal(&mut rng, DATA * d);
    Cholesky::new(&law.covariance.dense(), d, "S").unwrap().colour_rows(&mut data).unwrap();
    data.iter_mut().enumerate().for_each(|(i, v)| *v += law.mean[i % d]);
    let mut trainer = Trainer::new(config(method, d), &wrong(law)).unwrap();
    for _ in 0..UPDATES {
        let read = |rows: &[usize], out: &mut [f64]| {
            let pairs = out.chunks_exact_mut(d).zip(rows);
            pairs.for_each(|(out, i)| out.copy_from_slice(&data[i * d..][..d]));
            Ok(())
        };
        trainer.step(DATA, &read).unwrap();
    }
    trainer
}

/// Draws x of the model's source and y = ∇w*(x).
fn draws(trainer: &Trainer) -> (Vec<f64>, Vec<f64>) {
    let network = trainer.network().unwrap();
    let (law, source) = (trainer.start().gaussian().unwrap(), trainer.start().source);
    let Draws { source, solution, .. } =
        draws::samples(&network, &law, source, DRAWS, 300, 5, &mut |_| true).unwrap();
    assert!(solution.all_converged());
    (source, solution.y)
}

/// Asserts that the rows of `x` are draws of N(mean, covariance) as far as their number, and the number of data
/// that were learned from, can tell; `slack` is what training is short of its optimum, relative.
fn assert_law(what: &str, x: &[f64], mean: &[f64], covariance: &[f64], data: usize, slack: f64) {
    let d = mean.len();
    let found = Gaussian::fit(x, d, 0.0).unwrap();
    let inverse_n = 1.0 / DRAWS as f64 + if data > 0 { 1.0 / data as f64 } else { 0.0 };
    let s = |i: usize, j: usize| covariance[i * d + j];
    for (i, m) in mean.iter().enumerate() {
        // Five standard errors leave 1e-4 for the 110 comparisons in 10 dimensions.
        let error = 5.0 * (s(i, i) * inverse_n).sqrt() + slack * s(i, i).sqrt();
        let off = (found.mean[i] - m).abs();
        assert!(off < error, "{what}: mean {i} of {d} is off by {off}, allowed {error}");
        for j in 0..d {
            let scale = s(i, i) * s(j, j);
            let error = 5.0 * ((scale + s(i, j).powi(2)) * inverse_n).sqrt() + slack * scale.sqrt();
            let off = (found.covariance.dense()[i * d + j] - s(i, j)).abs();
            assert!(off < error, "{what}: covariance {i},{j} of {d} is off by {off}, allowed {error}");
        }
    }
}

/// The Gibbs factor has the covariance S^{1/3} about (I + S^{1/3})^{-1} m and the data the covariance S about m
/// (Proposition 2).
fn assert_conjugate_moment_measure(what: &str, trainer: &Trainer, law: &Gaussian, data: usize, slack: f64) {
    let (x, y) = draws(trainer);
    let root = SymmetricEigen::new(&law.covariance.dense(), law.dim()).unwrap().apply(f64::cbrt);
    let centre = law.quadratic_start().unwrap().centre;
    assert_law(&format!("{what}, Gibbs factor"), &x, &centre, &root, data, slack);
    assert_law(&format!("{what}, samples"), &y, &law.mean, &law.covariance.dense(), data, slack);
}

#[test]
fn gaussians_are_learned_from_their_energies() {
    for (d, with_mean) in [(1, false), (1, true), (2, false), (2, true), (10, false), (10, true)] {
        for least_squares in [true, false] {
            let law = law(d, with_mean);
            let trainer = learn_from_energy(&law, least_squares);
            let what = format!("energy, d = {d}, mean {with_mean}, least squares {least_squares}");
            // The residual vanishes at the optimum, so the last updates have no noise to leave behind.
            assert_conjugate_moment_measure(&what, &trainer, &law, 0, 0.0);
        }
    }
}

#[test]
fn gaussians_are_learned_from_samples() {
    for (d, with_mean) in [(1, false), (1, true), (2, false), (2, true), (10, false), (10, true)] {
        let law = law(d, with_mean);
        let trainer = learn_from_samples(&law, Method::Samples);
        let what = format!("samples, d = {d}, mean {with_mean}");
        // The average over the last hundred batches of 128 sees about 13,000 rows; unadjusted Langevin steps
        // of 0.1 widen the particles by up to 5 percent, to which the likelihood's gradient yields in part.
        assert_conjugate_moment_measure(&what, &trainer, &law, 13_000, 0.02);
    }
}

#[test]
fn the_baseline_carries_the_standard_normal_to_a_gaussian() {
    for d in [1, 2, 10] {
        let law = law(d, true);
        let trainer = learn_from_samples(&law, Method::GaussianIcnn);
        let (_, y) = draws(&trainer);
        assert_law(&format!("baseline, d = {d}"), &y, &law.mean, &law.covariance.dense(), 13_000, 0.02);
        // Its density needs no constant, and is that of the law at the law's own draws, on average.
        let network: Icnn<f64> = trainer.network().unwrap().cast().unwrap();
        let found = exact_log_density_from_gaussian(&network, &y[..500 * d], None).unwrap().value;
        let true_ones = law.log_density(&y[..500 * d]).unwrap();
        let off = found.iter().zip(&true_ones).map(|(a, b)| a - b).sum::<f64>() / 500.0;
        // The mean difference is a divergence, d (d + 3) / 2 parameters over twice the rows seen.
        let expected = (d * (d + 3)) as f64 / 4.0 / 13_000.0;
        assert!(off.abs() < 10.0 * expected + 0.01, "d = {d}: {off}");
    }
}
