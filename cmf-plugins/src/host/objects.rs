//! Plugins' objects as the traits that the rest of the program knows.

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cmf_core::potential::{check_hvp, check_value_and_gradient};
use cmf_plugin::abi::{
    CmfDatasetFactory, CmfDatasetInfo, CmfEnergyFactory, CmfError, CmfTaskFactory, Create, Destroy, Object,
};
use cmf_plugin::{
    DataSet, Energy, Error, Host, Parameters, Result, Shape, Split, Status, Task, call, text_of,
};

use super::table::HostTable;

/// Larger dimensions are a broken answer.
const MOST_DIM: usize = 1 << 24;

/// More rows are a broken answer.
const MOST_ROWS: usize = 1 << 40;

/// An object of a plugin, destroyed with this.
struct Handle {
    object: *mut Object,
    destroy: Destroy,
    source: String,
}

// SAFETY: by the header every function on an object but destroy may be called from any thread, and destroy
// is called when no other call can be under way: this is dropped once, by its only owner.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    fn new(factory: (Option<Create>, Option<Destroy>), offer: Offered) -> Result<Handle> {
        let (create, destroy) = (there("create", factory.0)?, there("destroy", factory.1)?);
        let (name, parameters) = (c_text(offer.name)?, c_text(&offer.parameters.to_json())?);
        let mut object = null_mut();
        // SAFETY: both texts live for the call and `object` is ours.
        call(|error| unsafe { create(name.as_ptr(), parameters.as_ptr(), &mut object, error) })
            .map_err(|e| explained(offer.source, e))?;
        if object.is_null() {
            return Err(explained(offer.source, Error::failed("create answered CMF_OK without an object")));
        }
        Ok(Handle { object, destroy, source: offer.source.to_string() })
    }

    /// Calls one of the object's functions.
    fn call(&self, run: impl FnOnce(*mut CmfError) -> i32) -> Result<()> {
        call(run).map_err(|e| explained(&self.source, e))
    }

    fn broken(&self, text: String) -> Error {
        explained(&self.source, Error::failed(text))
    }
}

/// An error of an energy or data set with where it comes from. Only tasks can be told to stop.
pub(crate) fn explained(source: &str, e: Error) -> Error {
    let e = match e.status {
        Status::Cancelled => Error::failed(format!("answered CMF_CANCELLED, which only a task may: {e}")),
        _ => e,
    };
    e.of(source)
}

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

/// What is asked of a factory.
#[derive(Clone, Copy)]
pub struct Offered<'a> {
    /// Which plugin and entry, for errors; empty where that is clear.
    pub source: &'a str,
    /// The name of the entry.
    pub name: &'a str,
    /// Parameters that its schema has completed.
    pub parameters: &'a Parameters,
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
    /// Makes an energy and asks it for its dimension and domain.
    pub fn new(factory: &'static CmfEnergyFactory, offer: Offered) -> Result<Self> {
        let handle = Handle::new((factory.create, factory.destroy), offer)?;
        let (dim, domain) = (there("dim", factory.dim)?, there("domain", factory.domain)?);
        let value_and_gradient = there("value_and_gradient", factory.value_and_gradient)?;
        // SAFETY: the object is live.
        let d = unsafe { dim(handle.object) };
        if d == 0 || d > MOST_DIM {
            return Err(handle.broken(format!("says that its dimension is {d}, expected 1 to {MOST_DIM}")));
        }
        let (mut low, mut high) = (vec![f64::NAN; d], vec![f64::NAN; d]);
        let (l, h) = (low.as_mut_ptr(), high.as_mut_ptr());
        // SAFETY: the object is live and both arrays have d places.
        handle.call(|error| unsafe { domain(handle.object, d, l, h, error) })?;
        let fits = |(l, h): (&f64, &f64)| l.is_finite() && h.is_finite() && l < h;
        if let Some(i) = low.iter().zip(&high).position(|ends| !fits(ends)) {
            let (l, h) = (low[i], high[i]);
            return Err(handle
                .broken(format!("its domain is from {l} to {h} in coordinate {i}, expected low < high")));
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
        let (v, g) = (value.as_mut_ptr(), gradient.as_mut_ptr());
        // SAFETY: the object is live and the lengths were checked.
        self.handle.call(|error| unsafe { f(object, n, d, x, v, g, error) })
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.dim;
        let n = check_hvp(d, x, v, hv).map_err(Error::invalid)?;
        let Some(f) = self.factory.hvp else {
            return Err(Error::unsupported("this energy has no Hessian-vector products"));
        };
        let (object, x, v, hv) = (self.handle.object, x.as_ptr(), v.as_ptr(), hv.as_mut_ptr());
        // SAFETY: the object is live and the lengths were checked.
        self.handle.call(|error| unsafe { f(object, n, d, x, v, hv, error) })
    }
}

