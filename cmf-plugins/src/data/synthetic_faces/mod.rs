//! Cartoon faces that are drawn here, from a seed, in the framing and the colours of the Cartoon Set.

mod attributes;
mod canvas;
mod hair;
mod head;

use cmf_plugin::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::cartoonset::scaled;
use super::memory::{InMemory, Values};
use super::{DataSet, Opened, Shape, Split};
use attributes::Attributes;
use canvas::Canvas;

/// Rows of the training split where none are asked for; a tenth as many are held out.
pub(super) const ROWS: usize = 10_000;
/// Pictures are drawn this many times as large as they come out.
const OVER: usize = 4;
/// Row r of the held-out split is drawn from stream `HELD_OUT` + r, that of the training split from stream r.
const HELD_OUT: u64 = 1 << 63;

/// `rows` faces to learn from and a tenth as many to hold out, [side, side, 3], drawn whenever they are read. A row
/// depends on the seed and its number alone, not on how many others there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyntheticFaces {
    pub rows: usize,
    pub side: usize,
    pub seed: u64,
}

impl SyntheticFaces {
    /// One row as bytes: [side, side, 3].
    fn row(&self, split: Split, row: usize) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(match split {
            Split::Train => row as u64,
            Split::HeldOut => HELD_OUT + row as u64,
        });
        draw(&Attributes::draw(&mut rng), self.side)
    }

    /// Draws all of them, and hashes them.
    pub fn opened(&self) -> Opened {
        let (train, held_out) = (self.rows(Split::Train), self.rows(Split::HeldOut));
        let d = self.shape().dim();
        let mut pixels = vec![0; (train + held_out) * d];
        pixels.par_chunks_exact_mut(d).enumerate().for_each(|(i, out)| {
            let (split, row) = if i < train { (Split::Train, i) } else { (Split::HeldOut, i - train) };
            out.copy_from_slice(&self.row(split, row));
        });
        let set = InMemory {
            shape: self.shape(),
            pixel_range: self.pixel_range(),
            values: Values::U8(pixels),
            train: (0..train).collect(),
            held_out: (train..train + held_out).collect(),
        };
        set.opened()
    }
}

impl DataSet for SyntheticFaces {
    fn shape(&self) -> Shape {
        Shape::Image { height: self.side, width: self.side, channels: 3 }
    }

    fn pixel_range(&self) -> Option<(f64, f64)> {
        Some((0.0, 1.0))
    }

    fn rows(&self, split: Split) -> usize {
        match split {
            Split::Train => self.rows,
            Split::HeldOut => (self.rows / 10).max(1),
        }
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        let (d, n) = (self.shape().dim(), self.rows(split));
        Error::check_len("out", out.len(), rows.len() * d)?;
        if let Some(row) = rows.iter().find(|&&row| row >= n) {
            return Err(Error::invalid(format!("row {row} of a split of {n} rows")));
        }
        rows.par_iter().zip(out.par_chunks_exact_mut(d)).for_each(|(&row, out)| {
            out.iter_mut().zip(self.row(split, row)).for_each(|(out, v)| *out = f64::from(v) / 255.0);
        });
        Ok(())
    }
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
