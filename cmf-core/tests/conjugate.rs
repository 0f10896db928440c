//! The conjugate solvers against closed forms, ill-conditioning, rounding and broken potentials.

// Each test crate compiles the shared module and uses its own part of it.
#[allow(dead_code)]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cmf_core::closed_form::{LogSumExp, Quadratic};
use cmf_core::conjugate::{ConjugateSolver, Method, Solution, Status};
use cmf_core::linalg::{Cholesky, SymmetricEigen, dot};
use cmf_core::ops::Activation;
use cmf_core::preconditioner::Preconditioner;
use cmf_core::{Potential, Result};
use common::{random_network, uniform};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const METHODS: [Method; 3] = [Method::BarzilaiBorwein, Method::Lbfgs { memory: 5 }, Method::NewtonCg];

fn solver(method: Method, tolerance: f64, max_steps: usize) -> ConjugateSolver {
    ConjugateSolver { method, tolerance, max_steps, preconditioner: None }
}

fn gradient(w: &dyn Potential, y: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut value, mut gradient) = (vec![0.0; y.len() / w.dim()], vec![0.0; y.len()]);
    w.value_and_gradient(y, &mut value, &mut gradient).unwrap();
    (value, gradient)
}

/// The root mean square of ∇w(y) - x by row, computed anew.
fn residuals(w: &dyn Potential, x: &[f64], y: &[f64]) -> Vec<f64> {
    let d = w.dim();
    let difference: Vec<f64> = gradient(w, y).1.iter().zip(x).map(|(g, x)| g - x).collect();
    difference.chunks_exact(d).map(|row| (dot(row, row) / d as f64).sqrt()).collect()
}

/// A symmetric matrix with the given ascending eigenvalues and random eigenvectors.
fn with_spectrum(spectrum: &[f64], rng: &mut ChaCha8Rng) -> Vec<f64> {
    let d = spectrum.len();
    let a = uniform(rng, d * d);
    let symmetric: Vec<f64> = (0..d * d).map(|k| a[k] + a[k % d * d + k / d]).collect();
    let eigen = SymmetricEigen::new(&symmetric, d).unwrap();
    eigen.apply(|v| spectrum[eigen.values.iter().position(|u| *u == v).unwrap()])
}

fn geometric(d: usize, from: f64, to: f64) -> Vec<f64> {
    (0..d).map(|i| from * (to / from).powf(i as f64 / (d - 1) as f64)).collect()
}

/// Passes on to `inner`, counting rows; rounds inputs and outputs to f32 where asked.
struct Wrapped<P> {
    inner: P,
    round: bool,
    /// Gradients are NaN where the first coordinate exceeds this.
    edge: f64,
    rows: AtomicUsize,
}

impl<P: Potential> Wrapped<P> {
    fn new(inner: P) -> Self {
        Wrapped { inner, round: false, edge: f64::INFINITY, rows: AtomicUsize::new(0) }
    }

    fn seen(&self, v: &mut [f64]) {
        if self.round {
            v.iter_mut().for_each(|v| *v = *v as f32 as f64);
        }
    }
}

impl<P: Potential> Potential for Wrapped<P> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let mut rounded = x.to_vec();
        self.seen(&mut rounded);
        self.rows.fetch_add(value.len(), Ordering::Relaxed);
        self.inner.value_and_gradient(&rounded, value, gradient)?;
        self.seen(value);
        self.seen(gradient);
        let d = self.dim();
        for (x, gradient) in x.chunks_exact(d).zip(gradient.chunks_exact_mut(d)) {
            if x[0] > self.edge {
                gradient.fill(f64::NAN);
            }
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.rows.fetch_add(x.len() / self.dim(), Ordering::Relaxed);
        self.inner.hvp(x, v, hv)?;
        self.seen(hv);
        Ok(())
    }
}

