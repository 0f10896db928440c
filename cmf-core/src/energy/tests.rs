//! Surveys against closed forms; energies that cannot be learned from, each with its message.

use super::*;
use crate::closed_form::Quadratic;
use crate::error::Result;
use crate::gaussian::LN_2PI;
use crate::potential::Potential;

/// An energy from its values and gradients of single rows.
struct Rowwise<F> {
    d: usize,
    row: F,
}

impl<F: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> Potential for Rowwise<F> {
    fn dim(&self) -> usize {
        self.d
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        for ((x, v), g) in x.chunks(self.d).zip(value).zip(gradient.chunks_mut(self.d)) {
            *v = (self.row)(x, g);
        }
        Ok(())
    }
    fn hvp(&self, _x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        hv.copy_from_slice(v);
        Ok(())
    }
}

fn square(d: usize, side: f64) -> Domain {
    Domain { low: vec![-side; d], high: vec![side; d] }
}

fn found(energy: &dyn Potential, domain: &Domain) -> Result<Survey> {
    survey(energy, domain, 1, &mut |_| true)
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("it was accepted").to_string()
}

#[test]
fn quadrature_finds_the_moments_and_the_constant_of_a_gaussian() {
    for (d, hessian, centre) in [(1, vec![4.0], vec![0.5]), (2, vec![2.0, 0.6, 0.6, 1.0], vec![0.5, -1.0])] {
        let determinant = if d == 1 { 4.0 } else { 2.0 - 0.36 };
        let energy = Quadratic::new(hessian.clone(), centre.clone()).unwrap();
        let survey = found(&energy, &square(d, 6.0)).unwrap();
        let inverse = crate::linalg::Cholesky::new(&hessian, d, "the precision").unwrap().inverse();
        // The midpoint rule is exact to rounding for smooth functions that vanish at the border; the shells
        // beyond 6 hold less than 1e-6.
        let pairs = survey.gaussian.mean.iter().zip(&centre);
        for (a, b) in pairs.chain(survey.gaussian.covariance.dense().iter().zip(&inverse)) {
            assert!((a - b).abs() < 1e-5, "{survey:?}");
        }
        let constant = 0.5 * (d as f64 * LN_2PI - f64::ln(determinant));
        assert!((survey.log_normaliser.unwrap() - constant).abs() < 1e-6);
        assert!(survey.inside > 0.99999, "{}", survey.inside);
    }
}

#[test]
fn walkers_find_the_moments_of_a_gaussian() {
    let d = 5;
    let hessian: Vec<f64> =
        (0..d * d).map(|i| if i % (d + 1) == 0 { 1.0 + (i / d) as f64 } else { 0.0 }).collect();
    let energy = Quadratic::new(hessian, vec![1.0; d]).unwrap();
    let survey = found(&energy, &square(d, 4.0)).unwrap();
    for i in 0..d {
        let variance = 1.0 / (1.0 + i as f64);
        // 256 walkers are 256 independent draws at least: 5 standard errors of a mean and of a variance.
        assert!((survey.gaussian.mean[i] - 1.0).abs() < 5.0 * (variance / 256.0).sqrt());
        let ratio = survey.gaussian.covariance.diagonal()[i] / variance;
        assert!((ratio - 1.0).abs() < 5.0 * (2.0f64 / 256.0).sqrt(), "coordinate {i}: {ratio}");
    }
    assert!(survey.inside > 0.9 && survey.log_normaliser.is_none());
}

#[test]
fn mass_outside_of_the_domain_is_seen() {
    let energy = Quadratic::new(vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 2]).unwrap();
    let survey = found(&energy, &square(2, 1.0)).unwrap();
    // P(|x| < 1)² for a standard normal.
    assert!((survey.inside - 0.682_689_5_f64.powi(2)).abs() < 1e-3, "{}", survey.inside);
    assert!((survey.gaussian.covariance.dense()[0] - 1.0).abs() < 1e-3);
}