/// A data set of a plugin.
pub struct PluginDataSet {
    handle: Handle,
    read:
        unsafe extern "C" fn(*const c_void, u32, usize, *const usize, usize, *mut f64, *mut CmfError) -> i32,
    shape: Shape,
    rows: [usize; 2],
    pixel_range: Option<(f64, f64)>,
    licence: Option<String>,
}

impl PluginDataSet {
    /// Opens a data set and asks it what it is.
    pub fn new(factory: &'static CmfDatasetFactory, offer: Offered) -> Result<Self> {
        let handle = Handle::new((factory.create, factory.destroy), offer)?;
        let (info, read) = (there("info", factory.info)?, there("read", factory.read)?);
        let mut i = CmfDatasetInfo {
            rank: 0,
            shape: [0; 3],
            rows: [0; 2],
            pixel_range: [0.0; 2],
            licence: std::ptr::null(),
        };
        // SAFETY: the object is live and the struct ours.
        handle.call(|error| unsafe { info(handle.object, &mut i, error) })?;
        let shape = Shape::from_axes(i.rank, i.shape).map_err(|e| handle.broken(e.text))?;
        if i.rows.iter().any(|n| !(1..=MOST_ROWS).contains(n)) {
            return Err(handle.broken(format!("has {:?} rows, expected 1 to {MOST_ROWS} a split", i.rows)));
        }
        let [low, high] = i.pixel_range;
        let is_image = matches!(shape, Shape::Image { .. });
        let pixel_range = (low < high && low.is_finite() && high.is_finite()).then_some((low, high));
        if is_image != pixel_range.is_some() || (!is_image && [low, high] != [0.0, 0.0]) {
            return Err(handle.broken(format!(
                "its pixel range is from {low} to {high}, expected low < high for images and 0, 0 for vectors"
            )));
        }
        // SAFETY: by the header NULL or text that lives as long as the object.
        let licence =
            (!i.licence.is_null()).then(|| unsafe { text_of("its licence", i.licence) }).transpose();
        let licence = licence.map_err(|e| handle.broken(e.text))?;
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
        self.rows[split as usize]
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        let (d, most) = (self.shape.dim(), self.rows(split));
        Error::check_len("out", out.len(), rows.len() * d)?;
        if let Some(row) = rows.iter().find(|&&row| row >= most) {
            return Err(Error::invalid(format!("row {row} of a split of {most} rows")));
        }
        let (object, n, at, to) = (self.handle.object, rows.len(), rows.as_ptr(), out.as_mut_ptr());
        // SAFETY: the object is live and the lengths were checked.
        self.handle.call(|error| unsafe { (self.read)(object, split as u32, n, at, d, to, error) })?;
        match out.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(self.handle.broken(format!(
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
    source: String,
}

impl PluginTask {
    /// A task, which begins with its run.
    pub fn new(factory: &'static CmfTaskFactory, offer: Offered) -> Result<Self> {
        there("run", factory.run)?;
        let (name, parameters) = (c_text(offer.name)?, c_text(&offer.parameters.to_json())?);
        Ok(PluginTask { factory, name, parameters, source: offer.source.to_string() })
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
                let text = "the task says that it was stopped, but nobody asked it to";
                Err(Error::failed(text).of(&self.source))
            }
            other => other.map_err(|e| e.of(&self.source)),
        }
    }
}
