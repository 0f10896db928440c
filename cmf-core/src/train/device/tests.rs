//! The device's inner loops and updates against the host's: on Burn's processor backend, and on a GPU where one is.

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::ops::{BurnOps, Precise, Ranked, product};
use super::super::parameters::{Parameters, network_of};
use super::super::tests::{
    config, energy_config, network, one_point, ring, ring_gaussian, run_on_noise, with_factor_of_head,
};
use super::super::{Method, TrainConfig, Trainer, Training, inner, objective, solve};
use super::conjugate::conjugate;
use super::draws::Chance;
use super::langevin::{lambda_max, langevin};
use super::metric::Metric;
use super::solve::hessian_solve;
use super::{DeviceTrainer, read};
use crate::conjugate::ConjugateSolver;
use crate::density::{exact_log_density, exact_log_density_from_gaussian};
use crate::host::Array;
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, Head, Icnn, Weights};
use crate::potential::{Potential, SecondOrder};
use crate::preconditioner::Preconditioner;
use crate::sampler::{Mala, Sampler};
use crate::source::Source;
use crate::train::activation::Activates;

/// What the device's code runs on.
trait Device: AutodiffBackend<InnerBackend: Precise> + Activates {
    /// How far whole updates are from the host's.
    const OFF: f64;
}

impl Device for Autodiff<Flex> {
    /// The rounding of f32, in which the device keeps what the host keeps in f64 between calls.
    const OFF: f64 = 1e-5;
}

#[cfg(feature = "cuda")]
impl Device for Autodiff<burn::backend::Cuda> {
    /// Tensor cores round the factors of the loss's products, and of R R', by 5e-4.
    const OFF: f64 = 2e-3;
}

/// Runs each check on Burn's processor backend in the part of a device, and, when asked to, on an NVIDIA GPU.
macro_rules! on_devices {
    ($($check:ident),* $(,)?) => {
        mod on_the_processor {
            $(#[test] fn $check() { super::$check::<super::Autodiff<super::Flex>>(); })*
        }
        #[cfg(feature = "cuda")]
        mod on_cuda {
            $(#[test] #[ignore = "needs an NVIDIA GPU and the CUDA toolkit"] fn $check() {
                super::$check::<super::Autodiff<burn::backend::Cuda>>();
            })*
        }
    };
}

on_devices! {
    products_have_the_precision_of_f32,
    eigenvalue_and_langevin_steps_are_the_hosts,
    langevin_particles_of_a_gaussian_have_its_moments,
    linear_solves_are_the_hosts,
    conjugate_solves_are_the_hosts_step_by_step,
    a_row_that_is_not_finite_spoils_no_other,
    updates_are_the_hosts,
    control_and_metric_of_solves_are_the_hosts,
    checkpoints_move_between_host_and_device,
    several_devices_make_the_run_of_one,
    several_devices_know_what_they_cannot_share,
    an_update_that_failed_is_not_gone_on_with,
    rows_that_could_not_be_read_are_asked_for_again,
    checkpoints_move_between_one_device_and_several,
    a_device_learns_a_ring_as_well_as_the_host,
    a_device_refuses_energies_and_answers_that_are_not_the_hosts,
}

fn rows<B: Backend>(a: &[f64], d: usize) -> Tensor<B, 2> {
    objective::rows(a, d, &Default::default())
}

/// One network on the host and on the device, with a metric near its inverse Hessian.
struct Both<B: Backend> {
    host: Icnn<f32>,
    arch: Architecture,
    weights: Weights<Ranked<B>>,
    ops: BurnOps<B>,
    metric: Preconditioner,
    on_device: Metric<B>,
}

impl<B: Precise> Both<B> {
    /// With the metric `scale` times the inverse Hessian at the origin.
    fn new(net: &Icnn<f64>, scale: f64) -> Self {
        let (arch, d) = (net.architecture().clone(), net.dim());
        let parameters = Parameters::<B>::from_network(net, &Default::default()).unwrap();
        let weights = parameters.weights(&arch);
        let mut hessian = vec![0.0; d * d];
        net.hessian(&vec![0.0; d], &mut hessian).unwrap();
        let inverse = crate::linalg::Cholesky::new(&hessian, d, "H").unwrap().inverse();
        let metric =
            Preconditioner::new(&inverse.iter().map(|v| scale * v).collect::<Vec<_>>().into()).unwrap();
        Both {
            host: network_of(&arch, &weights).unwrap(),
            on_device: Metric::new(&metric, &Default::default()).unwrap(),
            ops: BurnOps::precise(Default::default()),
            arch,
            weights,
            metric,
        }
    }

