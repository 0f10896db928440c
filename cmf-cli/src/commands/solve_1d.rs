//! `cmf-cli solve-1d`: the conjugate moment or the moment potential of a law on the line, without a network.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use cmf_core::line::{FixedPoint, Law, MIXTURES, Mixture, Solution, Status};
use cmf_core::{Error, Result};
use cmf_plugins::data::Split;
use serde_json::json;

use crate::data_spec::DataSpec;
use crate::points::split_rows;
use crate::report::{Outcome, Report};
use crate::table::{write_npy, write_table};

/// Solve for a potential on the line by exact fixed-point iterations.
///
/// The conjugate moment potential w has (w')#rho = e^{-w}/Z; the moment potential u has (u')#(e^{-u}/Z) = rho
/// less its mean. Maps are quantiles of distribution functions on an even grid. Prints how the iteration ended,
/// the residual of the Monge-Ampere equation (standard deviation over the bulk, in nats), and the Gibbs
/// factor's mean and variance. Exits with 1 if it did not converge.
#[derive(Args)]
#[command(after_help = after_help(), group(clap::ArgGroup::new("law_or_data").required(true)))]
pub struct Solve1d {
    /// A law by name, or WEIGHT:MEAN:DEVIATION,... for a mixture of normal laws
    #[arg(long, value_name = "LAW", group = "law_or_data", allow_hyphen_values = true)]
    law: Option<LawSpec>,
    /// Samples: a .npy or .csv file, or another data set with one number a row
    #[arg(long, value_name = "DATA", group = "law_or_data")]
    data: Option<DataSpec>,
    /// Which potential
    #[arg(long, value_enum, default_value_t = Kind::Conjugate)]
    potential: Kind,
    /// Where to write x, potential, slope and Gibbs density at the grid's nodes: .csv or .npy [nodes, 4]
    #[arg(short, long, value_name = "FILE")]
    out: Vec<PathBuf>,
    /// Samples drawn from the law, of which a histogram is made
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    samples: u32,
    /// Use the law's density instead of samples
    #[arg(long, requires = "law", conflicts_with = "samples")]
    exact: bool,
    /// Cells of the grid
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    bins: u32,
    /// Domain of the law and of w [default: a named law's own; otherwise the data's range and four deviations of
    /// the Gibbs factor of a normal law of the same mean and variance]
    #[arg(long, value_name = "LOW,HIGH", value_parser = parse_domain, allow_hyphen_values = true)]
    domain: Option<(f64, f64)>,
    /// Weight of the new slope in each iteration, in (0, 1] [default: small enough to converge]
    #[arg(long, value_name = "TAU")]
    damping: Option<f64>,
    /// Most iterations
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// Converged when a law and its image differ by at most this much in any distribution function [default: a
    /// tenth of the mean mass of a cell]
    #[arg(long, value_name = "P")]
    tolerance: Option<f64>,
    /// Seed of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    report: Report,
}

fn after_help() -> String {
    let mut text = String::from("Laws:\n");
    for law in MIXTURES {
        text += &format!("  {:<16}{}\n", law.name, law.about);
    }
    text + "\
Where the Gibbs factor reaches beyond the data's range the conjugate potential depends on the domain; the share
of its mass out there is printed, and a warning if it is more than 1 percent.

Examples:
  cmf-cli solve-1d --law three-wide --out w.csv
  cmf-cli solve-1d --law three-wide --potential moment --exact --json
  cmf-cli solve-1d --law 0.3:-2:0.5,0.7:1:1 --domain=-8,8 --out w.npy
  cmf-cli solve-1d --data measurements.csv --out w.csv"
}

/// Which potential to solve for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// w with (w')#rho = P_w.
    Conjugate,
    /// u with (u')#P_u = rho.
    Moment,
}

/// A law given on the command line.
#[derive(Debug, Clone, PartialEq)]
struct LawSpec {
    text: String,
    mixture: Mixture,
    domain: Option<(f64, f64)>,
}

