//! The exported side: tables built from a crate's registry, and the functions behind them.

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use crate::abi::{self, *};
use crate::error::{Error, Result};
use crate::guard::{Arrays, enter, object, place, text_of};
use crate::schema::Schema;
use crate::table_host::TableHost;
use crate::traits::{DataSet, Energy, Entry, Split, Task};

/// What a plugin offers.
#[derive(Clone, Copy)]
pub struct Registry {
    energies: &'static [Entry<dyn Energy>],
    datasets: &'static [Entry<dyn DataSet>],
    tasks: &'static [Entry<dyn Task>],
}

impl Registry {
    /// Of a plugin that offers nothing yet.
    #[allow(clippy::new_without_default)] // Used in statics, where `default` cannot be called.
    pub const fn new() -> Registry {
        Registry { energies: &[], datasets: &[], tasks: &[] }
    }

    /// With energies.
    pub const fn energies(self, energies: &'static [Entry<dyn Energy>]) -> Registry {
        Registry { energies, ..self }
    }

    /// With data sets.
    pub const fn datasets(self, datasets: &'static [Entry<dyn DataSet>]) -> Registry {
        Registry { datasets, ..self }
    }

    /// With tasks.
    pub const fn tasks(self, tasks: &'static [Entry<dyn Task>]) -> Registry {
        Registry { tasks, ..self }
    }
}

/// Leads from the exported functions to the registry of the crate that exports them.
pub trait Exports: 'static {
    /// The registry.
    fn registry() -> &'static Registry;
    /// Where its tables are kept.
    fn tables() -> &'static OnceLock<Tables>;
}

/// Makes a plugin of the crate: `export! { energies: [...], datasets: [...], tasks: [...] }`, each an array of
/// [`Entry`], each optional.
#[macro_export]
macro_rules! export {
    ($($kind:ident: $entries:expr),+ $(,)?) => {
        /// What this crate offers to CMF.
        struct CmfExports;

        impl $crate::Exports for CmfExports {
            fn registry() -> &'static $crate::Registry {
                static REGISTRY: $crate::Registry = $crate::Registry::new()$(.$kind(&$entries))+;
                &REGISTRY
            }

            fn tables() -> &'static ::std::sync::OnceLock<$crate::Tables> {
                static TABLES: ::std::sync::OnceLock<$crate::Tables> = ::std::sync::OnceLock::new();
                &TABLES
            }
        }

        /// The symbol that CMF looks for.
        #[allow(non_upper_case_globals, unsafe_code)]
        // SAFETY: no other symbol of a plugin has this name.
        #[unsafe(no_mangle)]
        pub static cmf_plugin_entry: $crate::abi::CmfPlugin = $crate::abi::CmfPlugin {
            abi_major: $crate::abi::MAJOR,
            abi_minor: $crate::abi::MINOR,
            name: concat!(env!("CARGO_PKG_NAME"), "\0").as_ptr().cast(),
            version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
            get_factory: Some($crate::abi::get_factory::<CmfExports>),
        };
    };
}

/// The factories, built when first asked for and kept for good.
pub struct Tables {
    energy: CmfEnergyFactory,
    dataset: CmfDatasetFactory,
    task: CmfTaskFactory,
}

impl Tables {
    fn new<E: Exports>() -> Tables {
        let registry = E::registry();
        Tables {
            energy: CmfEnergyFactory {
                count: registry.energies.len(),
                entries: entries(registry.energies),
                create: Some(create_energy::<E>),
                destroy: Some(destroy_energy),
                dim: Some(energy_dim),
                domain: Some(energy_domain),
                value_and_gradient: Some(energy_value_and_gradient),
                hvp: Some(energy_hvp),
            },
            dataset: CmfDatasetFactory {
                count: registry.datasets.len(),
                entries: entries(registry.datasets),
                create: Some(create_dataset::<E>),
                destroy: Some(destroy_dataset),
                info: Some(dataset_info),
                read: Some(dataset_read),
            },
            task: CmfTaskFactory {
                count: registry.tasks.len(),
                entries: entries(registry.tasks),
                run: Some(run_task::<E>),
            },
        }
    }
}

