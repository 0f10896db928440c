//! The closed-form start on Gaussian data: it already generates the data's law and knows its density.

use cmf_core::Potential;
use cmf_core::closed_form::Quadratic;
use cmf_core::conjugate::ConjugateSolver;
use cmf_core::density::exact_log_density;
use cmf_core::gaussian::Gaussian;
use cmf_core::linalg::matmul;
use cmf_core::preconditioner::Preconditioner;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

fn normal(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| StandardNormal.sample(rng)).collect()
}

/// A Gaussian with eigenvalues spread over two decades and a mean away from zero.
fn gaussian(d: usize, rng: &mut ChaCha8Rng) -> Gaussian {
    let mut factor = normal(rng, d * d);
    factor.iter_mut().for_each(|v| *v /= (d as f64).sqrt());
    let mut covariance = matmul(&factor, &transposed(&factor, d), d, d, d);
    covariance.iter_mut().step_by(d + 1).for_each(|v| *v += 0.02);
    Gaussian { mean: normal(rng, d), covariance: covariance.into() }
}

fn transposed(a: &[f64], d: usize) -> Vec<f64> {
    (0..d * d).map(|k| a[k % d * d + k / d]).collect()
}

#[test]
fn the_start_generates_the_data_and_knows_its_density() {
    for (d, n) in [(2, 20_000), (10, 20_000), (784, 2_000)] {
        let mut rng = ChaCha8Rng::seed_from_u64(d as u64);
        let truth = gaussian(d, &mut rng);
        let start = truth.quadratic_start().unwrap();
        let w = Quadratic::new(start.hessian.clone(), start.centre.clone()).unwrap();

        // Gibbs draws x ~ N(a, S^{1/3}) and their conjugates y = ∇w*(x), by the solver.
        let gibbs: Preconditioner = start.inverse_hessian().unwrap();
        let mut x = gibbs.colour(&normal(&mut rng, n * d)).unwrap();
        x.iter_mut().enumerate().for_each(|(k, v)| *v += start.centre[k % d]);
        let solution = ConjugateSolver::default().solve(&w, &x, None).unwrap();
        assert!(solution.all_converged());
        let found = Gaussian::fit(&solution.y, d, 0.0).unwrap();
        for i in 0..d {
            // A mean of n draws has standard error sqrt(S_ii / n); 5 of them leave 1e-3 for 784 tries.
            let error = (truth.covariance.dense()[i * d + i] / n as f64).sqrt();
            assert!((found.mean[i] - truth.mean[i]).abs() < 5.0 * error, "mean {i} of {d}");
            for j in 0..d {
                let s = |i: usize, j: usize| truth.covariance.dense()[i * d + j];
                // Var of a covariance entry: (S_ii S_jj + S_ij²) / n; 6 of its roots for 614,656 tries.
                let error = ((s(i, i) * s(j, j) + s(i, j).powi(2)) / n as f64).sqrt();
                let difference = found.covariance.dense()[i * d + j] - s(i, j);
                assert!(difference.abs() < 6.0 * error, "covariance {i},{j} of {d}");
            }
        }

        let y = &solution.y[..4 * d];
        let ours = exact_log_density(&w, start.log_z, y).unwrap();
        for (a, b) in ours.value.iter().zip(truth.log_density(y).unwrap()) {
            assert!((a - b).abs() <= 1e-5 * b.abs(), "log-density in {d} dimensions: {a} and {b}");
        }
        assert_eq!(w.dim(), d);
    }
}
