//! Draws a figure with plotters, on whichever canvas.

use plotters::coord::Shift;
use plotters::element::{PathElement, Rectangle};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Axes, BLUE, Figure, Layer, Panel};
use crate::images::Picture;

/// The name that the built-in font is registered under; viewers of SVG know it as well.
pub const FONT: &str = "sans-serif";
/// Pixels above the panels.
pub const TITLE: i32 = 40;

type Area<DB> = DrawingArea<DB, Shift>;
type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Where a picture belongs.
pub struct Placed<'a> {
    /// The picture.
    pub picture: &'a Picture,
    /// Its upper left corner.
    pub at: (i32, i32),
    /// Pixels on the canvas for each of its own.
    pub scale: usize,
}

/// Draws the title and all panels, their pictures only if `paint`; says where pictures belong.
pub fn figure<'a, DB: DrawingBackend>(
    area: &Area<DB>,
    figure: &'a Figure,
    paint: bool,
) -> Result<Vec<Placed<'a>>, DrawingAreaErrorKind<DB::ErrorType>> {
    let mut placed = Vec::new();
    area.fill(&WHITE)?;
    let (head, body) = area.split_vertically(TITLE);
    let middle = head.dim_in_pixel().0 as i32 / 2;
    let style = (FONT, 22).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
    head.draw(&Text::new(figure.title.clone(), (middle, TITLE / 2), style))?;
    let columns = figure.columns.min(figure.panels.len()).max(1);
    let rows = figure.panels.len().div_ceil(columns).max(1);
    for (place, panel) in body.split_evenly((rows, columns)).iter().zip(&figure.panels) {
        match panel {
            Panel::Axes(panel) => axes(place, panel)?,
            Panel::Picture(title, picture) => placed.push(pixels(place, title, picture, paint)?),
        }
    }
    Ok(placed)
}

fn axes<DB: DrawingBackend>(area: &Area<DB>, panel: &Axes) -> Drawn<DB> {
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, 17))
        .margin(10)
        .margin_right(18)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(panel.x.0..panel.x.1, panel.y.0..panel.y.1)?;
    // Under the mesh, which would else hide below it.
    for layer in &panel.layers {
        if let Layer::Heat { columns, values } = layer {
            chart.draw_series(heat(panel, *columns, values))?;
        }
    }
    let category = |x: &f64| -> String {
        let nearest = x.round();
        let name = (nearest >= 0.0).then(|| panel.categories.get(nearest as usize)).flatten();
        name.filter(|_| (x - nearest).abs() < 1e-6).cloned().unwrap_or_default()
    };
    let digits = |range: (f64, f64)| move |v: &f64| number(*v, range);
    let (x_digits, y_digits) = (digits(panel.x), digits(panel.y));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(&panel.labels.0)
        .y_desc(&panel.labels.1)
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(6)
        .y_labels(6)
        .y_label_formatter(&y_digits);
    if panel.categories.is_empty() {
        mesh.x_label_formatter(&x_digits).draw()?;
    } else {
        mesh.disable_x_mesh().x_labels(2 * panel.categories.len() + 1).x_label_formatter(&category).draw()?;
    }
    let mut named = false;
    for layer in &panel.layers {
        match layer {
            Layer::Heat { .. } => {}
            Layer::Line(points, color, name) => {
                let color = *color;
                let series = chart.draw_series([PathElement::new(points.clone(), color.stroke_width(2))])?;
                if let Some(name) = name {
                    named = true;
                    series.label(name).legend(move |(x, y)| {
                        PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
                    });
                }
            }
            Layer::Dots(points, color, name) => {
                let color = *color;
                let dot = |&p: &(f64, f64)| Circle::new(p, 2, color.mix(0.35).filled());
                let series = chart.draw_series(points.iter().map(dot))?;
                if let Some(name) = name {
                    named = true;
                    series.label(name).legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
                }
            }
            Layer::Marks(points, color) => {
                let ring = |&p: &(f64, f64)| Circle::new(p, 6, color.stroke_width(2));
                chart.draw_series(points.iter().map(ring))?;
            }
            Layer::Box(at, values, color) => {
                let (shapes, dots) = box_plot(*at, values);
                for (outline, width) in shapes {
                    chart.draw_series([PathElement::new(outline, color.stroke_width(width))])?;
                }
                chart.draw_series(dots.into_iter().map(|p| Circle::new(p, 3, color.mix(0.5).filled())))?;
            }
        }
    }
    if named {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .label_font((FONT, 14))
            .draw()?;
    }
    Ok(())
}

