//! The data's mean and covariance as one metadata property: base64 of little-endian f32, the mean and then
//! the upper triangle of the covariance row by row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::gaussian::Gaussian;

/// d + d (d + 1) / 2 numbers as text.
pub(super) fn to_text(gaussian: &Gaussian) -> String {
    let d = gaussian.dim();
    let upper = (0..d).flat_map(|i| &gaussian.covariance[i * d + i..(i + 1) * d]);
    let numbers = gaussian.mean.iter().chain(upper);
    STANDARD.encode(numbers.flat_map(|&v| (v as f32).to_le_bytes()).collect::<Vec<u8>>())
}

/// Reads the text back for dimension `d`.
pub(super) fn from_text(text: &str, d: usize) -> Result<Gaussian> {
    let invalid =
        |found: String| Error::Invalid(format!("the property cmf.gaussian cannot be read: {found}"));
    let bytes = STANDARD.decode(text).map_err(|e| invalid(e.to_string()))?;
    let expected = d + d * (d + 1) / 2;
    if bytes.len() != 4 * expected {
        return Err(invalid(format!("expected {expected} numbers, found {} bytes", bytes.len())));
    }
    let (numbers, _) = bytes.as_chunks::<4>();
    let numbers: Vec<f64> = numbers.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    if numbers.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite("a number of cmf.gaussian".into()));
    }
    let mut covariance = vec![0.0; d * d];
    let mut upper = numbers[d..].iter();
    for i in 0..d {
        for (j, v) in (i..d).zip(&mut upper) {
            covariance[i * d + j] = *v;
            covariance[j * d + i] = *v;
        }
    }
    Ok(Gaussian { mean: numbers[..d].to_vec(), covariance })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_text() {
        let gaussian = Gaussian {
            mean: vec![0.5, -1.0, 2.0],
            covariance: vec![2.0, 0.5, 0.25, 0.5, 3.0, -0.125, 0.25, -0.125, 1.0],
        };
        let text = to_text(&gaussian);
        let back = from_text(&text, 3).unwrap();
        assert_eq!((back.mean, back.covariance), (gaussian.mean, gaussian.covariance));
        assert!(from_text(&text, 4).unwrap_err().to_string().contains("expected 14 numbers"));
        assert!(from_text("no base64!", 3).is_err());
    }
}