impl FromStr for LawSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(named) = MIXTURES.into_iter().find(|m| m.name == text) {
            return Ok(LawSpec { text: text.into(), mixture: named.mixture(), domain: Some(named.domain) });
        }
        let component = |part: &str| -> Option<(f64, f64, f64)> {
            let numbers: Vec<f64> = part.split(':').map(|v| v.trim().parse().ok()).collect::<Option<_>>()?;
            if let [p, m, s] = numbers[..] { Some((p, m, s)) } else { None }
        };
        let components: Option<Vec<_>> = text.split(',').map(component).collect();
        let names: Vec<&str> = MIXTURES.iter().map(|m| m.name).collect();
        let components = components.ok_or_else(|| {
            format!(
                "there is no law {text}; expected one of {} or WEIGHT:MEAN:DEVIATION,...",
                names.join(", ")
            )
        })?;
        let mixture = Mixture::new(components).map_err(|e| e.to_string())?;
        Ok(LawSpec { text: text.into(), mixture, domain: None })
    }
}

fn parse_domain(text: &str) -> Result<(f64, f64), String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|v| v.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([low, high]) if low.is_finite() && high.is_finite() && low < high => Ok((*low, *high)),
        _ => Err(format!("found {text}, expected LOW,HIGH with LOW below HIGH, such as -3,3")),
    }
}

impl Solve1d {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        for out in &self.out {
            if !matches!(extension(out), "csv" | "npy") {
                return Err(Error::file(out, "expected a name that ends in .csv or .npy"));
            }
        }
        let law = self.open_law()?;
        let solver = FixedPoint {
            damping: self.damping,
            tolerance: self.tolerance,
            max_iterations: self.iterations as usize,
        };
        let solution = match self.potential {
            Kind::Conjugate => solver.conjugate(&law)?,
            Kind::Moment => solver.moment(&law)?,
        };
        for out in &self.out {
            write(out, &solution)?;
        }
        self.say(&law, &solution)?;
        Ok(Outcome::of(solution.status == Status::Converged))
    }

    /// The law to solve for, on its grid.
    fn open_law(&self) -> Result<Law> {
        let bins = self.bins as usize;
        let Some(spec) = &self.law else {
            let Some(data) = &self.data else {
                return Err(Error::Invalid("give --law or --data".into()));
            };
            let opened = data.open(self.seed)?;
            let d = opened.data.shape().dim();
            if d != 1 {
                return Err(Error::Invalid(format!("{data} has {d} numbers a row, expected 1")));
            }
            let mut samples = split_rows(opened.data.as_ref(), Split::Train)?;
            samples.extend(split_rows(opened.data.as_ref(), Split::HeldOut)?);
            let domain = self.domain.unwrap_or_else(|| suggested_domain(&samples));
            return Law::from_samples(&samples, domain, bins);
        };
        let domain = self.domain.or(spec.domain);
        if self.exact {
            let (mean, deviation) = (spec.mixture.mean(), spec.mixture.variance().sqrt());
            let ends = || suggested_domain(&[mean - 8.0 * deviation, mean + 8.0 * deviation]);
            return Law::from_density(domain.unwrap_or_else(ends), bins, |y| spec.mixture.density(y));
        }
        let samples = spec.mixture.sample(self.samples as usize, self.seed);
        Law::from_samples(&samples, domain.unwrap_or_else(|| suggested_domain(&samples)), bins)
    }

    fn say(&self, law: &Law, solution: &Solution) -> Result<()> {
        let converged = solution.status == Status::Converged;
        let (mean, variance) = (solution.gibbs.mean(), solution.gibbs.variance());
        let (low, high) = law.support();
        let outside =
            (self.potential == Kind::Conjugate).then(|| (1.0 - solution.gibbs.between(low, high)).max(0.0));
        let iterations = solution.changes.len();
        let change = solution.changes.last().copied().unwrap_or(f64::INFINITY);
        self.report.text(format!(
            "{} after {iterations} iterations (last change {change:.1e}, damping {:.3}), Monge-Ampere residual {:.1e} \
             nats\nlaw: mean {:.6}, variance {:.6}\nGibbs factor: mean {mean:.6}, variance {variance:.6}, log Z {:.6}",
            if converged { "converged" } else { "not converged" },
            solution.damping,
            solution.residual,
            law.mean(),
            law.variance(),
            solution.log_z,
        ))?;
        if let Some(share) = outside {
            self.report
                .text(format!("Gibbs mass outside of the data's range: {:.2} percent", 100.0 * share))?;
            if share > 0.01 {
                let (low, high) = law.domain();
                self.report.warn(format!(
                    "{:.1} percent of the Gibbs factor lie outside of the data's range; there the potential depends \
                     on the domain, which is [{low}, {high}] (see --domain)",
                    100.0 * share
                ));
            }
        }
        if !converged {
            self.report.warn("the iteration has not converged: try --iterations or a smaller --damping");
        }
        for out in &self.out {
            self.report.text(out.display().to_string())?;
        }
        let (low, high) = solution.gibbs.domain();
        self.report.document(&json!({
            "law": self.law.as_ref().map(|l| &l.text),
            "data": self.data.as_ref().map(ToString::to_string),
            "potential": if self.potential == Kind::Conjugate { "conjugate" } else { "moment" },
            "samples": (self.law.is_some() && !self.exact).then_some(self.samples),
            "seed": self.seed,
            "bins": self.bins,
            "status": if converged { "converged" } else { "out of iterations" },
            "iterations": iterations,
            "change": change,
            "damping": solution.damping,
            "residual": solution.residual,
            "law_mean": law.mean(),
            "law_variance": law.variance(),
            "gibbs_mean": mean,
            "gibbs_variance": variance,
            "gibbs_mass_outside_of_data": outside,
            "log_z": solution.log_z,
            "shift": solution.shift,
            "domain": [low, high],
            "outputs": self.out,
        }))
    }
}

