//! How an image model sees a picture: pixels to the model's numbers and back, resampled where asked.

use image::imageops::{FilterType, resize};
use image::{ColorType, ImageBuffer, Luma};

use crate::images::Picture;
use crate::mask::Hidden;

/// The pixels a model is about: a row holds [height, width, channels] numbers from `low` to `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// The number of a black pixel.
    pub low: f64,
    /// The number of a white pixel.
    pub high: f64,
}

/// A picture and its hole in the model's coordinates.
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// [d]; what stands in hidden coordinates has no meaning.
    pub row: Vec<f64>,
    /// The hidden coordinates, ascending.
    pub hidden: Vec<usize>,
}

impl Grid {
    /// The whole of `picture` as a row of the model's numbers [d].
    pub fn row(&self, picture: &Picture) -> Result<Vec<f64>, String> {
        self.check_size(picture)?;
        let nothing_hidden = Hidden(vec![false; picture.width * picture.height]);
        Ok(self.planes(picture, &nothing_hidden)?.into_interleaved().map(|v| self.number(v)).collect())
    }

    /// Fails unless `picture` has the model's size.
    pub fn check_size(&self, picture: &Picture) -> Result<(), String> {
        if (picture.width, picture.height) == (self.width, self.height) {
            return Ok(());
        }
        Err(format!(
            "is {}x{} pixels, the model expects {}x{}",
            picture.width, picture.height, self.width, self.height
        ))
    }

    /// The picture with a hole as the model's problem, resampled where the sizes differ.
    ///
    /// Resampling averages known pixels only (triangle filter); a pixel of the model is hidden where
    /// less than half of its weight is known.
    pub fn problem(&self, picture: &Picture, hole: &Hidden) -> Result<Problem, String> {
        let planes = self.planes(picture, hole)?;
        let (planes, hidden) = if self.check_size(picture).is_ok() {
            (planes, hole.0.clone())
        } else {
            planes.resampled_known(hole, self.width, self.height)
        };
        let hidden: Vec<usize> = (0..self.width * self.height * self.channels)
            .filter(|coordinate| hidden[coordinate / self.channels])
            .collect();
        let all = self.width * self.height * self.channels;
        if hidden.is_empty() || hidden.len() == all {
            let what = if hidden.is_empty() { "nothing" } else { "everything" };
            return Err(format!(
                "its hole covers {what} once resized to the model's {}x{} pixels",
                self.width, self.height
            ));
        }
        Ok(Problem { row: planes.into_interleaved().map(|v| self.number(v)).collect(), hidden })
    }

    /// `picture` with its hole filled from the model's row; every known byte stays as it is.
    ///
    /// Filled pixels are opaque. A grey picture becomes RGB where the model is in colour.
    pub fn filled(&self, picture: &Picture, hole: &Hidden, row: &[f64]) -> Picture {
        let filling = Planes::of_row(self, row).resampled(picture.width, picture.height);
        let color = match (self.channels, picture.color) {
            (3, ColorType::L8) => ColorType::Rgb8,
            (3, ColorType::La8) => ColorType::Rgba8,
            (_, color) => color,
        };
        let (colors, promoted) = (if color.has_color() { 3 } else { 1 }, color != picture.color);
        let mut bytes = Vec::with_capacity(picture.width * picture.height * color.channel_count() as usize);
        for (i, (pixel, alpha)) in picture.pixels().zip(picture.alphas()).enumerate() {
            for c in 0..colors {
                bytes.push(match hole.0[i] {
                    true => byte(filling.planes[c % self.channels][i]),
                    false => pixel[if promoted { 0 } else { c }],
                });
            }
            if color.has_alpha() {
                bytes.push(if hole.0[i] { 255 } else { alpha });
            }
        }
        let icc = if promoted { None } else { picture.icc.clone() };
        Picture { color, bytes, icc, ..*picture }
    }

