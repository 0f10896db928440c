//! A data set held in memory in the type it was stored in.

use cmf_core::Result as CoreResult;
use cmf_plugin::{Error, Result};
use sha2::{Digest, Sha256};

use super::{DataSet, Opened, Shape, Split};
use crate::digest::hexadecimal;

/// Values of all examples, row after row. Bytes are pixels and read as value / 255.
pub(super) enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// All examples, and which of them belong to which split.
pub(super) struct InMemory {
    pub shape: Shape,
    pub pixel_range: Option<(f64, f64)>,
    pub values: Values,
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

impl InMemory {
    fn split(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    /// Hashes the training split as [`Opened::sha256`] describes.
    fn sha256(&self) -> String {
        let d = self.shape.dim();
        let kind = match self.values {
            Values::U8(_) => "u8",
            Values::F32(_) => "f32",
            Values::F64(_) => "f64",
        };
        let axes = match self.shape {
            Shape::Image { height, width, channels } => format!("{height} {width} {channels}"),
            Shape::Vector { dim } => dim.to_string(),
        };
        let mut hash = Sha256::new();
        hash.update(format!("{kind} {} {axes}\n", self.train.len()));
        let mut bytes = Vec::new();
        for &row in &self.train {
            bytes.clear();
            match &self.values {
                Values::U8(v) => bytes.extend_from_slice(&v[row * d..][..d]),
                Values::F32(v) => bytes.extend(v[row * d..][..d].iter().flat_map(|v| v.to_le_bytes())),
                Values::F64(v) => bytes.extend(v[row * d..][..d].iter().flat_map(|v| v.to_le_bytes())),
            }
            hash.update(&bytes);
        }
        hexadecimal(hash)
    }

    /// This data set with its hash and no licence.
    pub fn opened(self) -> Opened {
        Opened { sha256: self.sha256(), data: Box::new(self), licence: None }
    }
}

/// A data set from elsewhere with its hash as that of f64 values, which takes reading all of it.
pub fn opened(data: Box<dyn DataSet>) -> CoreResult<Opened> {
    let (n, d) = (data.rows(Split::Train), data.shape().dim());
    let axes = match data.shape() {
        Shape::Image { height, width, channels } => format!("{height} {width} {channels}"),
        Shape::Vector { dim } => dim.to_string(),
    };
    let mut hash = Sha256::new();
    hash.update(format!("f64 {n} {axes}\n"));
    let block = (BLOCK / d).max(1);
    for from in (0..n).step_by(block) {
        let rows: Vec<usize> = (from..n.min(from + block)).collect();
        let mut values = vec![0.0; rows.len() * d];
        data.read(Split::Train, &rows, &mut values).map_err(crate::core_error)?;
        hash.update(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    let licence = data.licence().map(String::from);
    Ok(Opened { sha256: hexadecimal(hash), licence, data })
}

/// All rows of a data set that came without a split, in the order of its file: [n, d], and d.
pub fn all_rows(data: &dyn DataSet) -> Result<(Vec<f64>, usize)> {
    let d = data.shape().dim();
    let (train, held_out) = every_tenth(data.rows(Split::Train) + data.rows(Split::HeldOut));
    let mut values = vec![0.0; (train.len() + held_out.len()) * d];
    for (split, places) in [(Split::Train, train), (Split::HeldOut, held_out)] {
        let mut part = vec![0.0; places.len() * d];
        data.read(split, &(0..places.len()).collect::<Vec<_>>(), &mut part)?;
        for (row, place) in part.chunks_exact(d).zip(places) {
            values[place * d..][..d].copy_from_slice(row);
        }
    }
    Ok((values, d))
}

/// Numbers that are read at a time to be hashed.
const BLOCK: usize = 1 << 20;

impl DataSet for InMemory {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn pixel_range(&self) -> Option<(f64, f64)> {
        self.pixel_range
    }

    fn rows(&self, split: Split) -> usize {
        self.split(split).len()
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        let (d, index) = (self.shape.dim(), self.split(split));
        Error::check_len("out", out.len(), rows.len() * d)?;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(d)) {
            let Some(at) = index.get(row) else {
                return Err(Error::invalid(format!("row {row} of a split of {} rows", index.len())));
            };
            let at = at * d;
            match &self.values {
                Values::U8(v) => copy(out, &v[at..][..d], |v| f64::from(v) / 255.0),
                Values::F32(v) => copy(out, &v[at..][..d], f64::from),
                Values::F64(v) => out.copy_from_slice(&v[at..][..d]),
            }
        }
        Ok(())
    }
}

fn copy<T: Copy>(out: &mut [f64], values: &[T], convert: impl Fn(T) -> f64) {
    for (out, &v) in out.iter_mut().zip(values) {
        *out = convert(v);
    }
}

/// Splits n ≥ 2 rows that come without a split: every tenth row is held out, or the last if there are
/// fewer than ten. Rows in groups (sorted by class, say) so stay represented in both parts.
pub(super) fn every_tenth(n: usize) -> (Vec<usize>, Vec<usize>) {
    let held_out = |i: &usize| if n < 10 { i + 1 == n } else { i % 10 == 9 };
    (0..n).partition(|i| !held_out(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: Values) -> InMemory {
        let shape = Shape::Vector { dim: 2 };
        InMemory { shape, pixel_range: None, values, train: vec![0, 2], held_out: vec![1] }
    }

    #[test]
    fn reads_rows_in_the_order_asked_for() {
        for values in [
            Values::U8(vec![0, 51, 102, 153, 204, 255]),
            Values::F32([0.0_f32, 0.2, 0.4, 0.6, 0.8, 1.0].to_vec()),
            Values::F64([0.0, 0.2, 0.4, 0.6, 0.8, 1.0].to_vec()),
        ] {
            let set = set(values);
            let mut out = [0.0; 6];
            set.read(Split::Train, &[1, 0, 1], &mut out).unwrap();
            for (got, want) in out.into_iter().zip([0.8, 1.0, 0.0, 0.2, 0.8, 1.0]) {
                // 0.2 and others are rounded to f32 in one of the three.
                assert!((got - want).abs() < 6e-8, "{got} {want}");
            }
            set.read(Split::HeldOut, &[0], &mut out[..2]).unwrap();
            assert!((out[0] - 0.4).abs() < 6e-8);
        }
    }

    #[test]
    fn rows_and_lengths_that_do_not_fit_are_errors() {
        let set = set(Values::U8(vec![0; 6]));
        let e = set.read(Split::HeldOut, &[1], &mut [0.0; 2]).unwrap_err().to_string();
        assert!(e.contains("row 1 of a split of 1 rows"), "{e}");
        assert!(set.read(Split::Train, &[0], &mut [0.0; 3]).is_err());
    }

    #[test]
    fn the_hash_is_that_of_the_header_line_and_the_training_bytes() {
        // Made with: printf 'u8 2 2\n\000\001\004\005' | sha256sum
        let want = "9514b015b1d7f734ccb81259e40345fc0c33dd857b4b3cd5add60a4d7912f9f8";
        assert_eq!(set(Values::U8(vec![0, 1, 2, 3, 4, 5])).sha256(), want);
        // The held-out row is not part of it, the type is.
        assert_eq!(set(Values::U8(vec![0, 1, 9, 9, 4, 5])).sha256(), want);
        assert_ne!(set(Values::F32(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])).sha256(), want);
    }

    #[test]
    fn all_rows_come_in_the_order_of_the_file() {
        let values: Vec<f64> = (0..46).map(f64::from).collect();
        let (train, held_out) = every_tenth(23);
        let shape = Shape::Vector { dim: 2 };
        let set = InMemory { shape, pixel_range: None, values: Values::F64(values.clone()), train, held_out };
        assert_eq!(all_rows(&set).unwrap(), (values, 2));
    }

    #[test]
    fn every_tenth_row_is_held_out() {
        assert_eq!(every_tenth(2), (vec![0], vec![1]));
        assert_eq!(every_tenth(9).1, [8]);
        let (train, held_out) = every_tenth(25);
        assert_eq!(held_out, [9, 19]);
        assert_eq!(train.len(), 23);
    }
}
