//! log Z where it is known: Gaussians in closed form, two dimensions by quadrature.

// Each test crate compiles the shared module and uses its own part of it.
#[allow(dead_code)]
mod common;

use cmf_core::Source;
use cmf_core::closed_form::{LogSumExp, Quadratic};
use cmf_core::gaussian::{LN_2PI, QuadraticStart};
use cmf_core::normaliser::{AnnealedImportance, LogZ};
use cmf_core::ops::Activation;
use cmf_core::{Error, Potential, Result};

/// N(a, I/h) as a start.
fn isotropic_start(d: usize, h: f64, centre: f64) -> QuadraticStart {
    let mut hessian = vec![0.0; d * d];
    hessian.iter_mut().step_by(d + 1).for_each(|v| *v = h);
    let log_z = 0.5 * d as f64 * (LN_2PI - h.ln());
    QuadraticStart { hessian: hessian.into(), centre: vec![centre; d], log_z, source: Source::Gibbs }
}

fn log_z(w: &dyn Potential, start: &QuadraticStart, temperatures: usize, seed: u64) -> LogZ {
    let annealing = AnnealedImportance { temperatures, seed, ..Default::default() };
    annealing.log_z(w, start, &mut |_| true).unwrap()
}

#[test]
fn the_gaussian_itself_is_exact() {
    let start = isotropic_start(5, 2.0, 0.3);
    let w = Quadratic::new(start.hessian.clone(), start.centre.clone()).unwrap();
    let found = log_z(&w, &start, 10, 0);
    // All weights are 1 up to rounding.
    assert!((found.value - start.log_z).abs() < 1e-12 && found.standard_error < 1e-12, "{found:?}");
    assert!((found.effective_sample_size - 64.0).abs() < 1e-6);
}

#[test]
fn another_gaussian_is_met_within_the_stated_error() {
    // In d = 20, curvatures from 0.5 to 10 and a shift of half a unit, from N(0, I); constant 3.
    let d = 20;
    let mut hessian = vec![0.0; d * d];
    (0..d).for_each(|j| hessian[j * d + j] = 0.5 * 20f64.powf(j as f64 / (d - 1) as f64));
    let log_det: f64 = (0..d).map(|j| hessian[j * d + j].ln()).sum();
    let w = Quadratic::new(hessian, vec![0.5; d]).unwrap().with_constant(3.0);
    let exact = 0.5 * (d as f64 * LN_2PI - log_det) - 3.0;
    let mut squares = 0.0;
    for seed in 0..20 {
        let found = log_z(&w, &isotropic_start(d, 1.0, 0.0), 100, seed);
        assert!(found.standard_error < 0.3, "{found:?}");
        squares += ((found.value - exact) / found.standard_error).powi(2);
    }
    eprintln!("{}", squares / 20.0);
    // Twenty squared standard errors: χ² with 20 degrees of freedom, of which 6 and 45 are the 0.1 percent ends.
    assert!((6.0..45.0).contains(&squares), "{squares}");
}

/// log ∫ e^{-w} on [-r, r]² by the trapezoid rule, exact to rounding for smooth laws that end inside.
fn quadrature(w: &dyn Potential, r: f64, cells: usize) -> f64 {
    let at = |k: usize| r * (2.0 * k as f64 / cells as f64 - 1.0);
    let x: Vec<f64> = (0..cells * cells).flat_map(|k| [at(k / cells), at(k % cells)]).collect();
    let (mut value, mut gradient) = (vec![0.0; cells * cells], vec![0.0; x.len()]);
    w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    let least = value.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = value.iter().map(|v| (least - v).exp()).sum();
    sum.ln() - least + 2.0 * (2.0 * r / cells as f64).ln()
}

#[test]
fn two_dimensions_agree_with_quadrature() {
    let slopes = vec![3.0, 0.0, -2.0, 2.0, -1.0, -3.0];
    let log_sum_exp = LogSumExp::new(slopes, vec![0.0, 0.5, -0.5], 0.2).unwrap();
    let network = common::random_network(2, &[6, 5], 1, true, Activation::Softplus { beta: 2.0 });
    for w in [&log_sum_exp as &dyn Potential, &network] {
        let exact = quadrature(w, 25.0, 800);
        assert!((exact - quadrature(w, 25.0, 1000)).abs() < 1e-9, "the grid is too coarse");
        let found = log_z(w, &isotropic_start(2, 0.5, 0.0), 100, 11);
        eprintln!("{found:?} for {exact}");
        assert!(found.standard_error < 0.1, "{found:?}");
        assert!((found.value - exact).abs() < 3.5 * found.standard_error, "{found:?} for {exact}");
    }
}

#[test]
fn same_seed_same_estimate() {
    let w = Quadratic::isotropic(3);
    let start = isotropic_start(3, 2.0, 0.1);
    assert_eq!(log_z(&w, &start, 20, 5), log_z(&w, &start, 20, 5));
    assert_ne!(log_z(&w, &start, 20, 5).value, log_z(&w, &start, 20, 6).value);
}

/// Broken on one half of the line.
struct Broken;

impl Potential for Broken {
    fn dim(&self) -> usize {
        1
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        value.copy_from_slice(&x.iter().map(|x| x.ln()).collect::<Vec<_>>());
        gradient.fill(0.0);
        Ok(())
    }

    fn hvp(&self, _: &[f64], _: &[f64], hv: &mut [f64]) -> Result<()> {
        hv.fill(0.0);
        Ok(())
    }
}

#[test]
fn interruption_and_misuse_are_errors() {
    let w = Quadratic::isotropic(2);
    let start = isotropic_start(2, 1.5, 0.0);
    let good = AnnealedImportance { temperatures: 10, ..Default::default() };
    let mut fractions = Vec::new();
    good.log_z(&w, &start, &mut |f| {
        fractions.push(f);
        true
    })
    .unwrap();
    assert!(fractions.is_sorted() && fractions.len() == 20 && fractions[19] == 1.0, "{fractions:?}");
    assert!(matches!(good.log_z(&w, &start, &mut |f| f < 0.5), Err(Error::Interrupted)));
    for bad in [
        AnnealedImportance { chains: 1, ..good },
        AnnealedImportance { temperatures: 0, ..good },
        AnnealedImportance { leapfrog: 0, ..good },
    ] {
        assert!(bad.log_z(&w, &start, &mut |_| true).is_err());
    }
    assert!(good.log_z(&Quadratic::isotropic(3), &start, &mut |_| true).is_err());
    let result = good.log_z(&Broken, &isotropic_start(1, 1.0, 0.0), &mut |_| true);
    assert!(matches!(result, Err(Error::NotFinite(_))));
}