    /// A picture of the model's row; numbers outside the pixel range are clamped.
    pub fn picture(&self, row: &[f64]) -> Picture {
        Picture {
            width: self.width,
            height: self.height,
            color: if self.channels == 1 { ColorType::L8 } else { ColorType::Rgb8 },
            bytes: Planes::of_row(self, row).into_interleaved().map(byte).collect(),
            icc: None,
        }
    }

    /// The model's number for a brightness from 0 to 1.
    fn number(&self, brightness: f32) -> f64 {
        self.low + (self.high - self.low) * f64::from(brightness)
    }

    /// The picture's colours as the model's channels.
    fn planes(&self, picture: &Picture, hole: &Hidden) -> Result<Planes, String> {
        let of_channel = |c: usize| picture.pixels().map(|p| f32::from(p[c]) / 255.0).collect();
        let in_colour = |(p, hidden): (&[u8], &bool)| !hidden && (p[0] != p[1] || p[0] != p[2]);
        let planes = match (self.channels, picture.color_channels()) {
            (1, 3) if picture.pixels().zip(&hole.0).any(in_colour) => {
                return Err("is in colour, the model knows grey only: convert it to grey first".into());
            }
            (1, _) => vec![of_channel(0)],
            (_, 1) => vec![of_channel(0); 3],
            _ => (0..3).map(of_channel).collect(),
        };
        Ok(Planes { width: picture.width, height: picture.height, planes })
    }
}

fn byte(brightness: f32) -> u8 {
    (brightness * 255.0).round().clamp(0.0, 255.0) as u8
}

/// One array [height, width] of brightnesses from 0 to 1 for each channel.
struct Planes {
    width: usize,
    height: usize,
    planes: Vec<Vec<f32>>,
}

impl Planes {
    fn of_row(grid: &Grid, row: &[f64]) -> Planes {
        let plane = |c: usize| {
            let channel = row.iter().skip(c).step_by(grid.channels);
            channel.map(|v| ((v - grid.low) / (grid.high - grid.low)).clamp(0.0, 1.0) as f32).collect()
        };
        Planes { width: grid.width, height: grid.height, planes: (0..grid.channels).map(plane).collect() }
    }

    fn into_interleaved(self) -> impl Iterator<Item = f32> {
        let pixels = self.width * self.height;
        (0..pixels).flat_map(move |i| self.planes.iter().map(|p| p[i]).collect::<Vec<_>>())
    }

    fn resampled(self, width: usize, height: usize) -> Planes {
        if (self.width, self.height) == (width, height) {
            return self;
        }
        let planes =
            self.planes.iter().map(|p| resample(p, self.width, self.height, width, height)).collect();
        Planes { width, height, planes }
    }

    /// Resampled from known pixels only, with the pixels that are hidden then.
    fn resampled_known(self, hole: &Hidden, width: usize, height: usize) -> (Planes, Vec<bool>) {
        let known: Vec<f32> = hole.0.iter().map(|&hidden| if hidden { 0.0 } else { 1.0 }).collect();
        let weight = resample(&known, self.width, self.height, width, height);
        let plane = |p: &Vec<f32>| {
            let masked: Vec<f32> = p.iter().zip(&known).map(|(v, k)| v * k).collect();
            let sums = resample(&masked, self.width, self.height, width, height);
            sums.iter().zip(&weight).map(|(s, w)| if *w > 0.0 { s / w } else { 0.0 }).collect()
        };
        let planes = self.planes.iter().map(plane).collect();
        (Planes { width, height, planes }, weight.iter().map(|&w| w < 0.5).collect())
    }
}

