//! Functions of each element of arrays, of which threads may share the lines.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Array, Host, Scalar};

/// Elements below which an array is not worth sharing.
const LEAST_SHARED: usize = 1 << 17;

/// A function to apply to each number of a slice.
struct Each<'a, T, F> {
    from: &'a [T],
    to: &'a mut [T],
    f: F,
}

impl<T: Copy, F: Fn(T) -> T> WithSimd for Each<'_, T, F> {
    type Output = ();

    // A plain loop, and inlined: what is called from here loses the vectors.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (to, &from) in self.to.iter_mut().zip(self.from) {
            *to = (self.f)(from);
        }
    }
}

impl<T: Scalar> Host<T> {
    /// Has `fill` write pieces of `out`, whole lines of `line` numbers each; it is told the first line's number.
    fn fill(&self, out: &mut [T], line: usize, fill: impl Fn(usize, &mut [T]) + Sync) {
        if !self.shared || out.len() < LEAST_SHARED {
            return fill(0, out);
        }
        let lines = (out.len() / line).div_ceil(rayon::current_num_threads());
        out.par_chunks_mut(lines * line).enumerate().for_each(|(i, piece)| fill(i * lines, piece));
    }

    /// `f` of each element, compiled for the widest vectors that this processor has.
    ///
    /// `f` owns what it captures: what it borrows, the compiler takes for something that `to` may overwrite, and the
    /// loop stays one of single numbers.
    pub(super) fn map(&self, a: &Array<T>, f: impl Fn(T) -> T + Copy + Sync) -> Array<T> {
        let a = a.rows_contiguous();
        let [n, rows, cols] = a.shape;
        let mut out = vec![T::default(); n * rows * cols];
        // Rows that follow each other are one long row, which may be cut anywhere.
        let [line, unit] = if a.is_whole() { [out.len(), 1] } else { [cols, cols] };
        self.fill(&mut out, unit.max(1), |first, piece| {
            for (i, to) in (first..).zip(piece.chunks_mut(line.max(1))) {
                let from = if a.is_whole() { a.offset + i } else { a.index(i / rows, i % rows, 0) };
                Arch::new().dispatch(Each { from: &a.data[from..from + to.len()], to, f });
            }
        });
        Array::new(out, a.shape, a.rank)
    }

    /// `f` of each pair of elements, with broadcasting.
    pub(super) fn zip(&self, a: &Array<T>, b: &Array<T>, f: impl Fn(T, T) -> T + Copy + Sync) -> Array<T> {
        let (a, b) = (a.rows_contiguous(), b.rows_contiguous());
        assert_eq!(a.rank, b.rank, "ranks differ: {:?} and {:?}", a.shape(), b.shape());
        let shape @ [n, rows, cols] = std::array::from_fn(|k| {
            let (la, lb) = (a.shape[k], b.shape[k]);
            assert!(la == lb || la == 1 || lb == 1, "shapes {:?} and {:?} differ", a.shape(), b.shape());
            la.max(lb)
        });
        let mut out = vec![T::default(); n * rows * cols];
        self.fill(&mut out, cols.max(1), |first, piece| {
            for (i, out) in (first..).zip(piece.chunks_exact_mut(cols.max(1))) {
                let [x, y] = [&a, &b].map(|x| {
                    let (matrix, row) = ((i / rows).min(x.shape[0] - 1), (i % rows).min(x.shape[1] - 1));
                    x.row(matrix, row).unwrap_or_default()
                });
                if x.len() == y.len() {
                    out.iter_mut().zip(x.iter().zip(y)).for_each(|(out, (&x, &y))| *out = f(x, y));
                } else if x.len() == 1 {
                    out.iter_mut().zip(y).for_each(|(out, &y)| *out = f(x[0], y));
                } else {
                    out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x, y[0]));
                }
            }
        });
        Array::new(out, shape, a.rank)
    }
}
