//! Plots as data: a figure is panels, a panel is axes and layers. Drawn once, as PNG and as SVG.

mod draw;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};
use image::ColorType;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::images::{Picture, png_bytes};

/// Colours that are told apart also with the common colour blindnesses (Okabe and Ito, 2008).
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
/// See [`BLUE`].
pub const ORANGE: RGBColor = RGBColor(213, 94, 0);
/// See [`BLUE`].
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// For what others are compared with.
pub const GREY: RGBColor = RGBColor(110, 110, 110);

/// Panels in rows, under a title.
pub struct Figure {
    /// Above all panels.
    pub title: String,
    /// From left to right, then down.
    pub panels: Vec<Panel>,
    /// Panels in a row.
    pub columns: usize,
    /// Width and height of a panel in pixels.
    pub panel_size: (u32, u32),
}

/// One pair of axes, or one picture.
pub enum Panel {
    /// Layers on axes.
    Axes(Axes),
    /// A picture in its own pixels, enlarged by a whole number.
    Picture(String, Picture),
}

/// A pair of axes with what is drawn on them.
pub struct Axes {
    /// Above the axes.
    pub title: String,
    /// Below and left of them.
    pub labels: (String, String),
    /// The range of the first coordinate.
    pub x: (f64, f64),
    /// The range of the second coordinate.
    pub y: (f64, f64),
    /// Names at 0, 1, ... of the first coordinate, instead of numbers.
    pub categories: Vec<String>,
    /// From the lowest layer up.
    pub layers: Vec<Layer>,
}

/// What is drawn on axes.
// Without training no figure has heat or boxes.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub enum Layer {
    /// A line through points; with a name it is in the legend.
    Line(Vec<(f64, f64)>, RGBColor, Option<String>),
    /// Translucent dots; with a name they are in the legend.
    Dots(Vec<(f64, f64)>, RGBColor, Option<String>),
    /// Rings around single points.
    Marks(Vec<(f64, f64)>, RGBColor),
    /// A function on an even grid over the axes' range, from white (0) to blue (its largest value).
    Heat {
        /// Cells along the first coordinate.
        columns: usize,
        /// [rows, columns], rows from the lowest second coordinate up.
        values: Vec<f64>,
    },
    /// A box plot of values at the first coordinate: quartiles, median, whiskers to the ends, and all values.
    Box(f64, Vec<f64>, RGBColor),
}

impl Figure {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32) {
        let columns = self.columns.min(self.panels.len()).max(1);
        let rows = self.panels.len().div_ceil(columns).max(1);
        (columns as u32 * self.panel_size.0, rows as u32 * self.panel_size.1 + draw::TITLE as u32)
    }

    /// The figure as the bytes of a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        use_own_font()?;
        let (width, height) = self.size();
        let mut bytes = vec![255; (width * height * 3) as usize];
        {
            let area = BitMapBackend::with_buffer(&mut bytes, (width, height)).into_drawing_area();
            draw::figure(&area, self, true).map_err(failed)?;
            area.present().map_err(failed)?;
        }
        let (width, height) = (width as usize, height as usize);
        png_bytes(&Picture { width, height, color: ColorType::Rgb8, bytes, icc: None })
    }

    /// The figure as SVG; pictures are embedded as PNG, not as a rectangle for each pixel.
    pub fn svg(&self) -> Result<String> {
        use_own_font()?;
        let mut text = String::new();
        let placed = {
            let area = SVGBackend::with_string(&mut text, self.size()).into_drawing_area();
            let placed = draw::figure(&area, self, false).map_err(failed)?;
            area.present().map_err(failed)?;
            placed
        };
        let mut images = String::new();
        for draw::Placed { picture, at: (x, y), scale } in placed {
            let (width, height) = (scale * picture.width, scale * picture.height);
            images += &format!(
                "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
                 style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
                STANDARD.encode(png_bytes(picture)?)
            );
        }
        let end = text.rfind("</svg>").ok_or_else(|| failed("the SVG has no end"))?;
        text.insert_str(end, &images);
        Ok(text)
    }

    /// Writes `stem`.png and `stem`.svg into the folder and returns the former's bytes.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<Vec<u8>> {
        use std::io::Write;
        let (png, svg) = (self.png()?, self.svg()?);
        write_atomically(&folder.join(format!("{stem}.png")), |file| file.write_all(&png))?;
        write_atomically(&folder.join(format!("{stem}.svg")), |file| file.write_all(svg.as_bytes()))?;
        Ok(png)
    }
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Engine { engine: "plotters", message: e.to_string() }
}

/// Text is measured and drawn in a font that the program carries. In SVG the viewer's own one is used.
fn use_own_font() -> Result<()> {
    register_font(draw::FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| failed("the built-in font cannot be read"))
}

/// The range of values with a margin of 5 percent, never empty.
pub fn range_of(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .into_iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = if high > low { 0.05 * (high - low) } else { 0.5 };
    (low - margin, high + margin)
}

/// The points of `y` [n, 2].
pub fn pairs(y: &[f64]) -> Vec<(f64, f64)> {
    y.chunks_exact(2).map(|p| (p[0], p[1])).collect()
}

/// At most about `most` points of a line, evenly chosen, ends included.
pub fn thinned(x: &[f64], y: &[f64], most: usize) -> Vec<(f64, f64)> {
    let step = x.len().div_ceil(most).max(1);
    let last = x.len().saturating_sub(1);
    (0..x.len()).filter(|k| k % step == 0 || *k == last).map(|k| (x[k], y[k])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let axes = Axes {
            title: "panel".into(),
            labels: ("first".into(), "second".into()),
            x: (0.0, 2.0),
            y: (-1.0, 1.0),
            categories: vec![],
            layers: vec![
                Layer::Heat { columns: 2, values: vec![0.0, 1.0, 2.0, 4.0] },
                Layer::Line(vec![(0.0, -1.0), (2.0, 1.0)], BLUE, Some("line".into())),
                Layer::Dots(vec![(1.0, 0.5)], ORANGE, Some("dots".into())),
                Layer::Box(1.0, vec![-0.5, 0.0, 0.1, 0.3], GREEN),
            ],
        };
        let picture = Picture { width: 2, height: 1, color: ColorType::L8, bytes: vec![0, 255], icc: None };
        Figure {
            title: "a title".into(),
            panels: vec![Panel::Axes(axes), Panel::Picture("pixels".into(), picture)],
            columns: 2,
            panel_size: (300, 260),
        }
    }

    #[test]
    fn png_and_svg_show_all_layers() {
        let png = image::load_from_memory(&figure().png().unwrap()).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (600, 260 + draw::TITLE as u32));
        for color in [BLUE, ORANGE, GREEN] {
            let near = |p: &image::Rgb<u8>| {
                [color.0, color.1, color.2].iter().zip(p.0).all(|(a, b)| a.abs_diff(b) < 100)
            };
            assert!(png.pixels().filter(|p| near(p)).count() > 5, "{color:?}");
        }
        let svg = figure().svg().unwrap();
        for words in ["a title", "panel", "first", "second", "line", "dots", "pixels", "<image"] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range_of([1.0, 1.0]), (0.5, 1.5));
        assert_eq!(range_of([f64::NAN]), (0.0, 1.0));
        assert_eq!(range_of([0.0, 10.0]), (-0.5, 10.5));
    }

    #[test]
    fn thinned_lines_keep_their_ends() {
        let x: Vec<f64> = (0..1001).map(f64::from).collect();
        let thin = thinned(&x, &x, 100);
        assert!(thin.len() <= 102 && thin[0].0 == 0.0 && thin[thin.len() - 1].0 == 1000.0);
    }
}
