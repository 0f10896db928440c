//! Where the mass of an energy lies: its mean and covariance, and whether there is a finite normaliser.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Domain;
use super::gradient::{evaluate, point};
use crate::error::{Error, Result, check_len};
use crate::gaussian::Gaussian;
use crate::potential::Potential;
use crate::sampler::{self, Mala, Run};

/// What is known of ρ ∝ e^{-E}.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Its mean and covariance.
    pub gaussian: Gaussian,
    /// The share of its mass in the domain, or of the walkers that end there.
    pub inside: f64,
    /// log ∫ e^{-E}, by quadrature; only for d ≤ 2.
    pub log_normaliser: Option<f64>,
}

/// Up to this dimension integrals are taken by quadrature.
const MOST_GRIDDED: usize = 2;
/// Boxes, each twice the size of the one before, the domain first.
const BOXES: usize = 4;
/// Cells a side of the grid on each box.
const CELLS: [usize; MOST_GRIDDED] = [8192, 320];
/// Share of the mass in the outermost shell that is taken for rounding.
const NEGLIGIBLE: f64 = 1e-9;

/// Walkers in more dimensions, the steps they take, and how many of their places are kept.
const WALKERS: usize = 256;
const STEPS: usize = 1000;
const KEPT: usize = 16;
/// Half sides of the domain from the centre at which a walker has run away, and the share that may.
const RUN_AWAY: f64 = 16.0;
const FEW: f64 = 0.05;

/// Measures ρ ∝ e^{-E}, starting from the domain.
///
/// In one and two dimensions by the midpoint rule on the domain and on boxes up to 8 times its size; e^{-E} has
/// no finite normaliser if the mass of the shells between the boxes does not fall off. In more dimensions by
/// walkers of the Metropolis-adjusted Langevin algorithm from uniform starts, which must not run away.
/// `go_on` hears the share that is done and says whether to go on. Errors: an energy that is NaN in its domain or
/// -∞ anywhere, one without a finite normaliser, one without a spread in some direction.
pub fn survey(
    energy: &dyn Potential,
    domain: &Domain,
    seed: u64,
    go_on: &mut dyn FnMut(f64) -> bool,
) -> Result<Survey> {
    domain.validate(energy.dim())?;
    check_len("the dimension of the domain", domain.dim(), energy.dim())?;
    if energy.dim() <= MOST_GRIDDED {
        by_quadrature(energy, domain, go_on)
    } else {
        by_walkers(energy, domain, seed, go_on)
    }
}

/// Rows of one call to the energy.
const BLOCK: usize = 4096;

fn by_quadrature(
    energy: &dyn Potential,
    domain: &Domain,
    go_on: &mut dyn FnMut(f64) -> bool,
) -> Result<Survey> {
    let d = domain.dim();
    let cells = CELLS[d - 1];
    // Points of all boxes with log masses: of a larger box what lies outside of the one before.
    let (mut points, mut logs, mut shells) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..BOXES {
        let larger = domain.scaled(2f64.powi(k as i32));
        let log_cell = larger.log_volume() - (d as f64) * (cells as f64).ln();
        let from = logs.len();
        for block in larger.grid(cells).chunks(BLOCK * d) {
            let outside = |x: &&[f64]| k == 0 || larger.distance(x) > 0.5;
            let block: Vec<f64> = block.chunks_exact(d).filter(outside).flatten().copied().collect();
            for (value, x) in evaluate(energy, &block)?.0.iter().zip(block.chunks_exact(d)) {
                if value.is_nan() && k == 0 || *value == f64::NEG_INFINITY {
                    return Err(not_a_number(*value, x));
                }
                // Where an energy outside of its domain is NaN or +∞ there is no mass.
                if value.is_finite() {
                    logs.push(log_cell - value);
                    points.extend_from_slice(x);
                }
            }
        }
        shells.push(log_sum(&logs[from..]));
        if !go_on((k + 1) as f64 / BOXES as f64) {
            return Err(Error::Interrupted);
        }
    }
    let total = log_sum(&logs);
    if !total.is_finite() {
        return Err(Error::Invalid(
            "the energy is infinite in all of its domain: there is nothing to learn".into(),
        ));
    }
    let share = |k: usize| (shells[k] - total).exp();
    let (last, before) = (share(BOXES - 1), share(BOXES - 2));
    if last > NEGLIGIBLE && last >= before {
        return Err(Error::Invalid(format!(
            "e^-E has no finite normaliser: from 4 to 8 times the size of the domain it has {:.2} times the mass that it \
             has from 2 to 4 times; expected an energy that grows in all directions, or a larger domain",
            last / before.max(f64::MIN_POSITIVE)
        )));
    }
    let mut mean = vec![0.0; d];
    let mut covariance = vec![0.0; d * d];
    let weights: Vec<f64> = logs.iter().map(|l| (l - total).exp()).collect();
    for (x, w) in points.chunks_exact(d).zip(&weights) {
        mean.iter_mut().zip(x).for_each(|(m, x)| *m += w * x);
    }
    for (x, w) in points.chunks_exact(d).zip(&weights) {
        for (ij, s) in covariance.iter_mut().enumerate() {
            *s += w * (x[ij / d] - mean[ij / d]) * (x[ij % d] - mean[ij % d]);
        }
    }
    Ok(Survey {
        gaussian: Gaussian { mean, covariance: covariance.into() },
        inside: share(0),
        log_normaliser: Some(total),
    })
}

