//! The interpreter of [`Ops`] on this machine's processor: the f64 reference, and in f32 the engine
//! of training's inner loops.

use std::sync::Arc;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

use crate::linalg::mirror;
use crate::ops::{Activation, Ops};

/// f32 or f64.
pub trait Scalar: faer::traits::RealField + Copy + std::iter::Sum + std::ops::AddAssign {
    /// From f64, rounding.
    fn from_f64(v: f64) -> Self;
    /// To f64.
    fn to_f64(self) -> f64;
    /// e^self.
    fn exp(self) -> Self;
    /// ln self.
    fn ln(self) -> Self;
}

macro_rules! scalar {
    ($t:ty) => {
        impl Scalar for $t {
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
        }
    };
}
scalar!(f32);
scalar!(f64);

/// A shared array of rank 2 or 3; slices along rows or columns and transposes are views.
#[derive(Debug, Clone)]
pub struct Array<T> {
    data: Arc<Vec<T>>,
    offset: usize,
    /// [matrices, rows, columns]; rank 2 has one matrix.
    shape: [usize; 3],
    /// Distance from one row to the next, or from one column to the next if `transposed`.
    stride: usize,
    transposed: bool,
    rank: usize,
}

impl<T: Scalar> Array<T> {
    /// A row-major [rows, cols] array.
    pub fn matrix(data: Vec<T>, rows: usize, cols: usize) -> Self {
        Self::new(data, [1, rows, cols], 2)
    }

    /// A row-major [n, rows, cols] array.
    pub fn stack(data: Vec<T>, n: usize, rows: usize, cols: usize) -> Self {
        Self::new(data, [n, rows, cols], 3)
    }

    /// A row-major [rows, cols] array from f64 numbers.
    pub fn from_f64(data: &[f64], rows: usize, cols: usize) -> Self {
        Self::matrix(data.iter().map(|&v| T::from_f64(v)).collect(), rows, cols)
    }

    fn new(data: Vec<T>, shape: [usize; 3], rank: usize) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "array data and shape {shape:?} disagree");
        Array { data: Arc::new(data), offset: 0, shape, stride: shape[2], transposed: false, rank }
    }

    /// The lengths of the axes: 2 or 3 of them.
    pub fn shape(&self) -> &[usize] {
        &self.shape[3 - self.rank..]
    }

    /// The elements in row-major order.
    pub fn to_vec(&self) -> Vec<T> {
        let [n, rows, cols] = self.shape;
        let mut out = Vec::with_capacity(n * rows * cols);
        for b in 0..n {
            for i in 0..rows {
                match self.row(b, i) {
                    Some(row) => out.extend_from_slice(row),
                    None => out.extend((0..cols).map(|j| self.data[self.index(b, i, j)])),
                }
            }
        }
        out
    }

    fn index(&self, b: usize, i: usize, j: usize) -> usize {
        let within = if self.transposed { j * self.stride + i } else { i * self.stride + j };
        self.offset + b * self.matrix_len() + within
    }

    /// Elements from one matrix to the next; only whole arrays have rank 3 with more than one matrix.
    fn matrix_len(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    /// Row i of matrix b if it is contiguous.
    fn row(&self, b: usize, i: usize) -> Option<&[T]> {
        let from = self.index(b, i, 0);
        (!self.transposed).then(|| &self.data[from..from + self.shape[2]])
    }

    /// The same array with contiguous rows.
    fn rows_contiguous(&self) -> Self {
        if self.transposed { Self::new(self.to_vec(), self.shape, self.rank) } else { self.clone() }
    }

    fn is_whole(&self) -> bool {
        !self.transposed && self.stride == self.shape[2]
    }

    fn view(&self, b: usize) -> MatRef<'_, T> {
        let [_, rows, cols] = self.shape;
        let from = self.index(b, 0, 0);
        let lines = if self.transposed { cols } else { rows };
        let length = if self.transposed { rows } else { cols };
        let data = &self.data[from..from + (lines - 1) * self.stride + length];
        if self.transposed {
            MatRef::from_column_major_slice_with_stride(data, rows, cols, self.stride)
        } else {
            MatRef::from_row_major_slice_with_stride(data, rows, cols, self.stride)
        }
    }

    fn map(&self, f: impl Fn(T) -> T) -> Self {
        let a = self.rows_contiguous();
        let [n, rows, cols] = a.shape;
        let mut out = Vec::with_capacity(n * rows * cols);
        for (b, i) in (0..n).flat_map(|b| (0..rows).map(move |i| (b, i))) {
            out.extend(a.row(b, i).unwrap_or_default().iter().map(|&v| f(v)));
        }
        Self::new(out, a.shape, a.rank)
    }

    fn zip(&self, other: &Self, f: impl Fn(T, T) -> T) -> Self {
        let (a, b) = (self.rows_contiguous(), other.rows_contiguous());
        assert_eq!(a.rank, b.rank, "ranks differ: {:?} and {:?}", a.shape(), b.shape());
        let shape @ [n, rows, cols] = std::array::from_fn(|k| {
            let (la, lb) = (a.shape[k], b.shape[k]);
            assert!(la == lb || la == 1 || lb == 1, "shapes {:?} and {:?} differ", a.shape(), b.shape());
            la.max(lb)
        });
        let mut out = Vec::with_capacity(n * rows * cols);
        for (m, i) in (0..n).flat_map(|m| (0..rows).map(move |i| (m, i))) {
            let at = |x: &Self| (m.min(x.shape[0] - 1), i.min(x.shape[1] - 1));
            let ((am, ai), (bm, bi)) = (at(&a), at(&b));
            let x = a.row(am, ai).unwrap_or_default();
            let y = b.row(bm, bi).unwrap_or_default();
            if x.len() == y.len() {
                out.extend(x.iter().zip(y).map(|(&x, &y)| f(x, y)));
            } else if x.len() == 1 {
                out.extend(y.iter().map(|&y| f(x[0], y)));
            } else {
                out.extend(x.iter().map(|&x| f(x, y[0])));
            }
        }
        Self::new(out, shape, a.rank)
    }
}

