//! Hair behind and before the head, and beards.

use super::attributes::{Attributes, Beard, Style};
use super::canvas::{AXIS, Canvas, Point, blob, curve, ellipse, mirrored, shaded};

const OUTLINE: f32 = 5.0;

/// What falls or stands behind the head.
pub fn behind(canvas: &mut Canvas, face: &Attributes) {
    let outline = shaded(face.hair, 0.5);
    let sign = if face.left { -1.0 } else { 1.0 };
    match face.style {
        Style::Buzzed | Style::Short | Style::FlatTop => {}
        Style::Curly => bumps(canvas, face, 98.0, 30.0, &CURLS),
        Style::Afro => {
            bumps(canvas, face, 128.0, 26.0, &RING);
            canvas.fill(&ellipse((AXIS, 200.0), 138.0, 132.0), face.hair);
        }
        Style::Bob => {
            let half = [
                (0.0, 105.0),
                (75.0, 118.0),
                (110.0, 180.0),
                (122.0, 280.0),
                (140.0, 340.0),
                (95.0, 352.0),
                (0.0, 300.0),
            ];
            canvas.shape(&mirrored(&half), face.hair, outline, OUTLINE);
        }
        Style::Long => {
            let half = [
                (0.0, 100.0),
                (75.0, 112.0),
                (112.0, 180.0),
                (122.0, 280.0),
                (140.0, 370.0),
                (118.0, 415.0),
                (95.0, 425.0),
                (70.0, 400.0),
                (0.0, 330.0),
            ];
            canvas.shape(&mirrored(&half), face.hair, outline, OUTLINE);
        }
        Style::Bun => canvas.shape(&ellipse((AXIS, 92.0), 36.0, 34.0), face.hair, outline, OUTLINE),
        Style::Pigtails => {
            for side in [-1.0, 1.0] {
                let strand = [
                    (92.0, 140.0),
                    (122.0, 138.0),
                    (142.0, 165.0),
                    (150.0, 200.0),
                    (150.0, 235.0),
                    (143.0, 268.0),
                    (140.0, 298.0),
                ];
                for (dx, y) in strand {
                    canvas.line(&ellipse((AXIS + side * dx, y), 19.0, 20.0), outline, OUTLINE);
                }
                for (dx, y) in strand {
                    canvas.fill(&ellipse((AXIS + side * dx, y), 19.0, 20.0), face.hair);
                }
            }
        }
        Style::SidePonytail => {
            let tail: Vec<Point> = [
                (20.0, 112.0),
                (70.0, 112.0),
                (112.0, 160.0),
                (124.0, 250.0),
                (122.0, 330.0),
                (100.0, 408.0),
                (66.0, 395.0),
                (78.0, 330.0),
                (60.0, 230.0),
            ]
            .map(|(dx, y)| (AXIS + sign * dx, y))
            .to_vec();
            canvas.shape(&blob(&tail), face.hair, outline, OUTLINE);
        }
    }
}

/// Directions in degrees, 90 being up, that curls lie in.
const CURLS: [f32; 9] = [-12.0, 15.0, 42.0, 66.0, 90.0, 114.0, 138.0, 165.0, 192.0];
const RING: [f32; 16] = [
    -65.0, -45.0, -25.0, -5.0, 15.0, 35.0, 55.0, 75.0, 95.0, 115.0, 135.0, 155.0, 175.0, 195.0, 215.0, 240.0,
];

/// Discs of the radius `size` on a ring round the head.
fn bumps(canvas: &mut Canvas, face: &Attributes, radius: f32, size: f32, directions: &[f32]) {
    let at = |degrees: &f32| {
        let (sin, cos) = degrees.to_radians().sin_cos();
        ellipse((AXIS + radius * cos, 205.0 - radius * sin), size, size)
    };
    for direction in directions {
        canvas.line(&at(direction), shaded(face.hair, 0.5), OUTLINE);
    }
    for direction in directions {
        canvas.fill(&at(direction), face.hair);
    }
}

/// What lies on the skull, down to the hairline, and a streak of light on it.
pub fn front(canvas: &mut Canvas, face: &Attributes) {
    let outline = shaded(face.hair, 0.5);
    let fringe = face.fringe;
    // The top, how far out, and how far down the sides.
    let (top, out, down) = match face.style {
        Style::Buzzed => (124.0, 88.0, 242.0),
        Style::Short => (106.0, 95.0, 236.0),
        Style::Curly | Style::Afro => (104.0, 96.0, 232.0),
        Style::FlatTop => (84.0, 92.0, 232.0),
        Style::Bob | Style::Long => (101.0, 98.0, 290.0),
        Style::Bun | Style::Pigtails | Style::SidePonytail => (116.0, 93.0, 236.0),
    };
    if face.style == Style::FlatTop {
        let block = [(0.0, 72.0), (70.0, 76.0), (104.0, 78.0), (100.0, 130.0), (92.0, 190.0), (0.0, 180.0)];
        canvas.shape(&mirrored(&block), face.hair, outline, OUTLINE);
    }
    let half = [
        (0.0, top),
        (0.6 * out, top + 16.0),
        (0.96 * out, top + 68.0),
        (out, 0.5 * (top + 68.0 + down)),
        (out - 6.0, down),
        (out - 16.0, down - 12.0),
        (out - 20.0, 205.0),
        (out - 32.0, fringe + 8.0),
        (40.0, fringe - 3.0),
        (0.0, fringe + 2.0),
    ];
    canvas.shape(&mirrored(&half), face.hair, outline, OUTLINE);
    let x = if face.left { AXIS - 12.0 } else { AXIS + 22.0 };
    let light = face.hair.map(|v| v + (255 - v) / 3);
    canvas.line(&curve(&[(x - 28.0, top + 30.0), (x, top + 19.0), (x + 26.0, top + 24.0)]), light, 7.0);
}

/// Beard and moustache.
pub fn beard(canvas: &mut Canvas, face: &Attributes) {
    let outline = shaded(face.hair, 0.5);
    let chin = face.jaw[6].1;
    if face.beard == Beard::Full {
        let half = [
            (0.0, 322.0),
            (38.0, 326.0),
            (62.0, 322.0),
            (face.jaw[3].0 - 2.0, 275.0),
            (face.jaw[4].0 + 2.0, face.jaw[4].1),
            (face.jaw[5].0 + 6.0, face.jaw[5].1 + 12.0),
            (0.0, chin + 18.0),
        ];
        canvas.shape(&mirrored(&half), face.hair, outline, 4.0);
        canvas.fill(&ellipse((AXIS, 342.0), 34.0, 13.0), face.skin);
    }
    if face.beard == Beard::Goatee {
        let half =
            [(0.0, chin - 16.0), (20.0, chin - 14.0), (26.0, chin), (14.0, chin + 12.0), (0.0, chin + 16.0)];
        canvas.shape(&mirrored(&half), face.hair, outline, 4.0);
    }
    if face.beard == Beard::Moustache {
        let half = [(0.0, 318.0), (20.0, 317.0), (38.0, 330.0), (20.0, 328.0), (0.0, 326.0)];
        canvas.shape(&mirrored(&half), face.hair, outline, 3.0);
    }
}
