//! The data's mean and covariance, and mixtures, as a metadata property each: base64 of little-endian f32.
//!
//! Of the Gaussian it is the mean and then the upper triangle of the covariance row by row. Where the model's head is spiked so
//! is the covariance, and its numbers s, l and U take the place of the triangle. Since version 6 of the format U, and the
//! directions of mixtures, may be written by their coordinates in the directions of the head.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::directions::Directions;
use crate::error::{Error, Result};
use crate::gaussian::Gaussian;
use crate::icnn::Head;
use crate::mixture::Mixture;
use crate::symmetric::Symmetric;

/// d + d (d + 1) / 2 numbers as text, or d + 1 + k + k d, or d + 1 + k + k² along directions that span U.
pub(super) fn gaussian_to_text(gaussian: &Gaussian, directions: Option<&Directions>) -> Result<String> {
    let d = gaussian.dim();
    let covariance = match &gaussian.covariance {
        Symmetric::Full(all) => (0..d).flat_map(|i| &all[i * d + i..(i + 1) * d]).copied().collect(),
        Symmetric::Spiked(spiked) => {
            let vectors = spiked.vectors();
            let vectors = directions.map_or_else(|| Ok(vectors.to_vec()), |v| v.coordinates(vectors))?;
            [&[spiked.floor()], spiked.values(), &vectors].concat()
        }
    };
    Ok(encode(gaussian.mean.iter().chain(&covariance)))
}

/// Numbers as text: base64 of little-endian f32.
fn encode<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> String {
    STANDARD.encode(numbers.into_iter().flat_map(|&v| (v as f32).to_le_bytes()).collect::<Vec<u8>>())
}

/// The numbers of such a text, which `what` names in the error.
fn decode(text: &str, what: &str) -> Result<Vec<f64>> {
    let invalid = |found: String| Error::Invalid(format!("the property {what} cannot be read: {found}"));
    let bytes = STANDARD.decode(text).map_err(|e| invalid(e.to_string()))?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid(format!("expected numbers of 4 bytes, found {} bytes", bytes.len())));
    }
    Ok(numbers.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect())
}

/// The [`numbers`](Mixture::numbers) of a mixture as text, its directions by their coordinates in these if there are any.
pub(super) fn mixture_to_text(mixture: &Mixture, directions: Option<&Directions>) -> Result<String> {
    let numbers = match directions {
        None => mixture.numbers(),
        Some(v) => mixture.clone().placed(v.coordinates(mixture.rows())?)?.numbers(),
    };
    Ok(encode(&numbers))
}

/// Reads it back from the property `key` for dimension `d`.
pub(super) fn mixture_from_text(
    text: &str,
    key: &str,
    d: usize,
    directions: Option<&Directions>,
) -> Result<Mixture> {
    let numbers = decode(text, key)?;
    let Some(directions) = directions else { return Mixture::from_numbers(&numbers, d) };
    let along = Mixture::from_numbers(&numbers, directions.count())?;
    let (found, most) = (along.directions(), directions.count());
    if found > most {
        return Err(Error::Invalid(format!("{found} directions in the span of {most}")));
    }
    let rows = directions.rows(along.rows());
    along.placed(rows)
}

/// Reads the text back for dimension `d`, the head of the model and the directions along which it was written.
pub(super) fn gaussian_from_text(
    text: &str,
    d: usize,
    head: Head,
    directions: Option<&Directions>,
) -> Result<Gaussian> {
    let invalid =
        |found: String| Error::Invalid(format!("the property cmf.gaussian cannot be read: {found}"));
    let mut mean = decode(text, "cmf.gaussian")?;
    let a_row = directions.map_or(d, Directions::count);
    let expected = d + head.rank().map_or(d * (d + 1) / 2, |k| 1 + k + k * a_row);
    if mean.len() != expected {
        return Err(invalid(format!("expected {expected} numbers, found {}", mean.len())));
    }
    if mean.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite("a number of cmf.gaussian".into()));
    }
    let mut numbers = mean.split_off(d);
    let covariance = match head {
        Head::Full => mirrored(&numbers, d).into(),
        Head::Spiked { rank } => {
            if let Some(directions) = directions {
                let vectors = directions.rows(&numbers.split_off(1 + rank));
                numbers.extend(vectors);
            }
            Symmetric::from_numbers(numbers, d, Some(rank)).map_err(|e| invalid(e.to_string()))?
        }
    };
    Ok(Gaussian { mean, covariance })
}

/// The symmetric [d, d] matrix of this upper triangle.
fn mirrored(upper: &[f64], d: usize) -> Vec<f64> {
    let mut all = vec![0.0; d * d];
    let mut upper = upper.iter();
    for i in 0..d {
        for (j, v) in (i..d).zip(&mut upper) {
            all[i * d + j] = *v;
            all[j * d + i] = *v;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symmetric::Spiked;

    #[test]
    fn moments_survive_the_text() {
        let gaussian = Gaussian {
            mean: vec![0.5, -1.0, 2.0],
            covariance: vec![2.0, 0.5, 0.25, 0.5, 3.0, -0.125, 0.25, -0.125, 1.0].into(),
        };
        let text = gaussian_to_text(&gaussian, None).unwrap();
        let back = gaussian_from_text(&text, 3, Head::Full, None).unwrap();
        assert_eq!(back, gaussian);
        assert!(
            gaussian_from_text(&text, 4, Head::Full, None)
                .unwrap_err()
                .to_string()
                .contains("expected 14 numbers")
        );
        assert!(gaussian_from_text("no base64!", 3, Head::Full, None).is_err());
    }

    #[test]
    fn moments_of_few_directions_survive_too() {
        let spiked = Spiked::new(0.5, vec![4.0], vec![0.0, 1.0, 0.0]).unwrap();
        let gaussian = Gaussian { mean: vec![0.5, -1.0, 2.0], covariance: spiked.into() };
        let text = gaussian_to_text(&gaussian, None).unwrap();
        assert_eq!(gaussian_from_text(&text, 3, Head::Spiked { rank: 1 }, None).unwrap(), gaussian);
        assert!(
            gaussian_from_text(&text, 3, Head::Full, None)
                .unwrap_err()
                .to_string()
                .contains("expected 9 numbers")
        );
        // Directions of length 2.
        let mut numbers = vec![0.0f32; 3];
        numbers.extend([0.5, 4.0, 0.0, 2.0, 0.0]);
        let text = STANDARD.encode(numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        let message = gaussian_from_text(&text, 3, Head::Spiked { rank: 1 }, None).unwrap_err().to_string();
        assert!(message.contains("not orthonormal"), "{message}");
    }
}
