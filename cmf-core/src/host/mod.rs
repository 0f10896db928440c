//! The interpreter of [`Ops`] on this machine's processor: the f64 reference, and in f32 the engine
//! of training's inner loops.

mod array;
mod elementary;
mod elementwise;
mod products;

pub use array::{Array, Scalar};

use faer::{MatMut, MatRef};

use crate::linalg::{dot, mirror};
use crate::ops::{Activation, Ops};

/// Evaluates [`Ops`] on [`Array`]s, to the same bits on any number of threads.
#[derive(Debug, Clone, Copy)]
pub struct Host<T> {
    shared: bool,
    scalar: std::marker::PhantomData<T>,
}

impl<T> Host<T> {
    /// On the calling thread only: for callers that share out rows themselves.
    pub fn sequential() -> Self {
        Host { shared: false, scalar: std::marker::PhantomData }
    }

    /// Large products run on all of rayon's threads.
    pub fn parallel() -> Self {
        Host { shared: true, scalar: std::marker::PhantomData }
    }
}

impl<T: Scalar> Ops for Host<T> {
    type Tensor = Array<T>;

    fn matmul(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        let [na, m, k] = a.shape;
        let [nb, kb, p] = b.shape;
        assert_eq!(k, kb, "cannot multiply {:?} and {:?}", a.shape(), b.shape());
        let n = if na == 1 { nb } else { na };
        assert!(nb == 1 || nb == n, "cannot multiply {:?} and {:?}", a.shape(), b.shape());
        let rank = a.rank.max(b.rank);
        let mut out = vec![T::from_f64(0.0); n * m * p];
        if out.is_empty() || k == 0 {
            return Array::new(out, [n, m, p], rank);
        }
        if nb == 1 && n > 1 && a.is_whole() {
            // One product serves all the rows of all the matrices.
            let rows = MatRef::from_row_major_slice(&a.data[a.offset..a.offset + n * m * k], n * m, k);
            self.product(MatMut::from_row_major_slice_mut(&mut out, n * m, p), rows, b.view(0));
        } else {
            for (i, out) in out.chunks_exact_mut(m * p).enumerate() {
                let target = MatMut::from_row_major_slice_mut(out, m, p);
                self.product(target, a.view(i.min(na - 1)), b.view(i.min(nb - 1)));
            }
        }
        Array::new(out, [n, m, p], rank)
    }

    /// One triangle by products of half the multiply-adds, then its mirror image.
    fn symmetric_product(&self, pairs: &[[Array<T>; 2]]) -> Array<T> {
        let (mut n, mut rank) = (1, 2);
        let m = pairs[0][0].shape[2];
        for [a, b] in pairs {
            let agree = a.shape[1] == b.shape[1] && [a.shape[2], b.shape[2]] == [m; 2];
            assert!(agree, "cannot multiply {:?} transposed and {:?}", a.shape(), b.shape());
            n = n.max(a.shape[0]).max(b.shape[0]);
            rank = rank.max(a.rank).max(b.rank);
        }
        let mut out = vec![T::from_f64(0.0); n * m * m];
        for (i, out) in out.chunks_exact_mut((m * m).max(1)).enumerate() {
            let filled = pairs.iter().filter(|[a, _]| a.shape[1] > 0);
            let views: Vec<_> =
                filled.map(|pair| pair.each_ref().map(|a| a.view(i.min(a.shape[0] - 1)))).collect();
            self.upper_triangle(out, &views);
            mirror(out, m);
        }
        Array::new(out, [n, m, m], rank)
    }

    /// In one pass, eight sums at a time.
    fn inner(&self, a: &Array<T>, b: &Array<T>, axis: usize) -> Array<T> {
        let (a, b) = (a.rows_contiguous(), b.rows_contiguous());
        assert!(
            axis + 1 == a.rank && a.rank == b.rank && a.shape[2] == b.shape[2],
            "no inner products along axis {axis} of {:?} and {:?}",
            a.shape(),
            b.shape()
        );
        let [n, rows] = [0, 1].map(|k| a.shape[k].max(b.shape[k]));
        let of = |x: &Array<T>, m: usize, i: usize| (m.min(x.shape[0] - 1), i.min(x.shape[1] - 1));
        let mut out = Vec::with_capacity(n * rows);
        for (m, i) in (0..n).flat_map(|m| (0..rows).map(move |i| (m, i))) {
            let ((am, ai), (bm, bi)) = (of(&a, m, i), of(&b, m, i));
            out.push(dot(a.row(am, ai).unwrap_or_default(), b.row(bm, bi).unwrap_or_default()));
        }
        Array::new(out, [n, rows, 1], a.rank)
    }