#[test]
fn quadratic_matches_its_closed_form() {
    let (d, n) = (12, 9);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let q = with_spectrum(&geometric(d, 0.5, 20.0), &mut rng);
    let (a, x) = (uniform(&mut rng, d), uniform(&mut rng, n * d));
    let w = Quadratic::new(q.clone(), a.clone()).unwrap().with_constant(0.7);
    let inverse = Cholesky::new(&q, d, "Q").unwrap();
    // w*(x) = ½ x'Q⁻¹x + a·x - c, ∇w*(x) = Q⁻¹x + a.
    let mut exact = x.clone();
    inverse.solve_rows(&mut exact).unwrap();
    for method in METHODS {
        let solution = solver(method, 1e-11, 2000).solve(&w, &x, None).unwrap();
        assert!(solution.all_converged(), "{method:?} {:?}", solution.rows);
        for i in 0..n {
            let (x, solved) = (&x[i * d..][..d], &exact[i * d..][..d]);
            let value = 0.5 * dot(x, solved) + dot(&a, x) - 0.7;
            // Residual 1e-11 over the least curvature 0.5, √d coordinates, and its square for the value.
            assert!((solution.value[i] - value).abs() < 1e-12);
            for j in 0..d {
                assert!((solution.y[i * d + j] - solved[j] - a[j]).abs() < 1e-10);
            }
        }
    }
}

#[test]
fn gradient_of_the_conjugate_inverts_the_gradient() {
    let (d, n) = (6, 40);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let log_sum_exp = LogSumExp::new(uniform(&mut rng, 30 * d), uniform(&mut rng, 30), 0.2).unwrap();
    let network = random_network(d, &[7, 5, 6], 2, true, Activation::Softplus { beta: 2.0 });
    let kinked = random_network(d, &[8, 8], 1, false, Activation::Elu);
    for w in [&log_sum_exp as &dyn Potential, &network, &kinked] {
        // At x = ∇w(y0) the maximiser is y0 and Fenchel-Young holds with equality.
        let y0: Vec<f64> = uniform(&mut rng, n * d).iter().map(|v| 3.0 * v).collect();
        let (w0, x) = gradient(w, &y0);
        for method in METHODS {
            let solution = solver(method, 1e-10, 5000).solve(w, &x, None).unwrap();
            assert!(solution.all_converged(), "{method:?} {:?}", solution.rows);
            assert!(residuals(w, &x, &solution.y).iter().all(|r| *r < 1e-9));
            for (i, w0) in w0.iter().enumerate() {
                let row = i * d..(i + 1) * d;
                let gap = w0 + solution.value[i] - dot(&x[row.clone()], &y0[row.clone()]);
                // Quadratic in the residual, so rounding of numbers of size 100 is all that is left.
                assert!(gap.abs() < 1e-12, "{method:?}: Fenchel-Young gap {gap}");
                let distance = row.map(|k| (solution.y[k] - y0[k]).abs()).fold(0.0, f64::max);
                // Residual 1e-10 √6 over a least curvature of 0.1.
                assert!(distance < 1e-8, "{method:?}: {distance} from the maximiser");
            }
        }
    }
}

/// A row that says it converged has; one that did not reports the residual that it has.
fn assert_honest(w: &dyn Potential, x: &[f64], solution: &Solution, tolerance: f64) {
    for (found, row) in residuals(w, x, &solution.y).iter().zip(&solution.rows) {
        assert!((found - row.residual).abs() <= 1e-12 * (1.0 + found), "{found} {row:?}");
        assert_eq!(row.status == Status::Converged, *found <= tolerance, "{row:?}");
    }
}

#[test]
fn ill_conditioned_quadratic_converges_or_says_not() {
    let (d, n, tolerance) = (50, 4, 1e-6);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let w = Quadratic::new(with_spectrum(&geometric(d, 1e-3, 1e3), &mut rng), vec![0.0; d]).unwrap();
    let x = uniform(&mut rng, n * d);
    for method in [Method::BarzilaiBorwein, Method::Lbfgs { memory: d }, Method::NewtonCg] {
        let solution = solver(method, tolerance, 4000).solve(&w, &x, None).unwrap();
        eprintln!("{method:?} {:?}", solution.rows);
        assert_honest(&w, &x, &solution, tolerance);
        assert!(solution.rows.iter().all(|row| row.steps <= 4000));
        assert_eq!(solution.all_converged(), method != Method::BarzilaiBorwein);
        // A budget too small for any of them.
        let solution = solver(method, tolerance, 10).solve(&w, &x, None).unwrap();
        assert_honest(&w, &x, &solution, tolerance);
        assert_eq!(solution.count(Status::OutOfSteps), n, "{method:?} {:?}", solution.rows);
        assert!(solution.rows.iter().all(|row| row.steps <= 10));
    }
}

