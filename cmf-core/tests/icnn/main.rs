//! The network's formulas: derivatives against finite differences, f32 against f64, the start.

#[path = "../common/mod.rs"]
mod common;
mod subspace;

use std::sync::Arc;

use cmf_core::closed_form::{LogSumExp, Quadratic};
use cmf_core::density::{exact_log_density, exact_log_density_and_score};
use cmf_core::draws;
use cmf_core::gaussian::{Gaussian, QuadraticStart};
use cmf_core::host::{Array, Host};
use cmf_core::icnn::formula::Formula;
use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn, Weights, initial_weights};
use cmf_core::linalg::{Cholesky, largest};
use cmf_core::mixture::Mixture;
use cmf_core::ops::{Activation, Ops};
use cmf_core::potential::{Purpose, Whitened};
use cmf_core::preconditioner::Preconditioner;
use cmf_core::symmetric::{Spiked, Symmetric};
use cmf_core::{Potential, SecondOrder, Source};
use common::{
    conformance, random_network, random_spiked, random_weights, random_within, uniform, whitened_agrees,
    with_factor_of_head,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SOFTPLUS: Activation = Activation::Softplus { beta: 2.0 };

#[test]
fn every_formula_agrees_with_finite_differences() {
    for (dim, widths, rank, diagonal, activation) in [
        (2, vec![5], 1, false, SOFTPLUS),
        (3, vec![6, 4], 1, true, SOFTPLUS),
        (5, vec![7, 5, 6], 2, true, SOFTPLUS),
        (4, vec![5, 5], 1, false, SOFTPLUS),
        (4, vec![6, 5, 4], 1, true, Activation::Elu),
    ] {
        let w = random_network(dim, &widths, rank, diagonal, activation);
        // Few points, so that with ELU none lies within a difference step of a kink.
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(1), 4 * dim);
        conformance(&w, &x, 1e-15);
    }
}

#[test]
fn spiked_heads_agree_with_finite_differences() {
    for (dim, widths, k) in [(2, vec![5], 1), (5, vec![6, 4], 2), (6, vec![7], 5)] {
        let w = random_spiked(dim, &widths, k, SOFTPLUS);
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(1), 4 * dim);
        conformance(&w, &x, 1e-15);
    }
}

/// By the Cholesky factor as by the inverse Hessian: flat, deep and spiked networks, and large ones in pieces of rows.
#[test]
fn the_gradient_of_log_det_is_the_contraction_with_the_inverse() {
    for (w, n) in [
        (random_network(5, &[9], 2, false, SOFTPLUS), 3),
        (random_network(4, &[6, 5, 7], 1, false, SOFTPLUS), 3),
        (random_network(3, &[6, 4], 1, true, SOFTPLUS), 2),
        (random_spiked(6, &[8, 5], 2, SOFTPLUS), 2),
        (random_within(6, &[8, 5], 2, GibbsFactor::Whole), 2),
        (random_network(150, &[400], 1, false, SOFTPLUS), 1),
    ] {
        let d = w.dim();
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(3), n * d);
        let mut hessians = vec![0.0; n * d * d];
        let gradient = w.hessian_to_factor(&x, &mut hessians).unwrap();
        let (mut inverses, mut factors) = (Vec::new(), Vec::new());
        for h in hessians.chunks_exact(d * d) {
            let factored = Cholesky::new(h, d, "a Hessian").unwrap();
            inverses.extend(factored.inverse());
            let l = factored.lower();
            // Nobody may read what stands above the triangle.
            factors.extend((0..d * d).map(|k| if k % d < k / d { f64::NAN } else { l[(k % d, k / d)] }));
        }
        let (mut found, mut expected) = (vec![0.0; n * d], vec![0.0; n * d]);
        gradient(&mut factors, &mut found).unwrap();
        w.hessian_contraction(&x, &inverses, &mut expected).unwrap();
        let scale = largest(&expected);
        assert!(scale > 0.0);
        // f64 rounds to 1e-16, Hessians of condition up to 1e3 and sums of hundreds of terms lose up to five digits.
        assert!(
            found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-11 * scale),
            "{found:?} {expected:?}"
        );
    }
}

