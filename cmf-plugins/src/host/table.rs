//! The host's tools as a table of C functions, for tasks of plugins.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use cmf_plugin::abi::{CmfError, CmfGibbsReport, CmfHost, CmfInputInfo, CmfModelInfo, NO_INPUT};
use cmf_plugin::guard::{enter, object, slice, slice_mut};
use cmf_plugin::{DensityStatus, Error, Host, Input, Level, Result, RowStatus, text_of};

/// A table that lends out a host.
pub(super) struct HostTable<'a> {
    table: CmfHost,
    /// Boxed so that its address stays.
    _context: Box<Context<'a>>,
}

/// What the table's context pointer leads to.
struct Context<'a> {
    host: &'a dyn Host,
    /// Inputs that were asked for, with their names as C has them; kept until the run is over.
    inputs: Mutex<HashMap<usize, Arc<(Input, CString)>>>,
}

impl<'a> HostTable<'a> {
    pub(super) fn new(host: &'a dyn Host) -> HostTable<'a> {
        let context = Box::new(Context { host, inputs: Mutex::default() });
        let table = CmfHost {
            context: std::ptr::from_ref::<Context>(&context).cast_mut().cast(),
            model: Some(model),
            value_and_gradient: Some(value_and_gradient),
            hvp: Some(hvp),
            hessian: Some(hessian),
            contraction: Some(contraction),
            conjugate: Some(conjugate),
            gibbs: Some(gibbs),
            log_density: Some(log_density),
            gaussian: Some(gaussian),
            uniform: Some(uniform),
            normal: Some(normal),
            seed: Some(seed),
            input_count: Some(input_count),
            input_info: Some(input_info),
            input_read: Some(input_read),
            write_image: Some(write_image),
            write_table: Some(write_table),
            result: Some(result),
            progress: Some(progress),
            log: Some(log),
            cancelled: Some(cancelled),
        };
        HostTable { table, _context: context }
    }

    pub(super) fn as_ptr(&self) -> *const CmfHost {
        &self.table
    }
}

/// The context of a call.
///
/// # Safety
/// `context` is NULL or the context of a live [`HostTable`].
unsafe fn of<'a>(context: *const c_void) -> Result<&'a Context<'a>> {
    // SAFETY: the caller's promise.
    unsafe { object("context", context.cast::<Context>()) }
}

impl Context<'_> {
    /// n d, once d is the model's dimension.
    fn len(&self, n: usize, d: usize) -> Result<Option<usize>> {
        let dim = self.host.model()?.shape.dim();
        match d == dim {
            true => Ok(n.checked_mul(d)),
            false => Err(Error::invalid(format!("d: expected {dim}, the model's dimension, found {d}"))),
        }
    }

    fn input(&self, index: usize) -> Result<Arc<(Input, CString)>> {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = inputs.get(&index) {
            return Ok(input.clone());
        }
        let input = self.host.input(index)?;
        let name = CString::new(input.name.as_str()).unwrap_or_default();
        let input = Arc::new((input, name));
        inputs.insert(index, input.clone());
        Ok(input)
    }
}

unsafe extern "C" fn model(context: *mut c_void, info: *mut CmfModelInfo, error: *mut CmfError) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on; here and below.
    enter(unsafe { error.as_mut() }, || unsafe {
        let model = of(context)?.host.model()?;
        let info = info.as_mut().ok_or_else(|| Error::invalid("info: found NULL"))?;
        let (rank, shape) = model.shape.axes();
        let (low, high) = model.pixel_range.unwrap_or((0.0, 0.0));
        let (log_z, log_z_error) = model.log_z.unwrap_or((0.0, 0.0));
        *info = CmfModelInfo {
            dim: model.shape.dim(),
            rank,
            shape,
            pixel_range: [low, high],
            sigma: model.sigma,
            log_z,
            log_z_error,
            has_log_z: u32::from(model.log_z.is_some()),
            has_hessian: u32::from(model.has_hessian),
        };
        Ok(())
    })
}

