//! Completions against the conditional Gaussian, which a quadratic potential must reproduce.

use std::ops::ControlFlow;

use super::*;
use crate::closed_form::Quadratic;
use crate::density::exact_log_density;
use crate::density::tests::{bent, gaussian, normals};
use crate::gaussian::Gaussian;

fn quadratic(law: &Gaussian) -> Quadratic {
    let start = law.quadratic_start().unwrap();
    Quadratic::new(start.hessian, start.centre).unwrap()
}

fn on(_: f64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Covariance [k, k] of the hidden coordinates given the known ones of `y` with noise of σ on them: that of the
/// conditional law and σ² K K', where column j of K is what its mean gains from one more in known coordinate j.
fn covariance_given_noisy(law: &Gaussian, y: &[f64], hidden: &[usize], sigma: f64) -> Vec<f64> {
    let conditional = law.conditional(y, hidden).unwrap();
    let k = hidden.len();
    let mut covariance = conditional.covariance.dense().to_vec();
    for j in (0..y.len()).filter(|j| !hidden.contains(j)) {
        let mut moved = y.to_vec();
        moved[j] += 1.0;
        let gain: Vec<f64> = law.conditional(&moved, hidden).unwrap().mean;
        let gain: Vec<f64> = gain.iter().zip(&conditional.mean).map(|(a, b)| a - b).collect();
        for (a, row) in covariance.chunks_exact_mut(k).enumerate() {
            row.iter_mut().zip(&gain).for_each(|(c, g)| *c += sigma * sigma * gain[a] * g);
        }
    }
    covariance
}

/// Every second coordinate hidden.
fn half(d: usize) -> Vec<usize> {
    (0..d).step_by(2).collect()
}

#[test]
fn the_mode_of_a_gaussian_is_its_conditional_mean() {
    for d in [2, 20, 784] {
        let law = gaussian(d, 3);
        let w = quadratic(&law);
        let y = normals(d, 4);
        let hidden = half(d);
        let hole = Hole::new(&law, &y, &hidden).unwrap();
        let mode = Mode { starts: 3, explore: 5, tolerance: 1e-12, ..Mode::default() };
        let found = mode.complete(&w, &hole, &mut on).unwrap();
        let truth = law.conditional(&y, &hidden).unwrap().mean;
        for (&i, m) in hidden.iter().zip(&truth) {
            // ½ g'A^{-1}g < 1e-12, the gain that is left, leaves |ζ - ζ*| < 2e-6 in whitened coordinates, and |L| < 2.1.
            assert!((found.filled[i] - m).abs() < 5e-6, "d = {d}");
        }
        for i in (1..d).step_by(2) {
            assert_eq!(found.filled[i].to_bits(), y[i].to_bits());
        }
        let best = found.starts[found.best];
        assert_eq!(best.outcome, Outcome::Converged);
        // A is the whole curvature: the first step lands on the maximum.
        assert!(best.evaluations <= 3, "{best:?}");
    }
}

#[test]
fn the_mode_of_a_bent_density_is_stationary_and_better_than_the_gaussian_mean() {
    let d = 16;
    let law = gaussian(d, 13);
    let w = bent(&law, 2 * d, 14);
    let hole = Hole::new(&law, &normals(d, 15), &half(d)).unwrap();
    let mode = Mode { starts: 6, finalists: 6, tolerance: 1e-9, max_evaluations: 300, ..Mode::default() };
    let found = mode.complete(&w, &hole, &mut on).unwrap();
    assert_eq!(found.starts[found.best].outcome, Outcome::Converged, "{:?}", found.starts);
    let at = |y: &[f64]| exact_log_density(&w, 0.0, y).unwrap().value[0];
    let top = at(&found.filled);
    assert!((top - found.starts[found.best].log_density).abs() < 1e-9);
    assert!(top > at(&hole.gaussian_mean()));
    // A converged maximum is above all its neighbours: an independent check of the ascent's gradient. The
    // slack is what the tolerance leaves to gain.
    for &i in hole.hidden() {
        for t in [-0.01, 0.01] {
            let mut near = found.filled.clone();
            near[i] += t;
            assert!(at(&near) < top + 1e-6, "coordinate {i}");
        }
    }
    for start in &found.starts {
        assert!(start.log_density <= top);
    }
}

#[test]
fn langevin_has_the_conditional_mean_and_the_stated_variance() {
    let d = 12;
    let law = gaussian(d, 23);
    let w = quadratic(&law);
    let y = normals(d, 24);
    let hidden = half(d);
    let hole = Hole::new(&law, &y, &hidden).unwrap();
    let settings = Langevin { draws: 8000, warm_up: 60, steps: 1, ..Langevin::default() };
    let sigma = 1.0;
    let run = settings.draw(&w, &hole, sigma, &mut on).unwrap();
    assert_eq!(run.unconverged, 0);
    // A quadratic has no third derivative: the estimated score is exact, the stationary law of
    // ζ' = (1-γ)ζ + √(2γ) ξ has variance 1/(1 - γ/2), and antithetic pairs cancel in the mean. The noise on the
    // known coordinates moves the means that the chains are about.
    let truth = law.conditional(&y, &hidden).unwrap();
    let k = hidden.len();
    let exact = truth.covariance.dense();
    let noisy = covariance_given_noisy(&law, &y, &hidden, sigma);
    // What the noise adds is more than the tolerance below lets by.
    assert!((0..k).any(|a| noisy[a * k + a] > 1.3 * exact[a * k + a]), "{noisy:?} {exact:?}");
    for a in 0..k {
        assert!((run.completions.mean[hidden[a]] - truth.mean[a]).abs() < 1e-9);
        for b in 0..=a {
            let sample: f64 = run
                .completions
                .draws
                .chunks_exact(d)
                .map(|row| (row[hidden[a]] - truth.mean[a]) * (row[hidden[b]] - truth.mean[b]))
                .sum::<f64>()
                / 8000.0;
            let expected = exact[a * k + b] / (1.0 - run.step / 2.0) + noisy[a * k + b] - exact[a * k + b];
            // Pairs give 4000 independent products: standard error below √(2 S_aa S_bb / 4000), times 4.
            let scale = (noisy[a * k + a] * noisy[b * k + b]).sqrt();
            assert!((sample - expected).abs() < 4.0 * scale * 1.2 * (2.0_f64 / 4000.0).sqrt(), "{a} {b}");
        }
    }
}

#[test]
fn mala_draws_the_conditional_gaussian() {
    let d = 10;
    let law = gaussian(d, 33);
    let w = quadratic(&law);
    let y = normals(d, 34);
    let hidden = half(d);
    let hole = Hole::new(&law, &y, &hidden).unwrap();
    let settings = Mala { draws: 4000, warm_up: 5, adapt: 20, steps: 20, seed: 1 };
    let run = settings.draw(&w, &hole, 0.1, &mut on).unwrap();
    let truth = law.conditional(&y, &hidden).unwrap();
    let covariance = covariance_given_noisy(&law, &y, &hidden, 0.1);
    let acceptance = run.acceptance.iter().sum::<f64>() / 4000.0;
    assert!((0.4..0.75).contains(&acceptance), "{acceptance}");
    for (a, &i) in hidden.iter().enumerate() {
        let column = || run.completions.draws.chunks_exact(d).map(|row| row[i]);
        let variance = column().map(|v| (v - truth.mean[a]).powi(2)).sum::<f64>() / 4000.0;
        let expected = covariance[a * hidden.len() + a];
        // 2000 independent pairs at least: √(2/2000) = 0.032 relative, times 4.
        assert!((variance / expected - 1.0).abs() < 0.13, "{variance} {expected}");
        // √(S/2000) for the draws' mean, times 4; the kept states only add to it.
        assert!((run.completions.mean[i] - truth.mean[a]).abs() < 4.0 * (expected / 2000.0).sqrt());
        // A step maps y to m + (1 - σ²/S)(y - m): the denoised draws spread less.
        assert!(run.completions.standard_deviation[i] < variance.sqrt());
    }
}

#[test]
fn mala_reproduces_the_mean_of_a_bent_density() {
    // One hidden coordinate: the posterior is known by quadrature.
    let law = gaussian(2, 43);
    let w = bent(&law, 6, 44);
    let y = [0.4, 0.0];
    let hole = Hole::new(&law, &y, &[1]).unwrap();
    let grid: Vec<f64> = (0..4001).flat_map(|i| [0.4, -10.0 + i as f64 * 0.005]).collect();
    let mass: Vec<f64> = exact_log_density(&w, 0.0, &grid).unwrap().value.iter().map(|v| v.exp()).collect();
    let total: f64 = mass.iter().sum();
    let moment = |p: i32| grid.chunks(2).zip(&mass).map(|(y, m)| m * y[1].powi(p)).sum::<f64>() / total;
    let variance = moment(2) - moment(1).powi(2);
    let settings = Mala { draws: 4000, warm_up: 30, adapt: 20, steps: 30, seed: 2 };
    let run = settings.draw(&w, &hole, 0.0, &mut on).unwrap();
    let draws: Vec<f64> = run.completions.draws.chunks(2).map(|row| row[1]).collect();
    let mean = draws.iter().sum::<f64>() / 4000.0;
    let spread = draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4000.0;
    // Monte Carlo, 2000 pairs, 4 standard errors.
    assert!((mean - moment(1)).abs() < 4.0 * (variance / 2000.0).sqrt(), "{mean} {}", moment(1));
    assert!((spread / variance - 1.0).abs() < 0.15, "{spread} {variance}");
    assert_eq!(run.completions.draws, run.completions.denoised);
}

#[test]
fn denoising_shrinks_a_gaussian_towards_its_mean() {
    let law = gaussian(5, 53);
    let w = quadratic(&law);
    let y = normals(5, 54);
    let hole = Hole::new(&law, &y, &[0, 1, 2, 3, 4]).unwrap();
    let clean = denoise(&w, 0.3, &hole, &y).unwrap();
    // x + σn ~ N(m, S) makes a step y - σ² S^{-1} (y - m); there are two.
    let covariance = crate::linalg::Cholesky::new(&law.covariance.dense(), 5, "S").unwrap();
    let mut expected = y;
    for _ in 0..2 {
        let mut pull: Vec<f64> = expected.iter().zip(&law.mean).map(|(y, m)| y - m).collect();
        covariance.solve_rows(&mut pull).unwrap();
        expected.iter_mut().zip(pull).for_each(|(y, pull)| *y -= 0.09 * pull);
    }
    for i in 0..5 {
        assert!((clean[i] - expected[i]).abs() < 1e-12);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let law = gaussian(8, 63);
    let w = bent(&law, 10, 64);
    let hole = Hole::new(&law, &normals(8, 65), &half(8)).unwrap();
    let mode = |seed| Mode { seed, ..Mode::default() }.complete(&w, &hole, &mut on).unwrap();
    assert_eq!(mode(5).filled, mode(5).filled);
    let draw = |seed| Langevin { seed, ..Langevin::default() }.draw(&w, &hole, 0.1, &mut on).unwrap();
    assert_eq!(draw(5).completions.draws, draw(5).completions.draws);
    assert_ne!(draw(5).completions.draws, draw(6).completions.draws);
}

#[test]
fn breaking_the_monitor_interrupts() {
    let law = gaussian(6, 73);
    let w = quadratic(&law);
    let hole = Hole::new(&law, &normals(6, 74), &[1, 2]).unwrap();
    let mut heard = vec![];
    let mut stop = |done: f64| {
        heard.push(done);
        if heard.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    // One start would be at the mode of a Gaussian before its third report.
    let mode = Mode { starts: 5, ..Mode::default() };
    assert!(matches!(mode.complete(&w, &hole, &mut stop), Err(Error::Interrupted)));
    assert_eq!(heard.len(), 3);
    assert!(heard.windows(2).all(|p| p[0] <= p[1]) && heard.iter().all(|v| (0.0..=1.0).contains(v)));
    for result in [
        Langevin::default().draw(&w, &hole, 0.1, &mut |_| ControlFlow::Break(())).err(),
        Mala::default().draw(&w, &hole, 0.1, &mut |_| ControlFlow::Break(())).err(),
    ] {
        assert!(matches!(result, Some(Error::Interrupted)));
    }
}

#[test]
fn impossible_holes_and_settings_are_refused() {
    let law = gaussian(4, 83);
    let w = quadratic(&law);
    let y = [0.0; 4];
    for hidden in [&[][..], &[4], &[1, 1]] {
        assert!(matches!(Hole::new(&law, &y, hidden), Err(Error::Invalid(_))));
    }
    let bad = [0.0, f64::NAN, 0.0, 0.0];
    assert!(matches!(Hole::new(&law, &bad, &[0]), Err(Error::NotFinite(_))));
    // A hidden NaN is not read.
    let hole = Hole::new(&law, &bad, &[1]).unwrap();
    assert!(Mode { starts: 0, ..Mode::default() }.complete(&w, &hole, &mut on).is_err());
    assert!(Mala { draws: 0, ..Mala::default() }.draw(&w, &hole, 0.1, &mut on).is_err());
    assert!(Langevin { step: 2.5, ..Langevin::default() }.draw(&w, &hole, 0.1, &mut on).is_err());
}
