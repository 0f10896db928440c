//! The host's tools as a table of C functions, for tasks of plugins.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use cmf_plugin::abi::{CmfError, CmfGibbsReport, CmfHost, CmfInputInfo, CmfModelInfo, NO_INPUT};
use cmf_plugin::guard::{Arrays, enter, object, place};
use cmf_plugin::{Error, Host, Input, Law, Level, Result, text_of};

/// A table that lends out a host.
pub(super) struct HostTable<'a> {
    table: CmfHost,
    /// Boxed so that its address stays.
    _context: Box<Context<'a>>,
}

/// What the table's context pointer leads to.
struct Context<'a> {
    host: &'a dyn Host,
    /// The input that was asked for last: it is asked about, and then read.
    last: Mutex<Option<(usize, Arc<Input>)>>,
    /// Names of inputs as C has them, kept until the run is over.
    names: Mutex<HashMap<usize, CString>>,
}

impl<'a> HostTable<'a> {
    pub(super) fn new(host: &'a dyn Host) -> HostTable<'a> {
        let context = Box::new(Context { host, last: Mutex::default(), names: Mutex::default() });
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
            head_factor: Some(head_factor),
            mixture: Some(mixture),
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

    fn input(&self, index: usize) -> Result<Arc<Input>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((i, input)) if *i == index => Ok(input.clone()),
            _ => {
                let input = Arc::new(self.host.input(index)?);
                *last = Some((index, input.clone()));
                Ok(input)
            }
        }
    }

    fn name(&self, index: usize, input: &Input) -> *const c_char {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(index).or_insert_with(|| CString::new(input.name.as_str()).unwrap_or_default()).as_ptr()
    }
}

unsafe extern "C" fn model(context: *mut c_void, info: *mut CmfModelInfo, error: *mut CmfError) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on; here and below.
    enter(unsafe { error.as_mut() }, || unsafe {
        let model = of(context)?.host.model()?;
        let (info, (rank, shape)) = (place("info", info)?, model.shape.axes());
        let (low, high) = model.pixel_range.unwrap_or((0.0, 0.0));
        let (log_z, log_z_error) = model.log_z.unwrap_or((0.0, 0.0));
        info.write(CmfModelInfo {
            dim: model.shape.dim(),
            rank,
            shape,
            pixel_range: [low, high],
            sigma: model.sigma,
            log_z,
            log_z_error,
            has_log_z: u32::from(model.log_z.is_some()),
            has_hessian: u32::from(model.has_hessian),
        });
        Ok(())
    })
}

