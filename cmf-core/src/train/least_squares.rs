//! Levenberg-Marquardt steps on the Monge-Ampère residual of networks with one hidden layer.
//!
//! Var_mu r is a nonlinear least-squares problem whose residual can be made small, on which steps that know
//! J'J converge in hundreds where Adam needs hundreds of thousands (Marquardt, 1963; damping: Nielsen, 1999).
//! The rows of J are written by hand in f64: with x = ∇w(y), k = ∇w(x) and M = ∇²w(y)^{-1} held fixed,
//! w(∇w(y)) - log det ∇²w(y) has the derivative of w(x) + k·∇w(y) - ⟨M, ∇²w(y)⟩ in the parameters.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::icnn::{Architecture, Head};
use crate::linalg::{Cholesky, dot, matmul, to_rows, view};
use crate::ops::Activation;

/// Most parameters whose normal equations are solved in one update.
const MOST_PARAMETERS: usize = 2048;
/// Dampings that one update may try.
const TRIALS: usize = 10;
/// The damping of the first update, and its bounds.
pub(super) const DAMPING: f64 = 1e-2;
const DAMPINGS: (f64, f64) = (1e-9, 1e6);
/// Least diagonal of D, in units of its largest.
const FLOOR: f64 = 1e-8;

/// Whether [`step`] knows networks of this architecture.
pub fn applies(arch: &Architecture) -> bool {
    arch.head == Head::Full
        && arch.widths.len() == 1
        && !arch.diagonal
        && Layout::new(arch).len() <= MOST_PARAMETERS
}

/// Where each array lies among the parameters, in the order of `Parameters::shallow_numbers`.
struct Layout {
    d: usize,
    units: usize,
    rank: usize,
    activation: Activation,
}

impl Layout {
    fn new(arch: &Architecture) -> Self {
        Layout { d: arch.dim, units: arch.units(), rank: arch.rank, activation: arch.activation }
    }
    /// Linear forms, then squared ones: [(1 + r) N, d].
    fn form(&self, block: usize, unit: usize) -> usize {
        (block * self.units + unit) * self.d
    }
    fn bias(&self) -> usize {
        (1 + self.rank) * self.units * self.d
    }
    fn output(&self) -> usize {
        self.bias() + self.units
    }
    fn root(&self) -> usize {
        self.output() + self.units
    }
    fn diagonal(&self) -> usize {
        self.root() + self.d * self.d
    }
    fn centre(&self) -> usize {
        self.diagonal() + self.d
    }
    fn len(&self) -> usize {
        self.centre() + self.d
    }
}

/// softplus and its slope.
fn softplus(t: f64) -> (f64, f64) {
    (t.max(0.0) + (-t.abs()).exp().ln_1p(), 1.0 / (1.0 + (-t).exp()))
}

/// A network at given parameters.
struct Network<'a> {
    at: Layout,
    free: &'a [f64],
    /// Q: [d, d].
    head: Vec<f64>,
    /// Slopes of the head's diagonal: [d].
    slopes: Vec<f64>,
}

impl<'a> Network<'a> {
    fn new(arch: &Architecture, free: &'a [f64]) -> Self {
        let at = Layout::new(arch);
        let d = at.d;
        let root = &free[at.root()..at.diagonal()];
        let mut head = vec![0.0; d * d];
        for (ij, q) in head.iter_mut().enumerate() {
            *q = dot(&root[ij / d * d..][..d], &root[ij % d * d..][..d]);
        }
        let diagonal: Vec<_> = free[at.diagonal()..at.centre()].iter().map(|&t| softplus(t)).collect();
        diagonal.iter().enumerate().for_each(|(i, (v, _))| head[i * d + i] += v);
        Network { at, free, head, slopes: diagonal.into_iter().map(|(_, s)| s).collect() }
    }

    /// A unit's output weight, which is positive, and its slope in the free number.
    fn output(&self, unit: usize) -> (f64, f64) {
        softplus(self.free[self.at.output() + unit])
    }

    fn form(&self, block: usize, unit: usize) -> &[f64] {
        &self.free[self.at.form(block, unit)..][..self.at.d]
    }

    /// s of a unit at x, with the gradient of s written to `slope`.
    fn input(&self, unit: usize, x: &[f64], slope: &mut [f64]) -> f64 {
        let linear = self.form(0, unit);
        slope.copy_from_slice(linear);
        let mut s = dot(linear, x) + self.free[self.at.bias() + unit];
        for r in 1..=self.at.rank {
            let form = self.form(r, unit);
            let t = dot(form, x);
            s += 0.5 * t * t;
            slope.iter_mut().zip(form).for_each(|(g, a)| *g += t * a);
        }
        s
    }

    /// x - a and Q (x - a).
    fn centred(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let d = self.at.d;
        let moved: Vec<f64> = x.iter().zip(&self.free[self.at.centre()..]).map(|(x, a)| x - a).collect();
        let pulled = matmul(&self.head, &moved, d, d, 1);
        (moved, pulled)
    }

