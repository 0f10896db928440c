//! The linear solves behind the log-determinant's gradient, on the host's f32 engine.

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{MatMut, Par};
use rayon::prelude::*;

use crate::error::Result;
use crate::halves;
use crate::icnn::{Icnn, LinearisedIcnn};
use crate::linalg::dot;
use crate::potential::{Potential, SecondOrder, Subspace};
use crate::preconditioner::Preconditioner;

/// Solves ∇²w(y_i) u_i = v_i by preconditioned conjugate gradients until each relative residual (in the
/// norm of P) is below `tolerance` or `most` products were spent; returns u and the worst of them.
///
/// Few rows need the most iterations: whenever half of the rows are solved they leave the batch. A w that bends along few
/// directions is solved along these by Cholesky, where that costs less.
pub fn hessian_solve(
    w: &Icnn<f32>,
    metric: &Preconditioner,
    y: &[f64],
    v: &[f64],
    tolerance: f64,
    most: usize,
) -> Result<(Vec<f64>, f64)> {
    let d = w.dim();
    if is_direct(w)
        && let Some(subspace) = w.subspace()
    {
        return solve_along(&subspace, y, v);
    }
    let mut solved = vec![0.0; v.len()];
    let mut worst = 0.0f64;
    let mut systems = Systems::new(metric, v, d)?;
    let mut at = w.linearise(y)?;
    for _ in 0..most {
        let open = (0..systems.rows.len()).filter(|&k| systems.residual(k) > tolerance).count();
        if open == 0 {
            break;
        }
        if 2 * open <= systems.rows.len() {
            worst = worst.max(systems.retire(tolerance, &mut solved));
            at = w.linearise(&rows_of(y, d, &systems.rows))?;
        }
        systems.iterate(&at, metric)?;
    }
    worst = worst.max(systems.retire(f64::INFINITY, &mut solved));
    Ok((solved, worst))
}

/// Whether a Hessian along the k directions of a spiked head and its factor cost less than the [`PRODUCTS`] that a system
/// takes otherwise: (1 + r) N k² + k³/3 against 4 k (d + (1 + r) N) multiply-adds each.
fn is_direct(w: &Icnn<f32>) -> bool {
    const PRODUCTS: usize = 10;
    let arch = w.architecture();
    let forms = (1 + arch.rank) * arch.units();
    arch.head.rank().is_some_and(|k| k * (forms + k / 3) <= 4 * PRODUCTS * (arch.dim + forms))
}

/// Solves ∇²w(y_i) u_i = v_i as V' (∇²f)^{-1} V v + (v - V'V v) / c; the residual is 0, or infinite where a row has no
/// solution in numbers, which is left at 0.
fn solve_along(subspace: &Subspace<'_>, y: &[f64], v: &[f64]) -> Result<(Vec<f64>, f64)> {
    /// Rows whose Hessians there are at once.
    const ROWS: usize = 64;
    let d = subspace.directions.len() / subspace.along.dim();
    let (mut u, mut worst) = (Vec::with_capacity(v.len()), 0.0f64);
    for (y, v) in y.chunks(ROWS * d).zip(v.chunks(ROWS * d)) {
        let (some, residual) = solve_rows_along(subspace, y, v)?;
        u.extend(some);
        worst = worst.max(residual);
    }
    Ok((u, worst))
}

