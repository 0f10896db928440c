//! Arrays of f32 or f64 of rank 2 and 3, with views.

use std::sync::Arc;

use faer::MatRef;

use super::elementary;

/// f32 or f64.
pub trait Scalar:
    faer::traits::RealField + Copy + Default + std::iter::Sum + std::ops::AddAssign + 'static
{
    /// From f64, rounding.
    fn from_f64(v: f64) -> Self;
    /// To f64.
    fn to_f64(self) -> f64;
    /// e^self.
    fn exp(self) -> Self;
    /// ln self.
    fn ln(self) -> Self;
    /// e^self for self <= 0, in f32 to 1e-7 of it down to 1e-38, where it stays.
    fn exp_of_negative(self) -> Self;
    /// ln(1 + self) for self in [0, 1], in f32 to 2e-7 of it.
    fn ln_1p_of_share(self) -> Self;
}

macro_rules! scalar {
    ($t:ty, $exp_of_negative:path, $ln_1p_of_share:path) => {
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
            #[inline(always)]
            fn exp_of_negative(self) -> Self {
                $exp_of_negative(self)
            }
            #[inline(always)]
            fn ln_1p_of_share(self) -> Self {
                $ln_1p_of_share(self)
            }
        }
    };
}
scalar!(f32, elementary::exp_of_negative, elementary::ln_1p_of_share);
scalar!(f64, f64::exp, f64::ln_1p);

/// A shared array of rank 2 or 3; slices along rows or columns and transposes are views.
#[derive(Debug, Clone)]
pub struct Array<T> {
    pub(super) data: Arc<Vec<T>>,
    pub(super) offset: usize,
    /// [matrices, rows, columns]; rank 2 has one matrix.
    pub(super) shape: [usize; 3],
    /// Distance from one row to the next, or from one column to the next if `transposed`.
    pub(super) stride: usize,
    pub(super) transposed: bool,
    pub(super) rank: usize,
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

    pub(super) fn new(data: Vec<T>, shape: [usize; 3], rank: usize) -> Self {
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
        if self.transposed {
            out.resize(n * rows * cols, T::default());
            (0..n).for_each(|b| self.turn(b, &mut out[b * rows * cols..][..rows * cols]));
            return out;
        }
        for (b, i) in (0..n).flat_map(|b| (0..rows).map(move |i| (b, i))) {
            out.extend_from_slice(self.row(b, i).unwrap_or_default());
        }
        out
    }

    /// Writes matrix b, of a transposed array, to `out` row by row.
    fn turn(&self, b: usize, out: &mut [T]) {
        /// A tile of this many rows and columns stays in the first cache.
        const TILE: usize = 32;
        let [_, rows, cols] = self.shape;
        for from in (0..rows).step_by(TILE) {
            let to = (from + TILE).min(rows);
            for first in (0..cols).step_by(TILE) {
                for j in first..(first + TILE).min(cols) {
                    let column = self.index(b, 0, j);
                    let places = out[from * cols + j..].iter_mut().step_by(cols);
                    places.zip(&self.data[column + from..column + to]).for_each(|(out, v)| *out = *v);
                }
            }
        }
    }

    /// The elements in row-major order, as f64.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.to_vec().into_iter().map(T::to_f64).collect()
    }

    /// Whether `holds` is true of each element.
    pub fn all(&self, holds: impl Fn(T) -> bool) -> bool {
        let a = self.rows_contiguous();
        let [n, rows, _] = a.shape;
        (0..n * rows).all(|i| a.row(i / rows, i % rows).unwrap_or_default().iter().all(|&v| holds(v)))
    }

    pub(super) fn index(&self, b: usize, i: usize, j: usize) -> usize {
        let within = if self.transposed { j * self.stride + i } else { i * self.stride + j };
        self.offset + b * self.matrix_len() + within
    }

    /// Elements from one matrix to the next; only whole arrays have rank 3 with more than one matrix.
    fn matrix_len(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    /// Row i of matrix b if it is contiguous.
    pub(crate) fn row(&self, b: usize, i: usize) -> Option<&[T]> {
        let from = self.index(b, i, 0);
        (!self.transposed).then(|| &self.data[from..from + self.shape[2]])
    }

    /// The same array with contiguous rows.
    pub(crate) fn rows_contiguous(&self) -> Self {
        if self.transposed { Self::new(self.to_vec(), self.shape, self.rank) } else { self.clone() }
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.transposed && self.stride == self.shape[2]
    }

    pub(super) fn view(&self, b: usize) -> MatRef<'_, T> {
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

    /// Writes the elements in row-major order to `out`.
    pub fn write_to(&self, out: &mut [f64]) {
        let a = self.rows_contiguous();
        let [_, rows, cols] = a.shape;
        for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
            let row = a.row(i / rows, i % rows).unwrap_or_default();
            out.iter_mut().zip(row).for_each(|(o, v)| *o = v.to_f64());
        }
    }
}
