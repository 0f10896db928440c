//! Figures 2 and 8 to 11: mixtures on the line with both of their potentials and Gibbs factors.

use std::time::Instant;

use cmf_core::Result;
use cmf_core::line::{FixedPoint, Law, MIXTURES, NamedMixture, Solution, Status};
use serde_json::json;

use super::{Section, Settings, Table, Which};
use crate::interrupt;
use crate::plot::{Axes, BLUE, Figure, GREEN, GREY, Layer, ORANGE, Panel, range_of, thinned};

/// Points of a drawn line.
const DRAWN: usize = 600;
/// Bars of the drawn histogram.
const BARS: usize = 240;

/// A mixture with its solutions.
struct Solved {
    law: Law,
    /// Draws of the law.
    draws: Vec<f64>,
    conjugate: Solution,
    undamped: Solution,
    moment: Solution,
    seconds: f64,
}

/// Makes the section.
pub fn make(settings: &Settings) -> Result<Section> {
    // The paper's numbers, or a quarter of the samples and a fifth of the cells.
    let (samples, bins) = if settings.quick { (100_000, 20_000) } else { (400_000, 100_000) };
    let mut pictures = Vec::new();
    let mut table = Table::new(
        format!(
            "Solutions from histograms of {samples} samples with {bins} cells. The residual is that of the Monge-Ampere \
             equation, its standard deviation over the bulk in nats; both solves together took the time given."
        ),
        &[
            "law",
            "variance",
            "Gibbs variance, conjugate",
            "residual",
            "iterations",
            "Gibbs variance, moment",
            "residual",
            "iterations",
            "seconds",
        ],
    );
    for named in MIXTURES {
        interrupt::check()?;
        let solved = solve(named, samples, bins, settings.seed)?;
        let (w, u) = (&solved.conjugate, &solved.moment);
        table.rows.push(vec![
            named.name.into(),
            format!("{:.4}", solved.law.variance()),
            format!("{:.4}", w.gibbs.variance()),
            format!("{:.1e}", w.residual),
            iterations(w),
            format!("{:.4}", u.gibbs.variance()),
            format!("{:.1e}", u.residual),
            iterations(u),
            format!("{:.2}", solved.seconds),
        ]);
        pictures.push((
            format!("line-{}", named.name),
            format!("{}: {}. Domain [{}, {}].", named.name, named.about, named.domain.0, named.domain.1),
            Figure {
                title: format!("On the line: {}", named.name),
                panels: panels(&solved),
                columns: 2,
                panel_size: (520, 390),
            },
        ));
    }
    Ok(Section {
        which: Which::Line,
        title: "Mixtures on the line (figures 2 and 8 to 11)",
        text: vec![
            "Exact fixed-point iterations: maps are quantiles of distribution functions, from samples. The narrower the \
             data, the wider the Gibbs factor of the moment measure; the conjugate one follows the data."
                .into(),
            "The undamped conjugate iteration multiplies an error in the mean by -Var^(1/3), so for laws wider than 1 it \
             need not converge; the damped one does. The paper does not print its mixtures: these are a narrow one of \
             four components and wide ones of three, as it describes them."
                .into(),
            "Where the conjugate Gibbs factor reaches beyond the data (four-narrow) the potential depends on the domain, \
             which is given with each picture."
                .into(),
        ],
        pictures,
        tables: vec![table],
        settings: json!({
            "samples": samples,
            "bins": bins,
            "tolerance": 0.1 / bins as f64,
            "max_iterations": FixedPoint::default().max_iterations,
            "seed": settings.seed,
        }),
    })
}

fn iterations(s: &Solution) -> String {
    let open = if s.status == Status::Converged { "" } else { ", not converged" };
    format!("{}{open}", s.changes.len())
}

fn solve(named: NamedMixture, samples: usize, bins: usize, seed: u64) -> Result<Solved> {
    let draws = named.mixture().sample(samples, seed);
    let law = Law::from_samples(&draws, named.domain, bins)?;
    let clock = Instant::now();
    let conjugate = FixedPoint::default().conjugate(&law)?;
    let moment = FixedPoint::default().moment(&law)?;
    let seconds = clock.elapsed().as_secs_f64();
    let undamped =
        FixedPoint { damping: Some(1.0), max_iterations: 100, ..FixedPoint::default() }.conjugate(&law)?;
    Ok(Solved { law, draws, conjugate, undamped, moment, seconds })
}

