//! Densities against closed forms, quadrature, finite differences and one another.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::*;
use crate::closed_form::{LogSumExp, Quadratic};
use crate::gaussian::Gaussian;
use crate::head_factor::HeadFactor;
use crate::potential::SecondOrder;
use crate::preconditioner::Preconditioner;
use crate::source::Source;

/// A quadratic plus softplus units log(1 + e^{a·x + b}): neither Gaussian nor of low rank.
pub(crate) struct Bent {
    units: Vec<LogSumExp>,
    quadratic: Quadratic,
}

impl Bent {
    /// Adds what `f` writes for each term.
    fn total(&self, f: impl Fn(&dyn SecondOrder, &mut [f64]) -> Result<()>, out: &mut [f64]) -> Result<()> {
        let mut term = vec![0.0; out.len()];
        f(&self.quadratic, out)?;
        for unit in &self.units {
            f(unit, &mut term)?;
            out.iter_mut().zip(&term).for_each(|(a, b)| *a += b);
        }
        Ok(())
    }
}

impl Potential for Bent {
    fn dim(&self) -> usize {
        self.quadratic.dim()
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let n = value.len();
        self.total(|p, out| p.value_and_gradient(x, out, &mut vec![0.0; x.len()]), value)?;
        self.total(|p, out| p.value_and_gradient(x, &mut vec![0.0; n], out), gradient)
    }
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.total(|p, out| p.hvp(x, v, out), hv)
    }
}

impl SecondOrder for Bent {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        self.total(|p, out| p.hessian(x, out), hessian)
    }
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        self.total(|p, o| p.hessian_contraction(x, m, o), out)
    }
}

pub(crate) fn normals(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.sample::<f64, _>(StandardNormal)).collect()
}

/// N(m, S) with S = A A'/d + 0.3 I for a normal A: eigenvalues from 0.3 to about 4.3.
pub(crate) fn gaussian(d: usize, seed: u64) -> Gaussian {
    let a = normals(d * d, seed);
    let transposed: Vec<f64> = (0..d * d).map(|k| a[k % d * d + k / d]).collect();
    let mut covariance = crate::linalg::matmul(&a, &transposed, d, d, d);
    covariance.iter_mut().for_each(|v| *v /= d as f64);
    covariance.iter_mut().step_by(d + 1).for_each(|v| *v += 0.3);
    Gaussian { mean: normals(d, seed + 1), covariance: covariance.into() }
}