    fn device(&self) -> super::Potential<'_, B> {
        Formula::new(&self.ops, &self.arch, &self.weights)
    }
}

fn random(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.5..1.5)).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn products_have_the_precision_of_f32<B: Device>() {
    // One point or many, inner lengths that no tile divides, transposed factors.
    for (n, k, m) in [(7, 200, 5), (1, 785, 33), (130, 784, 257)] {
        let (a, b) = (random(1, n * k), random(2, m * k));
        let (a, b) = (rows::<B::InnerBackend>(&a, k), rows(&b, k).transpose());
        let exact = crate::linalg::matmul(&read(a.clone()).unwrap(), &read(b.clone()).unwrap(), n, k, m);
        // Sums of k products of root mean square 0.75: each of k additions rounds by up to 6e-8 of some 0.75 √k, √k
        // of that is left, and of thousands of sums the worst is four times as bad. Factors of 11 bits alone would be
        // off by 2e-4 of 0.75 √k, twenty times as much.
        let bound = 4.0 * 6e-8 * 0.75 * k as f64;
        let off = largest_difference(&read(product(a, b)).unwrap(), &exact);
        assert!(off < bound, "{n}, {k}, {m}: {off:e}");
    }
}

fn eigenvalue_and_langevin_steps_are_the_hosts<B: Device>() {
    let (d, n) = (4, 9);
    let both = Both::<B::InnerBackend>::new(&network(d, true), 1.3);
    let (x, v) = (random(3, n * d), random(4, n * d));
    let mut power = v.clone();
    let want = inner::lambda_max(&both.host, &both.metric, &x, &mut power, 8).unwrap();
    let (found, on_device) = lambda_max(&both.device(), &both.on_device, &rows(&x, d), rows(&v, d), 8);
    // Eight f32 products of each, normalised between.
    assert!((read(found).unwrap()[0] / want - 1.0).abs() < 1e-5);
    assert!(largest_difference(&read(on_device).unwrap(), &power) < 1e-5);

    // Steps long enough for some to be rejected.
    let mala = Mala { step: 1.2 / want, preconditioner: Some(std::sync::Arc::new(both.metric.clone())) };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut state = mala.init(&both.host, x.clone()).unwrap();
    let mut accepted = 0.0;
    for _ in 0..3 {
        accepted += mala.step(&both.host, &mut state, &mut rng).unwrap().acceptance / 3.0;
    }
    assert!(accepted < 0.99, "{accepted}");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let chances: Vec<Chance> = (0..3).map(|_| Chance::draw(&mut rng, n, d)).collect();
    let (moved, share) = langevin(&both.device(), &both.on_device, rows(&x, d), mala.step, &chances);
    // The same random numbers in f32: rounding of positions and values of order 10.
    assert!(largest_difference(&read(moved).unwrap(), &state.x) < 2e-5);
    assert!((read(share).unwrap()[0] - accepted).abs() < 2e-5);
}

