//! Cartoon faces that are drawn here, from a seed, in the framing and the colours of the Cartoon Set.

mod attributes;
mod canvas;
mod hair;
mod head;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::cartoonset::scaled;
use super::memory::{InMemory, Values};
use super::{Opened, Shape};
use attributes::Attributes;
use canvas::Canvas;

/// Rows of the training split where none are asked for; a tenth as many are held out.
pub(super) const ROWS: usize = 10_000;
/// Pictures are drawn this many times as large as they come out.
const OVER: usize = 4;
/// Row r of the held-out split is drawn from stream `HELD_OUT` + r, that of the training split from stream r.
const HELD_OUT: u64 = 1 << 63;

/// Draws `rows` faces for training and a tenth as many to hold out, [side, side, 3]. A row depends on the seed
/// and its number alone, not on how many others there are.
pub(super) fn open(rows: usize, side: usize, seed: u64) -> Opened {
    let held_out = (rows / 10).max(1);
    let d = 3 * side * side;
    let mut pixels = vec![0; (rows + held_out) * d];
    pixels.par_chunks_exact_mut(d).enumerate().for_each(|(i, out)| {
        let stream = if i < rows { i as u64 } else { HELD_OUT + (i - rows) as u64 };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        out.copy_from_slice(&draw(&Attributes::draw(&mut rng), side));
    });
    let set = InMemory {
        shape: Shape::Image { height: side, width: side, channels: 3 },
        pixel_range: Some((0.0, 1.0)),
        values: Values::U8(pixels),
        train: (0..rows).collect(),
        held_out: (rows..rows + held_out).collect(),
    };
    set.opened()
}

/// Draws one face: [side, side, 3].
fn draw(face: &Attributes, side: usize) -> Vec<u8> {
    let mut canvas = Canvas::new(OVER * side);
    hair::behind(&mut canvas, face);
    head::head(&mut canvas, face);
    hair::beard(&mut canvas, face);
    head::features(&mut canvas, face);
    hair::front(&mut canvas, face);
    head::glasses(&mut canvas, face);
    scaled(&canvas.into_image(), side)
}

#[cfg(test)]
mod tests;