/// The preconditioner that changes nothing.
fn identity(d: usize) -> Preconditioner {
    let all: Vec<f64> = (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect();
    Preconditioner::new(&all.into()).unwrap()
}

/// The Gaussian's own quadratic with `units` softplus units of slopes of length about 2.
pub(crate) fn bent(gaussian: &Gaussian, units: usize, seed: u64) -> Bent {
    let d = gaussian.dim();
    let start = gaussian.quadratic_start().unwrap();
    let slopes =
        normals(units * d, seed).into_iter().map(|v| 2.0 * v / (d as f64).sqrt()).collect::<Vec<_>>();
    let unit = |(a, b): (&[f64], &f64)| {
        let slopes = a.iter().copied().chain(vec![0.0; d]).collect();
        LogSumExp::new(slopes, vec![*b, 0.0], 0.0).unwrap()
    };
    Bent {
        units: slopes.chunks_exact(d).zip(&normals(units, seed + 1)).map(unit).collect(),
        quadratic: Quadratic::new(start.hessian, start.centre).unwrap(),
    }
}

#[test]
fn a_quadratic_has_the_density_and_score_of_its_gaussian() {
    for d in [1, 2, 10, 784] {
        let law = gaussian(d, 3);
        let start = law.quadratic_start().unwrap();
        let w = Quadratic::new(start.hessian.clone(), start.centre.clone()).unwrap();
        let y = normals(3 * d, 5);
        let mut score = vec![0.0; 3 * d];
        let exact = exact_log_density_and_score(&w, start.log_z, &y, &mut score).unwrap();
        let alone = exact_log_density(&w, start.log_z, &y).unwrap();
        assert_eq!(exact.status, vec![Status::Evaluated; 3]);
        let truth = law.log_density(&y).unwrap();
        let factor = crate::linalg::Cholesky::new(&law.covariance.dense(), d, "S").unwrap();
        for i in 0..3 {
            // Rounding: sums of d terms, each off by a few 1e-16, times a condition number of about 15.
            let near = 1e-11 * truth[i].abs().max(d as f64);
            assert!((exact.value[i] - truth[i]).abs() < near, "d = {d}: {} {}", exact.value[i], truth[i]);
            assert!((alone.value[i] - exact.value[i]).abs() < near);
            let mut slope: Vec<f64> = (0..d).map(|j| law.mean[j] - y[i * d + j]).collect();
            factor.solve_rows(&mut slope).unwrap();
            for j in 0..d {
                assert!((score[i * d + j] - slope[j]).abs() < 1e-10, "d = {d}");
            }
        }
    }
}

#[test]
fn the_score_is_the_derivative_of_the_log_density() {
    let d = 6;
    let w = bent(&gaussian(d, 7), 9, 8);
    let y = normals(2 * d, 9);
    let mut score = vec![0.0; 2 * d];
    exact_log_density_and_score(&w, 0.0, &y, &mut score).unwrap();
    let h = 1e-5;
    for k in 0..2 * d {
        let at = |t: f64| {
            let mut moved = y.clone();
            moved[k] += t;
            exact_log_density(&w, 0.0, &moved).unwrap().value[k / d]
        };
        let slope = (at(h) - at(-h)) / (2.0 * h);
        // Central differences: h² |f'''|/6 and 1e-15 |f|/h, each about 1e-9.
        assert!((slope - score[k]).abs() < 1e-7 * (1.0 + slope.abs()), "{slope} {}", score[k]);
    }
}

/// Sum of exp over a grid of `side` points a coordinate on [-r, r]^d, times the cell.
fn integral(d: usize, side: usize, r: f64, log_f: impl Fn(&[f64]) -> Vec<f64>) -> f64 {
    let step = 2.0 * r / (side - 1) as f64;
    let points: Vec<f64> = (0..side.pow(d as u32))
        .flat_map(|k| (0..d).map(move |j| (k / side.pow(j as u32) % side) as f64 * step - r))
        .collect();
    log_f(&points).iter().map(|v| v.exp()).sum::<f64>() * step.powi(d as i32)
}

#[test]
fn the_density_integrates_to_one_in_one_and_two_dimensions() {
    // The change of variables x = G(y) of e^{-w}/Z. The trapezoid rule converges geometrically for these
    // analytic integrands; at r = 12 (w > 30 at the border of the image) the tails are below 1e-8.
    for (d, side) in [(1, 4001), (2, 401)] {
        let w = bent(&gaussian(d, 11), 5, 12);
        let z = integral(d, side, 20.0, |x| {
            let n = x.len() / d;
            let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
            w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
            value.iter().map(|v| -v).collect()
        });
        let one = integral(d, side, 12.0, |y| exact_log_density(&w, z.ln(), y).unwrap().value);
        assert!((one - 1.0).abs() < 1e-6, "d = {d}: {one}");
    }
}

#[test]
fn from_the_factor_of_the_head_the_density_integrates_to_one() {
    // The same rule and box; log Z is known in closed form.
    let bent = bent(&gaussian(2, 11), 5, 12);
    let head = HeadFactor::new(vec![0.8, 0.2, 0.2, 0.5], vec![0.4, -0.3]).unwrap();
    let log_z = head.log_z().unwrap();
    let w = WithHead { bent, head };
    let one = integral(2, 401, 12.0, |y| exact_log_density(&w, log_z, y).unwrap().value);
    assert!((one - 1.0).abs() < 1e-6, "{one}");
    let y = normals(8, 9);
    let mut score = vec![0.0; 8];
    exact_log_density_and_score(&w, log_z, &y, &mut score).unwrap();
    let h = 1e-5;
    for k in 0..8 {
        let at = |t: f64| {
            let mut moved = y.clone();
            moved[k] += t;
            exact_log_density(&w, log_z, &moved).unwrap().value[k / 2]
        };
        // Central differences: h² |third derivative| and 1e-15/h.
        assert!((score[k] - (at(h) - at(-h)) / (2.0 * h)).abs() < 1e-7 * (1.0 + score[k].abs()));
    }
}

/// A potential whose Gibbs factor is another Gaussian's.
struct WithHead {
    bent: Bent,
    head: HeadFactor,
}

impl Potential for WithHead {
    fn dim(&self) -> usize {
        self.bent.dim()
    }
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.bent.value_and_gradient(x, value, gradient)
    }
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.bent.hvp(x, v, hv)
    }
    fn gibbs(&self) -> Option<&HeadFactor> {
        Some(&self.head)
    }
}