unsafe extern "C" fn value_and_gradient(
    context: *const c_void,
    n: usize,
    d: usize,
    x: *const f64,
    value: *mut f64,
    gradient: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let (x, value) = (slice("x", x, len)?, slice_mut("value", value, Some(n))?);
        context.host.value_and_gradient(x, value, slice_mut("gradient", gradient, len)?)
    })
}

unsafe extern "C" fn hvp(
    context: *const c_void,
    n: usize,
    d: usize,
    x: *const f64,
    v: *const f64,
    hv: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        context.host.hvp(slice("x", x, len)?, slice("v", v, len)?, slice_mut("hv", hv, len)?)
    })
}

unsafe extern "C" fn hessian(
    context: *const c_void,
    n: usize,
    d: usize,
    x: *const f64,
    hessian: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let square = len.and_then(|len| len.checked_mul(d));
        context.host.hessian(slice("x", x, len)?, slice_mut("hessian", hessian, square)?)
    })
}

unsafe extern "C" fn contraction(
    context: *const c_void,
    n: usize,
    d: usize,
    x: *const f64,
    m: *const f64,
    out: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let square = len.and_then(|len| len.checked_mul(d));
        context.host.contraction(slice("x", x, len)?, slice("m", m, square)?, slice_mut("out", out, len)?)
    })
}

unsafe extern "C" fn conjugate(
    context: *mut c_void,
    n: usize,
    d: usize,
    x: *const f64,
    y: *mut f64,
    status: *mut i32,
    residual: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let (x, y) = (slice("x", x, len)?, slice_mut("y", y, len)?);
        let status = slice_mut("status", status, Some(n))?;
        let residual = slice_mut("residual", residual, Some(n))?;
        for (i, row) in context.host.conjugate(x, y)?.into_iter().enumerate() {
            status[i] = match row.status {
                RowStatus::Converged => 0,
                RowStatus::OutOfSteps => 1,
                RowStatus::Stalled => 2,
                RowStatus::NonFinite => 3,
            };
            residual[i] = row.residual;
        }
        Ok(())
    })
}

unsafe extern "C" fn gibbs(
    context: *mut c_void,
    n: usize,
    d: usize,
    steps: usize,
    x: *mut f64,
    report: *mut CmfGibbsReport,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let run = context.host.gibbs(steps, slice_mut("x", x, len)?)?;
        let report = report.as_mut().ok_or_else(|| Error::invalid("report: found NULL"))?;
        *report = CmfGibbsReport {
            acceptance: run.acceptance,
            step_size: run.step_size,
            r_hat: run.r_hat.unwrap_or(0.0),
            effective_sample_size: run.effective_sample_size.unwrap_or(0.0),
        };
        Ok(())
    })
}

unsafe extern "C" fn log_density(
    context: *mut c_void,
    n: usize,
    d: usize,
    y: *const f64,
    value: *mut f64,
    standard_error: *mut f64,
    status: *mut i32,
    score: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        let len = context.len(n, d)?;
        let y = slice("y", y, len)?;
        let score = if score.is_null() { None } else { Some(slice_mut("score", score, len)?) };
        let value = slice_mut("value", value, Some(n))?;
        let spread = slice_mut("standard_error", standard_error, Some(n))?;
        let status = slice_mut("status", status, Some(n))?;
        for (i, row) in context.host.log_density(y, score)?.into_iter().enumerate() {
            (value[i], spread[i]) = (row.value, row.standard_error);
            status[i] = match row.status {
                DensityStatus::Evaluated => 0,
                DensityStatus::NotPositiveDefinite => 1,
                DensityStatus::NotFinite => 2,
                DensityStatus::Unconverged => 3,
            };
        }
        Ok(())
    })
}

unsafe extern "C" fn gaussian(
    context: *mut c_void,
    d: usize,
    mean: *mut f64,
    covariance: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let context = of(context)?;
        context.len(1, d)?;
        let (m, s) = context.host.gaussian()?;
        slice_mut("mean", mean, Some(d))?.copy_from_slice(&m);
        slice_mut("covariance", covariance, d.checked_mul(d))?.copy_from_slice(&s);
        Ok(())
    })
}

