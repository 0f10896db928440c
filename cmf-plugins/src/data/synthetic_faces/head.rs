//! Head, ears, eyes, brows, nose, mouth and glasses.

use super::attributes::{Attributes, Glasses};
use super::canvas::{AXIS, Canvas, Ink, blob, curve, ellipse, mirrored, polygon, shaded};

/// y of the eyes.
const EYES: f32 = 264.0;
const DARK: Ink = [0x14, 0x0f, 0x0d];
const WHITE: Ink = [0xff; 3];
const LENS: Ink = [0x14, 0x0c, 0x12];

/// Ears and the face itself.
pub fn head(canvas: &mut Canvas, face: &Attributes) {
    for sign in [-1.0, 1.0] {
        canvas.shape(&ellipse((AXIS + sign * 92.0, 278.0), 17.0, 31.0), face.skin, DARK, 5.0);
    }
    canvas.shape(&mirrored(&face.jaw), face.skin, shaded(face.skin, 0.12), 5.0);
}

/// Eyes, brows, nose and mouth.
pub fn features(canvas: &mut Canvas, face: &Attributes) {
    for sign in [-1.0, 1.0] {
        let x = AXIS + sign * face.eye_distance;
        let height = face.eye_height;
        let white =
            blob(&[(x - 22.0, EYES + 2.0), (x, EYES - height), (x + 22.0, EYES + 2.0), (x, EYES + height)]);
        canvas.fill(&white, WHITE);
        canvas.fill(&ellipse((x, EYES - 1.0), 13.0, height.min(14.0)), face.eyes);
        canvas.fill(&ellipse((x, EYES - 1.0), 7.0, height.min(8.0)), [0; 3]);
        let lid = curve(&[(x - 22.0, EYES + 2.0), (x, EYES - height), (x + 22.0, EYES + 2.0)]);
        canvas.line(&lid, DARK, 4.0);
        let (inner, outer) = (x - sign * 24.0, x + sign * 24.0);
        let brow =
            curve(&[(inner, 234.0 - 0.5 * face.brow_slant), (x, 227.0), (outer, 234.0 + face.brow_slant)]);
        canvas.line(&brow, shaded(face.hair, 0.75), face.brow_width);
    }
    canvas.line(&curve(&[(AXIS - 17.0, 307.0), (AXIS, 312.0), (AXIS + 17.0, 307.0)]), DARK, 4.5);
    let mouth = blob(&[
        (AXIS - face.mouth, 333.0),
        (AXIS, 337.0),
        (AXIS + face.mouth, 333.0),
        (AXIS + 0.5 * face.mouth, 347.0),
        (AXIS, 351.0),
        (AXIS - 0.5 * face.mouth, 347.0),
    ]);
    canvas.shape(&mouth, WHITE, DARK, 4.0);
}

/// Glasses, clear ones with white in the lower half of their rims as most of the set's.
pub fn glasses(canvas: &mut Canvas, face: &Attributes) {
    let (half_width, half_height, dark) = match face.glasses {
        Glasses::None => return,
        Glasses::Round => (32.0, 28.0, false),
        Glasses::Square => (33.0, 24.0, false),
        Glasses::DarkRound => (33.0, 31.0, true),
        Glasses::DarkWide => (42.0, 25.0, true),
    };
    for sign in [-1.0, 1.0] {
        let x = AXIS + sign * (face.eye_distance + 1.0);
        let y = EYES + 2.0;
        let rim = match face.glasses {
            Glasses::Square | Glasses::DarkWide => polygon(&[
                (x - half_width, y - half_height),
                (x + half_width, y - half_height),
                (x + 0.85 * half_width, y + half_height),
                (x - 0.85 * half_width, y + half_height),
            ]),
            _ => ellipse((x, y), half_width, half_height),
        };
        if dark {
            canvas.shape(&rim, LENS, face.frame, 7.0);
        } else {
            canvas.fill_through(&rim, WHITE, 50);
            canvas.line(&rim, face.frame, 6.0);
        }
        let temple = curve(&[(x + sign * half_width, 252.0), (AXIS + sign * 92.0, 250.0)]);
        canvas.line(&temple, face.frame, 6.0);
    }
    canvas.line(&curve(&[(AXIS - 11.0, 256.0), (AXIS, 253.0), (AXIS + 11.0, 256.0)]), face.frame, 6.0);
}