/// Of flat networks it is one product of all forms, of others an average.
#[test]
fn the_mean_hessian_is_the_average_of_the_hessians() {
    let (d, n) = (5, 7);
    let of_two = random_network(d, &[6], 2, false, SOFTPLUS);
    let head = Head::Spiked { rank: 2 };
    let spiked = random_weights(Architecture { head, ..of_two.architecture().clone() });
    let others = [
        random_network(d, &[6], 1, false, SOFTPLUS),
        random_network(d, &[6], 1, true, SOFTPLUS),
        random_network(d, &[6, 4], 1, false, SOFTPLUS),
    ];
    for w in others.into_iter().chain([of_two, spiked]) {
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(4), n * d);
        let mut hessians = vec![0.0; n * d * d];
        w.hessian(&x, &mut hessians).unwrap();
        let host = Host::parallel();
        let formula = Formula::new(&host, w.architecture(), w.weights());
        let found = formula.mean_hessian(n, &Array::from_f64(&x, n, d)).to_vec();
        for (k, found) in found.iter().enumerate() {
            let want = hessians.iter().skip(k).step_by(d * d).sum::<f64>() / n as f64;
            // Sums of some tens of terms of order 1.
            assert!((found - want).abs() < 1e-12, "{:?}: {found} {want}", w.architecture());
        }
    }
}

#[test]
fn whitened_coordinates_leave_the_potential_as_it_is() {
    for (dim, widths, rank) in [(2, vec![5], 1), (5, vec![6, 4], 2), (9, vec![7, 5, 6], 1)] {
        let w = random_network(dim, &widths, rank, false, SOFTPLUS);
        // Sums of tens of terms in f64, through coordinates whose units differ by a factor of five.
        whitened_agrees(&w, &w, 1e-12);
        let w = with_factor_of_head(&w);
        whitened_agrees(&w, &w, 1e-12);
    }
}

/// In coordinates for conjugates the mean Hessian is the identity, over other points of the same law, too.
#[test]
fn whitened_coordinates_for_conjugates_are_those_of_the_mean_hessian() {
    let (d, n) = (9, 4000);
    let w = random_network(d, &[7, 5, 6], 1, false, SOFTPLUS);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    // Numbers of mean 0 and variance 1.
    let mut standard =
        |n: usize| -> Vec<f64> { uniform(&mut rng, n * d).iter().map(|v| 3f64.sqrt() * v).collect() };
    let (given, points) = (standard(16), standard(n));
    let Whitened { potential, coordinates } = w.whitened(Purpose::Conjugates(&given)).unwrap().unwrap();
    let z = coordinates.whiten(&points).unwrap();
    let v = standard(n);
    let mut hv = vec![0.0; n * d];
    potential.hvp(&z, &v, &mut hv).unwrap();
    let curvature = v.iter().zip(&hv).map(|(a, b)| a * b).sum::<f64>() / (n * d) as f64;
    // The average of v'Hv / d over 4,000 points is 1 to the error of a mean Hessian of 16 points, whose own spread is a
    // fifth at most.
    assert!((curvature - 1.0).abs() < 0.1, "{curvature}");
}

#[test]
fn potentials_that_gain_nothing_have_no_whitened_coordinates() {
    let multiple = |d: usize, scale: f64| -> Vec<f64> {
        (0..d * d).map(|k| if k % d == k / d { scale } else { 0.0 }).collect()
    };
    let near = |d: usize, scale: f64| Preconditioner::new(&multiple(d, scale).into()).unwrap();
    let has = |w: &dyn Potential, purpose: Purpose<'_>| w.whitened(purpose).unwrap().is_some();
    let full = random_network(4, &[5], 1, false, SOFTPLUS);
    assert!(has(&full, Purpose::Chains(&near(4, 1.0))));
    // The head is a small part of the Hessian in every direction.
    assert!(!has(&full, Purpose::Chains(&near(4, 1e-6))));
    assert!(!has(&random_network(1, &[5], 1, false, SOFTPLUS), Purpose::Chains(&near(1, 1.0))));
    let diagonal = random_network(4, &[5], 1, true, SOFTPLUS);
    let spiked = random_spiked(4, &[5], 2, SOFTPLUS);
    let quadratic = Quadratic::new(multiple(4, 2.0), vec![0.0; 4]).unwrap();
    for w in [&diagonal as &dyn Potential, &spiked, &quadratic] {
        assert!(!has(w, Purpose::Chains(&near(4, 1.0))));
        assert!(!has(w, Purpose::Conjugates(&[0.1; 8])));
    }
}