/// Resamples one plane with a triangle filter as wide as the larger of the two pixel sizes.
fn resample(plane: &[f32], width: usize, height: usize, new_width: usize, new_height: usize) -> Vec<f32> {
    let at = |x: u32, y: u32| Luma([plane[y as usize * width + x as usize]]);
    let image = ImageBuffer::from_fn(width as u32, height as u32, at);
    resize(&image, new_width as u32, new_height as u32, FilterType::Triangle).into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: Grid = Grid { height: 2, width: 2, channels: 1, low: -1.0, high: 1.0 };

    fn picture(width: usize, color: ColorType, bytes: &[u8]) -> Picture {
        let height = bytes.len() / width / color.channel_count() as usize;
        Picture { width, height, color, bytes: bytes.to_vec(), icc: None }
    }

    #[test]
    fn every_byte_survives_the_way_to_the_model_and_back() {
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)] {
            let grid = Grid { height: 16, width: 16, channels: 1, low, high };
            let all = picture(16, ColorType::L8, &(0..=255).collect::<Vec<u8>>());
            assert_eq!(grid.picture(&grid.row(&all).unwrap()), all);
        }
    }

    #[test]
    fn known_bytes_and_alpha_stay_and_the_filling_is_opaque() {
        let rgba = picture(2, ColorType::Rgba8, &[9, 9, 9, 200, 1, 2, 3, 0, 7, 7, 7, 255, 8, 8, 8, 130]);
        let hole = Hidden::from_alpha(&rgba).unwrap();
        let problem = GREY.problem(&rgba, &hole).unwrap();
        assert_eq!(problem.hidden, [1]);
        let filled = GREY.filled(&rgba, &hole, &[0.0, 1.0, 0.0, 0.0]);
        assert_eq!(filled.bytes, [9, 9, 9, 200, 255, 255, 255, 255, 7, 7, 7, 255, 8, 8, 8, 130]);
    }

    #[test]
    fn a_colour_in_a_known_pixel_is_refused_by_a_grey_model() {
        let rgb = picture(2, ColorType::Rgb8, &[9, 9, 9, 1, 2, 3, 7, 7, 7, 8, 8, 8]);
        let elsewhere = Hidden(vec![true, false, false, false]);
        assert!(GREY.problem(&rgb, &elsewhere).unwrap_err().contains("is in colour"));
        let there = Hidden(vec![false, true, false, false]);
        assert_eq!(GREY.problem(&rgb, &there).unwrap().hidden, [1]);
    }

    #[test]
    fn a_grey_picture_becomes_rgb_for_a_colour_model() {
        let grid = Grid { channels: 3, low: 0.0, ..GREY };
        let grey = picture(2, ColorType::L8, &[10, 20, 30, 40]);
        let hole = Hidden(vec![false, false, false, true]);
        let problem = grid.problem(&grey, &hole).unwrap();
        assert_eq!(problem.hidden, [9, 10, 11]);
        let mut row = vec![0.0; 12];
        row[10] = 1.0;
        let filled = grid.filled(&grey, &hole, &row);
        assert_eq!(filled.color, ColorType::Rgb8);
        assert_eq!(filled.bytes, [10, 10, 10, 20, 20, 20, 30, 30, 30, 0, 255, 0]);
    }

    #[test]
    fn resizing_averages_known_pixels_only_and_keeps_known_bytes() {
        // 4x4 to 2x2: the right half is hidden and white; none of its white may leak to the left.
        let bytes: Vec<u8> = (0..16).map(|i| if i % 4 < 2 { 51 } else { 255 }).collect();
        let large = picture(4, ColorType::L8, &bytes);
        let hole = Hidden((0..16).map(|i| i % 4 >= 2).collect());
        let problem = GREY.problem(&large, &hole).unwrap();
        assert_eq!(problem.hidden, [1, 3]);
        // 51/255 of the range from -1 to 1 is -0.6; f32 rounding.
        assert!((problem.row[0] + 0.6).abs() < 1e-6, "{:?}", problem.row);
        let filled = GREY.filled(&large, &hole, &[-0.6, 0.0, -0.6, 0.0]);
        for i in 0..16 {
            assert!(hole.0[i] || filled.bytes[i] == 51);
        }
    }
}