    /// w(∇w(y)) - log det ∇²w(y), with its derivative in the parameters written to `jacobian` [P].
    fn value(&self, y: &[f64], jacobian: Option<&mut [f64]>) -> Result<f64> {
        let (d, n, rank) = (self.at.d, self.at.units, self.at.rank);
        // At y: slopes g of the units' inputs, ∇w and ∇²w.
        let (y_moved, mut x) = self.centred(y);
        let mut hessian = self.head.clone();
        let mut g = vec![0.0; n * d];
        let mut phi = vec![[0.0; 4]; n];
        for (i, (g, phi)) in g.chunks_exact_mut(d).zip(&mut phi).enumerate() {
            *phi = self.at.activation.at(self.input(i, y, g));
            let (first, second) = (self.output(i).0 * phi[1], self.output(i).0 * phi[2]);
            x.iter_mut().zip(g.iter()).for_each(|(x, g)| *x += first * g);
            for (jk, h) in hessian.iter_mut().enumerate() {
                let (j, k) = (jk / d, jk % d);
                let squares = (1..=rank).map(|r| self.form(r, i)[j] * self.form(r, i)[k]).sum::<f64>();
                *h += second * g[j] * g[k] + first * squares;
            }
        }
        let factor = Cholesky::new(&hessian, d, "a Hessian in training")?;
        // At x = ∇w(y): w and k = ∇w(x).
        let (x_moved, mut k) = self.centred(&x);
        let mut value = 0.5 * dot(&x_moved, &k) - factor.log_det();
        let mut at_x = vec![[0.0; 4]; n];
        let mut slope = vec![0.0; d];
        for (i, at_x) in at_x.iter_mut().enumerate() {
            *at_x = self.at.activation.at(self.input(i, &x, &mut slope));
            value += self.output(i).0 * at_x[0];
            let first = self.output(i).0 * at_x[1];
            k.iter_mut().zip(&slope).for_each(|(k, g)| *k += first * g);
        }
        if let Some(jacobian) = jacobian {
            let m = factor.inverse();
            for i in 0..n {
                self.unit_row(i, [y, &x, &k], &g[i * d..][..d], [phi[i], at_x[i]], &m, jacobian);
            }
            self.head_row([&y_moved, &x_moved, &k], &m, jacobian);
        }
        Ok(value)
    }

    /// The derivative of u act(ŝ) + u act'(s) k·g - u [act''(s) g'Mg + act'(s) Σ a'Ma], ŝ at x and s, g at y.
    fn unit_row(
        &self,
        unit: usize,
        [y, x, k]: [&[f64]; 3],
        g: &[f64],
        [phi, at_x]: [[f64; 4]; 2],
        m: &[f64],
        jacobian: &mut [f64],
    ) {
        let d = self.at.d;
        let (u, u_slope) = self.output(unit);
        let times = |v: &[f64]| -> Vec<f64> { m.chunks_exact(d).map(|row| dot(row, v)).collect() };
        let m_g = times(g);
        let (along, bend) = (dot(k, g), dot(g, &m_g));
        let m_forms: Vec<Vec<f64>> = (1..=self.at.rank).map(|r| times(self.form(r, unit))).collect();
        let squares: f64 = m_forms.iter().enumerate().map(|(r, v)| dot(v, self.form(r + 1, unit))).sum();
        jacobian[self.at.output() + unit] =
            u_slope * (at_x[0] + phi[1] * along - phi[2] * bend - phi[1] * squares);
        // In s and in ŝ.
        let (in_s, in_x) = (u * (phi[2] * (along - squares) - phi[3] * bend), u * at_x[1]);
        jacobian[self.at.bias() + unit] = in_s + in_x;
        // In g: u (act'(s) k - 2 act''(s) M g).
        let in_g: Vec<f64> = k.iter().zip(&m_g).map(|(k, m)| u * (phi[1] * k - 2.0 * phi[2] * m)).collect();
        let row = &mut jacobian[self.at.form(0, unit)..][..d];
        row.iter_mut().enumerate().for_each(|(j, out)| *out = in_s * y[j] + in_x * x[j] + in_g[j]);
        for (r, m_form) in m_forms.iter().enumerate() {
            let form = self.form(r + 1, unit);
            let (at_y, at_x, across) = (dot(form, y), dot(form, x), dot(form, &in_g));
            let row = &mut jacobian[self.at.form(r + 1, unit)..][..d];
            for (j, out) in row.iter_mut().enumerate() {
                let through_s = (in_s * at_y + across) * y[j] + in_x * at_x * x[j];
                *out = through_s + at_y * in_g[j] - 2.0 * u * phi[1] * m_form[j];
            }
        }
    }

    /// The derivative of ½ (x-a)'Q(x-a) + k'Q(y-a) - ⟨M, Q⟩ in Q = R R' + diag and in a.
    fn head_row(&self, [y, x, k]: [&[f64]; 3], m: &[f64], jacobian: &mut [f64]) {
        let (at, d) = (&self.at, self.at.d);
        let in_head = |i: usize, j: usize| 0.5 * (x[i] * x[j] + k[i] * y[j] + k[j] * y[i]) - m[i * d + j];
        let root = &self.free[at.root()..at.diagonal()];
        for i in 0..d {
            for j in 0..d {
                jacobian[at.root() + i * d + j] =
                    2.0 * (0..d).map(|l| in_head(i, l) * root[l * d + j]).sum::<f64>();
            }
            jacobian[at.diagonal() + i] = in_head(i, i) * self.slopes[i];
            let row = &self.head[i * d..][..d];
            jacobian[at.centre() + i] = -dot(row, x) - dot(row, k);
        }
    }
}

