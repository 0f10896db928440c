//! NVIDIA's driver: whether it is there and what it offers, asked without a CUDA toolkit.

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::library::reason;

/// A driver that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The CUDA version that it supports, such as 12.4.
    pub cuda: String,
    /// The GPUs' names, by number.
    pub devices: Vec<String>,
}

/// Most GPUs that are asked for their names.
const MOST_DEVICES: c_int = 64;

/// Loads the driver's library and asks it, or says why there is no GPU to use.
pub fn driver() -> Result<Driver, String> {
    let name = match std::env::consts::OS {
        "windows" => "nvcuda.dll",
        "macos" => return Err("NVIDIA has no driver for this system".into()),
        _ => "libcuda.so.1",
    };
    // SAFETY: the system's loader finds the driver's own library by the name that NVIDIA gives it.
    let library = unsafe { libloading::Library::new(name) }.map_err(|e| {
        format!("NVIDIA's driver is not installed ({}): install it from nvidia.com/drivers", reason(&e))
    })?;
    ask(&library)
}

fn ask(library: &libloading::Library) -> Result<Driver, String> {
    let missing =
        |e: libloading::Error| format!("NVIDIA's driver lacks a function ({}): install it again", reason(&e));
    let worked = |what: &str, code: c_int| match code {
        0 => Ok(()),
        100 => Err(format!("{what}: NVIDIA's driver finds no GPU")),
        code => Err(format!("{what} fails with CUDA error {code}; `nvidia-smi` may say more")),
    };
    // SAFETY: by cuda.h these functions have these types, and get the pointers that they ask for.
    unsafe {
        let init = library.get::<unsafe extern "system" fn(c_uint) -> c_int>("cuInit").map_err(missing)?;
        worked("cuInit", init(0))?;
        let number = |name: &str| -> Result<c_int, String> {
            let get = library.get::<unsafe extern "system" fn(*mut c_int) -> c_int>(name).map_err(missing)?;
            let mut number = 0;
            worked(name, get(&mut number))?;
            Ok(number)
        };
        let version = number("cuDriverGetVersion")?;
        let count = number("cuDeviceGetCount")?.clamp(0, MOST_DEVICES);
        let name_of = library
            .get::<unsafe extern "system" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")
            .map_err(missing)?;
        let mut devices = Vec::new();
        for device in 0..count {
            let mut name = [0 as c_char; 256];
            // One byte less, so that the text ends in NUL whatever the driver does.
            worked("cuDeviceGetName", name_of(name.as_mut_ptr(), 255, device))?;
            devices.push(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned());
        }
        Ok(Driver { cuda: format!("{}.{}", version / 1000, version % 1000 / 10), devices })
    }
}