fn langevin_particles_of_a_gaussian_have_its_moments<B: Device>() {
    let (d, n, step) = (3, 4000, 0.3);
    let mut net = network(d, false);
    let (arch, mut weights) = (net.architecture().clone(), net.weights().clone());
    // Without its hidden layers the network is ½ (x-a)'Q(x-a).
    weights.output = Array::matrix(vec![1e-6; arch.units()], 1, arch.units());
    let centre = weights.centre.to_vec();
    net = Icnn::new(arch, weights).unwrap();
    let both = Both::<B::InnerBackend>::new(&net, 1.0);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let chances: Vec<Chance> = (0..40).map(|_| Chance::draw(&mut rng, n, d)).collect();
    let (x, _) = langevin(&both.device(), &both.on_device, rows(&vec![0.0; n * d], d), step, &chances);
    let x = read(x).unwrap();
    let mut hessian = vec![0.0; d * d];
    net.hessian(&centre, &mut hessian).unwrap();
    let (mut form, mut mean) = (0.0, vec![0.0; d]);
    for row in x.chunks_exact(d) {
        let moved: Vec<f64> = row.iter().zip(&centre).map(|(x, a)| x - a).collect();
        form += crate::linalg::dot(&moved, &crate::linalg::matmul(&hessian, &moved, d, d, 1));
        mean.iter_mut().zip(&moved).for_each(|(m, v)| *m += v / n as f64);
    }
    // The law is N(a, Q^{-1}), and with P Q = I some 0.7^40 of the start is left. E (x-a)'Q(x-a) = 3 with relative
    // standard error √(2/12,000) = 1.3 percent, of which four; unadjusted steps would be off by 18.
    let found = form / (n * d) as f64;
    assert!((found - 1.0).abs() < 0.052, "{found}");
    // n |mean|²_Q is chi-squared with 3 degrees of freedom: above 21 with probability 1e-4.
    let off = crate::linalg::dot(&mean, &crate::linalg::matmul(&hessian, &mean, d, d, 1));
    assert!(off * (n as f64) < 21.0, "{off}");
}

fn linear_solves_are_the_hosts<B: Device>() {
    let (d, n) = (5, 11);
    let both = Both::<B::InnerBackend>::new(&network(d, true), 0.7);
    let y = random(7, n * d);
    let v = inner::signs(&mut ChaCha8Rng::seed_from_u64(8), n * d);
    let tolerance = 1e-5;
    let (want, _) = solve::hessian_solve(&both.host, &both.metric, &y, &v, tolerance, 30).unwrap();
    let (found, worst) =
        hessian_solve(&both.device(), &both.on_device, &rows(&y, d), &rows(&v, d), tolerance, 30).unwrap();
    assert!(worst <= tolerance, "{worst}");
    let (found, size) = (read(found).unwrap(), want.iter().fold(0.0f64, |top, v| top.max(v.abs())));
    // Both have relative residuals of 1e-5 in the norm of P, and H is within a factor of three of P^{-1}.
    assert!(largest_difference(&found, &want) < 1e-4 * size);
    let mut back = vec![0.0; n * d];
    both.host.hvp(&y, &found, &mut back).unwrap();
    assert!(largest_difference(&back, &v) < 1e-4, "{back:?}");
    // More steps than rounding allows do no harm.
    let (longer, _) =
        hessian_solve(&both.device(), &both.on_device, &rows(&y, d), &rows(&v, d), 1e-30, 200).unwrap();
    assert!(largest_difference(&read(longer).unwrap(), &want) < 1e-4 * size);
}

fn conjugate_solves_are_the_hosts_step_by_step<B: Device>() {
    let (d, n) = (4, 10);
    // Twelve times too large a metric makes first steps overshoot.
    for scale in [1.0, 12.0] {
        let both = Both::<B::InnerBackend>::new(&network(d, true), scale);
        let (x, start) = (random(9, n * d), random(10, n * d));
        for calls in [2, 4, 6, 40] {
            let solver = ConjugateSolver {
                tolerance: 1e-5,
                max_steps: calls,
                preconditioner: Some(std::sync::Arc::new(both.metric.clone())),
                ..ConjugateSolver::default()
            };
            let want = solver.solve(&both.host, &x, Some(&start)).unwrap();
            let (w, metric) = (both.device(), &both.on_device);
            let found = conjugate(&w, metric, &rows(&x, d), rows(&start, d), 1e-5, calls);
            let (y, residual) = (read(found.y).unwrap(), read(found.residual).unwrap());
            let of_host: Vec<f64> = want.rows.iter().map(|row| row.residual).collect();
            if calls == 40 {
                assert!(want.all_converged() && residual.iter().all(|r| *r <= 1e-5), "{scale}: {residual:?}");
                // A residual of 1e-5 a coordinate over the least eigenvalue of H, about one half here.
                assert!(largest_difference(&y, &want.y) < 1e-4);
                continue;
            }
            // The same iteration in f32, whose rounding of 1e-6 a few steps of a curved function may enlarge.
            assert!(
                largest_difference(&residual, &of_host) < 1e-5,
                "{scale}, {calls}: {residual:?} {of_host:?}"
            );
            assert!(largest_difference(&y, &want.y) < 1e-5, "{scale}, {calls}");
        }
    }
}

