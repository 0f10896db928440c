//! The host's tools as a plugin reaches them: through the table of function pointers.

use std::ffi::{CString, c_void};

use crate::abi::{CmfError, CmfGibbsReport, CmfHost, CmfInputInfo, CmfModelInfo, NO_INPUT};
use crate::error::{Error, Result, Status};
use crate::guard::{call, text_of};
use crate::traits::{
    ConjugateRow, DensityRow, DensityStatus, Files, GibbsReport, Host, Input, Law, Level, ModelInfo,
    RowStatus, Shape,
};

/// [`Host`] over the table that `run` was given.
pub(crate) struct TableHost<'a> {
    table: &'a CmfHost,
}

// SAFETY: by the header every function of the table may be called from any thread.
unsafe impl Sync for TableHost<'_> {}

/// The function behind a pointer that must not be NULL.
fn there<F>(what: &str, function: Option<F>) -> Result<F> {
    function.ok_or_else(|| Error::failed(format!("the host's table has no {what}")))
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

impl<'a> TableHost<'a> {
    pub(crate) fn new(table: &'a CmfHost) -> TableHost<'a> {
        TableHost { table }
    }

    /// The dimension of the model and the number of rows of `x` in it.
    fn rows(&self, x: &[f64]) -> Result<(usize, usize)> {
        let d = self.info()?.dim;
        match d > 0 && x.len().is_multiple_of(d) {
            true => Ok((d, x.len() / d)),
            false => Err(Error::invalid(format!("expected rows of {d} numbers, found {}", x.len()))),
        }
    }

    fn info(&self) -> Result<CmfModelInfo> {
        let model = there("model", self.table.model)?;
        let mut info = CmfModelInfo {
            dim: 0,
            rank: 0,
            shape: [0; 3],
            pixel_range: [0.0; 2],
            sigma: 0.0,
            log_z: 0.0,
            log_z_error: 0.0,
            has_log_z: 0,
            has_hessian: 0,
        };
        // SAFETY: the table is the host's and `info` is ours.
        call(|error| unsafe { model(self.table.context, &mut info, error) })?;
        Ok(info)
    }

    /// A vector [d] and a matrix [d, d].
    fn moments(&self, what: &str, moments: Option<crate::abi::Moments>) -> Result<(Vec<f64>, Vec<f64>)> {
        let (d, f) = (self.model()?.shape.dim(), there(what, moments)?);
        let (mut vector, mut matrix) = (vec![0.0; d], vec![0.0; d * d]);
        let (v, m) = (vector.as_mut_ptr(), matrix.as_mut_ptr());
        // SAFETY: both are as long as said.
        call(|error| unsafe { f(self.table.context, d, v, m, error) })?;
        Ok((vector, matrix))
    }

    fn draw(&self, what: &str, draw: Option<crate::abi::Draw>, out: &mut [f64]) -> Result<()> {
        let draw = there(what, draw)?;
        // SAFETY: `out` is ours and as long as said.
        call(|error| unsafe { draw(self.table.context, out.len(), out.as_mut_ptr(), error) })
    }
}

impl Host for TableHost<'_> {
    fn model(&self) -> Result<ModelInfo> {
        let info = self.info()?;
        let [low, high] = info.pixel_range;
        Ok(ModelInfo {
            shape: Shape::from_axes(info.rank, info.shape)?,
            pixel_range: (low < high).then_some((low, high)),
            sigma: info.sigma,
            log_z: (info.has_log_z != 0).then_some((info.log_z, info.log_z_error)),
            has_hessian: info.has_hessian != 0,
        })
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let (d, n) = self.rows(x)?;
        Error::check_len("value", value.len(), n)?;
        Error::check_len("gradient", gradient.len(), n * d)?;
        let f = there("value_and_gradient", self.table.value_and_gradient)?;
        let (context, x) = (self.table.context.cast_const(), x.as_ptr());
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(context, n, d, x, value.as_mut_ptr(), gradient.as_mut_ptr(), error) })
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let (d, n) = self.rows(x)?;
        Error::check_len("v", v.len(), n * d)?;
        Error::check_len("hv", hv.len(), n * d)?;
        let f = there("hvp", self.table.hvp)?;
        let context = self.table.context.cast_const();
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(context, n, d, x.as_ptr(), v.as_ptr(), hv.as_mut_ptr(), error) })
    }

    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        let (d, n) = self.rows(x)?;
        Error::check_len("hessian", hessian.len(), n * d * d)?;
        let f = there("hessian", self.table.hessian)?;
        let context = self.table.context.cast_const();
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(context, n, d, x.as_ptr(), hessian.as_mut_ptr(), error) })
    }

    fn contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        let (d, n) = self.rows(x)?;
        Error::check_len("m", m.len(), n * d * d)?;
        Error::check_len("out", out.len(), n * d)?;
        let f = there("contraction", self.table.contraction)?;
        let context = self.table.context.cast_const();
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(context, n, d, x.as_ptr(), m.as_ptr(), out.as_mut_ptr(), error) })
    }

    fn conjugate(&self, x: &[f64], y: &mut [f64]) -> Result<Vec<ConjugateRow>> {
        let (d, n) = self.rows(x)?;
        Error::check_len("y", y.len(), n * d)?;
        let f = there("conjugate", self.table.conjugate)?;
        let (mut status, mut residual) = (vec![0; n], vec![0.0; n]);
        let (s, r) = (status.as_mut_ptr(), residual.as_mut_ptr());
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(self.table.context, n, d, x.as_ptr(), y.as_mut_ptr(), s, r, error) })?;
        let row = |(status, residual)| ConjugateRow { status: RowStatus::from_code(status), residual };
        Ok(status.into_iter().zip(residual).map(row).collect())
    }

    fn gibbs(&self, steps: usize, x: &mut [f64]) -> Result<GibbsReport> {
        let (d, n) = self.rows(x)?;
        let f = there("gibbs", self.table.gibbs)?;
        let mut r =
            CmfGibbsReport { acceptance: 0.0, step_size: 0.0, r_hat: 0.0, effective_sample_size: 0.0 };
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(self.table.context, n, d, steps, x.as_mut_ptr(), &mut r, error) })?;
        let known = |v: f64| (v > 0.0).then_some(v);
        Ok(GibbsReport {
            acceptance: r.acceptance,
            step_size: r.step_size,
            r_hat: known(r.r_hat),
            effective_sample_size: known(r.effective_sample_size),
        })
    }

    fn log_density(&self, y: &[f64], score: Option<&mut [f64]>) -> Result<Vec<DensityRow>> {
        let (d, n) = self.rows(y)?;
        let score = match score {
            Some(score) => {
                Error::check_len("score", score.len(), n * d)?;
                score.as_mut_ptr()
            }
            None => std::ptr::null_mut(),
        };
        let f = there("log_density", self.table.log_density)?;
        let (mut value, mut spread, mut status) = (vec![0.0; n], vec![0.0; n], vec![0; n]);
        let (v, e, s) = (value.as_mut_ptr(), spread.as_mut_ptr(), status.as_mut_ptr());
        // SAFETY: the lengths were checked.
        call(|error| unsafe { f(self.table.context, n, d, y.as_ptr(), v, e, s, score, error) })?;
        let row = |i: usize| DensityRow {
            value: value[i],
            standard_error: spread[i],
            status: DensityStatus::from_code(status[i]),
        };
        Ok((0..n).map(row).collect())
    }

    fn gaussian(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        self.moments("gaussian", self.table.gaussian)
    }

    fn head_factor(&self) -> Result<Option<(Vec<f64>, Vec<f64>)>> {
        match self.moments("head_factor", self.table.head_factor) {
            Ok(moments) => Ok(Some(moments)),
            Err(e) if e.status == Status::Unsupported => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn mixture(&self, law: Law) -> Result<Option<Vec<f64>>> {
        let f = there("mixture", self.table.mixture)?;
        let (context, mut count) = (self.table.context, 0);
        // SAFETY: there is room for no number.
        call(|error| unsafe { f(context, law as u32, 0, std::ptr::null_mut(), &mut count, error) })?;
        if count == 0 {
            return Ok(None);
        }
        let mut numbers = vec![0.0; count];
        // SAFETY: `numbers` is as long as said.
        call(|error| unsafe { f(context, law as u32, count, numbers.as_mut_ptr(), &mut count, error) })?;
        Error::check_len("the mixture's numbers", count, numbers.len())?;
        Ok(Some(numbers))
    }

    fn uniform(&self, out: &mut [f64]) -> Result<()> {
        self.draw("uniform", self.table.uniform, out)
    }

    fn normal(&self, out: &mut [f64]) -> Result<()> {
        self.draw("normal", self.table.normal, out)
    }

    fn seed(&self) -> u64 {
        // SAFETY: the context is the table's own.
        self.table.seed.map_or(0, |f| unsafe { f(self.table.context) })
    }
}

impl Files for TableHost<'_> {
    fn input_count(&self) -> usize {
        // SAFETY: the context is the table's own.
        self.table.input_count.map_or(0, |f| unsafe { f(self.table.context) })
    }

    fn input(&self, index: usize) -> Result<Input> {
        let info = there("input_info", self.table.input_info)?;
        let read = there("input_read", self.table.input_read)?;
        let empty = std::ptr::null();
        let mut found = CmfInputInfo { name: empty, rank: 0, shape: [0; 3], has_alpha: 0, unused: 0 };
        // SAFETY: `found` is ours.
        call(|error| unsafe { info(self.table.context, index, &mut found, error) })?;
        let [a, b, c] = found.shape;
        let len = a.checked_mul(b).and_then(|ab| ab.checked_mul(c));
        let len = len.ok_or_else(|| Error::failed("the host's input is too large"))?;
        let mut values = vec![0.0; len];
        let mut alpha = (found.has_alpha != 0).then(|| vec![1.0; a * b]);
        let alpha_at = alpha.as_mut().map_or(std::ptr::null_mut(), |a| a.as_mut_ptr());
        let at = values.as_mut_ptr();
        // SAFETY: both are as long as `found` says.
        call(|error| unsafe { read(self.table.context, index, len, at, alpha_at, error) })?;
        let shape = if found.rank == 3 { found.shape.to_vec() } else { vec![a, b] };
        // SAFETY: by the header the name lives until the run is over.
        Ok(Input { name: unsafe { text_of("the input's name", found.name) }?, shape, values, alpha })
    }

    fn write_image(
        &self,
        input: Option<usize>,
        label: &str,
        shape: [usize; 3],
        values: &[f64],
    ) -> Result<()> {
        Error::check_len("the image", values.len(), shape.iter().product())?;
        let f = there("write_image", self.table.write_image)?;
        let (input, label) = (input.unwrap_or(NO_INPUT), c_text(label));
        let context: *mut c_void = self.table.context;
        // SAFETY: the length was checked.
        call(|error: *mut CmfError| unsafe {
            f(context, input, label.as_ptr(), shape.as_ptr(), values.as_ptr(), error)
        })
    }

    fn write_table(&self, input: Option<usize>, label: &str, d: usize, values: &[f64]) -> Result<()> {
        if d == 0 || !values.len().is_multiple_of(d) {
            return Err(Error::invalid(format!("the table: expected rows of {d}, found {}", values.len())));
        }
        let f = there("write_table", self.table.write_table)?;
        let (input, label, n) = (input.unwrap_or(NO_INPUT), c_text(label), values.len() / d);
        // SAFETY: the length was checked.
        call(|error| unsafe { f(self.table.context, input, label.as_ptr(), n, d, values.as_ptr(), error) })
    }

    fn result(&self, json: &str) -> Result<()> {
        let f = there("result", self.table.result)?;
        let json = c_text(json);
        // SAFETY: the text lives for the call.
        call(|error| unsafe { f(self.table.context, json.as_ptr(), error) })
    }

    fn progress(&self, fraction: f64) {
        if let Some(f) = self.table.progress {
            // SAFETY: the context is the table's own.
            unsafe { f(self.table.context, fraction) }
        }
    }

    fn log(&self, level: Level, text: &str) {
        if let Some(f) = self.table.log {
            let text = c_text(text);
            // SAFETY: the text lives for the call.
            unsafe { f(self.table.context, level as u32, text.as_ptr()) }
        }
    }

    fn cancelled(&self) -> bool {
        // SAFETY: the context is the table's own.
        self.table.cancelled.is_some_and(|f| unsafe { f(self.table.context) } != 0)
    }
}