    fn quadratic_forms(&self, a: &Array<T>, m: &Array<T>) -> Array<T> {
        let ([_, rows, d], [n, md, _]) = (a.shape, m.shape);
        assert_eq!(d, md, "no quadratic forms of {:?} and {:?}", a.shape(), m.shape());
        let a = a.rows_contiguous();
        let forms = (0..n).flat_map(|i| self.forms(&a, m.view(i))).collect();
        Array::matrix(forms, n, rows)
    }

    fn transpose(&self, a: &Array<T>) -> Array<T> {
        let [n, rows, cols] = a.shape;
        Array { shape: [n, cols, rows], transposed: !a.transposed, ..a.clone() }
    }

    fn add(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        self.zip(a, b, |x, y| x + y)
    }

    fn sub(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        self.zip(a, b, |x, y| x - y)
    }

    fn mul(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        self.zip(a, b, |x, y| x * y)
    }

    fn scale(&self, a: &Array<T>, k: f64) -> Array<T> {
        let k = T::from_f64(k);
        self.map(a, move |x| x * k)
    }

    fn offset(&self, a: &Array<T>, k: f64) -> Array<T> {
        let k = T::from_f64(k);
        self.map(a, move |x| x + k)
    }

    fn relu(&self, a: &Array<T>) -> Array<T> {
        let zero = T::from_f64(0.0);
        // Written so that NaN stays NaN.
        self.map(a, move |x| if x < zero { zero } else { x })
    }

    fn exp(&self, a: &Array<T>) -> Array<T> {
        self.map(a, Scalar::exp)
    }

    fn ln(&self, a: &Array<T>) -> Array<T> {
        self.map(a, Scalar::ln)
    }

    fn sigmoid(&self, a: &Array<T>) -> Array<T> {
        let one = T::from_f64(1.0);
        self.map(a, move |x| one / (one + Scalar::exp(-x)))
    }

    fn positive(&self, a: &Array<T>) -> Array<T> {
        let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
        self.map(a, move |x| if x > zero { one } else { zero })
    }