/// The range of the samples, and four deviations of the Gibbs factor N(a, v^{1/3}) of N(m, v).
fn suggested_domain(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let root = (samples.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).cbrt();
    let (centre, reach) = (mean / (1.0 + root), 4.0 * root.sqrt());
    let range = samples
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (f64::min(low, v), f64::max(high, v)));
    (range.0.min(centre - reach), range.1.max(centre + reach))
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// Writes x, potential, slope and Gibbs density at the nodes.
fn write(out: &Path, s: &Solution) -> Result<()> {
    let mut rows = Vec::with_capacity(4 * s.x.len());
    for (k, x) in s.x.iter().enumerate() {
        rows.extend([*x, s.potential[k], s.slope[k], (-s.potential[k] - s.log_z).exp()]);
    }
    match extension(out) {
        "npy" => write_npy(out, &rows, 4),
        _ => write_table(out, &["x", "potential", "slope", "gibbs_density"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_and_domains_are_read() {
        assert_eq!("three-wide".parse::<LawSpec>().unwrap().domain, Some((-12.0, 12.0)));
        let spec: LawSpec = "1:-2:0.5,3:1:1".parse().unwrap();
        assert_eq!(spec.mixture.components, [(0.25, -2.0, 0.5), (0.75, 1.0, 1.0)]);
        for bad in ["", "three", "1:2", "1:2:x", "0:1:1", "1:1:1,"] {
            assert!(bad.parse::<LawSpec>().is_err(), "{bad}");
        }
        assert_eq!(parse_domain("-3, 3"), Ok((-3.0, 3.0)));
        for bad in ["3", "3,-3", "1,2,3", "a,b", "-inf,0"] {
            assert!(parse_domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_suggested_domain_holds_data_and_gibbs_factor() {
        let (low, high) = suggested_domain(&[-0.1, 0.1]);
        // Variance 0.01, so the Gibbs factor of the normal law has deviation 0.464.
        assert!((high - 4.0 * 0.01_f64.cbrt().sqrt()).abs() < 1e-12 && low == -high);
        assert_eq!(suggested_domain(&[-1000.0, 1000.0]), (-1000.0, 1000.0));
    }
}
