//! Potentials that bend along few directions: what is found in these alone is what whole Hessians give.

use std::ops::ControlFlow;
use std::sync::Arc;

use cmf_core::density::{Status, exact_log_density_from, is_exact};
use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::host::{Array, Host};
use cmf_core::icnn::formula::Formula;
use cmf_core::icnn::{GibbsFactor, Icnn};
use cmf_core::inpaint::{Hole, Mode};
use cmf_core::mixture::Mixture;
use cmf_core::ops::Activation;
use cmf_core::{Potential, Result, SecondOrder, Source};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::common::{random_network, random_spiked, random_within, uniform, with_factor_of_head};

/// A potential that does not say along which directions it bends.
struct InAllDirections<'a>(&'a Icnn<f64>);

impl Potential for InAllDirections<'_> {
    fn dim(&self) -> usize {
        self.0.dim()
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.0.value_and_gradient(x, value, gradient)
    }
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.0.hvp(x, v, hv)
    }
    fn gibbs(&self) -> Option<&HeadFactor> {
        self.0.gibbs()
    }
}

impl SecondOrder for InAllDirections<'_> {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        self.0.hessian(x, hessian)
    }
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        self.0.hessian_contraction(x, m, out)
    }
}

/// With two Gaussians along two directions, of which one leaves those of the head.
fn with_mixture(w: Icnn<f64>) -> Icnn<f64> {
    let d = w.dim();
    let mut axes = w.weights().x_side.to_vec();
    axes.drain(..axes.len() - d);
    axes.extend((0..d).map(|i| (i as f64).cos()));
    let directions = w.gibbs().unwrap().directions(&axes).unwrap();
    let mut numbers = vec![2.0, 2.0];
    numbers.extend(directions);
    // Weight, mean and factor of each component.
    numbers.extend([0.7, 0.8, 0.3, 1.0, 0.2, 0.9]);
    numbers.extend([0.3, -0.5, 0.1, 0.8, 0.0, 1.1]);
    w.with_mixture(Arc::new(Mixture::from_numbers(&numbers, d).unwrap())).unwrap()
}

fn networks() -> Vec<Icnn<f64>> {
    vec![
        // Of these a hole's curvature is found along the directions too; the others have too few dimensions around.
        random_within(24, &[9], 3, GibbsFactor::Whole),
        with_mixture(random_within(24, &[6, 7], 4, GibbsFactor::Head)),
        random_within(9, &[6, 5], 2, GibbsFactor::Whole),
        random_within(7, &[9], 1, GibbsFactor::Head),
        random_within(6, &[5], 5, GibbsFactor::Head),
    ]
}

fn close(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    let scale = b.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * scale), "{what}: {a:?} {b:?}");
}

