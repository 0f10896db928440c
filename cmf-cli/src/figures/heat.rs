//! Functions in the plane as pictures.

use crate::plot::Layer;

/// Cells along a side of a picture.
const CELLS: usize = 120;

/// A range of each coordinate.
pub type Ranges = ((f64, f64), (f64, f64));

/// The centres of the cells, by the second coordinate and then by the first: [n, 2].
pub fn points((x, y): Ranges) -> Vec<f64> {
    let at = |k: usize, (from, to): (f64, f64)| from + (to - from) * (k as f64 + 0.5) / CELLS as f64;
    (0..CELLS * CELLS).flat_map(|i| [at(i % CELLS, x), at(i / CELLS, y)]).collect()
}

/// The area of a cell.
pub fn cell(((left, right), (low, high)): Ranges) -> f64 {
    (right - left) * (high - low) / (CELLS * CELLS) as f64
}

/// Values at [`points`], from white at 0 to blue.
pub fn layer(values: Vec<f64>) -> Layer {
    Layer::Heat { columns: CELLS, values }
}
