//! Many samples in one picture: a grid of images, a scatter plot of points.

use image::ColorType;

use crate::grid::Grid;
use crate::images::Picture;

/// Pixels between the images of a grid.
const GAP: usize = 2;
/// The grey of gaps and empty places.
const GAP_GREY: u8 = 128;

/// The rows of `y` [n, d] as images, `columns` of them in a row, a square grid if not given.
pub fn grid_of(grid: &Grid, y: &[f64], columns: Option<usize>) -> Picture {
    let n = y.len() / (grid.width * grid.height * grid.channels);
    let columns = columns.unwrap_or_else(|| (n as f64).sqrt().ceil() as usize).clamp(1, n.max(1));
    let (rows, channels) = (n.div_ceil(columns).max(1), grid.channels);
    let width = columns * (grid.width + GAP) + GAP;
    let height = rows * (grid.height + GAP) + GAP;
    let mut bytes = vec![GAP_GREY; width * height * channels];
    for (i, row) in y.chunks_exact(grid.width * grid.height * channels).enumerate() {
        let (left, top) = (GAP + i % columns * (grid.width + GAP), GAP + i / columns * (grid.height + GAP));
        for (k, line) in grid.picture(row).bytes.chunks_exact(grid.width * channels).enumerate() {
            let at = ((top + k) * width + left) * channels;
            bytes[at..at + line.len()].copy_from_slice(line);
        }
    }
    let color = if channels == 1 { ColorType::L8 } else { ColorType::Rgb8 };
    Picture { width, height, color, bytes, icc: None }
}

/// Side of the scatter plot in pixels, with the margin left free around the points.
const SIDE: usize = 512;
const MARGIN: f64 = 16.0;

/// The points `y` [n, 2], equal scales on both axes, the first coordinate to the right, the second up.
pub fn scatter_of(y: &[f64]) -> Picture {
    let range = |k: usize| {
        let values = y.iter().skip(k).step_by(2);
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        values.fold(ends, |(low, high), &v| (low.min(v), high.max(v)))
    };
    let (x, up) = (range(0), range(1));
    let span = (x.1 - x.0).max(up.1 - up.0).max(f64::MIN_POSITIVE);
    let pixel = |v: f64, (low, high): (f64, f64)| {
        let scaled = (v - 0.5 * (low + high)) / span + 0.5;
        (MARGIN + scaled * (SIDE as f64 - 2.0 * MARGIN)).round() as usize
    };
    let mut bytes = vec![255_u8; SIDE * SIDE];
    for point in y.chunks_exact(2) {
        let (column, row) = (pixel(point[0], x), SIDE - 1 - pixel(point[1], up));
        for i in row - 1..=row + 1 {
            for j in column - 1..=column + 1 {
                // Overlapping points darken.
                bytes[i * SIDE + j] = (f64::from(bytes[i * SIDE + j]) * 0.6) as u8;
            }
        }
    }
    Picture { width: SIDE, height: SIDE, color: ColorType::L8, bytes, icc: None }
}
