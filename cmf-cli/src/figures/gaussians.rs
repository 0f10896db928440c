//! Figure 1: Gaussians with the Gibbs factors of propositions 1 and 2, checked by sampling and by the 1D solver.

use std::f64::consts::TAU;

use cmf_core::closed_form::Quadratic;
use cmf_core::draws::{self, Draws};
use cmf_core::gaussian::Gaussian;
use cmf_core::linalg::matmul;
use cmf_core::line::{FixedPoint, Law, Mixture, Status};
use cmf_core::{Error, Result, Source};
use serde_json::json;

use super::{Section, Settings, Table, Which};
use crate::interrupt;
use crate::plot::{Axes, BLUE, Figure, GREY, Layer, ORANGE, Panel, pairs, range_of};

/// Steps of the chains, far more than a quadratic needs.
const STEPS: usize = 200;
/// Samples drawn in a panel.
const SHOWN: usize = 500;

/// Makes the section.
pub fn make(settings: &Settings) -> Result<Section> {
    let samples = if settings.quick { 4_000 } else { 40_000 };
    let turned = |a: f64, b: f64, degrees: f64| {
        let (s, c) = degrees.to_radians().sin_cos();
        vec![a * c * c + b * s * s, (a - b) * s * c, (a - b) * s * c, a * s * s + b * c * c]
    };
    let cases = [
        ("wide and narrow at once", vec![0.0, 0.0], turned(4.0, 0.25, 30.0)),
        ("narrow", vec![0.0, 0.0], turned(0.3, 0.05, -20.0)),
        ("not centred", vec![2.0, -1.0], turned(2.0, 0.5, 60.0)),
    ];
    let mut panels = Vec::new();
    let mut table = Table::new(
        format!(
            "Covariances of {samples} draws against the closed forms: relative error in the Frobenius norm, whose \
             standard error is about {:.1e}.",
            (2.0 / samples as f64).sqrt()
        ),
        &["Gaussian", "Gibbs factor, S^(1/3)", "generated, S", "error of the mean", "R-hat"],
    );
    for (name, mean, covariance) in cases {
        interrupt::check()?;
        let gaussian = Gaussian { mean, covariance: covariance.into() };
        let start = gaussian.quadratic_start()?;
        let w = Quadratic::new(start.hessian.clone(), start.centre.clone())?;
        let go_on = &mut |_| !interrupt::asked();
        let Draws { source, chains, solution } =
            draws::samples(&w, &gaussian, Source::Gibbs, samples, STEPS, settings.seed, go_on)?;
        if !solution.all_converged() {
            return Err(Error::Invalid("a transport solve of a quadratic did not converge".into()));
        }
        let (drawn, generated) = (Gaussian::fit(&source, 2, 0.0)?, Gaussian::fit(&solution.y, 2, 0.0)?);
        let eigen = gaussian.covariance.spectrum()?;
        let root = Gaussian { mean: start.centre.clone(), covariance: eigen.apply(f64::cbrt) };
        let inverse = Gaussian { mean: vec![0.0; 2], covariance: eigen.apply(|s| 1.0 / s) };
        table.rows.push(vec![
            name.into(),
            format!("{:.4}", relative(&drawn.covariance.dense(), &root.covariance.dense())),
            format!("{:.4}", relative(&generated.covariance.dense(), &gaussian.covariance.dense())),
            format!("{:.4}", distance(&generated.mean, &gaussian.mean)),
            chains.and_then(|c| c.r_hat).map_or("-".into(), |r| format!("{r:.3}")),
        ]);
        panels.push(panel(name, &gaussian, &root, &inverse, &solution.y[..2 * SHOWN])?);
    }
    let (spread, checks) = spread(settings)?;
    panels.push(spread);
    Ok(Section {
        which: Which::Gaussians,
        title: "Gaussians in closed form (figure 1)",
        text: vec![
            "N(m, S) is the conjugate moment measure of a quadratic whose Gibbs factor is N((I + S^(1/3))^-1 m, S^(1/3)) \
             (proposition 2); as a moment measure its Gibbs factor is N(0, S^-1), and only after centring \
             (proposition 1). The conjugate factor keeps the shape of the data, the other inverts it."
                .into(),
            "Dots are generated: Langevin draws of the Gibbs factor, mapped by the convex solve. Ellipses hold two \
             standard deviations."
                .into(),
        ],
        pictures: vec![(
            "gaussians".into(),
            "Data, the Gibbs factors of both kinds, and how their spread depends on the data's; rings in the last panel \
             are solved on the line, lines are closed forms."
                .into(),
            Figure {
                title: "Gaussians: Gibbs factors of conjugate moment and moment measures".into(),
                panels,
                columns: 2,
                panel_size: (520, 430),
            },
        )],
        tables: vec![table, checks],
        settings: json!({ "samples": samples, "langevin_steps": STEPS, "seed": settings.seed }),
    })
}

