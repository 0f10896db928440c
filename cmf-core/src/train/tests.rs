//! Burn against the host, the losses' gradients against finite differences, resuming, learning.

use burn::backend::Flex;
use burn::module::Param;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::energy::{factored, regression_parts};
use super::inner;
use super::least_squares;
use super::objective::{Batch, Law, Likelihood, loss, regression, rows};
use super::ops::{BurnOps, Ranked};
use super::parameters::{Parameters, network_of};
use super::solve::hessian_solve;
use super::source_mixture::{HeadLaw, RunSource, SavedSource};
use super::trainer::Backend as Differentiating;
use super::{Method, TrainConfig, Trainer, Training};
use crate::closed_form::Quadratic;
use crate::density::{exact_log_density, exact_log_density_from_gaussian};
use crate::energy::Domain;
use crate::gaussian::Gaussian;
use crate::gibbs_start::GibbsStart;
use crate::host::{Array, Host};
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, GibbsFactor, Head, Icnn, Weights, initial_weights};
use crate::linalg::Cholesky;
use crate::ops::{Activation, Ops};
use crate::potential::{Potential, SecondOrder};
use crate::source::Source;

fn architecture(dim: usize, diagonal: bool) -> Architecture {
    let activation = Activation::Softplus { beta: 1.5 };
    Architecture {
        dim,
        widths: vec![6, 5],
        rank: 2,
        diagonal,
        activation,
        head: Head::Full,
        gibbs: GibbsFactor::Whole,
    }
}

/// A network around the start of some Gaussian data, with output weights that matter.
pub(super) fn network(dim: usize, diagonal: bool) -> Icnn<f64> {
    network_with(dim, diagonal, Head::Full)
}

/// The same beside any head.
pub(super) fn network_with(dim: usize, diagonal: bool, head: Head) -> Icnn<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let data: Vec<f64> = (0..50 * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
    let gaussian = match head {
        Head::Full => Gaussian::fit(&data, dim, 0.3),
        Head::Spiked { rank } => Gaussian::fit_leading(&data, dim, 0.3, rank),
    };
    let start = gaussian.unwrap().quadratic_start().unwrap();
    let arch = Architecture { head, ..architecture(dim, diagonal) };
    let mut weights = initial_weights(&arch, &start, 1).unwrap();
    weights.output = Array::matrix(vec![0.7; arch.units()], 1, arch.units());
    Icnn::new(arch, weights).unwrap()
}

fn on_burn(data: Array<f64>) -> Ranked<Flex> {
    let shape: Vec<usize> = data.shape().to_vec();
    let data: Vec<f32> = data.to_vec().iter().map(|&v| v as f32).collect();
    let device = Default::default();
    match shape[..] {
        [rows, cols] => Ranked::Two(Tensor::from_data(TensorData::new(data, [rows, cols]), &device)),
        _ => Ranked::Three(Tensor::from_data(TensorData::new(data, shape), &device)),
    }
}

fn from_burn(t: Ranked<Flex>) -> Vec<f64> {
    let data = match t {
        Ranked::Two(t) => t.into_data(),
        Ranked::Three(t) => t.into_data(),
    };
    data.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn burn_and_the_host_compute_the_same_formulas() {
    for (diagonal, head) in [(false, Head::Full), (true, Head::Full), (true, Head::Spiked { rank: 2 })] {
        let net = network_with(4, diagonal, head);
        let arch = net.architecture().clone();
        let mut named = net.weights().named(&arch).into_iter();
        let burn_weights =
            Weights::build(&arch, |_, _| Ok::<_, ()>(on_burn(named.next().unwrap().2.clone()))).unwrap();
        let (host, burn) = (Host::<f64>::sequential(), BurnOps::<Flex>::new(Default::default()));
        let reference = Formula::new(&host, &arch, net.weights());
        let tested = Formula::new(&burn, &arch, &burn_weights);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut random = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let x = Array::matrix(random(12), 3, 4);
        let v = Array::matrix(random(12), 3, 4);
        let m = Array::stack(random(48), 3, 4, 4);
        let (bx, bv, bm) = (on_burn(x.clone()), on_burn(v.clone()), on_burn(m.clone()));
        let (value, gradient) = reference.value_and_gradient(&x);
        let (burn_value, burn_gradient) = tested.value_and_gradient(&bx);
        let (at, b_at) = (reference.curved(&x), tested.curved(&bx));
        for (what, a, b) in [
            ("value", value, burn_value),
            ("gradient", gradient, burn_gradient),
            ("hvp", reference.hvp(&reference.linearise(&x), &v), tested.hvp(&tested.linearise(&bx), &bv)),
            ("hessian", reference.hessian(&at), tested.hessian(&b_at)),
            ("contraction", reference.hessian_contraction(&at, &m), tested.hessian_contraction(&b_at, &bm)),
        ] {
            let (a, b) = (a.to_vec(), from_burn(b));
            let scale = a.iter().fold(0.0f64, |s, v| s.max(v.abs()));
            // f32 rounds to 6e-8 and the formulas chain some tens of operations.
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 5e-6 * scale), "{what}: {a:?} {b:?}");
        }
    }
}

