//! A white square of 500 x 500 units to draw smooth closed shapes and lines on.

use image::RgbaImage;
use tiny_skia::{Color, FillRule, LineCap, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

/// Units along a side, as the Cartoon Set has pixels.
const UNITS: f32 = 500.0;
/// x of the axis of symmetry.
pub const AXIS: f32 = 250.0;

/// Red, green and blue.
pub type Ink = [u8; 3];
/// x and y, in units, y downwards.
pub type Point = (f32, f32);

/// Each channel times `factor`.
pub fn shaded(ink: Ink, factor: f32) -> Ink {
    ink.map(|v| (f32::from(v) * factor).min(255.0) as u8)
}

/// What is drawn on.
pub struct Canvas {
    pixels: Pixmap,
    scale: Transform,
}

impl Canvas {
    /// A white square of `side` x `side` pixels.
    ///
    /// # Panics
    /// If `side` is 0 or its square does not fit in memory, which the limits of the parameters exclude.
    pub fn new(side: usize) -> Canvas {
        let mut pixels = Pixmap::new(side as u32, side as u32).expect("a small square");
        pixels.fill(Color::WHITE);
        let factor = side as f32 / UNITS;
        Canvas { pixels, scale: Transform::from_scale(factor, factor) }
    }

    /// The picture, opaque everywhere.
    pub fn into_image(self) -> RgbaImage {
        let (width, height) = (self.pixels.width(), self.pixels.height());
        RgbaImage::from_raw(width, height, self.pixels.take()).expect("four bytes a pixel")
    }

    /// Fills a shape.
    pub fn fill(&mut self, path: &Path, ink: Ink) {
        self.fill_through(path, ink, 255);
    }

    /// Fills a shape with what is below showing through; `alpha` 255 hides it.
    pub fn fill_through(&mut self, path: &Path, [r, g, b]: Ink, alpha: u8) {
        let mut paint = Paint::default();
        paint.set_color_rgba8(r, g, b, alpha);
        self.pixels.fill_path(path, &paint, FillRule::Winding, self.scale, None);
    }

    /// Draws a line along a path.
    pub fn line(&mut self, path: &Path, [r, g, b]: Ink, width: f32) {
        let mut paint = Paint::default();
        paint.set_color_rgba8(r, g, b, 255);
        let stroke = Stroke { width, line_cap: LineCap::Round, ..Stroke::default() };
        self.pixels.stroke_path(path, &paint, &stroke, self.scale, None);
    }

    /// Fills a shape and draws its outline.
    pub fn shape(&mut self, path: &Path, ink: Ink, outline: Ink, width: f32) {
        self.fill(path, ink);
        self.line(path, outline, width);
    }
}

/// The ellipse of these half axes.
pub fn ellipse((x, y): Point, rx: f32, ry: f32) -> Path {
    closed(&[(x, y - ry), (x + rx, y), (x, y + ry), (x - rx, y)], 0.552)
}

/// A smooth closed curve through the points.
pub fn blob(points: &[Point]) -> Path {
    closed(points, 1.0 / 3.0)
}

/// A smooth closed curve through the points (distance from the axis, y) and their mirror images; the first and
/// the last lie on the axis.
pub fn mirrored(half: &[Point]) -> Path {
    let right = half.iter().map(|&(dx, y)| (AXIS + dx, y));
    let left = half[1..half.len() - 1].iter().rev().map(|&(dx, y)| (AXIS - dx, y));
    blob(&right.chain(left).collect::<Vec<_>>())
}

/// A smooth open curve through the points.
pub fn curve(points: &[Point]) -> Path {
    let last = points.len() - 1;
    let at = |i: isize| points[i.clamp(0, last as isize) as usize];
    let mut builder = PathBuilder::new();
    builder.move_to(points[0].0, points[0].1);
    for i in 0..last as isize {
        segment(&mut builder, [at(i - 1), at(i), at(i + 1), at(i + 2)], 1.0 / 3.0);
    }
    finished(builder)
}

/// A closed polygon.
pub fn polygon(points: &[Point]) -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(points[0].0, points[0].1);
    points[1..].iter().for_each(|&(x, y)| builder.line_to(x, y));
    builder.close();
    finished(builder)
}

fn closed(points: &[Point], pull: f32) -> Path {
    let n = points.len();
    let mut builder = PathBuilder::new();
    builder.move_to(points[0].0, points[0].1);
    for i in 0..n {
        segment(
            &mut builder,
            [points[(i + n - 1) % n], points[i], points[(i + 1) % n], points[(i + 2) % n]],
            pull,
        );
    }
    builder.close();
    finished(builder)
}

/// The cubic from b to c of a Catmull-Rom curve through a, b, c, d; its handles are `pull`/2 of the chords c - a
/// and d - b.
fn segment(builder: &mut PathBuilder, [a, b, c, d]: [Point; 4], pull: f32) {
    let handle = |from: Point, to: Point| (0.5 * pull * (to.0 - from.0), 0.5 * pull * (to.1 - from.1));
    let (out, back) = (handle(a, c), handle(b, d));
    builder.cubic_to(b.0 + out.0, b.1 + out.1, c.0 - back.0, c.1 - back.1, c.0, c.1);
}

/// # Panics
/// Only for a path without a point or with one that is not finite, which no drawing here has.
fn finished(builder: PathBuilder) -> Path {
    builder.finish().expect("points that are finite")
}
