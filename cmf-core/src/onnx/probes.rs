//! Whether an engine gives the answers that a model file holds, before any of its answers is used.

use super::file::ModelFile;
use super::metadata::Probe;
use crate::error::{Error, Result};
use crate::potential::Potential;

/// Largest relative difference between a probe's answers and the engine's.
///
/// Sums of up to a few thousand f32 products keep relative errors near 1e-5; a damaged file or a broken
/// library is wrong in the first digits.
const PROBE_TOLERANCE: f64 = 1e-3;

/// Replays the file's probes through an engine, or evaluates a foreign model, which has none, near 0.
pub fn check(w: &dyn Potential, file: &ModelFile) -> Result<()> {
    let checked = match file.metadata() {
        Some(metadata) => replay(w, &metadata.probes),
        None => try_near_origin(w),
    };
    checked.map_err(|e| Error::file(file.path(), e))
}

/// Compares an engine's answers at the probes with the recorded ones.
fn replay(w: &dyn Potential, probes: &[Probe]) -> Result<()> {
    let x = Probe::points(probes);
    let (mut value, mut gradient) = (vec![0.0; probes.len()], vec![0.0; x.len()]);
    w.value_and_gradient(&x, &mut value, &mut gradient)?;
    for (i, (probe, gradient)) in probes.iter().zip(gradient.chunks_exact(w.dim())).enumerate() {
        let expected: Vec<f64> = probe.gradient.iter().map(|&v| f64::from(v)).collect();
        let what = |what| format!("the {what} of probe {i}");
        compare(&what("value"), &value[i..=i], &[probe.value])?;
        compare(&what("gradient"), gradient, &expected)?;
    }
    Ok(())
}

/// Evaluates at 0, where all must be finite, and at 1 and -1: a gradient that is the same everywhere has no
/// inverse, so such outputs are no model's.
fn try_near_origin(w: &dyn Potential) -> Result<()> {
    let d = w.dim();
    let at = |v: f64| {
        let (mut value, mut gradient) = ([0.0], vec![0.0; d]);
        w.value_and_gradient(&vec![v; d], &mut value, &mut gradient).map(|()| (value, gradient))
    };
    let (value, gradient) = at(0.0)?;
    if !value.iter().chain(&gradient).all(|v| v.is_finite()) {
        return Err(Error::NotFinite("the model's value or gradient at 0".into()));
    }
    if at(1.0)?.1 == gradient && at(-1.0)?.1 == gradient {
        return Err(Error::Invalid(
            "the gradient is the same at 0, 1 and -1: expected that of a strictly convex function".into(),
        ));
    }
    Ok(())
}

/// Fails unless |found - expected| <= PROBE_TOLERANCE max(1, max |expected|) for every element.
fn compare(what: &str, found: &[f64], expected: &[f64]) -> Result<()> {
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let close = (found - expected).abs() <= PROBE_TOLERANCE * scale;
        if !close {
            return Err(Error::Invalid(format!(
                "{what} came out as {found}; expected {expected}: the file or the runtime is damaged, export it again"
            )));
        }
    }
    Ok(())
}
