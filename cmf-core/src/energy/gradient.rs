//! Whether an energy's gradient is that of its values.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Domain;
use crate::error::{Error, Result, check_len};
use crate::linalg::dot;
use crate::potential::Potential;
use crate::sampler::standard_normals;

/// Points at which slopes are compared.
const POINTS: usize = 64;
/// Points that may disagree: an energy may have kinks.
const KINKS: usize = 6;
/// Length of a step in half sides of the domain: long enough for energies that compute in f32.
const STEP: f64 = 1e-3;
/// Relative difference of two slopes that are taken for equal.
const TOLERANCE: f64 = 1e-3;

/// Compares the gradient of `energy` with differences of its values at random points of the domain.
///
/// A slope g·v may be off by 0.1 percent, by what half the step changes the difference, and by the rounding of
/// f32. Errors: a value or gradient that is not finite, and a gradient that is off at more than a tenth
/// of the points; the message has the worst of them.
pub fn check_gradient(energy: &dyn Potential, domain: &Domain, seed: u64) -> Result<()> {
    let d = energy.dim();
    check_len("the dimension of the domain", domain.dim(), d)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let x = domain.draw(POINTS, &mut rng);
    let mut v = standard_normals(&mut rng, POINTS * d);
    for v in v.chunks_exact_mut(d) {
        let length = dot(v, v).sqrt();
        v.iter_mut().enumerate().for_each(|(i, v)| *v *= 0.5 * (domain.high[i] - domain.low[i]) / length);
    }
    let (value, gradient) = evaluate(energy, &x)?;
    if let Some(i) = (0..POINTS).find(|&i| !(value[i].is_finite() && finite(&gradient[i * d..][..d]))) {
        let (x, value, gradient) = (point(&x[i * d..][..d]), value[i], point(&gradient[i * d..][..d]));
        let message = format!("the energy at {x}, in its domain, is {value} with the gradient {gradient}");
        return Err(Error::Invalid(format!(
            "{message}; expected finite numbers: correct it or choose a smaller domain"
        )));
    }
    let moved = |t: f64| -> Result<Vec<f64>> {
        Ok(evaluate(energy, &x.iter().zip(&v).map(|(x, v)| x + t * v).collect::<Vec<_>>())?.0)
    };
    let ends = [moved(STEP)?, moved(-STEP)?, moved(2.0 * STEP)?, moved(-2.0 * STEP)?];
    let (mut off, mut worst) = (0, (0.0, 0, 0.0, 0.0));
    for i in 0..POINTS {
        let slope = (ends[0][i] - ends[1][i]) / (2.0 * STEP);
        let coarse = (ends[2][i] - ends[3][i]) / (4.0 * STEP);
        let told = dot(&gradient[i * d..][..d], &v[i * d..][..d]);
        let rounding = 8.0 * f64::from(f32::EPSILON) * value[i].abs() / STEP;
        let allowed = TOLERANCE * slope.abs().max(told.abs()) + (slope - coarse).abs() + rounding;
        // What is not finite a step away is the edge of a domain, which `survey` looks at.
        let excess = (told - slope).abs() / allowed;
        if excess > 1.0 {
            off += 1;
            if excess > worst.0 {
                worst = (excess, i, slope, told);
            }
        }
    }
    if off <= KINKS {
        return Ok(());
    }
    let (_, i, slope, told) = worst;
    Err(Error::Invalid(format!(
        "the gradient of the energy is not that of its values at {off} of {POINTS} random points: at {} along {} its \
         values have the slope {slope:.6}, its gradient says {told:.6}",
        point(&x[i * d..][..d]),
        point(&v[i * d..][..d])
    )))
}

/// E and ∇E at the rows of `x`.
pub(super) fn evaluate(energy: &dyn Potential, x: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut value, mut gradient) = (vec![0.0; x.len() / energy.dim()], vec![0.0; x.len()]);
    energy.value_and_gradient(x, &mut value, &mut gradient)?;
    Ok((value, gradient))
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|v| v.is_finite())
}

/// The first coordinates of a point, in words.
pub(super) fn point(x: &[f64]) -> String {
    const SHOWN: usize = 6;
    let shown: Vec<String> = x.iter().take(SHOWN).map(|v| format!("{v:.4}")).collect();
    format!("({}{})", shown.join(", "), if x.len() > SHOWN { ", ..." } else { "" })
}