fn a_row_that_is_not_finite_spoils_no_other<B: Device>() {
    let d = 4;
    let both = Both::<B::InnerBackend>::new(&network(d, false), 1.0);
    let x = random(11, 3 * d);
    let (w, metric) = (both.device(), &both.on_device);
    let alone = conjugate(&w, metric, &rows(&x[..d], d), rows(&x[..d], d), 1e-5, 30);
    let mut start = x.clone();
    start[d] = f64::NAN;
    start[2 * d] = 1e30;
    let found = conjugate(&w, metric, &rows(&x, d), rows(&start, d), 1e-5, 30);
    let residual = read(found.residual).unwrap();
    assert!(residual[0] <= 1e-5 && !residual[1].is_finite(), "{residual:?}");
    // The same row in another batch: products of another shape may round otherwise.
    assert!(largest_difference(&read(alone.y).unwrap(), &read(found.y).unwrap()[..d]) < 1e-5);
}

fn on_device<B: Device>(trainer: Trainer) -> DeviceTrainer<B> {
    on_several(trainer, 1)
}

/// On `n` replicas, which have a thread and a queue each, though here one device computes them all.
fn on_several<B: Device>(trainer: Trainer, n: usize) -> DeviceTrainer<B> {
    DeviceTrainer::from_state(trainer.state().unwrap(), vec![Default::default(); n]).unwrap()
}

/// log ρ, but for the constant, at three ring points and the centre.
fn densities(t: &dyn Training) -> Vec<f64> {
    let net: Icnn<f64> = t.network().unwrap().cast().unwrap();
    let points = [1.0, 0.0, 0.0, 1.0, -0.8, 0.6, 0.0, 0.0];
    match t.start().source {
        Source::Gibbs => exact_log_density(&net, 0.0, &points).unwrap().value,
        Source::Gaussian => exact_log_density_from_gaussian(&net, &points, None).unwrap().value,
    }
}

fn updates_are_the_hosts<B: Device>() {
    let runs = [
        TrainConfig { ..config(12, 0) },
        TrainConfig { ..config(12, 12) },
        TrainConfig { conjugate_weight: 0.5, amortise: true, ..config(12, 6) },
        TrainConfig { method: Method::GaussianIcnn, ..config(12, 6) },
        with_factor_of_head(config(12, 0)),
        // With a mixture from the second update on.
        TrainConfig { components: 2, ..with_factor_of_head(config(12, 0)) },
    ];
    for config in runs {
        let mut host = Trainer::new(config.clone(), &ring_gaussian(Head::Full)).unwrap();
        let mut device = on_device::<B>(Trainer::new(config.clone(), &ring_gaussian(Head::Full)).unwrap());
        for update in 1..=12 {
            let want = host.step(1000, &ring).unwrap();
            let found = device.step(1000, &ring).unwrap();
            assert_eq!((found.update, found.objective), (want.update, want.objective));
            let close = |a: f64, b: f64| {
                assert!((a - b).abs() < B::OFF * (1.0 + b.abs()), "{update}: {found:?} {want:?}")
            };
            close(found.lambda_max, want.lambda_max);
            close(found.acceptance, want.acceptance);
            assert_eq!(found.guess_residual.is_some(), want.guess_residual.is_some());
            found.guess_residual.zip(want.guess_residual).into_iter().for_each(|(a, b)| close(a, b));
            // The device looks at its residual every four products only, and so may come further.
            match found.objective {
                "likelihood" => assert!(found.residual <= config.solve_tolerance, "{found:?}"),
                _ => close(found.residual, want.residual),
            }
        }
        let off = largest_difference(&densities(&device), &densities(&host));
        assert!(off < B::OFF, "{off:e}, {config:?}");
        let off = largest_difference(&device.particles().unwrap(), &host.particles().unwrap());
        assert!(off < B::OFF, "{off:e}, {config:?}");
        let mixed = |t: &dyn Training| t.network().unwrap().gibbs().is_some_and(|g| g.mixture().is_some());
        assert_eq!([mixed(&host), mixed(&device)], [config.components > 1; 2]);
    }
}