#[test]
fn parameters_give_back_the_network_they_came_from() {
    // Large output weights are where e^t overflows.
    for (head, scale) in [(Head::Full, 1.0), (Head::Full, 1e4), (Head::Spiked { rank: 2 }, 1.0)] {
        let net = network_with(5, true, head);
        let (arch, mut weights) = (net.architecture().clone(), net.weights().clone());
        weights.output =
            Array::matrix(weights.output.to_vec().iter().map(|v| scale * v).collect(), 1, arch.units());
        let net = Icnn::new(arch, weights).unwrap();
        let parameters = Parameters::<Flex>::from_network(&net, &Default::default()).unwrap();
        let back = network_of(net.architecture(), &parameters.weights(net.architecture())).unwrap();
        for ((name, _, a), (.., b)) in
            net.weights().named(net.architecture()).iter().zip(back.weights().named(net.architecture()))
        {
            for (a, b) in a.to_vec().iter().zip(b.to_vec()) {
                // f32 rounding, and for the head that of a square root squared.
                assert!((a - f64::from(b)).abs() < 1e-5 * (1.0 + a.abs()), "{name}: {a} {b}");
            }
        }
    }
}

#[test]
fn a_spiked_head_that_is_not_positive_definite_is_refused() {
    let net = network_with(5, false, Head::Spiked { rank: 2 });
    let refused = |change: &dyn Fn(&mut Weights<Array<f64>>)| {
        let mut weights = net.weights().clone();
        change(&mut weights);
        let net = Icnn::new(net.architecture().clone(), weights).unwrap();
        Parameters::<Flex>::from_network(&net, &Default::default()).unwrap_err().to_string()
    };
    let indefinite = refused(&|w| w.spikes.as_mut().unwrap().excess = Array::matrix(vec![-10.0, 1.0], 1, 2));
    assert!(indefinite.contains("not positive definite"), "{indefinite}");
    let skew = refused(&|w| {
        let [rows, cols] = [w.x_side.shape()[0], 5];
        let doubled = w.x_side.to_vec().iter().map(|v| 2.0 * v).collect();
        w.x_side = Array::matrix(doubled, rows, cols);
    });
    assert!(skew.contains("not orthonormal"), "{skew}");
}

/// mean[w(∇w(y)) - log det ∇²w(y)] - mean w(particles), exactly.
fn exact_likelihood(net: &Icnn<f64>, y: &[f64], particles: &[f64]) -> f64 {
    let d = net.dim();
    let evaluate = |x: &[f64]| {
        let (mut v, mut g) = (vec![0.0; x.len() / d], vec![0.0; x.len()]);
        net.value_and_gradient(x, &mut v, &mut g).unwrap();
        (v, g)
    };
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (_, image) = evaluate(y);
    let mut hessian = vec![0.0; y.len() * d];
    net.hessian(y, &mut hessian).unwrap();
    let log_det: Vec<f64> =
        hessian.chunks(d * d).map(|h| Cholesky::new(h, d, "H").unwrap().log_det()).collect();
    mean(&evaluate(&image).0) - mean(&log_det) - mean(&evaluate(particles).0)
}

#[test]
fn the_likelihood_loss_has_the_likelihoods_gradient() {
    for head in [Head::Full, Head::Spiked { rank: 2 }] {
        let network = network_with(3, true, head);
        let numbers = [vec![1.0, 0.5, -0.2, 0.0, 0.3, 1.0], two_moments()];
        let mixed = RunSource::load(SavedSource { tried: true, mixture: Some(numbers) }, 3).unwrap();
        assert_likelihood_gradient(of_head_alone(&network), mixed);
        assert_likelihood_gradient(of_head_alone(&network), RunSource::default());
        assert_likelihood_gradient(network, RunSource::default());
    }
}

/// Of two Gaussians in the plane, far from the standard normal one: totals, first and second moments.
fn two_moments() -> Vec<f64> {
    let of = |total: f64, [x, y]: [f64; 2]| {
        let second = [x * x + 0.1, x * y, x * y, y * y + 0.3];
        [total, total * x, total * y].into_iter().chain(second.map(|v| total * v))
    };
    of(300.0, [1.0, 0.4]).chain(of(700.0, [-0.6, 0.2])).collect()
}

/// The same network whose Gibbs factor is of its head.
fn of_head_alone(net: &Icnn<f64>) -> Icnn<f64> {
    let arch = Architecture { gibbs: GibbsFactor::Head, ..net.architecture().clone() };
    Icnn::new(arch, net.weights().clone()).unwrap()
}

