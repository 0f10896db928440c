//! Sinkhorn divergence between two samples: how far generated points are from held-out data.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::view;
use crate::potential::rows;

/// Entropic optimal transport between uniform samples with cost |x - y|².
///
/// OT_ε(a, b) = min_π ⟨C, π⟩ + ε KL(π | a ⊗ b) = max_{f, g} ⟨a, f⟩ + ⟨b, g⟩ over potentials whose coupling
/// π_ij = a_i b_j exp((f_i + g_j - C_ij) / ε) has marginals a and b (Cuturi, 2013; Feydy, Séjourné, Vialard,
/// Amari, Trouvé and Peyré, 2019, equations 1, 8 and 9). Sinkhorn's iterations run on the potentials,
/// so no ε is too small for the exponential. Costs are f32, potentials f64: values carry a relative
/// rounding error of about 1e-6 of the mean cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sinkhorn {
    /// ε > 0, in units of the cost (squared length).
    pub epsilon: f64,
    /// Converged when the L1 error of the free marginal is at most this. The value's error is of second
    /// order in it.
    pub tolerance: f64,
    /// Iterations (two half-steps each) after which the outcome is returned as not converged.
    pub max_iterations: usize,
}

/// A value with what is known about its convergence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// OT_ε or S_ε, in units of the cost. Where not converged, the dual value reached, a lower bound of OT_ε.
    pub value: f64,
    /// Whether every problem solved met the tolerance.
    pub converged: bool,
    /// Iterations of the slowest problem solved.
    pub iterations: usize,
    /// Largest L1 error of a marginal, in [0, 2] once the first iterations are over.
    pub marginal_error: f64,
}

/// ε = 0.05 E|x - x'|², the mean over all pairs of a row of `x` [n, d] and one of `x2` [m, d], two
/// independent batches of the target (the setting of Vesseron and Cuturi, 2024, in their code).
pub fn suggested_epsilon(x: &[f64], x2: &[f64], d: usize) -> Result<f64> {
    let moments = |x: &[f64]| -> Result<(Vec<f64>, f64)> {
        let n = check_batch(x, d)? as f64;
        let mut mean = vec![0.0; d];
        for row in x.chunks_exact(d) {
            for (m, v) in mean.iter_mut().zip(row) {
                *m += v / n;
            }
        }
        let spread = |row: &[f64]| row.iter().zip(&mean).map(|(v, m)| (v - m).powi(2)).sum::<f64>();
        let variance = x.chunks_exact(d).map(spread).sum::<f64>() / n;
        Ok((mean, variance))
    };
    let ((mean, variance), (mean2, variance2)) = (moments(x)?, moments(x2)?);
    let shift: f64 = mean.iter().zip(&mean2).map(|(a, b)| (a - b).powi(2)).sum();
    Ok(0.05 * (variance + variance2 + shift))
}

impl Sinkhorn {
    /// Tolerance 1e-3, which leaves a relative error of 2e-6 on two batches of 2,048 MNIST digits, and at
    /// most 2,000 iterations.
    pub fn new(epsilon: f64) -> Self {
        Sinkhorn { epsilon, tolerance: 1e-3, max_iterations: 2000 }
    }

    /// The divergence S_ε(x, y) = OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y) of the rows of `x` [n, d] and
    /// `y` [m, d].
    ///
    /// Nonnegative up to the tolerance and zero only for equal samples (Feydy et al., 2019, theorem 1).
    ///
    /// # Errors
    /// A shape that does not fit, an empty batch, a value that is not finite, ε that is not positive.
    pub fn divergence(&self, x: &[f64], y: &[f64], d: usize) -> Result<Estimate> {
        let between = self.transport(x, y, d)?;
        let (xx, yy) = (self.self_transport(x, d)?, self.self_transport(y, d)?);
        let parts = [between, xx, yy];
        Ok(Estimate {
            value: between.value - 0.5 * xx.value - 0.5 * yy.value,
            converged: parts.iter().all(|p| p.converged),
            iterations: parts.iter().map(|p| p.iterations).max().unwrap_or(0),
            marginal_error: parts.iter().map(|p| p.marginal_error).fold(0.0, f64::max),
        })
    }