/// κ is measured in the first update and used in the second; the eleventh looks at the Hessian.
fn control_and_metric_of_solves_are_the_hosts<B: Device>() {
    for widths in [&[16, 8][..], &[20]] {
        control_and_metric_of::<B>(widths);
    }
}

fn control_and_metric_of<B: Device>(widths: &[usize]) {
    let (mut host, mut device) = (run_on_noise(widths), on_device::<B>(run_on_noise(widths)));
    for _ in 0..12 {
        host.step(10, &one_point).unwrap();
        device.step(10, &one_point).unwrap();
    }
    assert!(
        host.kappa > 0.1 && (device.kappa - host.kappa).abs() < B::OFF,
        "{} {}",
        device.kappa,
        host.kappa
    );
    assert_eq!(host.mean_hessian.len(), 25);
    let off = largest_difference(&device.mean_hessian, &host.mean_hessian);
    assert!(off < B::OFF * host.mean_hessian.iter().fold(0.0, |top, v| v.max(top)), "{off:e}");
    let all = |t: &dyn Training| t.network().unwrap().weights().x_side.to_vec();
    let off = all(&device).iter().zip(all(&host)).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(off < B::OFF, "{off:e}");
}

/// Runs of 24 updates on `n` devices: unbroken, saved and resumed every six updates, and one that begins at `first` and goes
/// on where `next` takes it.
fn checkpoints_move<B: Device>(
    config: &TrainConfig,
    n: usize,
    first: fn(Trainer) -> Box<dyn Training>,
    next: fn(usize, Trainer) -> Box<dyn Training>,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let new = || Trainer::new(config.clone(), &ring_gaussian(Head::Full)).unwrap();
    let arrays = |t: &dyn Training| -> Vec<Vec<f32>> {
        let net = t.network().unwrap();
        net.weights().named(net.architecture()).iter().map(|(.., a)| a.to_vec()).collect()
    };
    let (mut unbroken, mut again) = (on_several::<B>(new(), n), on_several::<B>(new(), n));
    let mut moving = first(new());
    for update in 1..=24 {
        unbroken.step(1000, &ring).unwrap();
        again.step(1000, &ring).unwrap();
        moving.step(1000, &ring).unwrap();
        if update % 6 == 0 {
            again.save(&path).unwrap();
            again = on_several::<B>(Trainer::load(&path).unwrap(), n);
            moving.save(&path).unwrap();
            moving = next(update, Trainer::load(&path).unwrap());
        }
    }
    // On the same devices nothing is lost, whichever of several threads is ahead.
    assert_eq!(arrays(&unbroken), arrays(&again));
    assert_eq!(unbroken.particles().unwrap(), again.particles().unwrap());
    // Updates elsewhere differ by rounding, as in `updates_are_the_hosts`.
    let off = largest_difference(&densities(&unbroken), &densities(moving.as_ref()));
    assert!(off < B::OFF, "{off:e}");
}

fn checkpoints_move_between_host_and_device<B: Device>() {
    let config = TrainConfig { conjugate_weight: 0.5, amortise: true, ..config(24, 4) };
    checkpoints_move::<B>(
        &config,
        1,
        |trainer| Box::new(trainer),
        |update, trainer| match update % 12 {
            0 => Box::new(trainer),
            _ => Box::new(on_device::<B>(trainer)),
        },
    );
}

fn checkpoints_move_between_one_device_and_several<B: Device>() {
    let config = TrainConfig { conjugate_weight: 0.5, ..config(24, 4) };
    checkpoints_move::<B>(
        &config,
        2,
        |trainer| Box::new(on_several::<B>(trainer, 2)),
        |update, trainer| match update {
            6 => Box::new(on_device::<B>(trainer)),
            12 => Box::new(trainer),
            _ => Box::new(on_several::<B>(trainer, 2)),
        },
    );
}