/// The entries as C has them; leaked, since tables live as long as the process.
fn entries<T: ?Sized>(of: &[Entry<T>]) -> *const CmfEntry {
    // A NUL inside a constant of the author's cuts nothing that a test of his would not show.
    let text = |s: &str| CString::new(s.replace('\0', "")).unwrap_or_default().into_raw().cast_const();
    let all: Vec<CmfEntry> = of
        .iter()
        .map(|e| CmfEntry { name: text(e.name), about: text(e.about), parameters: text(e.parameters) })
        .collect();
    all.leak().as_ptr()
}

/// `cmf_plugin.get_factory`.
///
/// # Safety
/// `id` is NULL or text that ends in NUL.
pub unsafe extern "C" fn get_factory<E: Exports>(id: *const c_char) -> *const c_void {
    let mut found = std::ptr::null();
    enter(None, || {
        let registry = E::registry();
        // SAFETY: the caller's promise.
        let id = unsafe { text_of("id", id) }?;
        let tables = E::tables().get_or_init(Tables::new::<E>);
        found = match id.as_str() {
            abi::ENERGY if !registry.energies.is_empty() => (&raw const tables.energy).cast(),
            abi::DATASET if !registry.datasets.is_empty() => (&raw const tables.dataset).cast(),
            abi::TASK if !registry.tasks.is_empty() => (&raw const tables.task).cast(),
            _ => std::ptr::null(),
        };
        Ok(())
    });
    found
}

/// Makes what `name` and `parameters` say.
///
/// # Safety
/// Both are NULL or text that ends in NUL.
unsafe fn make<T: ?Sized>(
    what: &str,
    entries: &[Entry<T>],
    name: *const c_char,
    parameters: *const c_char,
) -> Result<Box<T>> {
    // SAFETY: the caller's promise.
    let (name, parameters) = unsafe { (text_of("name", name)?, text_of("parameters", parameters)?) };
    let Some(entry) = entries.iter().find(|e| e.name == name) else {
        let known: Vec<&str> = entries.iter().map(|e| e.name).collect();
        return Err(Error::invalid(format!(
            "there is no {what} {name}; expected one of: {}",
            known.join(", ")
        )));
    };
    (entry.create)(&Schema::parse(entry.parameters)?.complete(&parameters)?)
}

/// An energy behind its pointer, with the dimension that every call is checked against.
struct EnergyObject {
    energy: Box<dyn Energy>,
    dim: usize,
}

/// The energy of a call, once the row length fits.
///
/// # Safety
/// `energy` is NULL or came from `create` and was not destroyed.
unsafe fn energy_of<'a>(energy: *const Object, d: usize) -> Result<&'a dyn Energy> {
    // SAFETY: the caller's promise.
    let object = unsafe { object("energy", energy.cast::<EnergyObject>()) }?;
    if d != object.dim {
        return Err(Error::invalid(format!("d: expected {}, the dimension, found {d}", object.dim)));
    }
    Ok(object.energy.as_ref())
}

/// Hands a new object over to the caller.
///
/// # Safety
/// `to` is NULL or the caller's pointer to be written.
unsafe fn hand_over<T>(to: *mut *mut Object, object: T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { place("the place for the object", to) }?.write(Box::into_raw(Box::new(object)).cast());
    Ok(())
}

unsafe extern "C" fn create_energy<E: Exports>(
    name: *const c_char,
    parameters: *const c_char,
    to: *mut *mut Object,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let energy = make("energy", E::registry().energies, name, parameters)?;
        let dim = energy.dim();
        if dim == 0 {
            return Err(Error::failed("the energy's dimension is 0, expected at least 1"));
        }
        hand_over(to, EnergyObject { energy, dim })
    })
}

unsafe extern "C" fn destroy_energy(energy: *mut Object) {
    enter(None, || {
        if !energy.is_null() {
            // SAFETY: by the header it came from create, and this is its last use.
            drop(unsafe { Box::from_raw(energy.cast::<EnergyObject>()) });
        }
        Ok(())
    });
}

unsafe extern "C" fn energy_dim(energy: *const Object) -> usize {
    // SAFETY: by the header NULL (against the rules) or a live energy.
    unsafe { energy.cast::<EnergyObject>().as_ref() }.map_or(0, |e| e.dim)
}

unsafe extern "C" fn energy_domain(
    energy: *const Object,
    d: usize,
    low: *mut f64,
    high: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (from, to) = energy_of(energy, d)?.domain();
        for (what, values) in [("low end of the domain", &from), ("high end of the domain", &to)] {
            Error::check_len(what, values.len(), d)?;
        }
        let mut arrays = Arrays::default();
        arrays.write("low", low, Some(d))?.copy_from_slice(&from);
        arrays.write("high", high, Some(d))?.copy_from_slice(&to);
        Ok(())
    })
}