    fn sum(&self, a: &Array<T>, axis: usize) -> Array<T> {
        let a = a.rows_contiguous();
        let [n, rows, cols] = a.shape;
        let rank = a.rank;
        let zero = T::from_f64(0.0);
        let row = |b: usize, i: usize| a.row(b, i).unwrap_or_default();
        match axis + 3 - rank {
            2 => {
                let sums = (0..n).flat_map(|b| (0..rows).map(move |i| (b, i)));
                Array::new(sums.map(|(b, i)| row(b, i).iter().copied().sum()).collect(), [n, rows, 1], rank)
            }
            1 => {
                let mut out = vec![zero; n * cols];
                for (b, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
                    for i in 0..rows {
                        out.iter_mut().zip(row(b, i)).for_each(|(o, &v)| *o += v);
                    }
                }
                Array::new(out, [n, 1, cols], rank)
            }
            _ => {
                let mut out = vec![zero; rows * cols];
                for b in 0..n {
                    for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
                        out.iter_mut().zip(row(b, i)).for_each(|(o, &v)| *o += v);
                    }
                }
                Array::new(out, [1, rows, cols], rank)
            }
        }
    }

    fn slice(&self, a: &Array<T>, axis: usize, from: usize, to: usize) -> Array<T> {
        assert_eq!(a.rank, 2, "only rank 2 is sliced");
        assert!(from <= to && to <= a.shape[axis + 1], "slice {from}..{to} of {:?}", a.shape());
        let mut out = a.clone();
        out.shape[axis + 1] = to - from;
        let along_lines = (axis == 0) != a.transposed;
        out.offset += if along_lines { from * a.stride } else { from };
        out
    }

    fn concat(&self, parts: &[Array<T>], axis: usize) -> Array<T> {
        if let [only] = parts {
            return only.clone();
        }
        let rank = parts[0].rank;
        let axis = axis + 3 - rank;
        let parts: Vec<Array<T>> = parts.iter().map(Array::rows_contiguous).collect();
        let mut shape = parts[0].shape;
        shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
        let mut out = Vec::with_capacity(shape.iter().product());
        let mut rows = |p: &Array<T>, b: usize, range: std::ops::Range<usize>| {
            range.for_each(|i| out.extend_from_slice(p.row(b, i).unwrap_or_default()));
        };
        match axis {
            2 => {
                for (b, i) in (0..shape[0]).flat_map(|b| (0..shape[1]).map(move |i| (b, i))) {
                    parts.iter().for_each(|p| rows(p, b, i..i + 1));
                }
            }
            1 => (0..shape[0]).for_each(|b| parts.iter().for_each(|p| rows(p, b, 0..p.shape[1]))),
            _ => parts.iter().for_each(|p| (0..p.shape[0]).for_each(|b| rows(p, b, 0..p.shape[1]))),
        }
        Array::new(out, shape, rank)
    }

    fn unsqueeze(&self, a: &Array<T>, axis: usize) -> Array<T> {
        assert_eq!(a.rank, 2, "only rank 2 is unsqueezed");
        let [_, rows, cols] = a.shape;
        if axis == 0 {
            return Array { rank: 3, ..a.clone() };
        }
        let shape = if axis == 1 { [rows, 1, cols] } else { [rows, cols, 1] };
        Array::new(a.to_vec(), shape, 3)
    }

    fn squeeze(&self, a: &Array<T>, axis: usize) -> Array<T> {
        assert!(a.rank == 3 && a.shape[axis] == 1, "cannot squeeze axis {axis} of {:?}", a.shape());
        let mut left = (0..3).filter(|&k| k != axis).map(|k| a.shape[k]);
        let (rows, cols) = (left.next().unwrap_or(1), left.next().unwrap_or(1));
        Array::matrix(a.to_vec(), rows, cols)
    }

    fn identity(&self, d: usize) -> Array<T> {
        let mut data = vec![T::from_f64(0.0); d * d];
        data.iter_mut().step_by(d + 1).for_each(|v| *v = T::from_f64(1.0));
        Array::matrix(data, d, d)
    }

    /// One pass over the numbers instead of the default's several.
    fn activation(&self, t: &Array<T>, kind: Activation, order: u8) -> Array<T> {
        let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
        // Written so that NaN stays NaN.
        let negative = move |t: T| if t > zero { zero } else { t };
        match (kind, order) {
            (Activation::Elu, 0) => {
                self.map(t, move |t| if t < zero { t.exp_of_negative() - one } else { t })
            }
            (Activation::Elu, 1) => self.map(t, move |t| negative(t).exp_of_negative()),
            (Activation::Elu, _) => self.map(t, move |t| if t > zero { zero } else { t.exp_of_negative() }),
            (Activation::Softplus { beta }, order) => {
                let (b, inverse) = (T::from_f64(beta), T::from_f64(1.0 / beta));
                // e^{-|βt|}, through which every order keeps its digits on either side.
                let tail = move |t: T| (if t > zero { -t } else { t }).exp_of_negative();
                match order {
                    0 => self.map(t, move |t| {
                        let t = t * b;
                        (tail(t).ln_1p_of_share() + if t < zero { zero } else { t }) * inverse
                    }),
                    1 => self.map(t, move |t| {
                        let t = t * b;
                        let tail = tail(t);
                        (if t > zero { one } else { tail }) / (one + tail)
                    }),
                    2 => self.map(t, move |t| {
                        let tail = tail(t * b);
                        let share = one / (one + tail);
                        b * tail * share * share
                    }),
                    _ => self.map(t, move |t| {
                        let t = t * b;
                        let tail = tail(t);
                        let share = one / (one + tail);
                        let curve = b * b * tail * (one - tail) * share * share * share;
                        if t > zero { -curve } else { curve }
                    }),
                }
            }
        }
    }
}