#[test]
fn a_spiked_head_is_the_full_head_of_the_same_matrix() {
    let (d, k, n) = (5, 2, 6);
    let w = random_spiked(d, &[n], k, SOFTPLUS);
    let weights = w.weights();
    let spikes = weights.spikes.as_ref().unwrap();
    let forms = 3 * n * d;
    let all = weights.x_side.to_vec();
    let floor = spikes.floor.to_vec()[0];
    let values = spikes.excess.to_vec().iter().map(|e| e + floor).collect();
    let head = Symmetric::from(Spiked::new(floor, values, all[forms..].to_vec()).unwrap());
    let centre = weights.centre.to_vec();
    let full = Weights {
        x_side: Array::matrix([&all[..forms], &head.dense()].concat(), 3 * n + d, d),
        pull: Array::matrix(head.times(&centre).unwrap(), 1, d),
        spikes: None,
        ..weights.clone()
    };
    let full = Icnn::new(Architecture { head: Head::Full, ..w.architecture().clone() }, full).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let x = uniform(&mut rng, 3 * d);
    let [g, u, v] = std::array::from_fn(|_| Array::from_f64(&uniform(&mut rng, 3 * d), 3, d));
    let run = |w: &Icnn<f64>| {
        let (mut value, mut gradient, mut hessian) = (vec![0.0; 3], vec![0.0; 3 * d], vec![0.0; 3 * d * d]);
        w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        w.hessian(&x, &mut hessian).unwrap();
        let (host, x) = (Host::sequential(), Array::from_f64(&x, 3, d));
        let formula = Formula::new(&host, w.architecture(), w.weights());
        let (first, second) = formula.directional([3, 1], &x, &g, [&u, &v]);
        [value, gradient, hessian, first.to_vec(), second.to_vec()].concat()
    };
    // A few dozen roundings of numbers of order 1 to 10.
    for (a, b) in run(&w).iter().zip(run(&full)) {
        assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} {b}");
    }
}

/// The start of a network in ten dimensions, whose units have output weights of zero.
fn without_a_say(start: &QuadraticStart, head: Head) -> Icnn<f64> {
    let arch = Architecture {
        dim: 10,
        widths: vec![8],
        rank: 1,
        diagonal: false,
        activation: SOFTPLUS,
        head,
        gibbs: GibbsFactor::Whole,
    };
    let mut weights = initial_weights(&arch, start, 1).unwrap();
    weights.output = Array::matrix(vec![0.0; 8], 1, 8);
    Icnn::new(arch, weights).unwrap()
}

#[test]
fn the_start_of_few_directions_is_their_gaussian_solution() {
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let gaussian = Gaussian::fit_leading(&uniform(&mut rng, 500 * 10), 10, 0.2, 3).unwrap();
    let start = gaussian.quadratic_start().unwrap();
    let w = without_a_say(&start, Head::Spiked { rank: 3 });
    let y = uniform(&mut rng, 40);
    // log ρ of the closed form is that of the Gaussian itself.
    let found = exact_log_density(&w, start.log_z, &y).unwrap().value;
    for (a, b) in found.iter().zip(gaussian.log_density(&y).unwrap()) {
        assert!((a - b).abs() < 1e-10 * (1.0 + b.abs()), "{a} {b}");
    }
    let full = Gaussian::fit(&uniform(&mut rng, 5000), 10, 0.2).unwrap().quadratic_start().unwrap();
    let message = initial_weights(w.architecture(), &full, 1).unwrap_err().to_string();
    assert!(message.contains("fit one like the head"), "{message}");
}

#[test]
fn closed_forms_pass_the_same_suite() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let x = uniform(&mut rng, 5 * 3);
    conformance(&LogSumExp::new(uniform(&mut rng, 12), uniform(&mut rng, 4), 0.3).unwrap(), &x, 1e-15);
    conformance(&Quadratic::isotropic(3).with_constant(2.0), &x, 1e-15);
}