fn panel(name: &str, data: &Gaussian, root: &Gaussian, inverse: &Gaussian, y: &[f64]) -> Result<Panel> {
    let (data, root, inverse) = (ellipse(data)?, ellipse(root)?, ellipse(inverse)?);
    let all = || data.iter().chain(&root).chain(&inverse).copied().chain(pairs(y));
    let (low, high) = range_of(all().map(|p| p.1));
    // Room for the legend.
    let high = high + 0.4 * (high - low);
    let (x_range, y_range) = equal(range_of(all().map(|p| p.0)), (low, high), 520.0 / 430.0);
    Ok(Panel::Axes(Axes {
        title: name.into(),
        labels: ("first coordinate".into(), "second coordinate".into()),
        x: x_range,
        y: y_range,
        categories: vec![],
        layers: vec![
            Layer::Dots(pairs(y), GREY, Some("generated".into())),
            Layer::Line(data, GREY, Some("data N(m, S)".into())),
            Layer::Line(root, BLUE, Some("Gibbs factor, conjugate".into())),
            Layer::Line(inverse, ORANGE, Some("Gibbs factor, moment".into())),
        ],
    }))
}

/// Ranges of equal scale on axes whose width is `aspect` times their height.
pub fn equal(x: (f64, f64), y: (f64, f64), aspect: f64) -> ((f64, f64), (f64, f64)) {
    let height = (y.1 - y.0).max((x.1 - x.0) / aspect);
    let around = |(low, high): (f64, f64), span: f64| {
        let middle = 0.5 * (low + high);
        (middle - 0.5 * span, middle + 0.5 * span)
    };
    (around(x, height * aspect), around(y, height))
}

/// The points two standard deviations from the mean.
fn ellipse(g: &Gaussian) -> Result<Vec<(f64, f64)>> {
    let root = g.covariance.spectrum()?.apply(f64::sqrt);
    let at = |k: i32| {
        let (s, c) = (TAU * f64::from(k) / 120.0).sin_cos();
        let p = matmul(&root.dense(), &[2.0 * c, 2.0 * s], 2, 2, 1);
        (g.mean[0] + p[0], g.mean[1] + p[1])
    };
    Ok((0..=120).map(at).collect())
}

/// Variances of Gibbs factors on the line, solved for and in closed form.
fn spread(settings: &Settings) -> Result<(Panel, Table)> {
    let bins = if settings.quick { 20_000 } else { 100_000 };
    let mut table = Table::new(
        format!("Variances of Gibbs factors of N(0, v), solved on the line with {bins} cells."),
        &["v", "conjugate", "closed form v^(1/3)", "moment", "closed form 1/v"],
    );
    let (mut conjugate, mut moment) = (Vec::new(), Vec::new());
    for v in [0.25, 1.0, 4.0, 25.0, 100.0_f64] {
        interrupt::check()?;
        let mixture = Mixture::new(vec![(1.0, 0.0, v.sqrt())])?;
        let reach = (10.0 * v.sqrt()).max(16.0 * v.cbrt().sqrt());
        let law = Law::from_density((-reach, reach), bins, |y| mixture.density(y))?;
        let (w, u) = (FixedPoint::default().conjugate(&law)?, FixedPoint::default().moment(&law)?);
        if w.status != Status::Converged || u.status != Status::Converged {
            return Err(Error::Invalid(format!("the solver did not converge for N(0, {v})")));
        }
        let (c, m) = (w.gibbs.variance(), u.gibbs.variance());
        table.rows.push(vec![
            v.to_string(),
            format!("{c:.4}"),
            format!("{:.4}", v.cbrt()),
            format!("{m:.4}"),
            format!("{:.4}", 1.0 / v),
        ]);
        conjugate.push((v.log10(), c.log10()));
        moment.push((v.log10(), m.log10()));
    }
    let line = |slope: f64| vec![(-0.8, -0.8 * slope), (2.2, 2.2 * slope)];
    let panel = Panel::Axes(Axes {
        title: "spread of the Gibbs factor on the line".into(),
        labels: ("log10 variance of the data".into(), "log10 variance of the Gibbs factor".into()),
        x: (-0.8, 2.2),
        y: (-2.4, 1.6),
        categories: vec![],
        layers: vec![
            Layer::Line(line(1.0 / 3.0), BLUE, Some("conjugate, v^(1/3)".into())),
            Layer::Line(line(-1.0), ORANGE, Some("moment, 1/v".into())),
            Layer::Marks(conjugate, BLUE),
            Layer::Marks(moment, ORANGE),
        ],
    });
    Ok((panel, table))
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn relative(a: &[f64], b: &[f64]) -> f64 {
    distance(a, b) / distance(b, &vec![0.0; b.len()])
}