#[test]
fn densities_and_scores_are_those_of_whole_hessians() {
    for w in networks() {
        let (d, n) = (w.dim(), 5);
        assert!(w.subspace().is_some());
        let y = uniform(&mut ChaCha8Rng::seed_from_u64(1), n * d);
        for source in [Source::Gibbs, Source::Gaussian] {
            let run = |w: &dyn SecondOrder| {
                let mut score = vec![0.0; n * d];
                let alone = exact_log_density_from(w, source, 0.5, &y, None).unwrap();
                let both = exact_log_density_from(w, source, 0.5, &y, Some(&mut score)).unwrap();
                assert_eq!(alone.value, both.value);
                [both.value, score]
            };
            let ([value, score], [whole, slope]) = (run(&w), run(&InAllDirections(&w)));
            // Sums of some hundred terms in f64, and Hessians of condition up to 1e3.
            close("log-density", &value, &whole, 1e-12);
            close("score", &score, &slope, 1e-11);
            let none = exact_log_density_from(&w, source, 0.5, &[], Some(&mut [])).unwrap();
            assert!(none.value.is_empty() && none.status.is_empty());
        }
        // As engines have it, in f32: the tolerance of a log-density is a hundredth of a nat.
        let single = w.cast::<f32>().unwrap().through_directions();
        let run =
            |w: &dyn SecondOrder| exact_log_density_from(w, Source::Gibbs, 0.0, &y, None).unwrap().value;
        assert!(run(&single).iter().zip(run(&w)).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}

/// Rows without a density say so, and disturb no other.
#[test]
fn a_row_that_is_not_finite_has_no_density() {
    let w = &networks()[0];
    let d = w.dim();
    let mut y = uniform(&mut ChaCha8Rng::seed_from_u64(2), 3 * d);
    let mut alone = vec![0.0; d];
    let last = exact_log_density_from(w, Source::Gibbs, 0.0, &y[2 * d..], Some(&mut alone)).unwrap();
    y[d] = f64::NAN;
    let mut score = vec![1.0; 3 * d];
    let found = exact_log_density_from(w, Source::Gibbs, 0.0, &y, Some(&mut score)).unwrap();
    assert_eq!(found.value[1], f64::NEG_INFINITY);
    assert!(score[d..2 * d].iter().all(|&v| v == 0.0));
    assert!((found.value[2] - last.value[0]).abs() < 1e-12);
    close("the next row's score", &score[2 * d..], &alone, 1e-12);
}

/// Its ascent's metric is averaged over whole Hessians, or found along the directions alone.
#[test]
fn completions_are_those_of_whole_hessians() {
    for w in networks() {
        let d = w.dim();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let law = Gaussian::fit(&uniform(&mut rng, 30 * d), d, 0.3).unwrap();
        let hidden: Vec<usize> = (0..d).step_by(2).collect();
        let hole = Hole::new(&law, &uniform(&mut rng, d), &hidden).unwrap();
        let mode = Mode { max_evaluations: 8, ..Mode::default() };
        let run =
            |w: &dyn SecondOrder| mode.complete(w, &hole, &mut |_| ControlFlow::Continue(())).unwrap().filled;
        // Eight steps of an ascent, each as exact as the densities above.
        close("completion", &run(&w), &run(&InAllDirections(&w)), 1e-9);
    }
}

#[test]
fn networks_that_bend_in_all_directions_say_nothing() {
    let activation = Activation::Softplus { beta: 2.0 };
    assert!(random_network(5, &[7], 1, false, activation).subspace().is_none());
    // Forms outside of the directions, and diagonal terms.
    let spiked = random_spiked(6, &[8], 2, activation);
    assert!(spiked.subspace().is_none());
    assert!(with_factor_of_head(&spiked).subspace().is_none());
    let w = random_within(6, &[8], 2, GibbsFactor::Whole);
    let mut weights = w.weights().clone();
    let mut rows = weights.x_side.to_vec();
    // A thousandth of a form is no rounding.
    rows[0] += 1e-3 * rows[..6].iter().fold(0.0f64, |m, v| m.max(v.abs()));
    weights.x_side = Array::matrix(rows, w.architecture().x_side_rows(), 6);
    let edited = Icnn::new(w.architecture().clone(), weights).unwrap();
    assert!(edited.subspace().is_none());
    assert!(is_exact(&edited));
    // Curvatures across the directions that are none, and directions that are not orthonormal.
    for floor in [0.0, -1.0] {
        let mut weights = w.weights().clone();
        weights.spikes.as_mut().unwrap().floor = Array::matrix(vec![floor], 1, 1);
        let edited = Icnn::new(w.architecture().clone(), weights).unwrap();
        assert!(edited.subspace().is_none());
        // Of the whole Hessian rounding decides where they are 0.
        if floor < 0.0 {
            let density = exact_log_density_from(&edited, Source::Gibbs, 0.0, &[0.1; 6], None).unwrap();
            assert_eq!(
                (density.status[0], density.value[0]),
                (Status::NotPositiveDefinite, f64::NEG_INFINITY)
            );
        }
    }
    let mut weights = w.weights().clone();
    let mut rows = weights.x_side.to_vec();
    let forms = rows.len() - 2 * 6;
    rows[..forms].fill(0.0);
    rows[forms + 6..].iter_mut().for_each(|v| *v *= 2.0);
    weights.x_side = Array::matrix(rows, w.architecture().x_side_rows(), 6);
    assert!(Icnn::new(w.architecture().clone(), weights).unwrap().subspace().is_none());
    // f32 rounds forms and directions.
    assert!(w.cast::<f32>().unwrap().subspace().is_some());
}

/// Every formula of values and first derivatives, and Hessian products, in a few roundings.
#[test]
fn going_through_the_directions_changes_nothing() {
    for w in networks() {
        let through = w.clone().through_directions();
        assert!(w.weights().along.is_none() && through.weights().along.is_some());
        let (d, n) = (w.dim(), 4);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let [x, g, u, v] = std::array::from_fn(|_| uniform(&mut rng, n * d));
        let run = |w: &Icnn<f64>| {
            let (mut value, mut gradient, mut hv) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d]);
            w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            w.hvp(&x, &v, &mut hv).unwrap();
            let (host, rows) = (Host::sequential(), |a: &[f64]| Array::from_f64(a, n, d));
            let formula = Formula::new(&host, w.architecture(), w.weights());
            let (first, second) = formula.directional([n, 1], &rows(&x), &rows(&g), [&rows(&u), &rows(&v)]);
            [value, gradient, hv, first.to_vec(), second.to_vec()]
        };
        for (found, whole) in run(&through).iter().zip(&run(&w)) {
            close("through the directions", found, whole, 1e-13);
        }
        let subspaces =
            [&through, &w].map(|w| exact_log_density_from(w, Source::Gibbs, 0.0, &x, None).unwrap());
        close("log-density", &subspaces[0].value, &subspaces[1].value, 1e-13);
    }
    let outside = random_spiked(6, &[8], 2, Activation::Softplus { beta: 2.0 });
    assert!(outside.through_directions().weights().along.is_none());
}

/// A network made of the weights of one that goes through its directions may have other forms.
#[test]
fn forms_along_the_directions_are_not_taken_over() {
    let w = random_within(6, &[8], 2, GibbsFactor::Whole).through_directions();
    let again = Icnn::new(w.architecture().clone(), w.weights().clone()).unwrap();
    assert!(again.weights().along.is_none());
}