fn assert_likelihood_gradient(net: Icnn<f64>, law: RunSource) {
    let d = net.dim();
    let arch = net.architecture().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut random = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (points, particles, directions) = (random(2 * d), random(4 * d), random(1000));
    let device = Default::default();
    let parameters = Parameters::<Differentiating>::from_network(&net, &device).unwrap();
    let single: Icnn<f32> = network_of(&arch, &parameters.weights(&arch)).unwrap();
    // In three dimensions there is a probe a coordinate: their mean is the trace itself.
    let probe = inner::probes(&mut rng, points.len() / d, d);
    assert_eq!(probe.len(), d * points.len());
    let image = inner::gradient(&single, &points).unwrap();
    let on_burn = |a: &[f64]| rows::<Differentiating>(a, d, &device);
    let (along, source) = match single.gibbs() {
        None => (inner::gradient(&single, &image).unwrap(), Law::Particles(on_burn(&particles))),
        Some(head) => {
            // The mixture takes the points in; the differences are of one that did not.
            let known = || Ok(image.clone());
            let HeadLaw { of_head, along: more } =
                law.clone().law_of_head(arch.head, || Ok(std::borrow::Cow::Borrowed(head)), known).unwrap();
            assert_eq!(more.is_empty(), law.save().mixture.is_none());
            let of_gaussian = inner::gradient(head, &image).unwrap();
            let more = more.into_iter().chain(std::iter::repeat(0.0));
            (
                of_gaussian.iter().zip(more).map(|(a, b)| a + b).collect(),
                Law::Head(of_head.on(arch.dim, &device)),
            )
        }
    };
    let metric = crate::preconditioner::Preconditioner::new(&identity(d).into()).unwrap();
    let y = inner::tiled(&points, &probe);
    let (solved, residual) = hessian_solve(&single, &metric, &y, &probe, 1e-6, 30).unwrap();
    assert!(residual < 1e-4, "{residual}");
    let likelihood = Likelihood { image: Some(image), along, solved, probe };
    let batch = Batch {
        data: on_burn(&points),
        source,
        conjugate: None,
        likelihood: Some(likelihood.map(|a| on_burn(&a))),
    };
    let ops = BurnOps::<Differentiating>::new(device);
    let gradients = loss(&ops, &arch, &parameters.weights(&arch), batch).backward();

    assert_gradient(&parameters, &arch, &gradients, &directions, &|net| match net.gibbs() {
        None => exact_likelihood(net, &points, &particles),
        Some(head) => {
            let net = &law.placed_in(net.clone()).unwrap();
            let density = exact_log_density(net, head.log_z().unwrap(), &points).unwrap().value;
            -density.iter().sum::<f64>() / density.len() as f64
        }
    });
}

/// Compares the gradient in each parameter array, along one direction, with central differences of `objective`.
fn assert_gradient(
    parameters: &Parameters<Differentiating>,
    arch: &Architecture,
    gradients: &<Differentiating as AutodiffBackend>::Gradients,
    directions: &[f64],
    objective: &dyn Fn(&Icnn<f64>) -> f64,
) {
    let device = Default::default();
    type P = Param<Tensor<Differentiating, 2>>;
    type Pick = fn(&mut Parameters<Differentiating>) -> &mut P;
    let picks: [(&str, Pick); 8] = [
        ("forms", |p| &mut p.forms),
        ("bias", |p| &mut p.bias),
        ("diagonal", |p| p.diagonal.as_mut().unwrap()),
        ("mixing", |p| &mut p.mixing[0]),
        ("output", |p| &mut p.output),
        ("head_root", |p| &mut p.head_root),
        ("head_diagonal", |p| &mut p.head_diagonal),
        ("centre", |p| &mut p.centre),
    ];
    for (name, pick) in picks {
        let mut moved = parameters.clone();
        let shape = pick(&mut moved).dims();
        let direction = &directions[..shape[0] * shape[1]];
        let tensor = |scale: f64| {
            let data: Vec<f32> = direction.iter().map(|v| (v * scale) as f32).collect();
            Tensor::<Differentiating, 2>::from_data(TensorData::new(data, shape), &device)
        };
        let at = |scale: f64| {
            let mut moved = parameters.clone();
            let param = pick(&mut moved);
            *param = param.clone().map(|t| t + tensor(scale));
            objective(&network_of(arch, &moved.weights(arch)).unwrap().cast().unwrap())
        };
        let Some(gradient) = pick(&mut moved).val().grad(gradients) else {
            // The directions of a spiked head are fixed.
            assert!(name == "head_root" && arch.head != Head::Full, "no gradient of {name}");
            continue;
        };
        let h = 1e-2;
        let slope = (at(h) - at(-h)) / (2.0 * h);
        let gradient: Vec<f32> = gradient.into_data().to_vec().unwrap();
        let along: f64 = gradient.iter().zip(direction).map(|(g, v)| f64::from(*g) * v).sum();
        // The differences' own error is of order h² = 1e-4 relative, weights rounded to f32 add 1e-5 / h.
        let scale = 1.0 + gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!((along - slope).abs() < 3e-3 * scale, "{name}: {along} against {slope}");
    }
}