/// The largest difference between the averaged weights of two runs.
fn weights_apart(a: &dyn Training, b: &dyn Training) -> f64 {
    let arrays = |t: &dyn Training| -> Vec<f64> {
        let net = t.network().unwrap();
        net.weights().named(net.architecture()).iter().flat_map(|(.., a)| a.to_f64s()).collect()
    };
    largest_difference(&arrays(a), &arrays(b))
}

fn several_devices_make_the_run_of_one<B: Device>() {
    let of_ring = |config: TrainConfig| Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
    // Langevin particles; conjugates; both objectives; N(0, I); the head; with a mixture from the second update on.
    let runs = [
        config(12, 0),
        config(12, 12),
        TrainConfig { conjugate_weight: 0.5, ..config(12, 6) },
        TrainConfig { method: Method::GaussianIcnn, ..config(12, 0) },
        with_factor_of_head(config(12, 0)),
        TrainConfig { components: 2, ..with_factor_of_head(config(12, 0)) },
    ];
    for config in runs {
        for n in [2, 4] {
            let mut one = on_device::<B>(of_ring(config.clone()));
            let mut several = on_several::<B>(of_ring(config.clone()), n);
            for update in 1..=12 {
                let want = one.step(1000, &ring).unwrap();
                let found = several.step(1000, &ring).unwrap();
                let close = |a: f64, b: f64| {
                    assert!((a - b).abs() < B::OFF * (1.0 + b.abs()), "{n}, {update}: {found:?} {want:?}")
                };
                close(found.lambda_max, want.lambda_max);
                close(found.acceptance, want.acceptance);
                match found.objective {
                    "likelihood" => assert!(found.residual <= config.solve_tolerance, "{found:?}"),
                    _ => close(found.residual, want.residual),
                }
            }
            let off = weights_apart(&several, &one);
            assert!(off < B::OFF, "{n}: {off:e}, {config:?}");
            let off = largest_difference(&several.particles().unwrap(), &one.particles().unwrap());
            assert!(off < B::OFF, "{n}: {off:e}, {config:?}");
        }
    }

    // The control's factor and the metric of linear solves, which deep networks make of the first 16 points alone.
    for widths in [&[16, 8][..], &[20]] {
        let [mut one, mut several] = [1, 64].map(|n| {
            let mut trainer = run_on_noise(widths);
            // Each device looks at its own residuals, so that some would stop before others.
            trainer.config.solve_tolerance = 1e-30;
            on_several::<B>(trainer, n)
        });
        for _ in 0..12 {
            one.step(10, &one_point).unwrap();
            several.step(10, &one_point).unwrap();
        }
        let [a, b] = [&one, &several].map(|run| run.kappa);
        assert!(a > 0.1 && (b - a).abs() < B::OFF, "{a} {b}");
        let off = largest_difference(&several.mean_hessian, &one.mean_hessian);
        assert!(off < B::OFF * one.mean_hessian.iter().fold(0.0, |top, v| v.max(top)), "{off:e}");
        let off = weights_apart(&several, &one);
        assert!(off < B::OFF, "{off:e}");
    }
}

