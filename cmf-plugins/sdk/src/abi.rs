//! The Rust twins of `cmf_plugin.h`, which documents every field; a test compares the layouts.
#![allow(missing_docs)]

use std::ffi::{c_char, c_void};

pub const MAJOR: u32 = 1;
pub const MINOR: u32 = 0;

pub const OK: i32 = 0;
pub const FAILED: i32 = 1;
pub const INVALID: i32 = 2;
pub const UNSUPPORTED: i32 = 3;
pub const CANCELLED: i32 = 4;
pub const PANIC: i32 = 5;

/// The splits of a data set.
pub const TRAIN: u32 = 0;
pub const HELD_OUT: u32 = 1;

/// How the rows of a conjugate end.
pub const CONVERGED: i32 = 0;
pub const OUT_OF_STEPS: i32 = 1;
pub const STALLED: i32 = 2;
pub const NON_FINITE: i32 = 3;

/// How log-densities end.
pub const EVALUATED: i32 = 0;
pub const NOT_POSITIVE_DEFINITE: i32 = 1;
pub const NOT_FINITE: i32 = 2;
pub const UNCONVERGED: i32 = 3;

/// The levels of the log.
pub const INFO: u32 = 0;
pub const WARNING: u32 = 1;

pub const ENERGY: &str = "cmf.energy/1";
pub const DATASET: &str = "cmf.dataset/1";
pub const TASK: &str = "cmf.task/1";

/// The one exported symbol.
pub const SYMBOL: &str = "cmf_plugin_entry";
/// `CMF_NO_INPUT`.
pub const NO_INPUT: usize = usize::MAX;
/// Bytes of [`CmfError::text`].
pub const ERROR_BYTES: usize = 1024;

#[repr(C)]
pub struct CmfError {
    pub text: [c_char; ERROR_BYTES],
}

#[repr(C)]
pub struct CmfEntry {
    pub name: *const c_char,
    pub about: *const c_char,
    pub parameters: *const c_char,
}

/// An object of the plugin, `cmf_energy` or `cmf_dataset`.
pub type Object = c_void;
/// `create` of energies and data sets.
pub type Create = unsafe extern "C" fn(*const c_char, *const c_char, *mut *mut Object, *mut CmfError) -> i32;
/// `destroy` of energies and data sets.
pub type Destroy = unsafe extern "C" fn(*mut Object);
/// `hvp` of energies and of the host; the first argument is the energy or the context.
pub type Hvp =
    unsafe extern "C" fn(*const c_void, usize, usize, *const f64, *const f64, *mut f64, *mut CmfError) -> i32;
/// `value_and_gradient` of energies and of the host.
pub type ValueAndGradient =
    unsafe extern "C" fn(*const c_void, usize, usize, *const f64, *mut f64, *mut f64, *mut CmfError) -> i32;

// Function pointers of tables that others fill are options: a table may hold NULL where it must not, and
// that has to be seen before it is called.