#[test]
fn the_regression_has_the_gradient_of_the_residuals_variance() {
    let d = 3;
    let net = network(d, true);
    let arch = net.architecture().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut random = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (points, energy, directions) = (random(5 * d), random(5), random(1000));
    let device = Default::default();
    let parameters = Parameters::<Differentiating>::from_network(&net, &device).unwrap();
    let single: Icnn<f32> = network_of(&arch, &parameters.weights(&arch)).unwrap();
    let log_dets = factored(&single, &points).unwrap();
    let (parts, deviation) = regression_parts(&single, points.clone(), &energy, log_dets).unwrap();
    let ops = BurnOps::<Differentiating>::new(device);
    let loss = regression(&ops, &arch, &parameters.weights(&arch), &parts, &device);
    let variance = |net: &Icnn<f64>| {
        let density = exact_log_density(net, 0.0, &points).unwrap().value;
        let least = energy.iter().copied().fold(f64::INFINITY, f64::min);
        let a: Vec<f64> = energy.iter().map(|e| (1.0 + (e - least) / 5.0).powi(-2)).collect();
        let total: f64 = a.iter().sum();
        let r: Vec<f64> = energy.iter().zip(density).map(|(e, l)| e + l).collect();
        let mean = a.iter().zip(&r).map(|(a, r)| a * r).sum::<f64>() / total;
        a.iter().zip(&r).map(|(a, r)| a * (r - mean).powi(2)).sum::<f64>() / total
    };
    let exact = variance(&single.cast().unwrap());
    // f32 rounding of a residual of order 10.
    assert!((deviation - exact.sqrt()).abs() < 1e-4, "{deviation} against {}", exact.sqrt());
    assert_gradient(&parameters, &arch, &loss.backward(), &directions, &variance);
}