fn solve_rows_along(subspace: &Subspace<'_>, y: &[f64], v: &[f64]) -> Result<(Vec<f64>, f64)> {
    let (k, c) = (subspace.along.dim(), subspace.across);
    let d = subspace.directions.len() / k;
    let mut along = subspace.coordinates(v);
    let mut hessians = vec![0.0; along.len() * k];
    subspace.along.hessian(&subspace.coordinates(y), &mut hessians)?;
    // What V' is applied to: (∇²f)^{-1} s - s / c with s = V v. Not by `Cholesky`, whose threads are faer's: there is a row
    // for each thread here.
    let solved = |(hessian, s): (&mut [f64], &mut [f64])| {
        let mut l = MatMut::from_column_major_slice_mut(hessian, k, k);
        halves::factor(l.as_mut()).is_ok() && {
            let mut u = s.to_vec();
            let mut column = MatMut::from_column_major_slice_mut(&mut u, k, 1);
            solve_lower_triangular_in_place(l.as_ref(), column.as_mut(), Par::Seq);
            solve_upper_triangular_in_place(l.transpose(), column, Par::Seq);
            s.iter_mut().zip(u).for_each(|(s, u)| *s = u - *s / c);
            true
        }
    };
    let rows = hessians.par_chunks_exact_mut(k * k).zip(along.par_chunks_exact_mut(k));
    let solved: Vec<bool> = rows.map(solved).collect();
    let mut u = subspace.rows(&along);
    u.iter_mut().zip(v).for_each(|(u, v)| *u += v / c);
    let mut residual = 0.0;
    for (u, solved) in u.chunks_exact_mut(d).zip(solved) {
        if !solved || u.iter().any(|u| !u.is_finite()) {
            u.fill(0.0);
            residual = f64::INFINITY;
        }
    }
    Ok((u, residual))
}

/// The rows `rows` of `a` [n, d].
fn rows_of(a: &[f64], d: usize, rows: &[usize]) -> Vec<f64> {
    rows.iter().flat_map(|&i| &a[i * d..][..d]).copied().collect()
}

/// Products ⟨a_i, b_i⟩ of rows: [n, d], [n, d] -> [n].
fn dots(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    a.chunks_exact(d).zip(b.chunks_exact(d)).map(|(a, b)| dot(a, b)).collect()
}

/// a + s b in place of a.
fn add_scaled(a: &mut [f64], s: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += s * b);
}

/// Systems in the midst of conjugate gradients, with the vectors of the method's usual names.
struct Systems {
    /// Which system each row is.
    rows: Vec<usize>,
    d: usize,
    u: Vec<f64>,
    r: Vec<f64>,
    p: Vec<f64>,
    /// ⟨r, P r⟩ now and at the start.
    rz: Vec<f64>,
    start: Vec<f64>,
}

impl Systems {
    fn new(metric: &Preconditioner, v: &[f64], d: usize) -> Result<Self> {
        let p = metric.colour(&metric.pull_back(v)?)?;
        let rz = dots(v, &p, d);
        let rows = (0..rz.len()).collect();
        Ok(Systems { rows, d, u: vec![0.0; v.len()], r: v.to_vec(), p, start: rz.clone(), rz })
    }

    /// The relative residual of row `k` in the norm of P: 0 of a right side of 0, infinite where it is not a number.
    fn residual(&self, k: usize) -> f64 {
        if self.start[k] == 0.0 {
            return 0.0;
        }
        let relative = (self.rz[k] / self.start[k]).sqrt();
        if relative.is_nan() { f64::INFINITY } else { relative }
    }

    fn iterate(&mut self, at: &LinearisedIcnn<'_, f32>, metric: &Preconditioner) -> Result<()> {
        let d = self.d;
        let mut hp = vec![0.0; self.p.len()];
        at.hvp(&self.p, &mut hp);
        for (i, curvature) in dots(&self.p, &hp, d).into_iter().enumerate() {
            // A row that is solved to rounding, or lost to it, stays as it is.
            if curvature.is_nan() || curvature <= 0.0 || self.rz[i] <= 1e-12 * self.start[i] {
                continue;
            }
            let alpha = self.rz[i] / curvature;
            let row = i * d..(i + 1) * d;
            add_scaled(&mut self.u[row.clone()], alpha, &self.p[row.clone()]);
            add_scaled(&mut self.r[row.clone()], -alpha, &hp[row]);
        }
        let z = metric.colour(&metric.pull_back(&self.r)?)?;
        let next = dots(&self.r, &z, d);
        for (i, (new, old)) in next.iter().zip(&self.rz).enumerate() {
            let beta = new / old;
            let row = i * d..(i + 1) * d;
            self.p[row.clone()].iter_mut().zip(&z[row]).for_each(|(p, z)| *p = z + beta * *p);
        }
        self.rz = next;
        Ok(())
    }