unsafe extern "C" fn energy_value_and_gradient(
    energy: *const Object,
    n: usize,
    d: usize,
    x: *const f64,
    value: *mut f64,
    gradient: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (energy, len, mut arrays) = (energy_of(energy, d)?, n.checked_mul(d), Arrays::default());
        let (x, value) = (arrays.read("x", x, len)?, arrays.write("value", value, Some(n))?);
        energy.value_and_gradient(x, value, arrays.write("gradient", gradient, len)?)
    })
}

unsafe extern "C" fn energy_hvp(
    energy: *const Object,
    n: usize,
    d: usize,
    x: *const f64,
    v: *const f64,
    hv: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let (energy, len, mut arrays) = (energy_of(energy, d)?, n.checked_mul(d), Arrays::default());
        let (x, v) = (arrays.read("x", x, len)?, arrays.read("v", v, len)?);
        energy.hvp(x, v, arrays.write("hv", hv, len)?)
    })
}

/// A data set behind its pointer, with its licence as C has it.
struct DatasetObject {
    data: Box<dyn DataSet>,
    licence: Option<CString>,
}

unsafe extern "C" fn create_dataset<E: Exports>(
    name: *const c_char,
    parameters: *const c_char,
    to: *mut *mut Object,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let data = make("data set", E::registry().datasets, name, parameters)?;
        let licence = data.licence().map(|s| CString::new(s.replace('\0', "")).unwrap_or_default());
        hand_over(to, DatasetObject { data, licence })
    })
}

unsafe extern "C" fn destroy_dataset(dataset: *mut Object) {
    enter(None, || {
        if !dataset.is_null() {
            // SAFETY: by the header it came from create, and this is its last use.
            drop(unsafe { Box::from_raw(dataset.cast::<DatasetObject>()) });
        }
        Ok(())
    });
}

unsafe extern "C" fn dataset_info(
    dataset: *const Object,
    info: *mut CmfDatasetInfo,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: by the header NULL (against the rules) or the caller's cmf_error.
    enter(unsafe { error.as_mut() }, || {
        // SAFETY: by the header NULL (against the rules) or a live data set.
        let object = unsafe { object("dataset", dataset.cast::<DatasetObject>()) }?;
        // SAFETY: by the header NULL (against the rules) or the caller's struct.
        let info = unsafe { place("info", info) }?;
        let (rank, shape) = object.data.shape().axes();
        info.write(CmfDatasetInfo {
            rank,
            shape,
            rows: [object.data.rows(Split::Train), object.data.rows(Split::HeldOut)],
            pixel_range: object.data.pixel_range().map_or([0.0, 0.0], |(low, high)| [low, high]),
            licence: object.licence.as_ref().map_or(std::ptr::null(), |s| s.as_ptr()),
        });
        Ok(())
    })
}

unsafe extern "C" fn dataset_read(
    dataset: *const Object,
    split: u32,
    n: usize,
    rows: *const usize,
    d: usize,
    out: *mut f64,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let data = object("dataset", dataset.cast::<DatasetObject>())?.data.as_ref();
        let dim = data.shape().dim();
        if d != dim {
            return Err(Error::invalid(format!("d: expected {dim}, found {d}")));
        }
        let (split, mut arrays) = (Split::from_code(split)?, Arrays::default());
        let rows = arrays.read("rows", rows, Some(n))?;
        let most = data.rows(split);
        if let Some(row) = rows.iter().find(|&&row| row >= most) {
            return Err(Error::invalid(format!("row {row} of a split of {most} rows")));
        }
        data.read(split, rows, arrays.write("out", out, n.checked_mul(d))?)
    })
}

unsafe extern "C" fn run_task<E: Exports>(
    name: *const c_char,
    parameters: *const c_char,
    host: *const CmfHost,
    error: *mut CmfError,
) -> i32 {
    // SAFETY: the header's promises about the arguments are those that are passed on.
    enter(unsafe { error.as_mut() }, || unsafe {
        let task = make("task", E::registry().tasks, name, parameters)?;
        task.run(&TableHost::new(object("host", host)?))
    })
}