#[test]
fn the_jacobian_by_hand_is_that_of_the_residual() {
    for (rank, beta) in [(1, 1.5), (2, 0.7)] {
        let (d, activation) = (3, Activation::Softplus { beta });
        let arch = Architecture {
            dim: d,
            widths: vec![4],
            rank,
            diagonal: false,
            activation,
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let mut random = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let start = Gaussian::fit(&random(60), d, 0.3).unwrap().quadratic_start().unwrap();
        let net = Icnn::new(arch.clone(), initial_weights(&arch, &start, 1).unwrap()).unwrap();
        let parameters = Parameters::<Differentiating>::from_network(&net, &Default::default()).unwrap();
        let mut free = parameters.shallow_numbers().unwrap();
        let moves = random(free.len());
        free.iter_mut().zip(moves).for_each(|(f, m)| *f += 0.5 * m.abs());
        let (points, energy) = (random(5 * d), random(5));
        let relevance = [0.2; 5];
        let problem =
            least_squares::Problem { arch: &arch, points: &points, energy: &energy, relevance: &relevance };
        let (r, jacobian) = problem.residuals(&free, true).unwrap();
        // The residual is that of the network that the numbers make; rounded to f32 there.
        let network: Icnn<f64> = network_of(&arch, &parameters.with_shallow_numbers(&free).weights(&arch))
            .unwrap()
            .cast()
            .unwrap();
        let density = exact_log_density(&network, 0.0, &points).unwrap().value;
        let mean = energy.iter().zip(&density).map(|(e, l)| e + l).sum::<f64>() / 5.0;
        for (i, r) in r.iter().enumerate() {
            assert!((r / 0.2f64.sqrt() - (energy[i] + density[i] - mean)).abs() < 1e-4, "{r}");
        }
        for k in 0..free.len() {
            let at = |h: f64| {
                let mut moved = free.clone();
                moved[k] += h;
                problem.residuals(&moved, false).unwrap().0
            };
            let (above, below) = (at(1e-5), at(-1e-5));
            for i in 0..5 {
                let (slope, found) = ((above[i] - below[i]) / 2e-5, jacobian[i * free.len() + k]);
                // Central differences in f64: h² |r⁽³⁾| and 1e-15 |r|/h, each about 1e-9.
                assert!((slope - found).abs() < 1e-6 * (1.0 + slope.abs()), "{k} of {i}: {found}, {slope}");
            }
        }
    }
}

#[test]
fn activations_of_numbers_are_those_of_arrays() {
    let host = Host::<f64>::sequential();
    for kind in [Activation::Elu, Activation::Softplus { beta: 2.5 }] {
        for t in [-30.0, -1.3, -0.2, 0.4, 2.0, 40.0] {
            for order in 0..4u8 {
                let array = host.activation(&Array::matrix(vec![t], 1, 1), kind, order).to_vec()[0];
                let number = kind.at(t)[usize::from(order)];
                assert!((array - number).abs() < 1e-12 * (1.0 + array.abs()), "{kind:?} {t} {order}");
            }
        }
    }
}

/// E(x) = ½ x' A x with A = diag(a, 1, 1, ...).
fn energy_of_gaussian(d: usize, a: f64) -> Quadratic {
    let mut hessian: Vec<f64> = (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect();
    hessian[0] = a;
    Quadratic::new(hessian, vec![0.0; d]).unwrap()
}

fn domain(d: usize) -> Domain {
    Domain { low: vec![-3.0; d], high: vec![3.0; d] }
}

pub(super) fn energy_config(d: usize, updates: usize) -> TrainConfig {
    let base = config(updates, 0);
    TrainConfig {
        method: Method::Energy { domain: domain(d), least_squares: false },
        architecture: Architecture { dim: d, ..base.architecture },
        sigma: 0.0,
        ..base
    }
}

#[test]
fn beyond_the_reach_of_whole_hessians_log_dets_are_estimated() {
    let d = 66;
    let start = Gaussian { mean: vec![0.0; d], covariance: identity(d).into() };
    let config = TrainConfig { batch: 0, solve_tolerance: 1e-4, solve_steps: 60, ..energy_config(d, 5) };
    let mut trainer = Trainer::new(config, &start).unwrap();
    let energy = energy_of_gaussian(d, 4.0);
    for _ in 0..5 {
        assert!(trainer.step_on_energy(&energy).unwrap().deviation.unwrap().is_finite());
    }
    let network = trainer.network().unwrap();
    let points = inner::normal(&mut trainer.rng, 3 * d);
    let exact = factored(&network, &points).unwrap();
    let found = trainer.estimated(&network, &points).unwrap();
    for (a, b) in exact.value.iter().zip(&found.value) {
        // Four probes; the head, which preconditions, leaves a trace of a few nats to estimate.
        assert!((a - b).abs() < 0.5, "{a} {b}");
    }
    let mut back = vec![0.0; 3 * d];
    network.hvp(&points, &found.solved, &mut back).unwrap();
    // The solves' tolerance, in f32.
    assert!(back.iter().zip(&found.probe).all(|(a, b)| (a - b).abs() < 1e-2));
}

pub(super) fn identity(d: usize) -> Vec<f64> {
    (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect()
}

#[test]
fn runs_of_energies_and_of_the_baseline_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let energy = energy_of_gaussian(2, 4.0);
    let baseline = || TrainConfig { method: Method::GaussianIcnn, ..config(12, 6) };
    let shallow = TrainConfig {
        method: Method::Energy { domain: domain(2), least_squares: true },
        architecture: Architecture { widths: vec![5], ..energy_config(2, 12).architecture },
        ..energy_config(2, 12)
    };
    let particles = 0;
    let alone = TrainConfig { particles, ..energy_config(2, 12) };
    for config in [shallow, alone, energy_config(2, 12), baseline()] {
        let step = |t: &mut Trainer| match t.config().method {
            Method::Energy { .. } => t.step_on_energy(&energy).unwrap(),
            _ => t.step(1000, &ring).unwrap(),
        };
        let mut unbroken = Trainer::new(config.clone(), &ring_gaussian(Head::Full)).unwrap();
        let mut broken = Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
        for at in 0..12 {
            step(&mut unbroken);
            if at == 7 {
                broken.save(&path).unwrap();
                broken = Trainer::load(&path).unwrap();
            }
            step(&mut broken);
        }
        assert_eq!(unbroken.start().source, broken.start().source);
        let arrays = |t: &Trainer| -> Vec<Vec<f32>> {
            let net = t.network().unwrap();
            net.weights().named(net.architecture()).iter().map(|(.., a)| a.to_vec()).collect()
        };
        assert_eq!(arrays(&unbroken), arrays(&broken));
    }
}

#[test]
fn a_run_takes_only_what_it_learns_from() {
    let energy = energy_of_gaussian(2, 4.0);
    let mut samples = Trainer::new(config(5, 0), &ring_gaussian(Head::Full)).unwrap();
    assert!(samples.step_on_energy(&energy).err().unwrap().to_string().contains("samples"));
    let mut of_energy = Trainer::new(energy_config(2, 5), &ring_gaussian(Head::Full)).unwrap();
    assert!(of_energy.step(1000, &ring).err().unwrap().to_string().contains("energy"));
    let wrong = energy_of_gaussian(3, 4.0);
    assert!(of_energy.step_on_energy(&wrong).err().unwrap().to_string().contains("dimension"));
    for broken in [
        TrainConfig { sigma: 0.1, ..energy_config(2, 5) },
        TrainConfig { batch: 1, particles: 0, ..energy_config(2, 5) },
        TrainConfig { batch: 0, ..config(5, 0) },
    ] {
        assert!(broken.validate().is_err(), "{broken:?}");
    }
}

pub(super) fn config(updates: usize, conjugate_updates: usize) -> TrainConfig {
    TrainConfig {
        method: Method::Samples,
        architecture: Architecture {
            dim: 2,
            widths: vec![16, 8],
            rank: 1,
            diagonal: false,
            activation: Activation::Softplus { beta: 1.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        },
        sigma: 0.1,
        updates,
        conjugate_updates,
        conjugate_weight: 0.0,
        amortise: false,
        batch: 64,
        particles: 64,
        langevin_steps: 3,
        langevin_step: 0.3,
        langevin_acceptance: 0.7,
        conjugate_steps: 6,
        conjugate_tolerance: 1e-2,
        solve_tolerance: 1e-3,
        solve_steps: 20,
        learning_rate: 5e-3,
        learning_rate_positive: 5e-2,
        learning_rate_head: 2e-3,
        final_rate: 0.02,
        warm_up: 10,
        betas: (0.9, 0.99),
        average: 0.99,
        components: 1,
        seed: 5,
    }
}

/// A ring of radius 1: as far from a Gaussian as d = 2 offers.
pub(super) fn ring(indices: &[usize], out: &mut [f64]) -> crate::Result<()> {
    for (row, i) in out.chunks_exact_mut(2).zip(indices) {
        let angle = 0.1 * *i as f64;
        row.copy_from_slice(&[angle.cos(), angle.sin()]);
    }
    Ok(())
}

pub(super) fn ring_gaussian(head: Head) -> Gaussian {
    let mut y = vec![0.0; 2000];
    ring(&(0..1000).collect::<Vec<_>>(), &mut y).unwrap();
    match head {
        Head::Full => Gaussian::fit(&y, 2, 0.1).unwrap(),
        Head::Spiked { rank } => Gaussian::fit_leading(&y, 2, 0.1, rank).unwrap(),
    }
}

/// A run on data that are one point of five dimensions and noise.
pub(super) fn run_on_noise(widths: &[usize]) -> Trainer {
    let mut config = config(60, 0);
    config.architecture.widths = widths.to_vec();
    config.architecture.dim = 5;
    config.batch = 512;
    Trainer::new(config, &Gaussian::fit(&[0.5; 50], 5, 0.1).unwrap()).unwrap()
}

pub(super) fn one_point(_: &[usize], out: &mut [f64]) -> crate::Result<()> {
    out.fill(0.5);
    Ok(())
}

fn with_head(config: TrainConfig, head: Head) -> TrainConfig {
    TrainConfig { architecture: Architecture { head, ..config.architecture }, ..config }
}

pub(super) fn with_factor_of_head(config: TrainConfig) -> TrainConfig {
    let architecture = Architecture { gibbs: GibbsFactor::Head, ..config.architecture };
    TrainConfig { architecture, ..config }
}

#[test]
fn the_factor_of_the_head_goes_with_the_likelihood_of_samples_alone() {
    let refused = |config: TrainConfig| with_factor_of_head(config).validate().unwrap_err().to_string();
    assert!(with_factor_of_head(config(5, 0)).validate().is_ok());
    assert!(refused(config(5, 2)).contains("conjugate_updates"));
    assert!(refused(TrainConfig { conjugate_weight: 0.5, ..config(5, 0) }).contains("conjugate_weight"));
    let method = Method::GaussianIcnn;
    assert!(refused(TrainConfig { method, ..config(5, 0) }).contains("learned from samples"));
}

#[test]
fn a_resumed_run_ends_where_an_unbroken_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let spiked = Head::Spiked { rank: 1 };
    let runs = [(false, Head::Full, 12), (true, Head::Full, 12), (false, spiked, 12), (false, Head::Full, 0)];
    // Rows for two components.
    let rows = 1000;
    for (amortise, head, conjugate_updates) in runs {
        // Both objectives, and the step in which λ_max is estimated anew; or the Gibbs factor of the head.
        let weight = if conjugate_updates > 0 { 0.5 } else { 0.0 };
        let config = || {
            let run = TrainConfig { amortise, conjugate_weight: weight, ..config(30, conjugate_updates) };
            let run = with_head(run, head);
            match conjugate_updates {
                0 => TrainConfig { components: 2, ..with_factor_of_head(run) },
                _ => run,
            }
        };
        let mut unbroken = Trainer::new(config(), &ring_gaussian(head)).unwrap();
        let mut broken = Trainer::new(config(), &ring_gaussian(head)).unwrap();
        for _ in 0..30 {
            unbroken.step(rows, &ring).unwrap();
        }
        for at in 0..30 {
            if at == 7 || at == 19 {
                broken.save(&path).unwrap();
                broken = Trainer::load(&path).unwrap();
            }
            broken.step(rows, &ring).unwrap();
        }
        let arrays = |t: &Trainer| -> Vec<Vec<f32>> {
            let net = t.network().unwrap();
            net.weights().named(net.architecture()).iter().map(|(.., a)| a.to_vec()).collect()
        };
        let guesses =
            |t: &Trainer| t.amortiser.as_ref().map(|a| a.guess(&unbroken.particles().unwrap()).unwrap());
        let mixture = |t: &Trainer| t.network().unwrap().gibbs().and_then(|head| head.mixture().cloned());
        assert_eq!(arrays(&unbroken), arrays(&broken));
        assert_eq!(mixture(&unbroken), mixture(&broken));
        assert_eq!(mixture(&unbroken).is_some(), conjugate_updates == 0);
        assert_eq!(unbroken.particles().unwrap(), broken.particles().unwrap());
        assert_eq!(guesses(&unbroken), guesses(&broken));
        assert_eq!(guesses(&unbroken).is_some(), amortise);
    }
}

#[test]
fn the_amortiser_learns_to_guess_conjugates() {
    let config = TrainConfig { amortise: true, conjugate_steps: 20, ..config(2000, 2000) };
    let mut trainer = Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
    for _ in 0..2000 {
        assert!(trainer.step(1000, &ring).unwrap().guess_residual.unwrap().is_finite());
    }
    // Where it began, the start's own map, falls behind as the potential moves.
    let particles = &trainer.particles().unwrap();
    let linear = GibbsStart::new(trainer.start()).unwrap().map(particles).unwrap();
    let network = trainer.network().unwrap();
    let of_start = inner::residual(&network, &linear, particles).unwrap();
    let guesses = trainer.amortiser.as_ref().unwrap().guess(particles).unwrap();
    let of_guess = inner::residual(&network, &guesses, particles).unwrap();
    assert!(of_guess < 0.25 * of_start, "the guess has residual {of_guess}, the start's map {of_start}");
}

#[test]
fn the_amortiser_learns_from_converged_rows_alone() {
    let config = TrainConfig { amortise: true, ..config(1, 1) };
    let mut trainer = Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
    let amortiser = trainer.amortiser.as_mut().unwrap();
    let x = [0.3, -0.2, 1.0, 0.5];
    let before = amortiser.guess(&x).unwrap();
    amortiser.learn(&x, &[f64::NAN; 4], &[false, false]).unwrap();
    assert_eq!(amortiser.guess(&x).unwrap(), before);
    let target = [before[2] + 0.5, before[3] - 0.5];
    for _ in 0..300 {
        amortiser.learn(&x, &[f64::NAN, f64::NAN, target[0], target[1]], &[false, true]).unwrap();
    }
    let after = amortiser.guess(&x[2..]).unwrap();
    let off = |y: &[f64]| (y[0] - target[0]).hypot(y[1] - target[1]);
    // Adam moves each weight by up to 300 x 1e-4; one point is fitted long before.
    assert!(off(&after) < 0.1 * off(&before[2..]), "{after:?}, expected {target:?}");
    assert!(amortiser.learn(&x, &[f64::NAN; 4], &[true, true]).is_err());
}

#[test]
fn damaged_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    Trainer::new(config(5, 0), &ring_gaussian(Head::Full)).unwrap().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for broken in [&bytes[..bytes.len() / 2], b"", b"cmf-ckpt", b"something else"] {
        std::fs::write(&path, broken).unwrap();
        let message = Trainer::load(&path).err().unwrap().to_string();
        assert!(message.contains("checkpoint"), "{message}");
    }
}

#[test]
fn checkpoints_of_earlier_versions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let mut trainer = Trainer::new(config(10, 0), &ring_gaussian(Head::Full)).unwrap();
    (0..3).for_each(|_| {
        trainer.step(1000, &ring).unwrap();
    });
    trainer.save(&path).unwrap();
    assert_eq!(Trainer::load(&path).unwrap().langevin_step, trainer.langevin_step);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[8], 7);
    // Version 6 had no mixture, here none tried and none, which are two bytes.
    bytes[8] = 6;
    bytes.truncate(bytes.len() - 2);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Trainer::load(&path).unwrap().langevin_step, trainer.langevin_step);
    // Version 5 had no mean Hessian, here one of no numbers, which are as many bytes as their length takes.
    bytes[8] = 5;
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Trainer::load(&path).unwrap().langevin_step, trainer.langevin_step);
    // Version 4 knew no control variate.
    bytes[8] = 4;
    bytes.truncate(bytes.len() - 8);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Trainer::load(&path).unwrap().langevin_step, trainer.langevin_step);
    // In version 3 Langevin steps went by the largest eigenvalue alone, and the file ends with the damping.
    bytes[8] = 3;
    bytes.truncate(bytes.len() - 8);
    std::fs::write(&path, bytes).unwrap();
    let mut old = Trainer::load(&path).unwrap();
    assert_eq!(old.langevin_step, 0.3 / trainer.lambda);
    old.step(1000, &ring).unwrap();
}