#[test]
fn weights_that_would_bend_it_downwards_are_refused() {
    let net = random_network(3, &[4, 3], 1, true, SOFTPLUS);
    let mut refused = 0;
    let (arch, weights) = (net.architecture().clone(), net.weights().clone());
    for (name, shape, array) in weights.named(&arch) {
        let mut spoiled = weights.clone();
        let mut numbers = array.to_vec();
        numbers[0] = -1e-3;
        let array = Array::matrix(numbers, shape[0], shape[1]);
        match name.as_str() {
            "output" => spoiled.output = array,
            "diagonal" => spoiled.diagonal = Some(array),
            "mixing_2" => spoiled.mixing[0] = array,
            _ => continue,
        }
        let message = Icnn::new(arch.clone(), spoiled).unwrap_err().to_string();
        assert!(message.contains(&name) && message.contains("convex"), "{message}");
        refused += 1;
    }
    assert_eq!(refused, 3);
}

#[test]
fn the_network_is_convex() {
    for activation in [SOFTPLUS, Activation::Elu] {
        let w = random_network(6, &[8, 8], 1, true, activation);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (x, y) = (uniform(&mut rng, 600), uniform(&mut rng, 600));
        let value = |x: &[f64]| {
            let (mut v, mut g) = (vec![0.0; 100], vec![0.0; 600]);
            w.value_and_gradient(x, &mut v, &mut g).unwrap();
            v
        };
        let middle: Vec<f64> = x.iter().zip(&y).map(|(a, b)| 0.5 * (a + b)).collect();
        let (x, y, middle) = (value(&x), value(&y), value(&middle));
        assert!((0..100).all(|i| middle[i] < 0.5 * (x[i] + y[i])));
    }
}

#[test]
fn directional_derivatives_are_the_products_they_abbreviate() {
    let host = Host::<f64>::sequential();
    let w = random_network(5, &[7, 5, 6], 2, true, SOFTPLUS);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let [x, g, u, v] = std::array::from_fn(|_| uniform(&mut rng, 20));
    let (mut value, mut gradient, mut hv) = (vec![0.0; 4], vec![0.0; 20], vec![0.0; 20]);
    w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    w.linearise(&x).unwrap().hvp(&v, &mut hv);
    let mut plain = vec![0.0; 20];
    w.hvp(&x, &v, &mut plain).unwrap();
    assert_eq!(hv, plain);
    let formula = Formula::new(&host, w.architecture(), w.weights());
    // Three pairs a point: (u, v), (v, v) and (v, u), whose second derivatives are known from ∇²w v.
    let [us, vs] = [[&u, &v, &v], [&v, &v, &u]].map(|parts| parts.map(Vec::as_slice).concat());
    let array = |a: &[f64]| Array::from_f64(a, a.len() / 5, 5);
    let (first, second) = formula.directional([4, 3], &array(&x), &array(&g), [&array(&us), &array(&vs)]);
    for i in 0..4 {
        let row = i * 5..i * 5 + 5;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((first.to_vec()[i] - dot(&gradient[row.clone()], &g[row.clone()])).abs() < 1e-12);
        let product = |a: &[f64]| dot(&hv[row.clone()], &a[row.clone()]);
        assert!((second.to_vec()[i] - (2.0 * product(&u) + product(&v))).abs() < 1e-12);
    }
}

#[test]
fn f32_agrees_with_f64() {
    let w = random_network(16, &[24, 24], 1, true, SOFTPLUS);
    let single: Icnn<f32> = w.cast().unwrap();
    let x = uniform(&mut ChaCha8Rng::seed_from_u64(8), 300 * 16);
    let run = |w: &dyn SecondOrder| {
        let (mut v, mut g, mut h) = (vec![0.0; 300], vec![0.0; x.len()], vec![0.0; x.len() * 16]);
        w.value_and_gradient(&x, &mut v, &mut g).unwrap();
        w.hessian(&x, &mut h).unwrap();
        [v, g, h]
    };
    for (a, b) in run(&w).iter().zip(&run(&single)) {
        let scale = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // f32 rounds to 6e-8; sums of a few hundred terms lose about a digit and a half.
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 3e-6 * scale));
    }
}

/// The host with the trait's own versions of what it does in fewer passes.
struct Plain;