fn an_update_that_failed_is_not_gone_on_with<B: Device>() {
    // Rows of the second device alone that no finite loss comes of.
    let spoiled = |rows: &[usize], out: &mut [f64]| {
        ring(rows, out)?;
        let half = out.len() / 2;
        out[half..].fill(f64::INFINITY);
        Ok(())
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    for n in [1, 2] {
        let trainer = Trainer::new(config(5, 0), &ring_gaussian(Head::Full)).unwrap();
        let mut run = on_several::<B>(trainer, n);
        run.step(1000, &ring).unwrap();
        assert!(run.step(1000, &spoiled).is_err());
        assert!(run.save(&path).unwrap_err().to_string().contains("middle of an update"), "{n}");
        assert!(run.step(1000, &ring).unwrap_err().to_string().contains("middle of an update"), "{n}");
        assert!(!path.exists());
    }
}

fn rows_that_could_not_be_read_are_asked_for_again<B: Device>() {
    let new = || on_device::<B>(Trainer::new(config(6, 0), &ring_gaussian(Head::Full)).unwrap());
    let (mut unbroken, mut retried) = (new(), new());
    for update in 0..6 {
        unbroken.step(1000, &ring).unwrap();
        if update == 3 {
            let unreadable = |_: &[usize], _: &mut [f64]| Err(crate::Error::Invalid("no disk".into()));
            assert!(retried.step(1000, &unreadable).unwrap_err().to_string().contains("no disk"));
        }
        retried.step(1000, &ring).unwrap();
    }
    assert_eq!(weights_apart(&unbroken, &retried), 0.0);
}

fn several_devices_know_what_they_cannot_share<B: Device>() {
    let refused = |config: TrainConfig, n| {
        let trainer = Trainer::new(config, &ring_gaussian(Head::Full)).unwrap();
        let run = DeviceTrainer::<B>::from_state(trainer.state().unwrap(), vec![Default::default(); n]);
        run.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(refused(config(5, 0), 2), "");
    let batch = refused(config(5, 0), 3);
    assert!(batch.contains("a batch of 64 cannot be shared out evenly over 3 devices"), "{batch}");
    let particles = refused(TrainConfig { batch: 63, ..config(5, 0) }, 3);
    assert!(particles.contains("a number of particles of 64"), "{particles}");
    let amortise = TrainConfig { conjugate_weight: 0.5, amortise: true, ..config(5, 0) };
    assert!(refused(amortise, 2).contains("an amortiser learns on one device"));
    assert!(refused(config(5, 0), 0).contains("no device"));
}

/// Mean log ρ over the ring in nats, with log Z by the trapezium rule.
fn log_likelihood(t: &dyn Training) -> f64 {
    let net: Icnn<f64> = t.network().unwrap().cast().unwrap();
    let (half, cells) = (8.0, 160);
    let width = 2.0 * half / cells as f64;
    let grid: Vec<f64> = (0..=cells * (cells + 2))
        .flat_map(|i| [i % (cells + 1), i / (cells + 1)].map(|k| k as f64 * width - half))
        .collect();
    let mut value = vec![0.0; grid.len() / 2];
    net.value_and_gradient(&grid, &mut value, &mut vec![0.0; grid.len()]).unwrap();
    let least = value.iter().copied().fold(f64::INFINITY, f64::min);
    let log_z = (value.iter().map(|w| (least - w).exp()).sum::<f64>() * width * width).ln() - least;
    let mut points = vec![0.0; 2000];
    ring(&(0..1000).collect::<Vec<_>>(), &mut points).unwrap();
    exact_log_density(&net, log_z, &points).unwrap().value.iter().sum::<f64>() / 1000.0
}

fn a_device_learns_a_ring_as_well_as_the_host<B: Device>() {
    let mut host = Trainer::new(config(300, 0), &ring_gaussian(Head::Full)).unwrap();
    let start = log_likelihood(&host);
    let mut device = on_device::<B>(Trainer::new(config(300, 0), &ring_gaussian(Head::Full)).unwrap());
    for _ in 0..300 {
        host.step(1000, &ring).unwrap();
        device.step(1000, &ring).unwrap();
    }
    let (by_host, by_device) = (log_likelihood(&host), log_likelihood(&device));
    assert!(by_host > start + 0.3, "{start} to {by_host}");
    // The same random numbers, and rounding that three hundred updates hardly enlarge: Langevin steps contract.
    assert!((by_device - by_host).abs() < 1e-3, "{by_device} against {by_host}");
}

fn a_device_refuses_energies_and_answers_that_are_not_the_hosts<B: Device>() {
    let refused = |trainer: &Trainer, spoil: bool| {
        let mut state = trainer.state().unwrap();
        if spoil {
            state.numbers.particles[0] = f64::NAN;
        }
        DeviceTrainer::<B>::from_state(state, vec![Default::default()]).err().map(|e| e.to_string())
    };
    let samples = Trainer::new(config(5, 0), &ring_gaussian(Head::Full)).unwrap();
    assert_eq!(refused(&samples, false), None);
    let message = refused(&samples, true).unwrap();
    assert!(message.contains("differ from the processor's"), "{message}");
    let of_energy = Trainer::new(energy_config(2, 5), &ring_gaussian(Head::Full)).unwrap();
    assert!(refused(&of_energy, false).unwrap().contains("energies"));
}