    /// OT_ε of the rows of `x` [n, d] and `y` [m, d].
    ///
    /// # Errors
    /// As [`divergence`](Self::divergence).
    pub fn transport(&self, x: &[f64], y: &[f64], d: usize) -> Result<Estimate> {
        self.check()?;
        let (n, m) = (check_batch(x, d)?, check_batch(y, d)?);
        let cost = self.scaled_cost(x, y, d)?;
        let cost_t = transposed(&cost, n, m);
        let (mut u, mut v, mut next) = (vec![0.0; n], vec![0.0; m], vec![0.0; n]);
        let mut marginal_error = f64::INFINITY;
        for iterations in 1..=self.max_iterations {
            soft_min(&cost, &v, &mut next);
            // The coupling of (u, v) has row sums a_i exp(u_i - next_i) and, once v came from u, exact
            // column sums.
            if iterations > 1 {
                marginal_error = marginal_gap(&u, &next);
            }
            std::mem::swap(&mut u, &mut next);
            if marginal_error <= self.tolerance {
                return self.estimate(&u, &v, iterations, marginal_error);
            }
            soft_min(&cost_t, &u, &mut v);
        }
        self.estimate(&u, &v, self.max_iterations, marginal_error)
    }

    /// OT_ε of a sample with itself, by the averaged fixed point f ← ½ (f + T f), which converges in a
    /// few steps where alternating ones oscillate (Feydy et al., 2019, section 3.1).
    fn self_transport(&self, x: &[f64], d: usize) -> Result<Estimate> {
        self.check()?;
        let n = check_batch(x, d)?;
        let cost = self.scaled_cost(x, x, d)?;
        let (mut u, mut next) = (vec![0.0; n], vec![0.0; n]);
        let mut marginal_error = f64::INFINITY;
        for iterations in 1..=self.max_iterations {
            soft_min(&cost, &u, &mut next);
            marginal_error = marginal_gap(&u, &next);
            if marginal_error <= self.tolerance || iterations == self.max_iterations {
                return self.estimate(&u, &next, iterations, marginal_error);
            }
            for (u, next) in u.iter_mut().zip(&next) {
                *u = 0.5 * (*u + next);
            }
        }
        self.estimate(&u, &next, self.max_iterations, marginal_error)
    }

    /// The dual value ε (mean u + mean v). One of the two came last from a soft minimum, so the coupling
    /// has mass 1 and the dual's mass term vanishes.
    fn estimate(&self, u: &[f64], v: &[f64], iterations: usize, marginal_error: f64) -> Result<Estimate> {
        let mean = |a: &[f64]| a.iter().sum::<f64>() / a.len() as f64;
        let value = self.epsilon * (mean(u) + mean(v));
        if !value.is_finite() {
            return Err(Error::NotFinite(format!("the transport cost with epsilon = {:e}", self.epsilon)));
        }
        Ok(Estimate { value, converged: marginal_error <= self.tolerance, iterations, marginal_error })
    }

    fn check(&self) -> Result<()> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        if positive(self.epsilon) && positive(self.tolerance) && self.max_iterations > 0 {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "Sinkhorn needs positive epsilon, tolerance and max_iterations: {self:?}"
        )))
    }

    /// |x_i - y_j|² / ε: [n, m].
    fn scaled_cost(&self, x: &[f64], y: &[f64], d: usize) -> Result<Vec<f32>> {
        let (n, m) = (rows(x, d)?, rows(y, d)?);
        let squares = |x: &[f64]| -> Vec<f64> {
            x.chunks_exact(d).map(|row| row.iter().map(|v| v * v).sum()).collect()
        };
        let (xx, yy) = (squares(x), squares(y));
        let mut cost = vec![0.0_f32; n * m];
        // Blocks bound the f64 products that are alive at once.
        const BLOCK: usize = 128;
        cost.par_chunks_mut(BLOCK * m).zip(x.par_chunks(BLOCK * d)).zip(xx.par_chunks(BLOCK)).for_each(
            |((cost, x), xx)| {
                let product = view(x, xx.len(), d) * view(y, m, d).transpose();
                for (i, row) in cost.chunks_exact_mut(m).enumerate() {
                    for (j, c) in row.iter_mut().enumerate() {
                        *c = ((xx[i] + yy[j] - 2.0 * product[(i, j)]).max(0.0) / self.epsilon) as f32;
                    }
                }
            },
        );
        // Squares that overflow would cancel to NaN, which `max` hides.
        if xx.iter().chain(&yy).any(|s| !s.is_finite()) || cost.iter().any(|c| !c.is_finite()) {
            return Err(Error::NotFinite(format!("a squared distance over epsilon = {:e}", self.epsilon)));
        }
        Ok(cost)
    }
}