#[test]
fn exact_preconditioner_removes_ill_conditioning() {
    let d = 50;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let q = with_spectrum(&geometric(d, 1e-3, 1e3), &mut rng);
    let inverse = Cholesky::new(&q, d, "Q").unwrap().inverse();
    let w = Quadratic::new(q, uniform(&mut rng, d)).unwrap();
    let x = uniform(&mut rng, 4 * d);
    let preconditioner = Some(Arc::new(Preconditioner::new(&inverse.into()).unwrap()));
    for method in METHODS {
        let solver = ConjugateSolver { preconditioner: preconditioner.clone(), ..solver(method, 1e-9, 100) };
        let solution = solver.solve(&w, &x, None).unwrap();
        assert!(solution.all_converged(), "{method:?} {:?}", solution.rows);
        // In exact arithmetic one step; the rounding of a condition number of 1e6 costs some more.
        assert!(solution.rows.iter().all(|row| row.steps <= 12), "{method:?} {:?}", solution.rows);
    }
}

#[test]
fn rounding_to_f32_is_met_with_convergence_or_a_stall() {
    let (d, n) = (20, 16);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let slopes = uniform(&mut rng, 40 * d).iter().map(|v| 2.0 * v).collect();
    let mut w = Wrapped::new(LogSumExp::new(slopes, uniform(&mut rng, 40), 0.5).unwrap());
    w.round = true;
    let x = uniform(&mut rng, n * d);
    for method in METHODS {
        let solution = solver(method, 1e-4, 500).solve(&w, &x, None).unwrap();
        assert!(solution.all_converged(), "{method:?} {:?}", solution.rows);
        // Far below the noise floor: no row may claim convergence or use up the budget.
        let solution = solver(method, 1e-12, 100_000).solve(&w, &x, None).unwrap();
        eprintln!("{method:?} {:?}", solution.rows);
        assert_eq!(solution.count(Status::Stalled), n, "{method:?} {:?}", solution.rows);
        assert!(solution.rows.iter().all(|row| row.steps < 1000), "{method:?} {:?}", solution.rows);
        // Gradients of size 1 are rounded to 6e-8, positions of size 1 likewise times a curvature of 10.
        assert!(solution.worst_residual() < 3e-6, "{method:?} {}", solution.worst_residual());
    }
}

#[test]
fn broken_rows_do_not_disturb_the_others() {
    let d = 3;
    let mut w = Wrapped::new(Quadratic::isotropic(d));
    w.edge = 2.0;
    let x = [
        [0.5, -1.0, 2.0],
        [f64::NAN, 0.0, 0.0],
        // Its maximiser lies beyond the edge; every step towards it ends there.
        [9.0, 0.0, 0.0],
        [1.0, 1.0, f64::INFINITY],
        [1.5, 0.25, -0.75],
        [0.0, 0.0, 0.0],
    ]
    .concat();
    // The last row starts where the gradient is NaN.
    let mut start = vec![0.1; x.len()];
    start[15] = 3.0;
    for method in METHODS {
        let solution = solver(method, 1e-9, 1000).solve(&w, &x, Some(&start)).unwrap();
        let mut statuses: Vec<Status> = solution.rows.iter().map(|row| row.status).collect();
        use Status::{Converged, NonFinite, Stalled};
        // At the edge either is true.
        assert!(matches!(statuses.remove(2), NonFinite | Stalled), "{method:?}");
        assert_eq!(statuses, [Converged, NonFinite, NonFinite, Converged, NonFinite], "{method:?}");
        assert!(solution.y.iter().all(|v| v.is_finite()));
        assert!(solution.value.iter().all(|v| !v.is_nan()));
        assert!(solution.rows[2].residual.is_finite());
        assert_eq!(solution.rows[5].residual, f64::INFINITY);
        for i in [0, 4] {
            // ∇w* of ½|x|² is the identity.
            assert!((0..d).all(|j| (solution.y[i * d + j] - x[i * d + j]).abs() < 1e-8));
        }
    }
}

