//! The samplers against closed-form moments.

use std::sync::Arc;

use cmf_core::closed_form::{LogSumExp, Quadratic};
use cmf_core::preconditioner::Preconditioner;
use cmf_core::sampler::{Hmc, Mala, Run, Sampler, Samples, State, Ula, lambda_max, sample};
use cmf_core::{Error, Potential};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// ½ Σ λ_j (x_j - a_j)².
fn diagonal(curvatures: &[f64], centre: &[f64]) -> Quadratic {
    let d = curvatures.len();
    let mut hessian = vec![0.0; d * d];
    curvatures.iter().enumerate().for_each(|(j, c)| hessian[j * d + j] = *c);
    Quadratic::new(hessian, centre.to_vec()).unwrap()
}

/// Means and mean squares about `about`, by coordinate, over chains and draws after the warm-up.
struct Moments {
    mean: Vec<f64>,
    square: Vec<f64>,
}

fn moments(
    w: &dyn Potential,
    sampler: impl Sampler,
    chains: usize,
    run: Run,
    about: &[f64],
) -> (Moments, Samples) {
    let d = w.dim();
    let mut m = Moments { mean: vec![0.0; d], square: vec![0.0; d] };
    let weight = 1.0 / (chains * run.steps) as f64;
    let samples = sample(w, sampler, vec![0.0; chains * d], run, &mut |step, state: &State| {
        if step > run.warmup {
            for row in state.x.chunks_exact(d) {
                for (j, (x, about)) in row.iter().zip(about).enumerate() {
                    m.mean[j] += weight * (x - about);
                    m.square[j] += weight * (x - about).powi(2);
                }
            }
        }
        true
    });
    (m, samples.unwrap())
}

const CURVATURES: [f64; 3] = [0.5, 1.0, 4.0];
const CENTRE: [f64; 3] = [1.0, -2.0, 0.5];

#[test]
fn ula_has_the_stated_bias() {
    let w = diagonal(&CURVATURES, &CENTRE);
    let run = Run { warmup: 500, steps: 5000, seed: 1 };
    let step = 0.5 / 4.0;
    let (m, samples) = moments(&w, Ula { step, preconditioner: None }, 64, run, &CENTRE);
    assert_eq!((samples.acceptance, samples.step_size), (1.0, step));
    for (j, c) in CURVATURES.into_iter().enumerate() {
        // An autoregression with φ = 1 - γλ ≥ 0: 320,000 draws are worth (1-φ²)/(1+φ²) times as many for
        // the variance. Four standard errors.
        let phi = 1.0 - step * c;
        let independent = 320_000.0 * (1.0 - phi * phi) / (1.0 + phi * phi);
        let variance = 1.0 / (c * (1.0 - step * c / 2.0));
        let error = variance * (2.0f64 / independent).sqrt();
        assert!((m.square[j] - variance).abs() < 4.0 * error, "{}: {} for {variance}", j, m.square[j]);
        assert!(m.mean[j].abs() < 4.0 * (variance / (320_000.0 * (1.0 - phi) / (1.0 + phi))).sqrt());
    }
    // The bias is what the test sees: the stiff direction is a third too wide.
    assert!(m.square[2] > 1.25 / 4.0);
}

#[test]
fn adjusted_samplers_are_unbiased() {
    let w = diagonal(&CURVATURES, &CENTRE);
    let run = Run { warmup: 500, steps: 5000, seed: 2 };
    let mala = Mala { step: 0.1, preconditioner: None };
    let hmc = Hmc { step: 0.3, leapfrog: 4, preconditioner: None };
    let (a, b) = (moments(&w, mala, 64, run, &CENTRE), moments(&w, hmc, 64, run, &CENTRE));
    for ((m, samples), target) in [(a, 0.574), (b, 0.7)] {
        // Dual averaging meets its target within a few hundredths after 500 steps of 64 chains.
        assert!((samples.acceptance - target).abs() < 0.05, "{}", samples.acceptance);
        // Squares mix faster than coordinates; a tenth of the slowest's worth is cautious.
        let independent = 0.1 * samples.effective_sample_size.unwrap();
        assert!(independent > 1000.0, "{independent}");
        assert!(samples.r_hat.unwrap() < 1.01);
        for (j, c) in CURVATURES.into_iter().enumerate() {
            let variance = 1.0 / c;
            let error = variance * (2.0 / independent).sqrt();
            assert!((m.square[j] - variance).abs() < error, "{j}: {} for {variance}", m.square[j]);
            assert!(m.mean[j].abs() < (variance / independent).sqrt(), "{j}: {}", m.mean[j]);
        }
    }
}

#[test]
fn preconditioned_samplers_are_unbiased_and_mix_at_once() {
    // Condition number 1e4, correlated: unpreconditioned chains of these lengths would not arrive.
    let q = [5000.05, 4999.95, 4999.95, 5000.05];
    let det = q[0] * q[3] - q[1] * q[2];
    let covariance = [q[3] / det, -q[1] / det, -q[2] / det, q[0] / det];
    let w = Quadratic::new(q.to_vec(), vec![0.0; 2]).unwrap();
    let preconditioner = Some(Arc::new(Preconditioner::new(&covariance.to_vec().into()).unwrap()));
    let run = Run { warmup: 200, steps: 2000, seed: 3 };
    let ula = Ula { step: 0.2, preconditioner: preconditioner.clone() };
    let mala = Mala { step: 0.5, preconditioner: preconditioner.clone() };
    let hmc = Hmc { step: 0.5, leapfrog: 3, preconditioner };
    for ((m, samples), bias) in [
        (moments(&w, ula, 64, run, &[0.0; 2]), 1.0 / 0.9),
        (moments(&w, mala, 64, run, &[0.0; 2]), 1.0),
        (moments(&w, hmc, 64, run, &[0.0; 2]), 1.0),
    ] {
        let independent = samples.effective_sample_size.unwrap();
        assert!(independent > 10_000.0, "{independent}");
        for j in 0..2 {
            // Four standard errors of a variance.
            let variance = bias * covariance[3 * j];
            let error = 4.0 * variance * (2.0 / independent).sqrt();
            assert!((m.square[j] - variance).abs() < error, "{j}: {} for {variance}", m.square[j]);
        }
    }
}