impl SecondOrder for WithHead {
    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        self.bent.hessian(x, hessian)
    }
    fn hessian_contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        self.bent.hessian_contraction(x, m, out)
    }
}

#[test]
fn the_image_of_a_standard_normal_has_its_density_and_score() {
    for d in [1, 2, 10] {
        let law = gaussian(d, 3);
        let start = law.quadratic_start_from(Source::Gaussian).unwrap();
        let back = start.gaussian().unwrap();
        let same = back
            .covariance
            .dense()
            .iter()
            .zip(law.covariance.dense().iter())
            .all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(same && back.mean == law.mean);
        let w = Quadratic::new(start.hessian, start.centre).unwrap();
        let y = normals(3 * d, 5);
        let found = exact_log_density_from_gaussian(&w, &y, None).unwrap();
        for (a, b) in found.value.iter().zip(law.log_density(&y).unwrap()) {
            // Rounding, as above.
            assert!((a - b).abs() < 1e-11 * b.abs().max(d as f64), "d = {d}: {a} {b}");
        }
    }
    // Normalised whatever the potential is: the trapezoid rule as below, on a smaller box.
    let w = bent(&gaussian(2, 11), 5, 12);
    let one = integral(2, 401, 12.0, |y| exact_log_density_from_gaussian(&w, y, None).unwrap().value);
    assert!((one - 1.0).abs() < 1e-6, "{one}");
    let y = normals(4, 9);
    let (mut score, h) = (vec![0.0; 4], 1e-5);
    exact_log_density_from_gaussian(&w, &y, Some(&mut score)).unwrap();
    for k in 0..4 {
        let at = |t: f64| {
            let mut moved = y.clone();
            moved[k] += t;
            exact_log_density_from_gaussian(&w, &moved, None).unwrap().value[k / 2]
        };
        let slope = (at(h) - at(-h)) / (2.0 * h);
        assert!((slope - score[k]).abs() < 1e-7 * (1.0 + slope.abs()), "{slope} {}", score[k]);
    }
}

#[test]
fn lanczos_agrees_with_cholesky_within_its_standard_error() {
    for (d, seed) in [(50, 21), (200, 22)] {
        let law = gaussian(d, seed);
        let w = bent(&law, 2 * d, seed + 50);
        let head = law.quadratic_start().unwrap().inverse_hessian().unwrap();
        let y = normals(4 * d, seed + 1);
        let exact = exact_log_density(&w, 0.5, &y).unwrap();
        let settings = Lanczos { probes: 128, seed, ..Lanczos::default() };
        let estimate = estimated_log_density(&w, 0.5, &y, &head, settings).unwrap();
        for i in 0..4 {
            assert_eq!(estimate.status[i], Status::Evaluated);
            let (error, se) = ((estimate.value[i] - exact.value[i]).abs(), estimate.standard_error[i]);
            // Seeded; 3 standard errors hold for 99.7 percent of the seeds. The second bound fails for a
            // standard error that says nothing.
            assert!(error < 3.0 * se, "d = {d}: {error} against {se}");
            assert!(se < 0.02 * d as f64);
        }
    }
}