/// In five dimensions updates look at the Hessian, the eleventh first.
#[test]
fn linear_solves_take_the_mean_hessian_for_their_metric_and_resume_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let (mut unbroken, mut broken) = (run_on_noise(&[16, 8]), run_on_noise(&[16, 8]));
    for update in 1..=20 {
        unbroken.step(10, &one_point).unwrap();
        if update == 14 {
            broken.save(&path).unwrap();
            broken = Trainer::load(&path).unwrap();
        }
        broken.step(10, &one_point).unwrap();
        assert_eq!(unbroken.mean_hessian.len(), if update > 10 { 25 } else { 0 });
    }
    let forms = |t: &Trainer| t.network().unwrap().weights().x_side.to_vec();
    assert_eq!(forms(&unbroken), forms(&broken));
    // P is (∇²w)^{-1} of the mean Hessian: L' H L = I.
    let l_transposed = unbroken.solve_metric.colour(&identity(5)).unwrap();
    let half = unbroken.solve_metric.pull_back(&unbroken.mean_hessian).unwrap();
    let product = crate::linalg::matmul(&l_transposed, &half, 5, 5, 5);
    // Rounding of f64, of a matrix whose condition number is some tens.
    assert!(product.iter().zip(identity(5)).all(|(a, b)| (a - b).abs() < 1e-12), "{product:?}");
    assert_ne!(l_transposed, unbroken.metric.colour(&identity(5)).unwrap());
}

