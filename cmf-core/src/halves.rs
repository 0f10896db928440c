//! Cholesky factor of a large matrix and the inverse by it, by halves on which two threads work at once.
//!
//! faer's own sharing has its threads wait for each other at barriers, and gains nothing at a few hundred rows. How a
//! matrix is cut depends on its size alone, so that its bits do not depend on the number of threads.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltError, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, MatMut, MatRef, Par};

use crate::linalg::mirror;

use BlockStructure::{Rectangular, TriangularLower, TriangularUpper};

/// A factor of a product with the part of it that is not 0.
type Part<'a> = (MatRef<'a, f64>, BlockStructure);

/// target = scale a b, or with [`Accum::Add`] that much more of it.
fn product(
    target: (MatMut<f64>, BlockStructure),
    accum: Accum,
    (a, in_a): Part<'_>,
    (b, in_b): Part<'_>,
    scale: f64,
) {
    triangular::matmul(target.0, target.1, accum, a, in_a, b, in_b, scale, Par::Seq);
}

/// Rows up to which a matrix stays whole: smaller products gain less than their threads' meeting costs.
const WHOLE: usize = 128;

/// Where a matrix of n rows is cut: on a multiple of what the widest vectors' kernels work on.
fn cut(n: usize) -> usize {
    (n / 2).next_multiple_of(16)
}

/// Replaces the lower triangle of `h` by the factor L with H = L L'; what stands above it does not matter.
pub fn factor(h: MatMut<f64>) -> Result<(), LltError> {
    let n = h.nrows();
    if n <= WHOLE {
        let mut scratch = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default()));
        let stack = MemStack::new(&mut scratch);
        return cholesky_in_place(h, Default::default(), Par::Seq, stack, Default::default()).map(|_| ());
    }
    let (mut first, _, mut side, mut second) = h.split_at_mut(cut(n), cut(n));
    factor(first.as_mut())?;
    let half = cut(n - cut(n));
    let (upper, lower) = side.as_mut().split_at_row_mut(half);
    let solve = |rows: MatMut<f64>| {
        solve_lower_triangular_in_place(first.as_ref(), rows.transpose_mut(), Par::Seq);
    };
    rayon::join(|| solve(upper), || solve(lower));
    subtract_square(second.as_mut(), side.as_ref());
    factor(second)
}

/// The lower triangle of target - a a'.
fn subtract_square(target: MatMut<f64>, a: MatRef<f64>) {
    let k = cut(target.nrows());
    let (first, _, side, second) = target.split_at_mut(k, k);
    let (upper, lower) = a.split_at_row(k);
    let triangle = |target: MatMut<f64>, a: MatRef<f64>| {
        let transposed = (a.transpose(), Rectangular);
        product((target, TriangularLower), Accum::Add, (a, Rectangular), transposed, -1.0);
    };
    rayon::join(
        || {
            triangle(first, upper);
            triangle(second, lower);
        },
        || matmul(side, Accum::Add, lower, upper.transpose(), -1.0, Par::Seq),
    );
}

/// H^{-1} = L^{-T} L^{-1}, both triangles, into the row-major [d, d] `inverse`, from L in the lower triangle by columns of
/// `l`, which is overwritten.
pub fn invert(l: &mut [f64], inverse: &mut [f64], d: usize) {
    let mut l = MatMut::from_column_major_slice_mut(l, d, d);
    // The lower triangle by columns is the upper one by rows.
    let mut lower = MatMut::from_column_major_slice_mut(inverse, d, d);
    invert_triangle(l.as_mut(), lower.as_mut());
    square(l.as_ref(), lower);
    mirror(inverse, d);
}

