//! NumPy's array files: [n, d] vectors, [n, h, w] grey or [n, h, w, c] images.
//!
//! The header is read here because a file of unknown origin must not decide how much is allocated.

use std::path::Path;

use cmf_core::{Error, Result};

use super::memory::{InMemory, Values, every_tenth};
use super::{Opened, Shape};

/// A header as `numpy.lib.format` documents it.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
    /// Where the values begin.
    start: usize,
}

/// Opens an array of float32, float64 or uint8 values in either byte and axis order; every tenth row is
/// held out.
///
/// uint8 values are pixels and read as value / 255. The pixel range of float images is the first of [0, 1],
/// [-1, 1] and [0, 255] that holds all values, or else from the smallest to the largest.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let header = parse_header(&bytes).map_err(|m| Error::file(path, m))?;
    let shape = shape_of(&header.shape).map_err(|m| Error::file(path, m))?;
    let (n, d) = (header.shape[0], shape.dim());
    let (item, big_endian) = item_of(&header.descr).map_err(|m| Error::file(path, m))?;
    let claimed =
        n.checked_mul(d).and_then(|v| v.checked_mul(item)).and_then(|v| v.checked_add(header.start));
    if claimed != Some(bytes.len()) {
        let message = format!(
            "its header claims {} values of {item} bytes, found {} bytes after it; save it again",
            header.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x "),
            bytes.len() - header.start
        );
        return Err(Error::file(path, message));
    }
    let stored = &bytes[header.start..];
    let order = |k| if header.fortran_order { fortran_offset(k, &header.shape) } else { k };
    let values = match item {
        1 => Values::U8((0..n * d).map(|k| stored[order(k)]).collect()),
        4 => Values::F32(
            (0..n * d).map(|k| f32::from_bits(bits(stored, order(k), 4, big_endian) as u32)).collect(),
        ),
        _ => Values::F64((0..n * d).map(|k| f64::from_bits(bits(stored, order(k), 8, big_endian))).collect()),
    };
    let (low, high) = value_range(&values, d).map_err(|m| Error::file(path, m))?;
    let pixel_range = match (shape, &values) {
        (Shape::Vector { .. }, _) => None,
        (_, Values::U8(_)) => Some((0.0, 1.0)),
        _ => Some(pixel_range(low, high)),
    };
    let (train, held_out) = every_tenth(n);
    Ok(InMemory { shape, pixel_range, values, train, held_out }.opened())
}

/// The value of `width` bytes at index k, as an integer.
fn bits(stored: &[u8], k: usize, width: usize, big_endian: bool) -> u64 {
    let bytes = &stored[k * width..][..width];
    let join = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
    if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
}

/// Where Fortran order stores the value that C order stores at `k`.
fn fortran_offset(mut k: usize, shape: &[usize]) -> usize {
    // In C order the last axis runs fastest, in Fortran order the first.
    let mut stride: usize = shape.iter().product();
    let mut offset = 0;
    for &len in shape.iter().rev() {
        stride /= len;
        offset += (k % len) * stride;
        k /= len;
    }
    offset
}

/// Smallest and largest value; an error that names the place of the first that is not finite.
fn value_range(values: &Values, d: usize) -> Result<(f64, f64), String> {
    let mut range = (f64::INFINITY, f64::NEG_INFINITY);
    let mut include = |k: usize, v: f64| {
        if !v.is_finite() {
            let (row, column) = (k / d, k % d);
            return Err(format!("found {v} in row {row}, column {column} (from 0); remove or replace it"));
        }
        range = (range.0.min(v), range.1.max(v));
        Ok(())
    };
    match values {
        Values::U8(_) => {}
        Values::F32(v) => v.iter().enumerate().try_for_each(|(k, &v)| include(k, f64::from(v)))?,
        Values::F64(v) => v.iter().enumerate().try_for_each(|(k, &v)| include(k, v))?,
    }
    Ok(range)
}

fn pixel_range(low: f64, high: f64) -> (f64, f64) {
    let usual = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)];
    usual.into_iter().find(|&(a, b)| a <= low && high <= b).unwrap_or((low, high))
}

