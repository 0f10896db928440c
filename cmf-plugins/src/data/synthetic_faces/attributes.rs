//! What a face looks like: drawn at random, each attribute on its own.
//!
//! The inks were read off pictures of the Cartoon Set; how often each occurs is this project's choice.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::Ink;

const SKIN: [Ink; 11] = [
    [0xfb, 0xdb, 0xd1],
    [0xfb, 0xcd, 0xb6],
    [0xf6, 0xd8, 0xc1],
    [0xf0, 0xc0, 0x92],
    [0xee, 0xaf, 0x94],
    [0xe3, 0xb4, 0x7e],
    [0xd9, 0xa1, 0x6e],
    [0xc7, 0x8b, 0x5d],
    [0xaa, 0x74, 0x54],
    [0x88, 0x59, 0x4b],
    [0x60, 0x3d, 0x30],
];
const HAIR: [Ink; 10] = [
    [0x1e, 0x15, 0x14],
    [0x5b, 0x33, 0x1c],
    [0xa1, 0x53, 0x32],
    [0xc0, 0x4a, 0x2a],
    [0xed, 0x6f, 0x2f],
    [0xd8, 0x9a, 0x32],
    [0xff, 0xbb, 0x4d],
    [0xff, 0xde, 0x8a],
    [0x90, 0xa4, 0xae],
    [0xe0, 0xe0, 0xe0],
];
const EYES: [Ink; 5] =
    [[0x7c, 0x48, 0x35], [0x6f, 0x94, 0x3a], [0x3f, 0x7f, 0xc4], [0x94, 0xa4, 0xa0], [0x10, 0x10, 0x10]];
const FRAMES: [Ink; 7] = [
    [0x16, 0x16, 0x16],
    [0xef, 0x95, 0x90],
    [0xcc, 0x4a, 0x4a],
    [0xff, 0xf6, 0xee],
    [0x18, 0x23, 0x72],
    [0xff, 0xe8, 0x6e],
    [0x78, 0x6f, 0x6a],
];

/// Half the outline of a face, from the forehead to the chin: distance from the axis, y.
pub type Jaw = [(f32, f32); 7];

const JAWS: [Jaw; 4] = [
    // Oval, pointed, square, wide.
    [(0.0, 135.0), (58.0, 150.0), (84.0, 205.0), (86.0, 265.0), (80.0, 318.0), (46.0, 364.0), (0.0, 382.0)],
    [(0.0, 135.0), (58.0, 150.0), (84.0, 205.0), (87.0, 265.0), (83.0, 306.0), (34.0, 376.0), (0.0, 392.0)],
    [(0.0, 135.0), (58.0, 150.0), (82.0, 205.0), (84.0, 265.0), (83.0, 334.0), (52.0, 368.0), (0.0, 382.0)],
    [(0.0, 135.0), (62.0, 150.0), (88.0, 205.0), (92.0, 265.0), (87.0, 322.0), (52.0, 364.0), (0.0, 376.0)],
];

/// How hair falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Buzzed,
    Short,
    Curly,
    Afro,
    FlatTop,
    Bob,
    Long,
    Bun,
    Pigtails,
    SidePonytail,
}

const STYLES: [Style; 10] = [
    Style::Buzzed,
    Style::Short,
    Style::Curly,
    Style::Afro,
    Style::FlatTop,
    Style::Bob,
    Style::Long,
    Style::Bun,
    Style::Pigtails,
    Style::SidePonytail,
];

/// Hair on the lower half of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beard {
    None,
    Moustache,
    Goatee,
    Full,
}

/// What is before the eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glasses {
    None,
    Round,
    Square,
    DarkRound,
    DarkWide,
}

/// One face.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    pub skin: Ink,
    pub hair: Ink,
    pub eyes: Ink,
    pub jaw: Jaw,
    pub style: Style,
    /// Whether hair that is not symmetric falls to the left.
    pub left: bool,
    /// y of the hairline.
    pub fringe: f32,
    pub beard: Beard,
    pub glasses: Glasses,
    pub frame: Ink,
    /// Distance of the eyes from the axis.
    pub eye_distance: f32,
    /// Half the height of an eye.
    pub eye_height: f32,
    pub brow_width: f32,
    /// How far the brows' outer ends lie below the inner ones.
    pub brow_slant: f32,
    /// Half the width of the mouth.
    pub mouth: f32,
}

impl Attributes {
    /// Draws a face.
    pub fn draw(rng: &mut ChaCha8Rng) -> Attributes {
        let mut jaw = pick(rng, &JAWS);
        let (wide, long) = (uniform(rng, 0.97, 1.03), uniform(rng, -6.0, 8.0));
        for (dx, y) in &mut jaw {
            *dx *= wide;
            // The forehead stays, the chin moves by `long`.
            *y += long * ((*y - 135.0) / 245.0).max(0.0);
        }
        let glasses = match rng.random_range(0..20) {
            0..10 => Glasses::None,
            10..13 => Glasses::Round,
            13..16 => Glasses::Square,
            16..18 => Glasses::DarkRound,
            _ => Glasses::DarkWide,
        };
        let beard = match rng.random_range(0..20) {
            0..14 => Beard::None,
            14..16 => Beard::Moustache,
            16..18 => Beard::Goatee,
            _ => Beard::Full,
        };
        Attributes {
            skin: pick(rng, &SKIN),
            hair: pick(rng, &HAIR),
            eyes: pick(rng, &EYES),
            jaw,
            style: pick(rng, &STYLES),
            left: rng.random(),
            fringe: uniform(rng, 158.0, 184.0),
            beard,
            glasses,
            frame: pick(rng, &FRAMES),
            eye_distance: uniform(rng, 40.0, 46.0),
            eye_height: uniform(rng, 12.0, 18.0),
            brow_width: uniform(rng, 4.0, 12.0),
            brow_slant: uniform(rng, -6.0, 8.0),
            mouth: uniform(rng, 22.0, 28.0),
        }
    }
}

fn pick<T: Clone, const N: usize>(rng: &mut ChaCha8Rng, of: &[T; N]) -> T {
    of[rng.random_range(0..N)].clone()
}

fn uniform(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}