fn axes(title: &str, labels: (&str, &str), x: Option<(f64, f64)>, layers: Vec<Layer>) -> Panel {
    let points = || {
        layers.iter().flat_map(|l| match l {
            Layer::Line(p, ..) | Layer::Dots(p, ..) => p.clone(),
            _ => vec![],
        })
    };
    let x = x.unwrap_or_else(|| range_of(points().map(|p| p.0)));
    let y = range_of(points().filter(|p| p.0 >= x.0 && p.0 <= x.1).map(|p| p.1));
    // Room for the legend.
    let y = (y.0, y.1 + 0.35 * (y.1 - y.0));
    let inside = |layer: Layer| match layer {
        Layer::Line(p, color, name) => {
            Layer::Line(p.into_iter().filter(|p| p.0 >= x.0 && p.0 <= x.1).collect(), color, name)
        }
        other => other,
    };
    Panel::Axes(Axes {
        title: title.into(),
        labels: (labels.0.into(), labels.1.into()),
        x,
        y,
        categories: vec![],
        layers: layers.into_iter().map(inside).collect(),
    })
}

/// The values of `f` at the nodes of the bulk of the law mapped from.
fn bulk(s: &Solution, law: &Law, f: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
    let cells = law.bulk(1e-3);
    let x: Vec<f64> = cells.clone().map(|k| s.x[k]).collect();
    let y: Vec<f64> = cells.map(f).collect();
    thinned(&x, &y, DRAWN)
}

fn panels(s: &Solved) -> Vec<Panel> {
    let (w, u) = (&s.conjugate, &s.moment);
    let density = |s: &Solution| {
        let value = |k: usize| (-s.potential[k] - s.log_z).exp();
        let y: Vec<f64> = (0..s.x.len()).map(value).collect();
        thinned(&s.x, &y, 20 * DRAWN)
    };
    let ends = |law: &Law, tail: f64| {
        let cells = law.bulk(tail);
        (law.node(cells.start), law.node(cells.end))
    };
    let ranges = [ends(&s.law, 1e-3), ends(&w.gibbs, 1e-3), ends(&u.gibbs, 5e-3)];
    let wide = range_of(ranges.iter().flat_map(|r| [r.0, r.1]));
    let history = vec![
        Layer::Line(changes(&s.undamped), GREEN, Some("conjugate, undamped".into())),
        Layer::Line(changes(w), BLUE, Some(format!("conjugate, damping {:.2}", w.damping))),
        Layer::Line(changes(u), ORANGE, Some("moment".into())),
    ];
    vec![
        axes(
            "densities",
            ("x", "density"),
            Some(wide),
            vec![
                Layer::Line(histogram(s), GREY, Some("data".into())),
                Layer::Line(density(w), BLUE, Some("Gibbs factor, conjugate".into())),
                Layer::Line(density(u), ORANGE, Some("Gibbs factor, moment".into())),
            ],
        ),
        axes(
            "potentials, where their map starts",
            ("x", "potential"),
            None,
            vec![
                Layer::Line(bulk(w, &s.law, |k| w.potential[k]), BLUE, Some("w, on the data".into())),
                Layer::Line(
                    bulk(u, &u.gibbs, |k| u.potential[k]),
                    ORANGE,
                    Some("u, on its Gibbs factor".into()),
                ),
            ],
        ),
        axes(
            "maps",
            ("x", "slope"),
            None,
            vec![
                Layer::Line(bulk(w, &s.law, |k| w.slope[k]), BLUE, Some("w', data to Gibbs factor".into())),
                Layer::Line(
                    bulk(u, &u.gibbs, |k| u.slope[k]),
                    ORANGE,
                    Some("u', Gibbs factor to data".into()),
                ),
            ],
        ),
        axes("convergence", ("iteration", "log10 distance of law and image"), None, history),
    ]
}

fn changes(s: &Solution) -> Vec<(f64, f64)> {
    s.changes.iter().enumerate().map(|(k, c)| (k as f64 + 1.0, c.max(1e-16).log10())).collect()
}

/// The outline of the data's histogram.
fn histogram(s: &Solved) -> Vec<(f64, f64)> {
    let (low, high) = s.law.support();
    let width = (high - low) / BARS as f64;
    let mut counts = [0.0; BARS];
    for v in &s.draws {
        counts[(((v - low) / width) as usize).min(BARS - 1)] += 1.0;
    }
    let scale = 1.0 / (s.draws.len() as f64 * width);
    let corner = |(k, c): (usize, &f64)| {
        let x = low + k as f64 * width;
        [(x, c * scale), (x + width, c * scale)]
    };
    let mut outline = vec![(low, 0.0)];
    outline.extend(counts.iter().enumerate().flat_map(corner));
    outline.push((high, 0.0));
    outline
}