    /// Writes the rows whose residual is at most `tolerance` to `solved`, lets go of them and returns their worst
    /// residual.
    fn retire(&mut self, tolerance: f64, solved: &mut [f64]) -> f64 {
        let d = self.d;
        let (done, open): (Vec<usize>, Vec<usize>) =
            (0..self.rows.len()).partition(|&k| self.residual(k) <= tolerance);
        for &k in &done {
            solved[self.rows[k] * d..][..d].copy_from_slice(&self.u[k * d..][..d]);
        }
        let worst = done.iter().map(|&k| self.residual(k)).fold(0.0, f64::max);
        for all in [&mut self.u, &mut self.r, &mut self.p] {
            *all = rows_of(all, d, &open);
        }
        for all in [&mut self.rz, &mut self.start] {
            *all = open.iter().map(|&k| all[k]).collect();
        }
        self.rows = open.iter().map(|&k| self.rows[k]).collect();
        worst
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::inner::signs;
    use super::super::tests::{identity, network, network_with};
    use super::*;
    use crate::icnn::Head;

    /// Along the directions of a spiked head, by Cholesky.
    #[test]
    fn systems_along_few_directions_are_solved_directly() {
        let (d, n) = (6, 5);
        let w: Icnn<f32> = network_with(d, false, Head::Spiked { rank: 2 }).cast().unwrap();
        assert!(w.subspace().is_some() && is_direct(&w));
        let metric = Preconditioner::new(&identity(d).into()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let y: Vec<f64> = (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect();
        let mut v = signs(&mut rng, n * d);
        // No product is spent.
        let (u, worst) = hessian_solve(&w, &metric, &y, &v, 1e-4, 0).unwrap();
        assert_eq!(worst, 0.0);
        let mut back = vec![0.0; n * d];
        w.hvp(&y, &u, &mut back).unwrap();
        // f32 rounds the Hessian to 6e-8 and the product; their condition is a few dozen.
        assert!(back.iter().zip(&v).all(|(back, v)| (back - v).abs() < 1e-5), "{back:?} {v:?}");
        v[0] = f64::NAN;
        assert_eq!(hessian_solve(&w, &metric, &y, &v, 1e-4, 0).unwrap().1, f64::INFINITY);
    }

    #[test]
    fn systems_that_leave_the_batch_early_are_solved_too() {
        let (d, n) = (6, 9);
        let w: Icnn<f32> = network(d, true).cast().unwrap();
        let metric = Preconditioner::new(&identity(d).into()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let y: Vec<f64> = (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect();
        // Five of nine have nothing to solve and leave at once; the others need up to six iterations each.
        let mut v = signs(&mut rng, n * d);
        for i in [0, 2, 3, 5, 8] {
            v[i * d..][..d].fill(0.0);
        }
        let (u, worst) = hessian_solve(&w, &metric, &y, &v, 1e-4, 30).unwrap();
        assert!(worst <= 1e-4, "{worst}");
        let mut back = vec![0.0; n * d];
        w.hvp(&y, &u, &mut back).unwrap();
        // With P = I the relative residual is that of each row: |H u - v| <= 1e-4 |v| and the rounding of f32.
        for (back, v) in back.chunks(d).zip(v.chunks(d)) {
            let off = back.iter().zip(v).map(|(b, v)| (b - v).powi(2)).sum::<f64>().sqrt();
            assert!(off <= 1.1e-4 * dot(v, v).sqrt(), "{off}");
        }
        // Too few products are told of, and so is a right side that is not a number.
        assert!(hessian_solve(&w, &metric, &y, &v, 1e-4, 1).unwrap().1 > 1e-4);
        v[0] = f64::NAN;
        assert_eq!(hessian_solve(&w, &metric, &y, &v, 1e-4, 30).unwrap().1, f64::INFINITY);
    }
}