fn by_walkers(
    energy: &dyn Potential,
    domain: &Domain,
    seed: u64,
    go_on: &mut dyn FnMut(f64) -> bool,
) -> Result<Survey> {
    let d = domain.dim();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = domain.draw(WALKERS, &mut rng);
    if let (Some(value), x) = worst(energy, &start)? {
        return Err(not_a_number(value, &x));
    }
    let lambda = sampler::lambda_max(energy, &start[..16 * d], None, 10, &mut rng)?;
    // Where the energy is flat any step will do to begin with; the warm-up tunes it.
    let step = if lambda > 0.0 { 0.5 / lambda } else { 1.0 };
    let run = Run { warmup: STEPS / 2, steps: STEPS / 2, seed };
    let mut places = Vec::with_capacity(WALKERS * KEPT * d);
    let end =
        sampler::sample(energy, Mala { step, preconditioner: None }, start, run, &mut |done, state| {
            if done > STEPS / 2 && done % (STEPS / 2 / KEPT) == 0 {
                places.extend_from_slice(&state.x);
            }
            go_on(done as f64 / STEPS as f64)
        })?;
    let rows = || end.state.x.chunks_exact(d);
    let share = |far: f64| rows().filter(|x| domain.distance(x) > far).count() as f64 / WALKERS as f64;
    if share(RUN_AWAY) > FEW {
        let farthest = rows().max_by(|a, b| domain.distance(a).total_cmp(&domain.distance(b)));
        return Err(Error::Invalid(format!(
            "e^-E has no finite normaliser, or its domain is far too small: after {STEPS} Langevin steps {:.0} percent of \
             the walkers are more than {RUN_AWAY} times as far from the domain's centre as its faces, one at {}; expected \
             an energy that grows in all directions",
            100.0 * share(RUN_AWAY),
            point(farthest.unwrap_or_default())
        )));
    }
    Ok(Survey { gaussian: Gaussian::fit(&places, d, 0.0)?, inside: 1.0 - share(1.0), log_normaliser: None })
}

/// A value at the rows of `x` that is no finite number, with its row.
fn worst(energy: &dyn Potential, x: &[f64]) -> Result<(Option<f64>, Vec<f64>)> {
    let d = energy.dim();
    let value = evaluate(energy, x)?.0;
    Ok(match value.iter().position(|v| !v.is_finite()) {
        Some(i) => (Some(value[i]), x[i * d..][..d].to_vec()),
        None => (None, Vec::new()),
    })
}

fn not_a_number(value: f64, x: &[f64]) -> Error {
    Error::Invalid(format!(
        "the energy is {value} at {}; expected a finite number, or infinity where there is no mass",
        point(x)
    ))
}

/// log Σ e^l, -∞ for none.
fn log_sum(logs: &[f64]) -> f64 {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY { top } else { top + logs.iter().map(|l| (l - top).exp()).sum::<f64>().ln() }
}