/// Number of rows of a nonempty finite batch.
fn check_batch(x: &[f64], d: usize) -> Result<usize> {
    let n = rows(x, d)?;
    if n == 0 {
        return Err(Error::Invalid("a Sinkhorn divergence needs at least one point on each side".into()));
    }
    if x.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite("a point given to the Sinkhorn divergence".into()));
    }
    Ok(n)
}

fn transposed(a: &[f32], n: usize, m: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * m];
    out.par_chunks_mut(n).enumerate().for_each(|(j, row)| {
        for (i, v) in row.iter_mut().enumerate() {
            *v = a[i * m + j];
        }
    });
    out
}

/// L1 distance from uniform of row sums exp(u_i - u'_i) / n.
fn marginal_gap(u: &[f64], next: &[f64]) -> f64 {
    u.iter().zip(next).map(|(a, b)| (a - b).exp_m1().abs()).sum::<f64>() / u.len() as f64
}

/// u_i = -log (1/m) Σ_j exp(v_j - M_ij) with M = C / ε: [n, m].
fn soft_min(cost: &[f32], v: &[f64], u: &mut [f64]) {
    let m = v.len();
    let v: Vec<f32> = v.iter().map(|&v| v as f32).collect();
    u.par_iter_mut().zip(cost.par_chunks_exact(m)).with_min_len(16).for_each(|(u, row)| {
        *u = (m as f64).ln() - log_sum_exp(&v, row);
    });
}

/// log Σ_j exp(v_j - c_j), summed in independent lanes so that it compiles to vector instructions.
fn log_sum_exp(v: &[f32], c: &[f32]) -> f64 {
    const LANES: usize = 16;
    let (v_lanes, v_rest) = v.as_chunks::<LANES>();
    let (c_lanes, c_rest) = c.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for (v, c) in v_lanes.iter().zip(c_lanes) {
        for k in 0..LANES {
            let t = v[k] - c[k];
            largest[k] = if t > largest[k] { t } else { largest[k] };
        }
    }
    let rest = || v_rest.iter().zip(c_rest).map(|(v, c)| v - c);
    let shift = largest.into_iter().chain(rest()).fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0_f32; LANES];
    for (v, c) in v_lanes.iter().zip(c_lanes) {
        for k in 0..LANES {
            sums[k] += exp_nonpositive(v[k] - c[k] - shift);
        }
    }
    let total: f32 = sums.into_iter().sum::<f32>() + rest().map(|t| exp_nonpositive(t - shift)).sum::<f32>();
    f64::from(shift) + f64::from(total).ln()
}