#[test]
fn energies_without_a_finite_normaliser_are_told() {
    let flat = |d: usize| Rowwise {
        d,
        row: |_: &[f64], g: &mut [f64]| {
            g.fill(0.0);
            0.0
        },
    };
    let falling = |d: usize| Rowwise {
        d,
        row: |x: &[f64], g: &mut [f64]| {
            g.iter_mut().zip(x).for_each(|(g, x)| *g = -x);
            -0.5 * x.iter().map(|x| x * x).sum::<f64>()
        },
    };
    // It grows in one direction only.
    let valley = |d: usize| Rowwise {
        d,
        row: |x: &[f64], g: &mut [f64]| {
            g.fill(0.0);
            g[0] = x[0];
            0.5 * x[0] * x[0]
        },
    };
    for d in [1, 2, 3, 10] {
        assert!(message(found(&flat(d), &square(d, 2.0))).contains("no finite normaliser"), "flat, {d}");
        assert!(
            message(found(&falling(d), &square(d, 2.0))).contains("no finite normaliser"),
            "falling, {d}"
        );
        if d > 1 {
            assert!(message(found(&valley(d), &square(d, 2.0))).contains("no finite normaliser"), "{d}");
        }
    }
    // Student's t with 3 degrees of freedom has heavy tails, and a normaliser.
    let heavy = Rowwise {
        d: 1,
        row: |x: &[f64], g: &mut [f64]| {
            g[0] = 4.0 * x[0] / (3.0 + x[0] * x[0]);
            2.0 * (1.0 + x[0] * x[0] / 3.0).ln()
        },
    };
    assert!(found(&heavy, &square(1, 4.0)).is_ok());
}

#[test]
fn energies_that_are_not_numbers_are_told() {
    let broken = |d: usize, bad: f64| Rowwise {
        d,
        row: move |x: &[f64], g: &mut [f64]| {
            g.copy_from_slice(x);
            if x[0] > 0.0 { bad } else { 0.5 * x.iter().map(|x| x * x).sum::<f64>() }
        },
    };
    for d in [1, 2, 3] {
        let domain = square(d, 3.0);
        let nan = broken(d, f64::NAN);
        assert!(message(check_gradient(&nan, &domain, 0)).contains("is NaN"), "{d}");
        assert!(message(found(&nan, &domain)).contains("is NaN"), "{d}");
        assert!(message(found(&broken(d, f64::NEG_INFINITY), &domain)).contains("-inf"), "{d}");
    }
}

#[test]
fn a_gradient_is_compared_with_the_values() {
    let energy = |factor: f64| Rowwise {
        d: 3,
        row: move |x: &[f64], g: &mut [f64]| {
            g.iter_mut().zip(x).for_each(|(g, x)| *g = factor * x.powi(3) + x.signum());
            x.iter().map(|x| 0.25 * x.powi(4) + x.abs()).sum()
        },
    };
    // The kinks of |x| may disagree at some points.
    check_gradient(&energy(1.0), &square(3, 3.0), 0).unwrap();
    for wrong in [1.05, -1.0, 0.0] {
        let message = message(check_gradient(&energy(wrong), &square(3, 3.0), 0));
        assert!(message.contains("gradient of the energy is not that of its values"), "{message}");
    }
    // Values that were rounded to f32, with a large constant beside them.
    let single = Rowwise {
        d: 2,
        row: |x: &[f64], g: &mut [f64]| {
            g.copy_from_slice(x);
            f64::from((100.0 + 0.5 * x.iter().map(|x| x * x).sum::<f64>()) as f32)
        },
    };
    check_gradient(&single, &square(2, 3.0), 0).unwrap();
}

#[test]
fn domains_are_boxes() {
    let domain = Domain { low: vec![0.0, -1.0], high: vec![2.0, 3.0] };
    domain.validate(2).unwrap();
    assert_eq!(domain.scaled(2.0), Domain { low: vec![-1.0, -3.0], high: vec![3.0, 5.0] });
    assert_eq!(domain.distance(&[1.0, 3.0]), 1.0);
    assert_eq!(domain.grid(2), [0.5, 0.0, 0.5, 2.0, 1.5, 0.0, 1.5, 2.0]);
    assert!(domain.validate(3).is_err());
    let empty = Domain { low: vec![0.0, 1.0], high: vec![1.0, 1.0] };
    assert!(message(empty.validate(2)).contains("coordinate 1"));
}