/// More than are under way at once, so that most take the places, and the arrays, of others.
#[test]
fn many_rows_come_out_as_each_does_alone() {
    let (d, n) = (3, 1300);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let w = LogSumExp::new(uniform(&mut rng, 5 * d), vec![0.0; 5], 0.1).unwrap();
    let mut w = Wrapped::new(w);
    w.edge = 12.0;
    // Rows of all lengths, whose solves take few steps and many, and some of whose maximisers lie beyond the edge.
    let mut x: Vec<f64> = uniform(&mut rng, n * d);
    x.chunks_exact_mut(d)
        .enumerate()
        .for_each(|(i, x)| x.iter_mut().for_each(|v| *v *= (1 + i % 7) as f64 / 2.0));
    x[30 * d] = f64::NAN;
    let exact =
        Arc::new(Preconditioner::new(&vec![4.0, 1.0, 0.0, 1.0, 3.0, 0.5, 0.0, 0.5, 5.0].into()).unwrap());
    for (method, preconditioner) in METHODS.iter().flat_map(|&m| [(m, None), (m, Some(exact.clone()))]) {
        let solver = ConjugateSolver { preconditioner, ..solver(method, 1e-9, 300) };
        let all = solver.solve(&w, &x, None).unwrap();
        assert!(all.count(Status::Converged) > n / 2 && all.count(Status::Converged) < n, "{method:?}");
        for i in (0..n).step_by(41).chain([30, n - 1]) {
            let alone = solver.solve(&w, &x[i * d..][..d], None).unwrap();
            assert_eq!(alone.rows[0], all.rows[i], "{method:?} row {i}");
            assert_eq!(
                (&alone.y[..], alone.value[0]),
                (&all.y[i * d..][..d], all.value[i]),
                "{method:?} row {i}"
            );
        }
    }
}

#[test]
fn no_maximiser_is_reported_not_looped_for() {
    // Slopes in the unit square and no quadratic: ∇w stays in the square, so ∇w(y) = (2, 2) has no solution.
    let w = LogSumExp::new(vec![0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0], vec![0.0; 4], 0.0).unwrap();
    for method in METHODS {
        let solution = solver(method, 1e-6, 10_000).solve(&w, &[2.0, 2.0, 0.5, 0.3], None).unwrap();
        assert!(matches!(solution.rows[0].status, Status::Stalled | Status::NonFinite), "{method:?}");
        assert!(solution.rows[0].residual > 0.9, "{method:?} {:?}", solution.rows);
        assert_eq!(solution.rows[1].status, Status::Converged, "{method:?}");
    }
}

#[test]
fn warm_starts_and_finished_rows_save_work() {
    let (d, n) = (10, 32);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let w = random_network(d, &[12, 12], 1, false, Activation::Softplus { beta: 1.0 });
    let w = Wrapped::new(w);
    let x: Vec<f64> = uniform(&mut rng, n * d).iter().map(|v| 3.0 * v).collect();
    for method in METHODS {
        let solver = solver(method, 1e-6, 500);
        let cold = solver.solve(&w, &x, None).unwrap();
        w.rows.store(0, Ordering::Relaxed);
        let nearby: Vec<f64> = x.iter().map(|v| v + 1e-3).collect();
        let warm = solver.solve(&w, &nearby, Some(&cold.y)).unwrap();
        assert!(warm.all_converged());
        let steps = |s: &Solution| s.rows.iter().map(|row| row.steps).sum::<usize>();
        assert!(4 * steps(&warm) < 3 * steps(&cold), "{method:?}: {} {}", steps(&warm), steps(&cold));
        // The potential sees a row exactly as often as the row's outcome says.
        assert_eq!(w.rows.load(Ordering::Relaxed), steps(&warm));
        // From the solution itself, one gradient a row in one call.
        let again = solver.solve(&w, &x, Some(&cold.y)).unwrap();
        assert_eq!((again.oracle_calls, steps(&again)), (1, n));
    }
}

#[test]
fn misuse_is_an_error() {
    let w = Quadratic::isotropic(3);
    let x = [1.0; 6];
    let good = ConjugateSolver::default();
    assert!(good.solve(&w, &[], None).unwrap().rows.is_empty());
    assert!(good.solve(&w, &x[..4], None).is_err());
    assert!(good.solve(&w, &x, Some(&x[..3])).is_err());
    for bad in [
        ConjugateSolver { tolerance: 0.0, ..good.clone() },
        ConjugateSolver { tolerance: f64::NAN, ..good.clone() },
        ConjugateSolver { max_steps: 0, ..good.clone() },
        ConjugateSolver { method: Method::Lbfgs { memory: 0 }, ..good.clone() },
        ConjugateSolver {
            preconditioner: Some(Arc::new(Preconditioner::new(&vec![1.0].into()).unwrap())),
            ..good.clone()
        },
    ] {
        assert!(bad.solve(&w, &x, None).is_err(), "{bad:?}");
    }
}