fn shape_of(axes: &[usize]) -> Result<Shape, String> {
    let shape = match *axes {
        [_, dim] => Shape::Vector { dim },
        [_, height, width] => Shape::Image { height, width, channels: 1 },
        [_, height, width, channels @ (1 | 3)] => Shape::Image { height, width, channels },
        _ => {
            return Err(format!(
                "found an array of shape {axes:?}, expected [n, d], [n, h, w] or [n, h, w, c] with c = 1 or 3"
            ));
        }
    };
    if axes[0] < 2 || axes.contains(&0) {
        return Err(format!("found an array of shape {axes:?}, expected at least 2 rows and no empty axis"));
    }
    Ok(shape)
}

/// Bytes of one value, and whether they are big-endian.
fn item_of(descr: &str) -> Result<(usize, bool), String> {
    match descr {
        "|u1" | "<u1" | ">u1" => Ok((1, false)),
        "<f4" | ">f4" => Ok((4, descr.starts_with('>'))),
        "<f8" | ">f8" => Ok((8, descr.starts_with('>'))),
        _ => Err(format!(
            "found values of type {descr}, expected float32, float64 or uint8; convert it with .astype('float32')"
        )),
    }
}

/// Reads the magic, the version, the header's length and its Python dictionary.
fn parse_header(bytes: &[u8]) -> Result<Header, String> {
    let not_npy = || "is not an .npy file (or its header is cut off); save it with numpy.save".to_string();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(not_npy)?;
    // Version 1 has a length of 2 bytes, versions 2 and 3 one of 4.
    let (length, before) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 12),
        _ => return Err(not_npy()),
    };
    let start = before + length;
    let text = bytes.get(before..start).and_then(|t| std::str::from_utf8(t).ok()).ok_or_else(not_npy)?;
    let field = |key: &str| -> Result<&str, String> {
        let at =
            text.find(&format!("'{key}':")).ok_or_else(|| format!("its header has no {key}: {text:.80}"))?;
        Ok(text[at + key.len() + 3..].trim_start())
    };
    let descr = field("descr")?;
    let quoted = descr.strip_prefix('\'').and_then(|t| t.split_once('\'')).map(|(t, _)| t);
    let descr = quoted.ok_or_else(|| format!("found records ({descr:.80}), expected one type of number"))?;
    let axes = field("shape")?.strip_prefix('(').and_then(|t| t.split_once(')')).map(|(t, _)| t);
    let axes = axes.ok_or_else(|| format!("its header has no shape that can be read: {text:.80}"))?;
    let shape =
        axes.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse).collect::<Result<_, _>>();
    let shape = shape.map_err(|e| format!("found the shape ({axes:.80}): {e}"))?;
    let fortran_order = field("fortran_order")?.starts_with("True");
    Ok(Header { descr: descr.to_string(), fortran_order, shape, start })
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::tests::{all, error};
    use super::*;

    /// A file as NumPy writes it: version 1, header padded to 64 bytes.
    fn npy(descr: &str, fortran: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        text += &" ".repeat(63 - (10 + text.len()) % 64);
        text.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes.extend_from_slice(values);
        bytes
    }

    fn opened(bytes: &[u8]) -> Result<Opened> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        open(&path)
    }

    /// Training and held-out values one after another.
    fn values(opened: &Opened) -> Vec<f64> {
        [all(opened.data.as_ref(), Split::Train), all(opened.data.as_ref(), Split::HeldOut)].concat()
    }

    fn bytes<const N: usize>(values: &[f64], convert: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&v| convert(v)).collect()
    }

    #[test]
    fn reads_every_type_and_byte_order() {
        let want = [1.0, -2.5, 3.0, 0.25, 5.0, 6.0];
        for (descr, stored) in [
            ("<f4", bytes(&want, |v| (v as f32).to_le_bytes())),
            (">f4", bytes(&want, |v| (v as f32).to_be_bytes())),
            ("<f8", bytes(&want, f64::to_le_bytes)),
            (">f8", bytes(&want, f64::to_be_bytes)),
        ] {
            let opened = opened(&npy(descr, "False", "(3, 2)", &stored)).unwrap();
            assert_eq!(opened.data.shape(), Shape::Vector { dim: 2 });
            assert_eq!((opened.data.rows(Split::Train), opened.data.pixel_range()), (2, None));
            assert_eq!(values(&opened), want, "{descr}");
        }
        let opened = opened(&npy("|u1", "False", "(2, 1, 2)", &[0, 51, 102, 255])).unwrap();
        assert_eq!(values(&opened), [0.0, 0.2, 0.4, 1.0]);
        assert_eq!(opened.data.pixel_range(), Some((0.0, 1.0)));
    }

    #[test]
    fn fortran_order_is_the_transposed_of_c_order() {
        // a[n, h, w, c] = 1000 n + 100 h + 10 w + c, of shape [2, 2, 3, 3].
        let (mut c_order, mut fortran) = (vec![], vec![]);
        for (n, h, w, c) in (0..36).map(|k| (k / 18, k / 9 % 2, k / 3 % 3, k % 3)) {
            c_order.push((1000 * n + 100 * h + 10 * w + c) as f64);
        }
        for (c, w, h, n) in (0..36).map(|k| (k / 12, k / 4 % 3, k / 2 % 2, k % 2)) {
            fortran.push((1000 * n + 100 * h + 10 * w + c) as f64);
        }
        let stored = bytes(&fortran, f64::to_le_bytes);
        let opened = opened(&npy("<f8", "True", "(2, 2, 3, 3)", &stored)).unwrap();
        assert_eq!(opened.data.shape(), Shape::Image { height: 2, width: 3, channels: 3 });
        assert_eq!(values(&opened), c_order);
        // No usual range holds 0 to 1122.
        assert_eq!(opened.data.pixel_range(), Some((0.0, 1122.0)));
    }

    #[test]
    fn float_images_have_the_usual_pixel_range_that_holds_them() {
        for (low, high, want) in
            [(0.1, 0.9, (0.0, 1.0)), (-0.5, 0.5, (-1.0, 1.0)), (0.0, 200.0, (0.0, 255.0))]
        {
            let stored = bytes(&[low, high], f64::to_le_bytes);
            let opened = opened(&npy("<f8", "False", "(2, 1, 1)", &stored)).unwrap();
            assert_eq!(opened.data.pixel_range(), Some(want));
        }
    }

    #[test]
    fn what_is_not_finite_is_named_by_row_and_column() {
        for (bad, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
            let stored = [1.0, 2.0, 3.0, 4.0, 5.0, bad];
            let words = format!("a.npy: found {word} in row 1, column 2");
            let e = error(opened(&npy("<f8", "False", "(2, 3)", &bytes(&stored, f64::to_le_bytes))));
            assert!(e.contains(&words), "{e}");
            let e =
                error(opened(&npy(">f4", "False", "(2, 3)", &bytes(&stored, |v| (v as f32).to_be_bytes()))));
            assert!(e.contains(&words), "{e}");
        }
    }

    #[test]
    fn broken_files_are_named() {
        let huge = "(4611686018427387904, 4611686018427387904)";
        for (bytes, words) in [
            (
                npy("<f8", "False", "(2, 2)", &[0; 31]),
                "header claims 2 x 2 values of 8 bytes, found 31 bytes",
            ),
            (
                npy("<f8", "False", "(2, 2)", &[0; 33]),
                "header claims 2 x 2 values of 8 bytes, found 33 bytes",
            ),
            (npy("<f8", "False", huge, &[0; 32]), "found 32 bytes"),
            (npy("<f8", "False", "(99999999999999999999, 2)", &[]), "number too large"),
            (npy("<f8", "False", "(2, -2)", &[]), "invalid digit"),
            (npy("<f8", "False", "(4,)", &[0; 32]), "found an array of shape [4], expected [n, d]"),
            (npy("<f8", "False", "(2, 1, 1, 2)", &[0; 32]), "with c = 1 or 3"),
            (npy("<f8", "False", "(0, 2)", &[]), "expected at least 2 rows"),
            (npy("<f8", "False", "(2, 0)", &[]), "no empty axis"),
            (npy("<i8", "False", "(2, 2)", &[0; 32]), "found values of type <i8, expected float32"),
            (npy("|O", "False", "(2, 2)", &[0; 32]), "found values of type |O"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(), "is not an .npy file"),
            (b"\x93NUMPY\x01\x00\x02\x00{}".to_vec(), "its header has no descr"),
            (b"\x93NUMPY\x01\x00\x10\x00{'descr': [('a'}".to_vec(), "found records"),
            (b"PK\x03\x04".to_vec(), "is not an .npy file"),
            (vec![], "is not an .npy file"),
        ] {
            let e = error(opened(&bytes));
            assert!(e.contains("a.npy: ") && e.contains(words), "{words}: {e}");
        }
    }
}