macro_rules! forward {
    ($($name:ident($($arg:ident: $t:ty),*);)*) => {
        $(fn $name(&self, $($arg: $t),*) -> A { Host::<f64>::sequential().$name($($arg),*) })*
    };
}
type A = Array<f64>;
impl Ops for Plain {
    type Tensor = A;
    forward! {
        matmul(a: &A, b: &A); transpose(a: &A); add(a: &A, b: &A); sub(a: &A, b: &A); mul(a: &A, b: &A);
        scale(a: &A, k: f64); offset(a: &A, k: f64); relu(a: &A); exp(a: &A); ln(a: &A); sigmoid(a: &A);
        positive(a: &A); sum(a: &A, axis: usize); slice(a: &A, axis: usize, from: usize, to: usize);
        concat(parts: &[A], axis: usize); unsqueeze(a: &A, axis: usize); squeeze(a: &A, axis: usize);
        identity(d: usize);
    }
}

#[test]
fn fused_activations_are_the_default_ones() {
    let host = Host::<f64>::sequential();
    let t = Array::from_f64(&[-40.0, -2.0, -0.3, 0.0, 0.4, 3.0, 50.0], 1, 7);
    for kind in [SOFTPLUS, Activation::Elu] {
        for order in 0..4 {
            let fused = host.activation(&t, kind, order).to_vec();
            let plain = Plain.activation(&t, kind, order).to_vec();
            for (a, b) in fused.iter().zip(&plain) {
                assert!((a - b).abs() < 1e-14, "{kind:?} order {order}: {fused:?} {plain:?}");
            }
        }
    }
}

#[test]
fn fused_products_are_the_default_ones() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let close = |a: A, b: A| {
        assert_eq!(a.shape(), b.shape());
        let scale = b.to_vec().iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // f64 rounds to 1e-16; sums of d² = 2e5 terms in another order differ by some 1e-14 of the largest.
        assert!(a.to_vec().iter().zip(b.to_vec()).all(|(a, b)| (a - b).abs() < 1e-12 * scale));
    };
    // Less than a block of columns, and several of them with a rest.
    for d in [5, 450] {
        let rows = 70;
        let a = Array::from_f64(&uniform(&mut rng, rows * d), rows, d);
        let weights = Array::from_f64(&uniform(&mut rng, 2 * rows), 2, rows);
        let weighted = Plain.mul(&Plain.unsqueeze(&weights, 2), &Plain.unsqueeze(&a, 0));
        let unsqueezed = Plain.unsqueeze(&a, 0);
        let other = Array::from_f64(&uniform(&mut rng, 9 * d), 9, d);
        let [u, v] = [&other, &Plain.exp(&other)].map(|a| Plain.unsqueeze(a, 0));
        // Of these products the last two are symmetric in sum only.
        let pairs = [[unsqueezed.clone(), weighted.clone()], [u.clone(), v.clone()], [v, u]];
        for host in [Host::<f64>::sequential(), Host::parallel()] {
            let m = host.symmetric_product(&pairs);
            close(m.clone(), Plain.symmetric_product(&pairs));
            close(host.quadratic_forms(&a, &m), Plain.quadratic_forms(&a, &m));
            close(host.inner(&weighted, &unsqueezed, 2), Plain.inner(&weighted, &unsqueezed, 2));
            close(host.inner(&a, &a, 1), Plain.inner(&a, &a, 1));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    // Small, and large enough for products to be shared.
    for (d, widths) in [(9, [12, 7]), (250, [300, 200])] {
        let w: Icnn<f32> = random_network(d, &widths, 1, false, SOFTPLUS).cast().unwrap();
        let x = uniform(&mut ChaCha8Rng::seed_from_u64(13), 3 * d);
        let run = |threads: usize, n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut h, mut c, mut s) = (vec![0.0; n * d * d], vec![0.0; n * d], vec![0.0; d]);
                w.hessian(&x[..n * d], &mut h).unwrap();
                w.hessian_contraction(&x[..n * d], &h, &mut c).unwrap();
                let value = exact_log_density_and_score(&w, 0.0, &x[..d], &mut s).unwrap().value;
                [h, c, s, value]
            })
        };
        for n in [1, 3] {
            let alone = run(1, n);
            for threads in [2, 3, 7] {
                assert!(run(threads, n) == alone, "{n} rows of {d} on {threads} threads");
            }
        }
    }
}