unsafe extern "C" fn uniform(context: *mut c_void, n: usize, out: *mut f64, error: *mut CmfError) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe { of(context)?.host.uniform(slice_mut("out", out, Some(n))?) })
}

unsafe extern "C" fn normal(context: *mut c_void, n: usize, out: *mut f64, error: *mut CmfError) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe { of(context)?.host.normal(slice_mut("out", out, Some(n))?) })
}

/// Runs a function without an error to report; a panic of the host's leaves `otherwise`.
fn quietly<T>(otherwise: T, run: impl FnOnce() -> Result<T>) -> T {
    catch_unwind(AssertUnwindSafe(run)).ok().and_then(Result::ok).unwrap_or(otherwise)
}

unsafe extern "C" fn seed(context: *mut c_void) -> u64 {
    // SAFETY: as above.
    quietly(0, || unsafe { Ok(of(context)?.host.seed()) })
}

unsafe extern "C" fn input_count(context: *mut c_void) -> usize {
    // SAFETY: as above.
    quietly(0, || unsafe { Ok(of(context)?.host.input_count()) })
}

unsafe extern "C" fn input_info(
    context: *mut c_void,
    index: usize,
    info: *mut CmfInputInfo,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let input = of(context)?.input(index)?;
        let info = info.as_mut().ok_or_else(|| Error::invalid("info: found NULL"))?;
        let mut shape = [1; 3];
        shape.iter_mut().zip(&input.0.shape).for_each(|(to, from)| *to = *from);
        *info = CmfInputInfo {
            name: input.1.as_ptr(),
            rank: input.0.shape.len(),
            shape,
            has_alpha: u32::from(input.0.alpha.is_some()),
            unused: 0,
        };
        Ok(())
    })
}

unsafe extern "C" fn input_read(
    context: *mut c_void,
    index: usize,
    len: usize,
    values: *mut f64,
    alpha: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let input = of(context)?.input(index)?;
        Error::check_len("values", len, input.0.values.len())?;
        slice_mut("values", values, Some(len))?.copy_from_slice(&input.0.values);
        if !alpha.is_null() {
            let pixels = input.0.shape[0].checked_mul(input.0.shape[1]);
            let to = slice_mut("alpha", alpha, pixels)?;
            match &input.0.alpha {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(1.0),
            }
        }
        Ok(())
    })
}

fn input_of(index: usize) -> Option<usize> {
    (index != NO_INPUT).then_some(index)
}

unsafe extern "C" fn write_image(
    context: *mut c_void,
    input: usize,
    label: *const c_char,
    shape: *const usize,
    values: *const f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let shape = slice("shape", shape, Some(3))?;
        let shape = [shape[0], shape[1], shape[2]];
        let len = shape.iter().try_fold(1_usize, |len, &axis| len.checked_mul(axis));
        let (label, values) = (text_of("label", label)?, slice("values", values, len)?);
        of(context)?.host.write_image(input_of(input), &label, shape, values)
    })
}

unsafe extern "C" fn write_table(
    context: *mut c_void,
    input: usize,
    label: *const c_char,
    n: usize,
    d: usize,
    values: *const f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (label, values) = (text_of("label", label)?, slice("values", values, n.checked_mul(d))?);
        of(context)?.host.write_table(input_of(input), &label, d, values)
    })
}

unsafe extern "C" fn result(context: *mut c_void, json: *const c_char, error: *mut CmfError) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe { of(context)?.host.result(&text_of("the result", json)?) })
}

unsafe extern "C" fn progress(context: *mut c_void, fraction: f64) {
    // SAFETY: as above.
    quietly((), || unsafe {
        of(context)?.host.progress(if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) });
        Ok(())
    });
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, text: *const c_char) {
    // SAFETY: as above.
    quietly((), || unsafe {
        let level = if level == 0 { Level::Info } else { Level::Warning };
        of(context)?.host.log(level, &text_of("text", text)?);
        Ok(())
    });
}

unsafe extern "C" fn cancelled(context: *mut c_void) -> i32 {
    // SAFETY: as above.
    quietly(0, || unsafe { Ok(i32::from(of(context)?.host.cancelled())) })
}