#[test]
fn lanczos_is_exact_where_the_preconditioner_is_the_hessian() {
    let law = gaussian(40, 31);
    let start = law.quadratic_start().unwrap();
    let w = Quadratic::new(start.hessian.clone(), start.centre.clone()).unwrap();
    let y = normals(40, 32);
    let inverse = start.inverse_hessian().unwrap();
    let estimate = estimated_log_density(&w, start.log_z, &y, &inverse, Lanczos::default()).unwrap();
    let truth = law.log_density(&y).unwrap()[0];
    // One Krylov step each, no variance: only rounding is left.
    assert!((estimate.value[0] - truth).abs() < 1e-9 && estimate.standard_error[0] < 1e-9);
}

#[test]
fn lanczos_says_when_it_ran_out_of_steps() {
    let law = gaussian(60, 41);
    let w = bent(&law, 90, 42);
    let p = identity(60);
    let settings = Lanczos { max_steps: 2, ..Lanczos::default() };
    let estimate = estimated_log_density(&w, 0.0, &normals(60, 43), &p, settings).unwrap();
    assert_eq!(estimate.status[0], Status::QuadratureUnconverged);
    assert!(estimate.value[0].is_finite());
}

#[test]
fn second_order_by_products_agrees_with_closed_forms() {
    let d = 7;
    let w = bent(&gaussian(d, 51), 10, 52);
    let slow = ByProducts::new(&w, f64::EPSILON);
    let x = normals(2 * d, 53);
    let (mut h, mut h_slow) = (vec![0.0; 2 * d * d], vec![0.0; 2 * d * d]);
    w.hessian(&x, &mut h).unwrap();
    slow.hessian(&x, &mut h_slow).unwrap();
    // Products of the same formulas: rounding only.
    assert!(h.iter().zip(&h_slow).all(|(a, b)| (a - b).abs() < 1e-12));
    let (mut c, mut c_slow) = (vec![0.0; 2 * d], vec![0.0; 2 * d]);
    w.hessian_contraction(&x, &h, &mut c).unwrap();
    slow.hessian_contraction(&x, &h, &mut c_slow).unwrap();
    // ε^{2/3} = 4e-11, times norms of about 10.
    assert!(c.iter().zip(&c_slow).all(|(a, b)| (a - b).abs() < 1e-8), "{c:?} {c_slow:?}");
}

#[test]
fn the_estimated_score_is_unbiased() {
    let d = 20;
    let w = bent(&gaussian(d, 61), 40, 62);
    let y = normals(d, 63);
    let mut exact = vec![0.0; d];
    exact_log_density_and_score(&w, 0.0, &y, &mut exact).unwrap();
    let n = 4000;
    let estimator = ScoreEstimator { tolerance: 1e-6, ..ScoreEstimator::default() };
    let mut estimates = vec![0.0; n * d];
    let mut rng = ChaCha8Rng::seed_from_u64(64);
    let report = estimator.estimate(&w, &y.repeat(n), &mut rng, &mut estimates).unwrap();
    assert_eq!(report.unconverged, 0);
    for k in 0..d {
        let column = || estimates.chunks_exact(d).map(|row| row[k]);
        let mean = column().sum::<f64>() / n as f64;
        let se = (column().map(|v| (v - mean).powi(2)).sum::<f64>() / (n * n) as f64).sqrt();
        // Monte Carlo of 4000 probes, 4.5 standard errors for 20 coordinates; 1e-3 for the finite step's t²/6.
        assert!((mean - exact[k]).abs() < 4.5 * se + 1e-3, "{mean} {} {se}", exact[k]);
        assert!(se < 0.05, "{se}");
    }
}