#[test]
fn the_start_is_the_gaussian_solution() {
    // With the output weights at zero the network is exactly Proposition 2's potential.
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let gaussian = Gaussian::fit(&uniform(&mut rng, 500 * 10), 10, 0.2).unwrap();
    let start = gaussian.quadratic_start().unwrap();
    let w = without_a_say(&start, Head::Full);
    let closed = Quadratic::new(start.hessian, start.centre).unwrap();
    let x = uniform(&mut rng, 40);
    let run = |w: &dyn Potential| {
        let (mut v, mut g) = (vec![0.0; 4], vec![0.0; 40]);
        w.value_and_gradient(&x, &mut v, &mut g).unwrap();
        [v, g].concat()
    };
    for (a, b) in run(&w).iter().zip(run(&closed)) {
        assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
    }
}

/// Shares of draws beyond lines, against the normalised density summed over a grid; log Z is in closed form.
#[test]
fn draws_from_the_factor_of_the_head_follow_the_density() {
    let [network, spiked] =
        [random_network(2, &[5, 4], 1, false, SOFTPLUS), random_spiked(2, &[5], 1, SOFTPLUS)];
    let of_head = [network, spiked].map(|network| {
        let arch = Architecture { gibbs: GibbsFactor::Head, ..network.architecture().clone() };
        Icnn::new(arch, network.weights().clone()).unwrap()
    });
    // Two Gaussians along one direction: neither density nor draws are those of one.
    let mixed = of_head.clone().map(|w| {
        let mut numbers = vec![2.0, 1.0];
        numbers.extend(w.gibbs().unwrap().directions(&[1.0, -0.4]).unwrap());
        numbers.extend([0.7, -0.8, 0.5, 0.3, 1.2, 0.4]);
        w.with_mixture(Arc::new(Mixture::from_numbers(&numbers, 2).unwrap())).unwrap()
    });
    for w in of_head.into_iter().chain(mixed) {
        let log_z = w.gibbs().unwrap().log_z().unwrap();
        let n = 20_000;
        let unit = Gaussian { mean: vec![0.0; 2], covariance: vec![1.0, 0.0, 0.0, 1.0].into() };
        let draws = draws::samples(&w, &unit, Source::Gibbs, n, 8, 1, &mut |_| true).unwrap();
        assert!(draws.chains.is_none() && draws.solution.all_converged());
        let y = &draws.solution.y;

        let mean = [0, 1].map(|j| y.chunks_exact(2).map(|y| y[j]).sum::<f64>() / n as f64);
        let deviation = [0, 1]
            .map(|j| (y.chunks_exact(2).map(|y| (y[j] - mean[j]).powi(2)).sum::<f64>() / n as f64).sqrt());
        // Seven standard deviations each way: the mass beyond is below what the draws can tell.
        let (side, reach) = (301, 7.0);
        let step = [0, 1].map(|j| 2.0 * reach * deviation[j] / (side - 1) as f64);
        let at = |i: usize, j: usize| mean[j] + (i as f64 - (side - 1) as f64 / 2.0) * step[j];
        let grid: Vec<f64> = (0..side * side).flat_map(|k| [at(k / side, 0), at(k % side, 1)]).collect();
        let density = exact_log_density(&w, log_z, &grid).unwrap().value;
        let mass = |beyond: &dyn Fn(&[f64]) -> bool| {
            let inside = grid.chunks_exact(2).zip(&density).filter(|(y, _)| beyond(y));
            inside.map(|(_, l)| l.exp()).sum::<f64>() * step[0] * step[1]
        };
        assert!((mass(&|_| true) - 1.0).abs() < 1e-3, "{}", mass(&|_| true));
        for angle in 0..6 {
            let (sine, cosine) = (f64::from(angle) * 0.5).sin_cos();
            let beyond = |y: &[f64]| {
                (y[0] - mean[0]) * cosine / deviation[0] + (y[1] - mean[1]) * sine / deviation[1] > 0.3
            };
            let share = y.chunks_exact(2).filter(|y| beyond(y)).count() as f64 / n as f64;
            // Four standard errors of a share, 0.0035, and half a cell of the grid on the line.
            assert!((share - mass(&beyond)).abs() < 0.02, "{angle}: {share} {}", mass(&beyond));
        }
    }
}