#[test]
fn mala_finds_the_moments_of_a_skewed_law() {
    // w(x) = log(e^{3x} + e^{-x}) + ¼x²: moments by the trapezoid rule, exact to rounding on this grid.
    let w = LogSumExp::new(vec![3.0, -1.0], vec![0.0; 2], 0.5).unwrap();
    let grid: Vec<f64> = (-40_000..40_000).map(|k| k as f64 * 5e-4).collect();
    let (mut value, mut gradient) = (vec![0.0; grid.len()], vec![0.0; grid.len()]);
    w.value_and_gradient(&grid, &mut value, &mut gradient).unwrap();
    let total: f64 = value.iter().map(|v| (-v).exp()).sum();
    let moment = |f: &dyn Fn(f64) -> f64| {
        grid.iter().zip(&value).map(|(x, v)| f(*x) * (-v).exp() / total).sum::<f64>()
    };
    let mean = moment(&|x| x);
    let variance = moment(&|x| (x - mean).powi(2));
    let run = Run { warmup: 500, steps: 5000, seed: 4 };
    let (m, samples) = moments(&w, Mala { step: 0.3, preconditioner: None }, 64, run, &[mean]);
    let independent = samples.effective_sample_size.unwrap();
    assert!(independent > 20_000.0, "{independent}");
    assert!(m.mean[0].abs() < 4.0 * (variance / independent).sqrt(), "{}", m.mean[0]);
    // The law is skewed: its kurtosis is below 9, so its variance's error below √8 times the variance's.
    assert!((m.square[0] - variance).abs() < 4.0 * variance * (8.0 / independent).sqrt());
}

#[test]
fn a_seed_gives_the_same_bits_and_another_gives_others() {
    let w = diagonal(&CURVATURES, &CENTRE);
    let x = |seed| {
        let run = Run { warmup: 20, steps: 30, seed };
        moments(&w, Mala { step: 0.1, preconditioner: None }, 4, run, &CENTRE).1.state.x
    };
    assert_eq!(x(5), x(5));
    assert_ne!(x(5), x(6));
}

#[test]
fn power_iteration_finds_the_largest_curvature() {
    let w = diagonal(&[0.5, 1.0, 2.0, 8.0], &[0.0; 4]);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // The error after 20 iterations is (2/8)^40 of the square of the start's ratio.
    let found = lambda_max(&w, &[0.0; 8], None, 20, &mut rng).unwrap();
    assert!((found - 8.0).abs() < 1e-9, "{found}");
    let mut inverse = vec![0.0; 16];
    [2.0, 1.0, 0.5, 0.5].iter().enumerate().for_each(|(j, v)| inverse[5 * j] = *v);
    let preconditioner = Preconditioner::new(&inverse.into()).unwrap();
    let found = lambda_max(&w, &[0.0; 8], Some(&preconditioner), 20, &mut rng).unwrap();
    assert!((found - 4.0).abs() < 1e-9, "{found}");
}

#[test]
fn power_iteration_takes_the_stiffest_row() {
    // At 0 the curvature of log(e^x + e^{-x}) is 1; far out it vanishes and 0.1 is left.
    let w = LogSumExp::new(vec![1.0, -1.0], vec![0.0; 2], 0.1).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let found = lambda_max(&w, &[20.0, 0.0, -20.0], None, 3, &mut rng).unwrap();
    assert!((found - 1.1).abs() < 1e-12, "{found}");
    assert!(lambda_max(&w, &[], None, 3, &mut rng).is_err());
    assert!(lambda_max(&w, &[f64::NAN], None, 3, &mut rng).is_err());
}

#[test]
fn divergence_and_misuse_are_errors() {
    let w = diagonal(&CURVATURES, &CENTRE);
    let mut all = |_: usize, _: &State| true;
    let run = Run { warmup: 0, steps: 3000, seed: 9 };
    // γ = 1 > 2/4: unstable, and overflows.
    let diverged = sample(&w, Ula { step: 1.0, preconditioner: None }, vec![0.0; 6], run, &mut all);
    assert!(matches!(diverged, Err(Error::NotFinite(_))));
    // The adjusted sampler rejects the same steps and stays.
    let stuck = sample(&w, Mala { step: 1e200, preconditioner: None }, vec![0.0; 6], run, &mut all).unwrap();
    assert_eq!((stuck.acceptance, stuck.state.x, stuck.r_hat), (0.0, vec![0.0; 6], None));
    for step in [0.0, -1.0, f64::NAN] {
        assert!(sample(&w, Mala { step, preconditioner: None }, vec![0.0; 6], run, &mut all).is_err());
    }
    let mala = || Mala { step: 0.1, preconditioner: None };
    assert!(sample(&w, mala(), vec![f64::NAN; 3], run, &mut all).is_err());
    assert!(sample(&w, mala(), vec![], run, &mut all).is_err());
    let mut few = |step: usize, _: &State| step < 10;
    assert!(matches!(sample(&w, mala(), vec![0.0; 3], run, &mut few), Err(Error::Interrupted)));
}