/// Runs a function of n rows of dimension d, given the host and n d; of no rows there is nothing to do.
///
/// # Safety
/// As for [`of`], and `error` is NULL or may be written to.
unsafe fn on_rows(
    context: *const c_void,
    n: usize,
    d: usize,
    error: *mut CmfError,
    run: impl FnOnce(&dyn Host, &mut Arrays, Option<usize>) -> Result<()>,
) -> i32 {
    // SAFETY: the caller's promise; here and below.
    enter(unsafe { error.as_mut() }, || {
        let context = unsafe { of(context)? };
        let len = context.len(n, d)?;
        if n == 0 { Ok(()) } else { run(context.host, &mut Arrays::default(), len) }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let (x, value) = (arrays.read("x", x, len)?, arrays.write("value", value, Some(n))?);
            host.value_and_gradient(x, value, arrays.write("gradient", gradient, len)?)
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let (x, v) = (arrays.read("x", x, len)?, arrays.read("v", v, len)?);
            host.hvp(x, v, arrays.write("hv", hv, len)?)
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let square = len.and_then(|len| len.checked_mul(d));
            host.hessian(arrays.read("x", x, len)?, arrays.write("hessian", hessian, square)?)
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let square = len.and_then(|len| len.checked_mul(d));
            let (x, m) = (arrays.read("x", x, len)?, arrays.read("m", m, square)?);
            host.contraction(x, m, arrays.write("out", out, len)?)
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let (x, y) = (arrays.read("x", x, len)?, arrays.write("y", y, len)?);
            let status = arrays.write("status", status, Some(n))?;
            let residual = arrays.write("residual", residual, Some(n))?;
            for (i, row) in host.conjugate(x, y)?.into_iter().enumerate() {
                (status[i], residual[i]) = (row.status as i32, row.residual);
            }
            Ok(())
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let (x, report) = (arrays.write("x", x, len)?, place("report", report)?);
            let run = host.gibbs(steps, x)?;
            report.write(CmfGibbsReport {
                acceptance: run.acceptance,
                step_size: run.step_size,
                r_hat: run.r_hat.unwrap_or(0.0),
                effective_sample_size: run.effective_sample_size.unwrap_or(0.0),
            });
            Ok(())
        })
    }
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
    unsafe {
        on_rows(context, n, d, error, |host, arrays, len| {
            let y = arrays.read("y", y, len)?;
            let score = if score.is_null() { None } else { Some(arrays.write("score", score, len)?) };
            let value = arrays.write("value", value, Some(n))?;
            let spread = arrays.write("standard_error", standard_error, Some(n))?;
            let status = arrays.write("status", status, Some(n))?;
            for (i, row) in host.log_density(y, score)?.into_iter().enumerate() {
                (value[i], spread[i], status[i]) = (row.value, row.standard_error, row.status as i32);
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn gaussian(
    context: *mut c_void,
    d: usize,
    mean: *mut f64,
    covariance: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    unsafe { moments(context, d, ("mean", mean), ("covariance", covariance), error, |host| host.gaussian()) }
}

/// Writes a vector [d] and a matrix [d, d] of the host's, each under its name.
///
/// # Safety
///
/// As for the functions of the table.
unsafe fn moments(
    context: *mut c_void,
    d: usize,
    vector: (&str, *mut f64),
    matrix: (&str, *mut f64),
    error: *mut CmfError,
    get: impl FnOnce(&dyn Host) -> Result<(Vec<f64>, Vec<f64>)>,
) -> i32 {
    // SAFETY: the caller's promise.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (context, mut arrays) = (of(context)?, Arrays::default());
        context.len(1, d)?;
        let (v, m) = get(context.host)?;
        arrays.write(vector.0, vector.1, Some(d))?.copy_from_slice(&v);
        arrays.write(matrix.0, matrix.1, d.checked_mul(d))?.copy_from_slice(&m);
        Ok(())
    })
}

unsafe extern "C" fn head_factor(
    context: *mut c_void,
    d: usize,
    centre: *mut f64,
    precision: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    unsafe {
        moments(context, d, ("centre", centre), ("precision", precision), error, |host| {
            let whole = || Error::unsupported("the Gibbs factor of this model is exp(-w)/Z");
            host.head_factor()?.ok_or_else(whole)
        })
    }
}

unsafe extern "C" fn mixture(
    context: *mut c_void,
    law: u32,
    room: usize,
    numbers: *mut f64,
    count: *mut usize,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (context, count) = (of(context)?, place("count", count)?);
        let law = match law {
            0 => Law::Source,
            1 => Law::Data,
            other => return Err(Error::invalid(format!("law {other}: expected 0 or 1"))),
        };
        let found = context.host.mixture(law)?.unwrap_or_default();
        count.write(found.len());
        if !found.is_empty() && room >= found.len() {
            Arrays::default().write("numbers", numbers, Some(found.len()))?.copy_from_slice(&found);
        }
        Ok(())
    })
}

unsafe extern "C" fn uniform(context: *mut c_void, n: usize, out: *mut f64, error: *mut CmfError) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        of(context)?.host.uniform(Arrays::default().write("out", out, Some(n))?)
    })
}

unsafe extern "C" fn normal(context: *mut c_void, n: usize, out: *mut f64, error: *mut CmfError) -> i32 {
    // SAFETY: as above.
    enter(unsafe { error.as_mut() }, || unsafe {
        of(context)?.host.normal(Arrays::default().write("out", out, Some(n))?)
    })
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
        let (context, info) = (of(context)?, place("info", info)?);
        let input = context.input(index)?;
        let mut shape = [1; 3];
        shape.iter_mut().zip(&input.shape).for_each(|(to, from)| *to = *from);
        info.write(CmfInputInfo {
            name: context.name(index, &input),
            rank: input.shape.len(),
            shape,
            has_alpha: u32::from(input.alpha.is_some()),
            unused: 0,
        });
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
        let (input, mut arrays) = (of(context)?.input(index)?, Arrays::default());
        Error::check_len("values", len, input.values.len())?;
        arrays.write("values", values, Some(len))?.copy_from_slice(&input.values);
        if !alpha.is_null() {
            let &[height, width, _] = &input.shape[..] else {
                return Err(Error::invalid("alpha: expected NULL, a table has none"));
            };
            let to = arrays.write("alpha", alpha, height.checked_mul(width))?;
            match &input.alpha {
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
        let mut arrays = Arrays::default();
        let shape = arrays.read("shape", shape, Some(3))?;
        let shape = [shape[0], shape[1], shape[2]];
        let len = shape.iter().try_fold(1_usize, |len, &axis| len.checked_mul(axis));
        let (label, values) = (text_of("label", label)?, arrays.read("values", values, len)?);
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
        let (label, mut arrays) = (text_of("label", label)?, Arrays::default());
        let values = arrays.read("values", values, n.checked_mul(d))?;
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
        // A line that cannot be read is not lost without a word.
        let text = text_of("a line of the log", text).unwrap_or_else(|e| e.text);
        of(context)?.host.log(level, &text);
        Ok(())
    });
}

unsafe extern "C" fn cancelled(context: *mut c_void) -> i32 {
    // SAFETY: as above.
    quietly(0, || unsafe { Ok(i32::from(of(context)?.host.cancelled())) })
}