/// The points of one update with their energies.
pub(super) struct Problem<'a> {
    pub(super) arch: &'a Architecture,
    /// [n, d].
    pub(super) points: &'a [f64],
    /// [n].
    pub(super) energy: &'a [f64],
    /// What each point counts, of sum 1: [n].
    pub(super) relevance: &'a [f64],
}

impl Problem<'_> {
    /// √a (r - mean r) at each point, whose squares sum to the variance, and the rows of their Jacobian where
    /// asked for: [n], [n, P].
    pub(super) fn residuals(&self, free: &[f64], with_jacobian: bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let network = Network::new(self.arch, free);
        let (n, p) = (self.energy.len(), free.len());
        let mut jacobian = vec![0.0; if with_jacobian { n * p } else { 0 }];
        let points = self.points.par_chunks_exact(self.arch.dim);
        let values: Result<Vec<f64>> = if with_jacobian {
            points.zip(jacobian.par_chunks_exact_mut(p)).map(|(y, row)| network.value(y, Some(row))).collect()
        } else {
            points.map(|y| network.value(y, None)).collect()
        };
        let mut r: Vec<f64> = self.energy.iter().zip(values?).map(|(e, v)| e - v).collect();
        let mean = dot(&r, self.relevance);
        r.iter_mut().zip(self.relevance).for_each(|(r, a)| *r = a.sqrt() * (*r - mean));
        if with_jacobian {
            let mut mean = vec![0.0; p];
            for (row, a) in jacobian.chunks_exact(p).zip(self.relevance) {
                mean.iter_mut().zip(row).for_each(|(m, j)| *m += a * j);
            }
            // r has minus what was differentiated.
            jacobian.par_chunks_exact_mut(p).zip(self.relevance.par_iter()).for_each(|(row, a)| {
                let a = a.sqrt();
                row.iter_mut().zip(&mean).for_each(|(j, m)| *j = a * (m - *j));
            });
        }
        Ok((r, jacobian))
    }
}

/// What a step did.
pub(super) struct Taken {
    /// The new parameters; the old ones where no trial was better.
    pub(super) free: Vec<f64>,
    /// The damping of the next step.
    pub(super) damping: f64,
    /// Standard deviation of the residual before the step.
    pub(super) deviation: f64,
}

/// One step from `free` that lowers the residual's variance at the points of `problem`.
///
/// Solves (J'J + damping D) p = -J'r with D = diag(J'J), and with more damping again until the variance falls. D has
/// a floor, below which a parameter has hardly any effect where it is.
pub(super) fn step(problem: &Problem<'_>, free: &[f64], mut damping: f64) -> Result<Taken> {
    let (n, p) = (problem.energy.len(), free.len());
    let (r, jacobian) = problem.residuals(free, true)?;
    let before = dot(&r, &r);
    if !before.is_finite() {
        return Err(Error::NotFinite("the residual of the Monge-Ampère equation".into()));
    }
    let j = view(&jacobian, n, p);
    let normal = to_rows((j.transpose() * j).as_ref());
    let slope = matmul(&r, &jacobian, 1, n, p);
    let floor = FLOOR * (0..p).map(|i| normal[i * p + i]).fold(0.0, f64::max);
    let mut growth = 2.0;
    for _ in 0..TRIALS {
        let mut damped = normal.clone();
        (0..p).for_each(|i| damped[i * p + i] += damping * normal[i * p + i].max(floor));
        let moved = Cholesky::new(&damped, p, "the normal equations").and_then(|factor| {
            let mut by: Vec<f64> = slope.iter().map(|s| -s).collect();
            factor.solve_rows(&mut by)?;
            let free: Vec<f64> = free.iter().zip(&by).map(|(f, b)| f + b).collect();
            let (r, _) = problem.residuals(&free, false)?;
            // Of the quadratic model: -2 p'slope - p'normal p.
            let model = -2.0 * dot(&by, &slope) - dot(&by, &matmul(&normal, &by, p, p, 1));
            Ok((free, (before - dot(&r, &r)) / model))
        });
        if let Ok((free, gain)) = moved
            && gain.is_finite()
            && gain > 0.0
        {
            let factor = (1.0 - (2.0 * gain - 1.0).powi(3)).max(1.0 / 3.0);
            let damping = (damping * factor).clamp(DAMPINGS.0, DAMPINGS.1);
            return Ok(Taken { free, damping, deviation: before.sqrt() });
        }
        damping = (damping * growth).min(DAMPINGS.1);
        growth *= 2.0;
    }
    Ok(Taken { free: free.to_vec(), damping, deviation: before.sqrt() })
}