/// Evaluates [`Ops`] on [`Array`]s; products use `par` threads.
#[derive(Debug, Clone, Copy)]
pub struct Host<T> {
    par: Par,
    scalar: std::marker::PhantomData<T>,
}

impl<T> Host<T> {
    /// On the calling thread only: for callers that share out rows themselves.
    pub fn sequential() -> Self {
        Host { par: Par::Seq, scalar: std::marker::PhantomData }
    }

    /// Large products run on all of rayon's threads.
    pub fn parallel() -> Self {
        Host { par: Par::rayon(0), scalar: std::marker::PhantomData }
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
        let one = T::from_f64(1.0);
        if nb == 1 && n > 1 && a.is_whole() {
            // One product serves all the rows of all the matrices.
            let rows = MatRef::from_row_major_slice(&a.data[a.offset..a.offset + n * m * k], n * m, k);
            let target = MatMut::from_row_major_slice_mut(&mut out, n * m, p);
            matmul(target, Accum::Replace, rows, b.view(0), one, self.par);
        } else {
            for (i, out) in out.chunks_exact_mut(m * p).enumerate() {
                let target = MatMut::from_row_major_slice_mut(out, m, p);
                let (ia, ib) = (i.min(na - 1), i.min(nb - 1));
                matmul(target, Accum::Replace, a.view(ia), b.view(ib), one, self.par);
            }
        }
        Array::new(out, [n, m, p], rank)
    }

    /// One triangle by products of half the multiply-adds, then its mirror image.
    fn symmetric_product(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        let ([na, k, m], [nb, kb, mb]) = (a.shape, b.shape);
        assert!(k == kb && m == mb, "cannot multiply {:?} transposed and {:?}", a.shape(), b.shape());
        let n = na.max(nb);
        let mut out = vec![T::from_f64(0.0); n * m * m];
        if out.is_empty() || k == 0 {
            return Array::new(out, [n, m, m], a.rank.max(b.rank));
        }
        let one = T::from_f64(1.0);
        for (i, out) in out.chunks_exact_mut(m * m).enumerate() {
            let (a, b) = (a.view(i.min(na - 1)), b.view(i.min(nb - 1)));
            // A symmetric matrix is its own transpose: the lower triangle by columns is the upper one by rows.
            let target = MatMut::from_column_major_slice_mut(out, m, m);
            let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
            triangular::matmul(target, lower, Accum::Replace, a.transpose(), full, b, full, one, self.par);
            mirror(out, m);
        }
        Array::new(out, [n, m, m], a.rank.max(b.rank))
    }

    fn transpose(&self, a: &Array<T>) -> Array<T> {
        let [n, rows, cols] = a.shape;
        Array { shape: [n, cols, rows], transposed: !a.transposed, ..a.clone() }
    }

    fn add(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        a.zip(b, |x, y| x + y)
    }

    fn sub(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        a.zip(b, |x, y| x - y)
    }

    fn mul(&self, a: &Array<T>, b: &Array<T>) -> Array<T> {
        a.zip(b, |x, y| x * y)
    }

    fn scale(&self, a: &Array<T>, k: f64) -> Array<T> {
        let k = T::from_f64(k);
        a.map(|x| x * k)
    }

    fn offset(&self, a: &Array<T>, k: f64) -> Array<T> {
        let k = T::from_f64(k);
        a.map(|x| x + k)
    }

    fn relu(&self, a: &Array<T>) -> Array<T> {
        let zero = T::from_f64(0.0);
        // Written so that NaN stays NaN.
        a.map(|x| if x < zero { zero } else { x })
    }

    fn exp(&self, a: &Array<T>) -> Array<T> {
        a.map(Scalar::exp)
    }

    fn ln(&self, a: &Array<T>) -> Array<T> {
        a.map(Scalar::ln)
    }

    fn sigmoid(&self, a: &Array<T>) -> Array<T> {
        let one = T::from_f64(1.0);
        a.map(|x| one / (one + Scalar::exp(-x)))
    }

    fn positive(&self, a: &Array<T>) -> Array<T> {
        let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
        a.map(|x| if x > zero { one } else { zero })
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
        match (kind, order) {
            (Activation::Elu, 0) => t.map(|t| if t < zero { Scalar::exp(t) - one } else { t }),
            (Activation::Elu, 1) => t.map(|t| if t < zero { Scalar::exp(t) } else { one }),
            (Activation::Elu, _) => t.map(|t| if t > zero { zero } else { Scalar::exp(t) }),
            (Activation::Softplus { beta }, 0) => {
                let (beta, inverse) = (T::from_f64(beta), T::from_f64(1.0 / beta));
                t.map(|t| {
                    let t = t * beta;
                    let tail = Scalar::ln(one + Scalar::exp(if t < zero { t } else { -t }));
                    (tail + if t < zero { zero } else { t }) * inverse
                })
            }
            (Activation::Softplus { beta }, order) => {
                let (b, two) = (T::from_f64(beta), T::from_f64(2.0));
                t.map(|t| {
                    let first = one / (one + Scalar::exp(-(t * b)));
                    match order {
                        1 => first,
                        2 => b * first * (one - first),
                        _ => b * b * first * (one - first) * (one - two * first),
                    }
                })
            }
        }
    }
}
