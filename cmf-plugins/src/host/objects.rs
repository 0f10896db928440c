//! Plugins' objects as the traits that the rest of the program knows.

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cmf_core::potential::{check_hvp, check_value_and_gradient};
use cmf_plugin::abi::{
    CmfDatasetFactory, CmfDatasetInfo, CmfEnergyFactory, CmfTaskFactory, Create, Destroy, Object,
};
use cmf_plugin::{
    DataSet, Energy, Error, Host, Parameters, Result, Shape, Split, Status, Task, call, text_of,
};

use super::table::HostTable;

/// Larger dimensions are a broken answer.
const MOST_DIM: usize = 1 << 24;

/// An object of a plugin, destroyed with this.
struct Handle {
    object: *mut Object,
    destroy: Destroy,
}

// SAFETY: by the header every function on an object but destroy may be called from any thread, and destroy
// is called when no other call can be under way: this is dropped once, by its only owner.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the object came from the create beside this destroy, and this is its last use.
        unsafe { (self.destroy)(self.object) }
    }
}

fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid("text with a NUL in it cannot be passed on"))
}

/// The function of a table that must be there.
fn there<F>(what: &str, function: Option<F>) -> Result<F> {
    function.ok_or_else(|| Error::failed(format!("the plugin's table has NULL for {what}")))
}

fn create(create: Option<Create>, destroy: Option<Destroy>, name: &str, p: &Parameters) -> Result<Handle> {
    let (create, destroy) = (there("create", create)?, there("destroy", destroy)?);
    let (name, parameters) = (c_text(name)?, c_text(&p.to_json())?);
    let mut object = null_mut();
    // SAFETY: both texts live for the call and `object` is ours.
    call(|error| unsafe { create(name.as_ptr(), parameters.as_ptr(), &mut object, error) })?;
    if object.is_null() {
        return Err(Error::failed("create answered CMF_OK without an object"));
    }
    Ok(Handle { object, destroy })
}

/// An energy of a plugin.
pub struct PluginEnergy {
    handle: Handle,
    factory: &'static CmfEnergyFactory,
    value_and_gradient: cmf_plugin::abi::ValueAndGradient,
    dim: usize,
    domain: (Vec<f64>, Vec<f64>),
}

impl PluginEnergy {
    /// Makes the energy `name` and asks it for its dimension and domain.
    pub fn new(factory: &'static CmfEnergyFactory, name: &str, parameters: &Parameters) -> Result<Self> {
        let handle = create(factory.create, factory.destroy, name, parameters)?;
        let (dim, domain) = (there("dim", factory.dim)?, there("domain", factory.domain)?);
        let value_and_gradient = there("value_and_gradient", factory.value_and_gradient)?;
        // SAFETY: the object is live.
        let d = unsafe { dim(handle.object) };
        if d == 0 || d > MOST_DIM {
            return Err(Error::failed(format!("says that its dimension is {d}, expected 1 to {MOST_DIM}")));
        }
        let (mut low, mut high) = (vec![f64::NAN; d], vec![f64::NAN; d]);
        let (l, h) = (low.as_mut_ptr(), high.as_mut_ptr());
        // SAFETY: the object is live and both arrays have d places.
        call(|error| unsafe { domain(handle.object, d, l, h, error) })?;
        let fits = |(l, h): (&f64, &f64)| l.is_finite() && h.is_finite() && l < h;
        if let Some(i) = low.iter().zip(&high).position(|ends| !fits(ends)) {
            let (l, h) = (low[i], high[i]);
            return Err(Error::failed(format!(
                "its domain is from {l} to {h} in coordinate {i}, expected low < high"
            )));
        }
        Ok(PluginEnergy { handle, factory, value_and_gradient, dim: d, domain: (low, high) })
    }

    /// The object itself, for the conformance suite.
    pub(crate) fn object(&self) -> *mut Object {
        self.handle.object
    }
}

impl Energy for PluginEnergy {
    fn dim(&self) -> usize {
        self.dim
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        self.domain.clone()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let d = self.dim;
        let n = check_value_and_gradient(d, x, value, gradient).map_err(Error::invalid)?;
        let (f, object, x) = (self.value_and_gradient, self.handle.object, x.as_ptr());
        // SAFETY: the object is live and the lengths were checked.
        call(|error| unsafe { f(object, n, d, x, value.as_mut_ptr(), gradient.as_mut_ptr(), error) })
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.dim;
        let n = check_hvp(d, x, v, hv).map_err(Error::invalid)?;
        let Some(f) = self.factory.hvp else {
            return Err(Error::unsupported("this energy has no Hessian-vector products"));
        };
        // SAFETY: the object is live and the lengths were checked.
        call(|error| unsafe { f(self.handle.object, n, d, x.as_ptr(), v.as_ptr(), hv.as_mut_ptr(), error) })
    }
}