/// e^t for t ≤ 0 to 2e-7 relative, and below 2e-38 for t < -87: without branches, unlike the library's.
///
/// e^t = 2^k 2^r with k the nearest integer to t log2 e; 2^r by its Taylor polynomial of degree 6, whose
/// remainder on |r| ≤ ½ is 1.2e-7.
#[inline(always)]
fn exp_nonpositive(t: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let z = (if t > -87.0 { t } else { -87.0 }) * std::f32::consts::LOG2_E;
    let shifted = z + ROUND;
    let r = (z - (shifted - ROUND)) * std::f32::consts::LN_2;
    let p = 1.0 / 120.0 + r * (1.0 / 720.0);
    let p = 1.0 / 6.0 + r * (1.0 / 24.0 + r * p);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * p));
    let k = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    f32::from_bits(p.to_bits().wrapping_add((k << 23) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    /// Rows of N(mean, deviation² I): [n, d].
    fn normal(seed: u64, n: usize, d: usize, mean: f64, deviation: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || -> f64 { StandardNormal.sample(&mut rng) };
        (0..n * d).map(|_| mean + deviation * draw()).collect()
    }

    fn squared_distance(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum()
    }

    /// Another road to OT_ε: dense matrix scaling in f64 (Cuturi, 2013, algorithm 1) and the primal value
    /// ⟨C, π⟩ + ε KL(π | a ⊗ b) of the coupling it ends in.
    fn reference(x: &[f64], y: &[f64], d: usize, epsilon: f64) -> f64 {
        let (n, m) = (x.len() / d, y.len() / d);
        let cost = |i: usize, j: usize| squared_distance(&x[i * d..][..d], &y[j * d..][..d]);
        let weight = 1.0 / (n * m) as f64;
        let kernel = |i: usize, j: usize| weight * (-cost(i, j) / epsilon).exp();
        let (mut p, mut q) = (vec![1.0; n], vec![1.0; m]);
        for _ in 0..5000 {
            for (i, p) in p.iter_mut().enumerate() {
                *p = 1.0 / n as f64 / (0..m).map(|j| kernel(i, j) * q[j]).sum::<f64>();
            }
            for (j, q) in q.iter_mut().enumerate() {
                *q = 1.0 / m as f64 / (0..n).map(|i| kernel(i, j) * p[i]).sum::<f64>();
            }
        }
        let mut value = 0.0;
        for (i, p) in p.iter().enumerate() {
            for (j, q) in q.iter().enumerate() {
                let coupling = p * kernel(i, j) * q;
                value += coupling * (cost(i, j) + epsilon * (coupling / weight).ln());
            }
        }
        value
    }

    /// OT_ε between N(m1, A) and N(m2, B) on the line, A = s², B = t².
    ///
    /// The best coupling is Gaussian; with covariance c its cost is (m1-m2)² + A + B - 2c and its KL to the
    /// product -½ log(1 - c²/AB), so c² + ½ ε c - AB = 0 (Janati, Muzellec, Peyré and Cuturi, 2020,
    /// theorem 1, in one dimension).
    fn gaussian_transport(m1: f64, s: f64, m2: f64, t: f64, epsilon: f64) -> f64 {
        let product = (s * t).powi(2);
        let c = -0.25 * epsilon + (0.0625 * epsilon * epsilon + product).sqrt();
        (m1 - m2).powi(2) + s * s + t * t - 2.0 * c - 0.5 * epsilon * (-c * c / product).ln_1p()
    }

    #[test]
    fn agrees_with_dense_scaling_on_unequal_sizes() {
        // Sizes on both sides of the vector width of `log_sum_exp`.
        for (n, m, d) in [(5, 7, 2), (1, 4, 3), (16, 40, 3), (33, 2, 1)] {
            let (x, y) = (normal(1, n, d, 0.0, 1.0), normal(2, m, d, 0.5, 1.5));
            let epsilon = suggested_epsilon(&x, &y, d).unwrap();
            let solver = Sinkhorn { tolerance: 2e-6, ..Sinkhorn::new(epsilon) };
            let got = solver.transport(&x, &y, d).unwrap();
            assert!(got.converged, "{got:?}");
            let want = reference(&x, &y, d, epsilon);
            // f32 costs and exponentials: some 1e-7 of the largest C/ε, about 100, times ε, summed.
            assert!((got.value - want).abs() < 1e-5 * want, "{n} {m} {d}: {} {want}", got.value);
            let itself = solver.self_transport(&x, d).unwrap();
            let want = reference(&x, &x, d, epsilon);
            assert!(itself.converged, "{itself:?}");
            assert!((itself.value - want).abs() < 1e-5 * epsilon / 0.05, "{} {want}", itself.value);
        }
    }

    #[test]
    fn agrees_with_the_closed_form_of_gaussians() {
        // Costs add up over independent coordinates, so d = 2 doubles the value on the line.
        let (d, n, repeats) = (2, 1000, 12);
        let (epsilon, m, s, t) = (0.5, 0.8, 1.0, 0.6);
        let want = d as f64
            * (gaussian_transport(0.0, s, m, t, epsilon)
                - 0.5 * gaussian_transport(0.0, s, 0.0, s, epsilon)
                - 0.5 * gaussian_transport(0.0, t, 0.0, t, epsilon));
        let values: Vec<f64> = (0..repeats)
            .map(|seed| {
                let (x, y) = (normal(2 * seed, n, d, 0.0, s), normal(2 * seed + 1, n, d, m, t));
                let got = Sinkhorn::new(epsilon).divergence(&x, &y, d).unwrap();
                assert!(got.converged, "{got:?}");
                got.value
            })
            .collect();
        let mean = values.iter().sum::<f64>() / repeats as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (repeats - 1) as f64;
        let standard_error = (variance / repeats as f64).sqrt();
        // Four standard errors, and the bias of order 1/n of a plug-in estimate (its constant is of the
        // order of the cost, 3, over ε).
        let tolerance = 4.0 * standard_error + 6.0 / n as f64;
        assert!(tolerance < 0.1 * want, "the test must be able to fail: {tolerance} {want}");
        assert!((mean - want).abs() < tolerance, "{mean} +- {standard_error}, expected {want}");
    }

    #[test]
    fn zero_for_equal_samples_and_symmetric() {
        let (n, d) = (300, 5);
        let (x, y) = (normal(3, n, d, 0.0, 1.0), normal(4, n / 2, d, 0.2, 1.0));
        let epsilon = suggested_epsilon(&x, &y, d).unwrap();
        let solver = Sinkhorn { tolerance: 1e-4, ..Sinkhorn::new(epsilon) };
        // Second order in the marginal tolerance of 1e-4 and f32 rounding, on costs of 2 d = 10.
        let same = solver.divergence(&x, &x, d).unwrap();
        assert!(same.converged && same.value.abs() < 1e-4, "{same:?}");
        let (xy, yx) = (solver.divergence(&x, &y, d).unwrap(), solver.divergence(&y, &x, d).unwrap());
        assert!((xy.value - yx.value).abs() < 1e-4, "{xy:?} {yx:?}");
        assert!(xy.value > 0.1, "{xy:?}");
    }

    #[test]
    fn a_translation_adds_its_squared_length() {
        // |x + t - y|² differs from |x - y|² by a function of x plus one of y, so couplings stay
        // and S_ε(x, x + t) = |t|² exactly.
        let (n, d) = (200, 3);
        let x = normal(5, n, d, 0.0, 1.0);
        let t = [1.0, -2.0, 0.5];
        let moved: Vec<f64> = x.iter().enumerate().map(|(i, v)| v + t[i % d]).collect();
        let solver = Sinkhorn { tolerance: 1e-5, ..Sinkhorn::new(0.3) };
        let got = solver.divergence(&x, &moved, d).unwrap();
        let want: f64 = t.iter().map(|v| v * v).sum();
        // f32 rounding of C/ε up to about 200, times ε.
        assert!(got.converged && (got.value - want).abs() < 1e-4, "{got:?} {want}");
    }

    #[test]
    fn suggested_epsilon_is_the_mean_over_all_pairs() {
        let d = 3;
        let (x, y) = (normal(6, 20, d, 1.0, 1.0), normal(7, 30, d, 0.0, 2.0));
        let mut total = 0.0;
        for a in x.chunks_exact(d) {
            total += y.chunks_exact(d).map(|b| squared_distance(a, b)).sum::<f64>();
        }
        let want = 0.05 * total / 600.0;
        // The same sum in another order, in f64.
        assert!((suggested_epsilon(&x, &y, d).unwrap() - want).abs() < 1e-12 * want);
    }

    #[test]
    fn says_when_it_has_not_converged() {
        let (x, y) = (normal(8, 100, 2, 0.0, 1.0), normal(9, 100, 2, 3.0, 1.0));
        let solver = Sinkhorn { max_iterations: 2, ..Sinkhorn::new(0.05) };
        let got = solver.divergence(&x, &y, 2).unwrap();
        assert!(!got.converged && got.iterations == 2 && got.marginal_error > solver.tolerance, "{got:?}");
    }

    #[test]
    fn misuse_is_an_error() {
        let solver = Sinkhorn::new(1.0);
        let x = [0.0, 1.0];
        let fails = |r: Result<Estimate>, words: &str| {
            let e = r.unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        };
        fails(solver.divergence(&x, &[0.0; 3], 2), "multiple of 2");
        fails(solver.divergence(&x, &[], 2), "at least one point");
        fails(solver.divergence(&x, &[f64::NAN, 0.0], 2), "not finite");
        fails(solver.divergence(&x, &[1e200, 0.0], 2), "not finite");
        fails(Sinkhorn::new(0.0).divergence(&x, &x, 2), "positive epsilon");
        fails(Sinkhorn::new(f64::NAN).divergence(&x, &x, 2), "positive epsilon");
    }

    #[test]
    fn the_vector_exponential_is_that_of_the_library() {
        for i in 0..=87_000 {
            let t = -(i as f32) / 1000.0;
            let want = f64::from(t).exp();
            let error = (f64::from(exp_nonpositive(t)) - want).abs() / want;
            // t log2 e is rounded to f32 (87 * 6e-8 at the far end) before the remainder of 2e-7.
            assert!(error < 2e-7 + f64::from(-t) * 1.2e-7, "{t}: {error:e}");
        }
        assert!(exp_nonpositive(-1e30) < 2e-38 && exp_nonpositive(f32::NEG_INFINITY) < 2e-38);
    }
}