#[test]
fn a_row_without_a_density_has_a_status_and_no_nan() {
    // A plane's Hessian is singular; Cholesky must not invent a factor.
    let flat = LogSumExp::new(vec![1.0, 0.0], vec![0.0], 0.0).unwrap();
    let mut score = vec![7.0; 2];
    let out = exact_log_density_and_score(&flat, 0.0, &[0.3, 0.2], &mut score).unwrap();
    assert_eq!((out.status[0], out.value[0]), (Status::NotPositiveDefinite, f64::NEG_INFINITY));
    assert_eq!(score, [0.0, 0.0]);

    let w = Quadratic::isotropic(2);
    let y = [0.0, 0.0, f64::NAN, 0.0, 1e300, 0.0];
    let out = exact_log_density(&w, 0.0, &y).unwrap();
    assert_eq!(out.status, [Status::Evaluated, Status::NotFinite, Status::NotFinite]);
    assert_eq!(out.value[1..], [f64::NEG_INFINITY; 2]);
    let out = estimated_log_density(&w, 0.0, &y, &identity(2), Lanczos::default()).unwrap();
    assert_eq!(out.status, [Status::Evaluated, Status::NotFinite, Status::NotFinite]);

    let saddle = Quadratic::new(vec![1.0, 0.0, 0.0, -1.0], vec![0.0; 2]).unwrap();
    let out = exact_log_density(&saddle, 0.0, &[0.1, 0.1]).unwrap();
    assert_eq!(out.status[0], Status::NotPositiveDefinite);
    let out = estimated_log_density(&saddle, 0.0, &[0.1, 0.1], &identity(2), Lanczos::default());
    assert_eq!(out.unwrap().status[0], Status::NotPositiveDefinite);
}

#[test]
fn bits_per_dimension_of_the_uniform_density_are_eight() {
    // Uniform on [lo, hi]^d spends log2(256) bits on each of 256 equal levels.
    for (lo, hi) in [(0.0_f64, 1.0), (-1.0, 1.0), (0.0, 255.0)] {
        let log_density = -3.0 * (hi - lo).ln();
        assert!((bits_per_dimension(log_density, 3, (lo, hi)) - 8.0).abs() < 1e-12);
    }
}

/// Of data N(m, S), S with the noise in it, the clean point given y has the mean m + (S - σ² I) S^{-1} (y - m).
#[test]
fn tweedie_is_the_posterior_mean_of_a_gaussian() {
    let (d, sigma) = (7, 0.4);
    let gaussian = gaussian(d, 5);
    let start = gaussian.quadratic_start().unwrap();
    let w = Quadratic::new(start.hessian, start.centre).unwrap();
    let y = normals(3 * d, 6);
    let found = tweedie(&w, Source::Gibbs, &y, sigma).unwrap();
    let centred: Vec<f64> = y.iter().enumerate().map(|(i, y)| y - gaussian.mean[i % d]).collect();
    let mut solved = centred;
    crate::linalg::Cholesky::new(&gaussian.covariance.dense(), d, "S")
        .unwrap()
        .solve_rows(&mut solved)
        .unwrap();
    for ((found, y), s) in found.iter().zip(&y).zip(&solved) {
        // (S - σ² I) S^{-1} (y - m) + m = y - σ² S^{-1} (y - m), up to the rounding of two factorisations.
        assert!((found - (y - sigma * sigma * s)).abs() < 1e-10, "{found}");
    }
    let twice = tweedie(&w, Source::Gibbs, &found, sigma).unwrap();
    assert_eq!(without_noise(&w, Source::Gibbs, &y, sigma).unwrap(), twice);
    assert_eq!(tweedie(&w, Source::Gibbs, &y, 0.0).unwrap(), y);
    let saddle = Quadratic::new(vec![1.0, 0.0, 0.0, -1.0], vec![0.0; 2]).unwrap();
    assert!(
        tweedie(&saddle, Source::Gibbs, &[1.0, 2.0], sigma).unwrap_err().to_string().contains("at row 0")
    );
}