/// A data set of a plugin.
pub struct PluginDataSet {
    handle: Handle,
    read: unsafe extern "C" fn(
        *const c_void,
        u32,
        usize,
        *const usize,
        usize,
        *mut f64,
        *mut cmf_plugin::abi::CmfError,
    ) -> i32,
    shape: Shape,
    rows: [usize; 2],
    pixel_range: Option<(f64, f64)>,
    licence: Option<String>,
}

impl PluginDataSet {
    /// Opens the data set `name` and asks it what it is.
    pub fn new(factory: &'static CmfDatasetFactory, name: &str, parameters: &Parameters) -> Result<Self> {
        let handle = create(factory.create, factory.destroy, name, parameters)?;
        let (info, read) = (there("info", factory.info)?, there("read", factory.read)?);
        let mut i = CmfDatasetInfo {
            rank: 0,
            shape: [0; 3],
            rows: [0; 2],
            pixel_range: [0.0; 2],
            licence: std::ptr::null(),
        };
        // SAFETY: the object is live and the struct ours.
        call(|error| unsafe { info(handle.object, &mut i, error) })?;
        let shape = Shape::from_axes(i.rank, i.shape)?;
        if i.rows.contains(&0) {
            return Err(Error::failed(format!("has {:?} rows, expected at least 1 in each split", i.rows)));
        }
        let [low, high] = i.pixel_range;
        let is_image = matches!(shape, Shape::Image { .. });
        let pixel_range = (low < high && low.is_finite() && high.is_finite()).then_some((low, high));
        if is_image != pixel_range.is_some() || (!is_image && [low, high] != [0.0, 0.0]) {
            return Err(Error::failed(format!(
                "its pixel range is from {low} to {high}, expected low < high for images and 0, 0 for vectors"
            )));
        }
        // SAFETY: by the header NULL or text that lives as long as the object.
        let licence =
            (!i.licence.is_null()).then(|| unsafe { text_of("its licence", i.licence) }).transpose()?;
        Ok(PluginDataSet { handle, read, shape, rows: i.rows, pixel_range, licence })
    }

    /// The object itself, for the conformance suite.
    pub(crate) fn object(&self) -> *mut Object {
        self.handle.object
    }
}

impl DataSet for PluginDataSet {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn pixel_range(&self) -> Option<(f64, f64)> {
        self.pixel_range
    }

    fn rows(&self, split: Split) -> usize {
        self.rows[usize::from(split == Split::HeldOut)]
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        let (d, most) = (self.shape.dim(), self.rows(split));
        Error::check_len("out", out.len(), rows.len() * d)?;
        if let Some(row) = rows.iter().find(|&&row| row >= most) {
            return Err(Error::invalid(format!("row {row} of a split of {most} rows")));
        }
        let (n, at, split) = (rows.len(), rows.as_ptr(), u32::from(split == Split::HeldOut));
        // SAFETY: the object is live and the lengths were checked.
        call(|error| unsafe { (self.read)(self.handle.object, split, n, at, d, out.as_mut_ptr(), error) })?;
        match out.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(Error::failed(format!(
                "gave {} in row {}, expected a finite number",
                out[i],
                rows[i / d]
            ))),
            None => Ok(()),
        }
    }

    fn licence(&self) -> Option<&str> {
        self.licence.as_deref()
    }
}

/// A task of a plugin with its parameters.
pub struct PluginTask {
    factory: &'static CmfTaskFactory,
    name: CString,
    parameters: CString,
}

impl PluginTask {
    /// The task `name`.
    pub fn new(factory: &'static CmfTaskFactory, name: &str, parameters: &Parameters) -> Result<Self> {
        there("run", factory.run)?;
        Ok(PluginTask { factory, name: c_text(name)?, parameters: c_text(&parameters.to_json())? })
    }
}

impl Task for PluginTask {
    fn run(&self, host: &dyn Host) -> Result<()> {
        let run = there("run", self.factory.run)?;
        let table = HostTable::new(host);
        // SAFETY: the texts and the table live for the call.
        let result =
            call(|error| unsafe { run(self.name.as_ptr(), self.parameters.as_ptr(), table.as_ptr(), error) });
        match result {
            // A task that was told to stop may say so in its own words.
            Err(_) if host.cancelled() => Err(Error::cancelled()),
            Err(e) if e.status == Status::Cancelled => {
                Err(Error::failed("the task says that it was stopped, but nobody asked it to"))
            }
            other => other,
        }
    }
}