/// A number with as many digits as its axis needs.
fn number(v: f64, (low, high): (f64, f64)) -> String {
    let span = high - low;
    if !(1e-3..1e5).contains(&span) {
        return format!("{v:.1e}");
    }
    let digits = if span < 0.02 {
        4
    } else if span < 0.2 {
        3
    } else if span < 2.0 {
        2
    } else {
        usize::from(span < 12.0)
    };
    // A tick at -1e-17 is at 0.
    let v = if v.abs() < 1e-9 * span { 0.0 } else { v };
    format!("{v:.digits$}")
}

/// The shades that heat is drawn in: equal neighbours become one rectangle.
const SHADES: f64 = 24.0;

fn heat(panel: &Axes, columns: usize, values: &[f64]) -> Vec<Rectangle<(f64, f64)>> {
    let rows = values.len() / columns;
    let largest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let shade = |v: f64| (SHADES * v / largest).round() as usize;
    let x = |i: usize| panel.x.0 + (panel.x.1 - panel.x.0) * i as f64 / columns as f64;
    let y = |j: usize| panel.y.0 + (panel.y.1 - panel.y.0) * j as f64 / rows as f64;
    let mut out = Vec::new();
    for (j, row) in values.chunks_exact(columns).enumerate() {
        for (from, to, level) in runs(row.iter().map(|&v| shade(v))) {
            if level > 0 {
                let t = level as f64 / SHADES;
                let mix = |c: u8| (255.0 + t * (f64::from(c) - 255.0)) as u8;
                let color = RGBColor(mix(BLUE.0), mix(BLUE.1), mix(BLUE.2));
                out.push(Rectangle::new([(x(from), y(j)), (x(to), y(j + 1))], color.filled()));
            }
        }
    }
    out
}

/// Maximal runs of equal items: (first, one past the last, the item).
fn runs<T: PartialEq + Copy>(items: impl Iterator<Item = T>) -> Vec<(usize, usize, T)> {
    let mut out: Vec<(usize, usize, T)> = Vec::new();
    for (i, item) in items.enumerate() {
        match out.last_mut() {
            Some(run) if run.2 == item => run.1 = i + 1,
            _ => out.push((i, i + 1, item)),
        }
    }
    out
}

type Outline = (Vec<(f64, f64)>, u32);

/// Lines with their widths, and the values as dots beside the box.
fn box_plot(at: f64, values: &[f64]) -> (Vec<Outline>, Vec<(f64, f64)>) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return (vec![], vec![]) };
    let quantile = |p: f64| {
        let position = p * last as f64;
        let k = position as usize;
        sorted[k] + (sorted[(k + 1).min(last)] - sorted[k]) * (position - k as f64)
    };
    let (low, q1, median, q3, high) =
        (sorted[0], quantile(0.25), quantile(0.5), quantile(0.75), sorted[last]);
    const HALF: f64 = 0.2;
    let (left, right) = (at - HALF, at + HALF);
    let shapes = vec![
        (vec![(left, q1), (right, q1), (right, q3), (left, q3), (left, q1)], 2),
        (vec![(left, median), (right, median)], 3),
        (vec![(at, q3), (at, high)], 1),
        (vec![(at, low), (at, q1)], 1),
        (vec![(at - HALF / 2.0, high), (at + HALF / 2.0, high)], 1),
        (vec![(at - HALF / 2.0, low), (at + HALF / 2.0, low)], 1),
    ];
    (shapes, values.iter().map(|&v| (at + 1.5 * HALF, v)).collect())
}

/// Pixels above a picture.
const HEAD: i32 = 32;

/// A picture, enlarged by the largest whole number that fits.
fn pixels<'a, DB: DrawingBackend>(
    area: &Area<DB>,
    title: &str,
    picture: &'a Picture,
    paint: bool,
) -> Result<Placed<'a>, DrawingAreaErrorKind<DB::ErrorType>> {
    let (width, height) = area.dim_in_pixel();
    let style = (FONT, 17).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(title.to_string(), (width as i32 / 2, HEAD / 2), style))?;
    let scale = ((width as usize - 8) / picture.width).min((height as usize - 40) / picture.height).max(1);
    let left = (width as usize).saturating_sub(scale * picture.width) / 2;
    let channels = picture.channels();
    let place = |i: usize, j: usize| ((left + scale * i) as i32, HEAD + (scale * j) as i32);
    if paint {
        for (j, line) in picture.bytes.chunks_exact(picture.width * channels).enumerate() {
            let color = |p: &[u8]| (p[0], p[1.min(channels - 1)], p[2.min(channels - 1)]);
            for (from, to, (r, g, b)) in runs(line.chunks_exact(channels).map(color)) {
                let corners = [place(from, j), place(to, j + 1)];
                area.draw(&Rectangle::new(corners, RGBColor(r, g, b).filled()))?;
            }
        }
    }
    let (base, own) = (area.get_base_pixel(), place(0, 0));
    Ok(Placed { picture, at: (base.0 + own.0, base.1 + own.1), scale })
}