#[test]
fn langevin_steps_are_tuned_to_their_acceptance() {
    // From steps that are far too short and far too long.
    for langevin_step in [1e-2, 30.0] {
        let config = TrainConfig { langevin_step, ..config(300, 0) };
        let mut trainer = Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
        let accepted: Vec<f64> =
            (0..300).map(|_| trainer.step(1000, &ring).unwrap().acceptance).skip(200).collect();
        let mean = accepted.iter().sum::<f64>() / 100.0;
        // 100 means of 192 probabilities, whose errors the tuning makes up for.
        assert!((mean - 0.7).abs() < 0.02, "{langevin_step}: {mean}");
    }
}

#[test]
fn each_objective_and_their_sum_learn_a_ring() {
    // log ρ at ring points against the ring's centre: a Gaussian has more density at the centre.
    let contrast = |t: &Trainer| {
        let net: Icnn<f64> = t.network().unwrap().cast().unwrap();
        let points = [1.0, 0.0, 0.0, 1.0, -0.8, 0.6, 0.0, 0.0];
        let r = match t.start().source {
            Source::Gibbs => exact_log_density(&net, 0.0, &points).unwrap(),
            Source::Gaussian => exact_log_density_from_gaussian(&net, &points, None).unwrap(),
        };
        r.value[..3].iter().sum::<f64>() / 3.0 - r.value[3]
    };
    let spiked = Head::Spiked { rank: 1 };
    let learned = [
        (Method::Samples, 0, 0.0, Head::Full),
        (Method::Samples, 0, 0.0, spiked),
        (Method::Samples, 400, 0.0, Head::Full),
        (Method::Samples, 0, 1.0, Head::Full),
        (Method::GaussianIcnn, 0, 0.0, Head::Full),
        (Method::GaussianIcnn, 400, 0.0, spiked),
    ];
    let of_head = [Head::Full, spiked].map(|head| (Method::Samples, 0, 0.0, head, GibbsFactor::Head));
    let learned =
        learned.map(|(method, updates, weight, head)| (method, updates, weight, head, GibbsFactor::Whole));
    for (method, conjugate_updates, conjugate_weight, head, gibbs) in learned.into_iter().chain(of_head) {
        let case = format!("{method:?}, {conjugate_updates}, {conjugate_weight}, {head:?}, {gibbs:?}");
        let config = TrainConfig { method, conjugate_weight, ..config(400, conjugate_updates) };
        let mut config = with_head(config, head);
        config.architecture.gibbs = gibbs;
        let mut trainer = Trainer::new(config, &ring_gaussian(head)).unwrap();
        let before = contrast(&trainer);
        for _ in 0..400 {
            let m = trainer.step(1000, &ring).unwrap();
            assert!(m.residual.is_finite() && m.lambda_max > 0.0);
        }
        let after = contrast(&trainer);
        assert!(before < 0.0 && after > before + 0.5, "{case}: {before} to {after}");
    }
}
