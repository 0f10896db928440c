//! One face: its picture within limits, over white and scaled, and its table.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::imageops::{FilterType, resize};
use image::{ColorType, DynamicImage, ImageDecoder, Rgb, RgbImage, RgbaImage};

/// Bytes that the file of a picture may have; the set's have some 50,000.
pub(super) const MAX_PICTURE: u64 = 4 << 20;
/// Bytes that a table may have; the set's have some 500.
pub(super) const MAX_TABLE: u64 = 1 << 16;
/// Pixels along a side of the set's pictures.
const FULL: u32 = 500;

/// Decodes a PNG of the set, once its header shows that it is one, and scales it: [side, side, 3].
pub(super) fn picture(bytes: &[u8], side: usize) -> Result<Vec<u8>, String> {
    let broken = |e: image::ImageError| format!("cannot be decoded as a PNG: {e}");
    let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if (width, height) != (FULL, FULL) {
        return Err(format!(
            "found {width}x{height} pixels, expected {FULL}x{FULL} as all of the Cartoon Set have"
        ));
    }
    if !matches!(decoder.color_type(), ColorType::Rgba8 | ColorType::Rgb8) {
        return Err(format!("found {:?} pixels, expected RGBA with 8 bits a channel", decoder.color_type()));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(scaled(&image.into_rgba8(), side))
}

/// Lays a picture over white and scales it with a triangle filter as wide as the step: [side, side, 3].
pub(in super::super) fn scaled(image: &RgbaImage, side: usize) -> Vec<u8> {
    let over_white = |v: u8, alpha: u8| {
        let (v, alpha) = (u32::from(v), u32::from(alpha));
        ((v * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let opaque = RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0;
        Rgb([r, g, b].map(|v| over_white(v, alpha)))
    });
    resize(&opaque, side as u32, side as u32, FilterType::Triangle).into_raw()
}

/// Checks that each line is `"attribute", chosen, number of variants` with chosen below the number.
pub(super) fn check_table(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "found bytes that are no text".to_string())?;
    let mut attributes = 0;
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let fits = match fields[..] {
            [name, chosen, of] => {
                let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
                let numbers = chosen.parse::<u32>().ok().zip(of.parse::<u32>().ok());
                name.is_some_and(|n| !n.is_empty()) && numbers.is_some_and(|(chosen, of)| chosen < of)
            }
            _ => false,
        };
        if !fits {
            let found: String = line.chars().take(80).collect();
            return Err(format!(
                "line {}: expected \"attribute\", the chosen variant from 0, the number of variants; found {found}",
                i + 1
            ));
        }
        attributes += 1;
    }
    if attributes == 0 {
        return Err("found no attributes, expected lines \"attribute\", chosen, variants".into());
    }
    Ok(())
}
