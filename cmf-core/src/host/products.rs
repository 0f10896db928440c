//! Large products, which threads may share: cut along columns or blocks of them, never along their sums, so that
//! their bits do not depend on the number of threads.
//!
//! (faer's own sharing has its threads spin at barriers, which takes from others the core that it waits for.)

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Array, Host, Scalar};
use crate::linalg::dot;

/// Multiply-adds below which a product is not worth sharing.
const LEAST_SHARED: usize = 1 << 22;

/// Widths of pieces of products are multiples of this, which the widest vectors' kernels work on.
const LANES: usize = 16;

impl<T: Scalar> Host<T> {
    /// Threads that work on a product of `work` multiply-adds.
    fn threads(&self, work: usize) -> usize {
        if self.shared && work >= LEAST_SHARED { rayon::current_num_threads() } else { 1 }
    }

    /// target = a b.
    pub(super) fn product(&self, target: MatMut<T>, a: MatRef<T>, b: MatRef<T>) {
        let (rows, columns) = (target.nrows(), target.ncols());
        // A single row has a way of its own through faer, and waits for memory anyway.
        let threads = if rows > 1 { self.threads(rows * columns * a.ncols()) } else { 1 };
        let mut width = columns.div_ceil(threads).next_multiple_of(LANES);
        // A lone last column would be summed in another order.
        while width < columns && columns % width == 1 {
            width += LANES;
        }
        let multiply = |(target, b): (MatMut<T>, MatRef<T>)| {
            matmul(target, Accum::Replace, a, b, T::from_f64(1.0), Par::Seq);
        };
        if width >= columns {
            multiply((target, b));
        } else {
            target.par_col_chunks_mut(width).zip(b.par_col_chunks(width)).for_each(multiply);
        }
    }

    /// Adds the upper triangle of the symmetric Σ a' b of `pairs` to the row-major [m, m] `out`.
    pub(super) fn upper_triangle(&self, out: &mut [T], pairs: &[[MatRef<T>; 2]]) {
        let Some(m) = pairs.first().map(|[a, _]| a.ncols()) else { return };
        let threads = self.threads(pairs.iter().map(|[a, _]| m * m * a.nrows() / 2).sum());
        // Bands of rows of equal area.
        let bound = |i: usize| {
            let share = 1.0 - (1.0 - i as f64 / threads as f64).sqrt();
            match ((m as f64 * share) as usize).next_multiple_of(LANES) {
                0 => 0,
                // No lone last row, as above.
                bound if i < threads && bound + LANES <= m => bound,
                _ => m,
            }
        };
        let mut bands = Vec::with_capacity(threads);
        let mut rest = out;
        for i in 0..threads {
            let (band, below) = rest.split_at_mut((bound(i + 1) - bound(i)) * m);
            bands.push((bound(i)..bound(i + 1), band));
            rest = below;
        }
        bands.into_par_iter().filter(|(rows, _)| !rows.is_empty()).for_each(|(rows, band)| {
            let one = T::from_f64(1.0);
            let (width, right) = (rows.len(), m - rows.end);
            // A symmetric matrix is its own transpose: the lower triangle by columns is the upper one by rows.
            let mut band = MatMut::from_column_major_slice_mut(band, m, width);
            for [a, b] in pairs {
                let (a, b) = (a.transpose(), b.subcols(rows.start, width));
                let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
                let corner = band.as_mut().subrows_mut(rows.start, width);
                let ours = a.subrows(rows.start, width);
                triangular::matmul(corner, lower, Accum::Add, ours, full, b, full, one, Par::Seq);
                if right > 0 {
                    let side = band.as_mut().subrows_mut(rows.end, right);
                    matmul(side, Accum::Add, a.subrows(rows.end, right), b, one, Par::Seq);
                }
            }
        });
    }

    /// a U^{-1} for the upper triangle of `u` [d, d], whatever stands below it: a of one matrix [.., N, d].
    ///
    /// In pieces of rows of `a`, as many whatever the number of threads.
    pub(crate) fn times_inverse_of_upper(&self, a: &Array<T>, u: &Array<T>) -> Array<T> {
        const ROWS: usize = 15 * LANES;
        let [n, rows, d] = a.shape;
        assert!(n == 1 && u.shape() == [d, d], "cannot solve {:?} by {:?}", a.shape(), u.shape());
        let mut out = a.to_vec();
        // Rows of numbers one after the other are columns of the transpose: U' x = a'.
        let lower = u.view(0).transpose();
        let solve = |piece: &mut [T]| {
            let columns = MatMut::from_column_major_slice_mut(piece, d, piece.len() / d);
            solve_lower_triangular_in_place(lower, columns, Par::Seq);
        };
        match self.threads(rows * d * d / 2) {
            1 => out.chunks_mut(ROWS * d).for_each(solve),
            _ => out.par_chunks_mut(ROWS * d).for_each(solve),
        }
        Array::new(out, a.shape, a.rank)
    }

    /// a_i' M a_i for each row of `a` and the symmetric M.
    ///
    /// By blocks of columns: the part of a M left of a block counts twice, for it and its mirror image.
    pub(super) fn forms(&self, a: &Array<T>, m: MatRef<T>) -> Vec<T> {
        const BLOCK: usize = 192;
        let ([_, rows, d], left) = (a.shape, a.view(0));
        let block = |from: usize| {
            let width = BLOCK.min(d - from);
            let mut part = vec![T::from_f64(0.0); rows * width];
            let mut target = MatMut::from_row_major_slice_mut(&mut part, rows, width);
            let columns = m.subcols(from, width);
            let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
            let (own, its) = (left.subcols(from, width), columns.subrows(from, width));
            matmul(target.as_mut(), Accum::Replace, own, its, one, Par::Seq);
            if from > 0 {
                let (before, above) = (left.subcols(0, from), columns.subrows(0, from));
                matmul(target, Accum::Add, before, above, two, Par::Seq);
            }
            let row = |i: usize| &a.row(0, i).unwrap_or_default()[from..from + width];
            part.chunks_exact(width).enumerate().map(|(i, p)| dot(p, row(i))).collect::<Vec<T>>()
        };
        let starts: Vec<usize> = (0..d).step_by(BLOCK).collect();
        let parts: Vec<Vec<T>> = match self.threads(rows * d * d / 2) {
            1 => starts.into_iter().map(block).collect(),
            _ => starts.into_par_iter().map(block).collect(),
        };
        let mut sums = vec![T::from_f64(0.0); rows];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        sums
    }
}
