//! The host's tools over an opened model: the mathematics here, files and terminals by the program.

use std::sync::{Mutex, PoisonError};

use cmf_core::conjugate::Status as SolveStatus;
use cmf_core::density::{
    Lanczos, Status as RowOutcome, estimated_log_density, exact_log_density_from, is_exact,
};
use cmf_core::draws;
use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::mixture::Mixture;
use cmf_core::potential::rows;
use cmf_core::{SecondOrder, Source};
use cmf_plugin::{
    ConjugateRow, DensityRow, DensityStatus, Error, Files, GibbsReport, Host, Input, Law, Level, ModelInfo,
    Result, RowStatus,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::error::plugin_error;

/// An opened model.
pub struct Model<'a> {
    /// The potential w.
    pub w: &'a dyn SecondOrder,
    /// What its map carries to the data.
    pub source: Source,
    /// Mean and covariance of the noisy data.
    pub gaussian: &'a Gaussian,
    /// The mixture in it.
    pub data_mixture: Option<&'a Mixture>,
    /// What its file says.
    pub info: ModelInfo,
}

impl Model<'_> {
    /// log ρ(y_i) of each row of `y` [n, d]: exact where [`is_exact`] says so, or else estimated, with a
    /// standard error and probes that `seed` decides. ∇ log ρ(y_i), if `score` [n, d] is given, is exact or refused.
    pub fn log_density(
        &self,
        y: &[f64],
        score: Option<&mut [f64]>,
        seed: u64,
    ) -> cmf_core::Result<Vec<DensityRow>> {
        let (d, log_z) = (self.w.dim(), self.info.log_z.map_or(0.0, |z| z.0));
        let refused = |what: &str| {
            Err(cmf_core::Error::Invalid(format!(
                "{what} is exact or not given, and {d} dimensions are too many"
            )))
        };
        let (value, error, status) = if is_exact(self.w) {
            let exact = exact_log_density_from(self.w, self.source, log_z, y, score)?;
            (exact.value, vec![], exact.status)
        } else if self.source == Source::Gaussian {
            return refused("the log-density of a model whose source is N(0, I)");
        } else if score.is_some() {
            return refused("the gradient of the log-density");
        } else {
            let start = self.gaussian.quadratic_start()?.inverse_hessian()?;
            let settings = Lanczos { seed, ..Lanczos::default() };
            let estimate = estimated_log_density(&self.w, log_z, y, &start, settings)?;
            (estimate.value, estimate.standard_error, estimate.status)
        };
        let row = |i: usize| DensityRow {
            value: value[i],
            standard_error: error.get(i).copied().unwrap_or(0.0),
            status: match status[i] {
                RowOutcome::Evaluated => DensityStatus::Evaluated,
                RowOutcome::NotPositiveDefinite => DensityStatus::NotPositiveDefinite,
                RowOutcome::NotFinite => DensityStatus::NotFinite,
                RowOutcome::QuadratureUnconverged => DensityStatus::Unconverged,
            },
        };
        Ok((0..value.len()).map(row).collect())
    }
}

/// [`Host`] over a model.
pub struct ModelHost<'a> {
    model: Option<Model<'a>>,
    files: &'a dyn Files,
    seed: u64,
    rng: Mutex<ChaCha8Rng>,
    /// Gibbs runs so far.
    runs: Mutex<u64>,
}

impl<'a> ModelHost<'a> {
    /// For one run of a task. A task that asks for a model that is not there is told so.
    pub fn new(model: Option<Model<'a>>, files: &'a dyn Files, seed: u64) -> Self {
        // A stream of its own: Gibbs runs use stream 0.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        ModelHost { model, files, seed, rng: Mutex::new(rng), runs: Mutex::new(0) }
    }

    fn opened(&self) -> Result<&Model<'a>> {
        self.model.as_ref().ok_or_else(|| Error::invalid("this task needs a model; give it with --model"))
    }

    fn draw_gibbs(&self, steps: usize, x: &mut [f64]) -> cmf_core::Result<GibbsReport> {
        let Model { w, gaussian, .. } = self.opened().map_err(crate::core_error)?;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        // Runs after the first get seeds of their own, spread by the golden ratio.
        let seed = self.seed ^ runs.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        *runs += 1;
        drop(runs);
        let n = rows(x, w.dim())?;
        let samples = draws::gibbs(w, gaussian, n, steps, seed, &mut |done| {
            self.files.progress(done as f64 / steps as f64);
            !self.files.cancelled()
        })?;
        x.copy_from_slice(&samples.state.x);
        Ok(GibbsReport {
            acceptance: samples.acceptance,
            step_size: samples.step_size,
            r_hat: samples.r_hat,
            effective_sample_size: samples.effective_sample_size,
        })
    }

    fn solve(&self, x: &[f64], y: &mut [f64]) -> cmf_core::Result<Vec<ConjugateRow>> {
        let Model { w, gaussian, source, .. } = self.opened().map_err(crate::core_error)?;
        let solution = draws::conjugates(w, gaussian, *source, x)?;
        y.copy_from_slice(&solution.y);
        let row = |row: &cmf_core::conjugate::RowOutcome| ConjugateRow {
            status: match row.status {
                SolveStatus::Converged => RowStatus::Converged,
                SolveStatus::OutOfSteps => RowStatus::OutOfSteps,
                SolveStatus::Stalled => RowStatus::Stalled,
                SolveStatus::NonFinite => RowStatus::NonFinite,
            },
            residual: row.residual,
        };
        Ok(solution.rows.iter().map(row).collect())
    }
}