#[repr(C)]
pub struct CmfEnergyFactory {
    pub count: usize,
    pub entries: *const CmfEntry,
    pub create: Option<Create>,
    pub destroy: Option<Destroy>,
    pub dim: Option<unsafe extern "C" fn(*const Object) -> usize>,
    pub domain: Option<unsafe extern "C" fn(*const Object, usize, *mut f64, *mut f64, *mut CmfError) -> i32>,
    pub value_and_gradient: Option<ValueAndGradient>,
    pub hvp: Option<Hvp>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmfDatasetInfo {
    pub rank: usize,
    pub shape: [usize; 3],
    pub rows: [usize; 2],
    pub pixel_range: [f64; 2],
    pub licence: *const c_char,
}

#[repr(C)]
pub struct CmfDatasetFactory {
    pub count: usize,
    pub entries: *const CmfEntry,
    pub create: Option<Create>,
    pub destroy: Option<Destroy>,
    pub info: Option<unsafe extern "C" fn(*const Object, *mut CmfDatasetInfo, *mut CmfError) -> i32>,
    pub read: Option<
        unsafe extern "C" fn(*const Object, u32, usize, *const usize, usize, *mut f64, *mut CmfError) -> i32,
    >,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmfModelInfo {
    pub dim: usize,
    pub rank: usize,
    pub shape: [usize; 3],
    pub pixel_range: [f64; 2],
    pub sigma: f64,
    pub log_z: f64,
    pub log_z_error: f64,
    pub has_log_z: u32,
    pub has_hessian: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmfGibbsReport {
    pub acceptance: f64,
    pub step_size: f64,
    pub r_hat: f64,
    pub effective_sample_size: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmfInputInfo {
    pub name: *const c_char,
    pub rank: usize,
    pub shape: [usize; 3],
    pub has_alpha: u32,
    pub unused: u32,
}

/// The numbers a call writes: `uniform` and `normal`.
pub type Draw = unsafe extern "C" fn(*mut c_void, usize, *mut f64, *mut CmfError) -> i32;

/// A vector [d] and a matrix [d, d] of a law: `gaussian` and `head_factor`.
pub type Moments = unsafe extern "C" fn(*mut c_void, usize, *mut f64, *mut f64, *mut CmfError) -> i32;

#[repr(C)]
pub struct CmfHost {
    pub context: *mut c_void,
    pub model: Option<unsafe extern "C" fn(*mut c_void, *mut CmfModelInfo, *mut CmfError) -> i32>,
    pub value_and_gradient: Option<ValueAndGradient>,
    pub hvp: Option<Hvp>,
    pub hessian:
        Option<unsafe extern "C" fn(*const c_void, usize, usize, *const f64, *mut f64, *mut CmfError) -> i32>,
    pub contraction: Option<Hvp>,
    pub conjugate: Option<
        unsafe extern "C" fn(
            *mut c_void,
            usize,
            usize,
            *const f64,
            *mut f64,
            *mut i32,
            *mut f64,
            *mut CmfError,
        ) -> i32,
    >,
    pub gibbs: Option<
        unsafe extern "C" fn(
            *mut c_void,
            usize,
            usize,
            usize,
            *mut f64,
            *mut CmfGibbsReport,
            *mut CmfError,
        ) -> i32,
    >,
    pub log_density: Option<
        unsafe extern "C" fn(
            *mut c_void,
            usize,
            usize,
            *const f64,
            *mut f64,
            *mut f64,
            *mut i32,
            *mut f64,
            *mut CmfError,
        ) -> i32,
    >,
    pub gaussian: Option<Moments>,
    pub uniform: Option<Draw>,
    pub normal: Option<Draw>,
    pub seed: Option<unsafe extern "C" fn(*mut c_void) -> u64>,
    pub input_count: Option<unsafe extern "C" fn(*mut c_void) -> usize>,
    pub input_info: Option<unsafe extern "C" fn(*mut c_void, usize, *mut CmfInputInfo, *mut CmfError) -> i32>,
    pub input_read:
        Option<unsafe extern "C" fn(*mut c_void, usize, usize, *mut f64, *mut f64, *mut CmfError) -> i32>,
    pub write_image: Option<
        unsafe extern "C" fn(
            *mut c_void,
            usize,
            *const c_char,
            *const usize,
            *const f64,
            *mut CmfError,
        ) -> i32,
    >,
    pub write_table: Option<
        unsafe extern "C" fn(
            *mut c_void,
            usize,
            *const c_char,
            usize,
            usize,
            *const f64,
            *mut CmfError,
        ) -> i32,
    >,
    pub result: Option<unsafe extern "C" fn(*mut c_void, *const c_char, *mut CmfError) -> i32>,
    pub progress: Option<unsafe extern "C" fn(*mut c_void, f64)>,
    pub log: Option<unsafe extern "C" fn(*mut c_void, u32, *const c_char)>,
    pub cancelled: Option<unsafe extern "C" fn(*mut c_void) -> i32>,
    pub head_factor: Option<Moments>,
    pub mixture:
        Option<unsafe extern "C" fn(*mut c_void, u32, usize, *mut f64, *mut usize, *mut CmfError) -> i32>,
}

#[repr(C)]
pub struct CmfTaskFactory {
    pub count: usize,
    pub entries: *const CmfEntry,
    pub run: Option<unsafe extern "C" fn(*const c_char, *const c_char, *const CmfHost, *mut CmfError) -> i32>,
}

#[repr(C)]
pub struct CmfPlugin {
    pub abi_major: u32,
    pub abi_minor: u32,
    pub name: *const c_char,
    pub version: *const c_char,
    pub get_factory: Option<unsafe extern "C" fn(*const c_char) -> *const c_void>,
}

// SAFETY: a table and what its pointers lead to are constant once it is built; that is the header's promise.
unsafe impl Sync for CmfPlugin {}
// SAFETY: as above.
unsafe impl Sync for CmfEnergyFactory {}
// SAFETY: as above.
unsafe impl Sync for CmfDatasetFactory {}
// SAFETY: as above.
unsafe impl Sync for CmfTaskFactory {}
// SAFETY: as above.
unsafe impl Send for CmfEnergyFactory {}
// SAFETY: as above.
unsafe impl Send for CmfDatasetFactory {}
// SAFETY: as above.
unsafe impl Send for CmfTaskFactory {}

pub use crate::export::get_factory;
