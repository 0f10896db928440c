//! Which pixels of an image are hidden.

use std::fmt;
use std::str::FromStr;

use crate::images::Picture;

/// The hidden pixels of an image, in rows from the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Hidden(pub Vec<bool>);

/// Values of this and more count as white, or as opaque.
const HALF: u8 = 128;

impl Hidden {
    /// The white pixels of a mask; soft values are cut at half, transparent ones count as black.
    pub fn from_mask(mask: &Picture) -> Hidden {
        let white = mask.pixels().zip(mask.alphas()).map(|(p, alpha)| {
            // Rec. 709 luma in units of 1/10000, as the image crate has it.
            let luma = match mask.color_channels() {
                1 => u32::from(p[0]),
                _ => (2126 * u32::from(p[0]) + 7152 * u32::from(p[1]) + 722 * u32::from(p[2])) / 10_000,
            };
            luma * u32::from(alpha) / 255 >= u32::from(HALF)
        });
        Hidden(white.collect())
    }

    /// The transparent pixels of an image, cut at half.
    ///
    /// Refused is an image that draws with its alpha channel alone: one colour, many opacities.
    pub fn from_alpha(picture: &Picture) -> Result<Hidden, String> {
        let colors = picture.color_channels();
        let first = &picture.bytes[..colors];
        let one_color = picture.pixels().all(|p| &p[..colors] == first);
        if one_color && picture.alphas().any(|a| (1..255).contains(&a)) {
            return Err("draws with its alpha channel alone, all its pixels have one colour: \
                        flatten it, or give the hole with --mask or --mask-rect"
                .into());
        }
        Ok(Hidden(picture.alphas().map(|alpha| alpha < HALF).collect()))
    }

    /// The pixels of a rectangle, which must lie inside the image.
    pub fn from_rectangle(r: Rectangle, width: usize, height: usize) -> Result<Hidden, String> {
        let inside =
            |from: usize, length: usize, end: usize| from.checked_add(length).is_some_and(|to| to <= end);
        if !inside(r.x, r.width, width) || !inside(r.y, r.height, height) {
            return Err(format!("the rectangle {r} does not lie inside its {width}x{height} pixels"));
        }
        let hidden = |i: usize| {
            let (x, y) = (i % width, i / width);
            (r.x..r.x + r.width).contains(&x) && (r.y..r.y + r.height).contains(&y)
        };
        Ok(Hidden((0..width * height).map(hidden).collect()))
    }

    /// Hidden and known exchanged.
    pub fn inverted(self) -> Hidden {
        Hidden(self.0.into_iter().map(|hidden| !hidden).collect())
    }

    /// Number of hidden pixels.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|&&hidden| hidden).count()
    }
}

/// `x,y,width,height` in pixels, x to the right and y down from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl FromStr for Rectangle {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let numbers: Vec<usize> = s
            .split(',')
            .map(|part| part.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| "expected four whole numbers x,y,width,height".to_string())?;
        match numbers[..] {
            [x, y, width, height] if width > 0 && height > 0 => Ok(Rectangle { x, y, width, height }),
            [_, _, _, _] => Err("width and height must be at least 1".into()),
            _ => Err(format!("expected four numbers x,y,width,height, found {}", numbers.len())),
        }
    }
}

impl fmt::Display for Rectangle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.x, self.y, self.width, self.height)
    }
}