/// L by L^{-1}, with room for as much.
fn invert_triangle(mut l: MatMut<f64>, mut room: MatMut<f64>) {
    let n = l.nrows();
    if n <= WHOLE {
        invert_lower_triangular(room.as_mut(), l.as_ref(), Par::Seq);
        return l.copy_from_triangular_lower(room);
    }
    let k = cut(n);
    let (mut first, _, mut side, mut second) = l.split_at_mut(k, k);
    let (room_first, _, mut middle, room_second) = room.split_at_mut(k, k);
    rayon::join(
        || invert_triangle(first.as_mut(), room_first),
        || invert_triangle(second.as_mut(), room_second),
    );
    let (first, second, side_now) = (first.as_ref(), second.as_ref(), side.as_ref());
    // -C^{-1} B A^{-1}: the first product by halves of rows, the second by halves of columns.
    let by_first = |target: MatMut<f64>, rows: MatRef<f64>| {
        let triangle = (first, TriangularLower);
        product((target, Rectangular), Accum::Replace, (rows, Rectangular), triangle, 1.0);
    };
    let half = cut(n - k);
    let (upper, lower) = middle.as_mut().split_at_row_mut(half);
    let (side_upper, side_lower) = side_now.split_at_row(half);
    rayon::join(|| by_first(upper, side_upper), || by_first(lower, side_lower));
    let by_second = |target: MatMut<f64>, columns: MatRef<f64>| {
        let triangle = (second, TriangularLower);
        product((target, Rectangular), Accum::Replace, triangle, (columns, Rectangular), -1.0);
    };
    let half = cut(k);
    let (left, right) = side.as_mut().split_at_col_mut(half);
    let (middle_left, middle_right) = middle.as_ref().split_at_col(half);
    rayon::join(|| by_second(left, middle_left), || by_second(right, middle_right));
}

/// The lower triangle of x' x for a lower triangular x.
fn square(x: MatRef<f64>, target: MatMut<f64>) {
    let triangle = |target: MatMut<f64>, accum: Accum, a: MatRef<f64>, [left, right]: [BlockStructure; 2]| {
        product((target, TriangularLower), accum, (a.transpose(), left), (a, right), 1.0);
    };
    let triangular = [TriangularUpper, TriangularLower];
    let n = x.nrows();
    if n <= WHOLE {
        return triangle(target, Accum::Replace, x, triangular);
    }
    let (first, _, side, second) = x.split_at(cut(n), cut(n));
    let (mut target_first, _, target_side, target_second) = target.split_at_mut(cut(n), cut(n));
    rayon::join(
        || {
            triangle(target_first.as_mut(), Accum::Replace, first, triangular);
            triangle(target_first, Accum::Add, side, [Rectangular; 2]);
        },
        || {
            let second_transposed = (second.transpose(), TriangularUpper);
            let target_side = (target_side, Rectangular);
            product(target_side, Accum::Replace, second_transposed, (side, Rectangular), 1.0);
            triangle(target_second, Accum::Replace, second, triangular);
        },
    );
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::linalg::Cholesky;

    /// A symmetric matrix [n, n] with eigenvalues between 1 and about 1.5 n.
    fn matrix(n: usize) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        let a: Vec<f64> = (0..n * n).map(|_| rng.random_range(-1.0..1.0)).collect();
        let a = MatRef::from_row_major_slice(&a, n, n);
        let mut h = vec![0.0; n * n];
        matmul(
            MatMut::from_row_major_slice_mut(&mut h, n, n),
            Accum::Replace,
            a,
            a.transpose(),
            1.0,
            Par::Seq,
        );
        h.iter_mut().step_by(n + 1).for_each(|v| *v += 1.0);
        h
    }

    /// The factor, a lower triangle by columns with zeros above, and the inverse.
    fn by_halves(h: &[f64], n: usize) -> [Vec<f64>; 2] {
        let (mut l, mut inverse) = (h.to_vec(), vec![0.0; n * n]);
        factor(MatMut::from_column_major_slice_mut(&mut l, n, n)).unwrap();
        let mut kept = l.clone();
        (0..n).for_each(|column| kept[column * n..][..column].fill(0.0));
        invert(&mut l, &mut inverse, n);
        [kept, inverse]
    }

    #[test]
    fn halves_give_the_factor_and_the_inverse() {
        for n in [1, 100, 129, 300, 401] {
            let h = matrix(n);
            let [l, inverse] = by_halves(&h, n);
            let whole = Cholesky::new(&h, n, "a matrix").unwrap();
            let log_det = 2.0 * (0..n).map(|i| l[i * (n + 1)].ln()).sum::<f64>();
            assert!((log_det - whole.log_det()).abs() < 1e-11 * log_det.abs().max(1.0), "{n}");
            // Condition numbers of up to 1.5 n, and as many roundings.
            for (a, b) in inverse.iter().zip(whole.inverse()) {
                assert!((a - b).abs() < 1e-11, "{n}: {a} {b}");
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_threads() {
        let h = matrix(300);
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| by_halves(&h, 300))
        });
        assert_eq!(one, three);
    }

    #[test]
    fn pivots_that_are_not_positive_are_found_in_either_half() {
        for at in [3, 290] {
            let mut h = matrix(300);
            h[at * 301] = -1.0;
            assert!(factor(MatMut::from_column_major_slice_mut(&mut h, 300, 300)).is_err(), "{at}");
        }
    }
}