impl Host for ModelHost<'_> {
    fn model(&self) -> Result<ModelInfo> {
        Ok(self.opened()?.info)
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.opened()?.w.value_and_gradient(x, value, gradient).map_err(plugin_error)
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.opened()?.w.hvp(x, v, hv).map_err(plugin_error)
    }

    fn hessian(&self, x: &[f64], hessian: &mut [f64]) -> Result<()> {
        match self.opened()?.info.has_hessian {
            true => self.opened()?.w.hessian(x, hessian).map_err(plugin_error),
            false => Err(Error::unsupported("this model gives no Hessians")),
        }
    }

    fn contraction(&self, x: &[f64], m: &[f64], out: &mut [f64]) -> Result<()> {
        match self.opened()?.info.has_hessian {
            true => self.opened()?.w.hessian_contraction(x, m, out).map_err(plugin_error),
            false => Err(Error::unsupported("this model gives no contractions of its Hessians")),
        }
    }

    fn conjugate(&self, x: &[f64], y: &mut [f64]) -> Result<Vec<ConjugateRow>> {
        Error::check_len("y", y.len(), x.len())?;
        self.solve(x, y).map_err(plugin_error)
    }

    fn gibbs(&self, steps: usize, x: &mut [f64]) -> Result<GibbsReport> {
        if steps < 8 {
            return Err(Error::invalid(format!("steps: expected at least 8, found {steps}")));
        }
        self.draw_gibbs(steps, x).map_err(plugin_error)
    }

    fn log_density(&self, y: &[f64], score: Option<&mut [f64]>) -> Result<Vec<DensityRow>> {
        self.opened()?.log_density(y, score, self.seed).map_err(plugin_error)
    }

    fn gaussian(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let gaussian = self.opened()?.gaussian;
        Ok((gaussian.mean.clone(), gaussian.covariance.dense().into_owned()))
    }

    fn head_factor(&self) -> Result<Option<(Vec<f64>, Vec<f64>)>> {
        let numbers = |head: &HeadFactor| (head.centre().to_vec(), head.precision().dense().into_owned());
        Ok(self.opened()?.w.gibbs().map(numbers))
    }

    fn mixture(&self, law: Law) -> Result<Option<Vec<f64>>> {
        let model = self.opened()?;
        let found = match law {
            Law::Source => model.w.gibbs().and_then(|head| head.mixture()).map(|mixture| &**mixture),
            Law::Data => model.data_mixture,
        };
        Ok(found.map(Mixture::numbers))
    }

    fn uniform(&self, out: &mut [f64]) -> Result<()> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        out.iter_mut().for_each(|v| *v = rng.random());
        Ok(())
    }

    fn normal(&self, out: &mut [f64]) -> Result<()> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        out.iter_mut().for_each(|v| *v = rng.sample(StandardNormal));
        Ok(())
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

impl Files for ModelHost<'_> {
    fn input_count(&self) -> usize {
        self.files.input_count()
    }

    fn input(&self, index: usize) -> Result<Input> {
        self.files.input(index)
    }

    fn write_image(
        &self,
        input: Option<usize>,
        label: &str,
        shape: [usize; 3],
        values: &[f64],
    ) -> Result<()> {
        check_label(label)?;
        let len = shape.iter().try_fold(1_usize, |len, &axis| len.checked_mul(axis));
        if len != Some(values.len()) {
            let found = values.len();
            return Err(Error::invalid(format!("the image: expected {shape:?} numbers, found {found}")));
        }
        check_finite("the image", values)?;
        self.files.write_image(input, label, shape, values)
    }

    fn write_table(&self, input: Option<usize>, label: &str, d: usize, values: &[f64]) -> Result<()> {
        check_label(label)?;
        if d == 0 || !values.len().is_multiple_of(d) {
            let found = values.len();
            return Err(Error::invalid(format!("the table: expected rows of {d} numbers, found {found}")));
        }
        check_finite("the table", values)?;
        self.files.write_table(input, label, d, values)
    }

    fn result(&self, json: &str) -> Result<()> {
        self.files.result(json)
    }

    fn progress(&self, fraction: f64) {
        self.files.progress(fraction);
    }

    fn log(&self, level: Level, text: &str) {
        self.files.log(level, text);
    }

    fn cancelled(&self) -> bool {
        self.files.cancelled()
    }
}

/// Labels become parts of file names.
fn check_label(label: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !label.is_empty() && label.len() <= 64 && label.chars().all(letter) {
        return Ok(());
    }
    Err(Error::invalid(format!("label: expected lower case letters, digits and hyphens, found {label:?}")))
}

/// No NaN reaches a file.
fn check_finite(what: &str, values: &[f64]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => {
            Err(Error::failed(format!("{what}: number {i} is {}, expected a finite number", values[i])))
        }
        None => Ok(()),
    }
}
