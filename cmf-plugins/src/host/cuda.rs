//! NVIDIA's driver: whether it is there and what it offers, asked without a CUDA toolkit.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::{Path, PathBuf};

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
/// Where the CUDA toolkit's installer puts it on Windows.
const WINDOWS: &str = "C:/Program Files/NVIDIA GPU Computing Toolkit/CUDA";

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

/// Looks for what training on a GPU compiles its kernels with: NVIDIA's run-time compiler and the headers of the CUDA
/// toolkit, where Burn looks for them; or says what is missing.
pub fn compiler() -> Result<(), String> {
    let names: &[&str] = match std::env::consts::OS {
        "windows" => &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64_112_0.dll"],
        _ => &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11"],
    };
    let install = "install the CUDA toolkit from developer.nvidia.com/cuda-downloads";
    // SAFETY: the system's loader finds NVIDIA's own library by the names that NVIDIA gives it.
    let found = |name: &&str| unsafe { libloading::Library::new(*name) }.is_ok();
    if !names.iter().any(found) {
        return Err(format!(
            "NVIDIA's run-time compiler is not among the system's libraries ({}): {install}",
            names.join(", ")
        ));
    }
    // The signs of a toolkit and its folders, in Burn's order.
    let signs: &[(&str, &str)] = match std::env::consts::OS {
        "windows" => &[(WINDOWS, WINDOWS)],
        _ => &[("/usr/local/cuda", "/usr/local/cuda"), ("/opt/cuda", "/opt/cuda"), ("/usr/bin/nvcc", "/usr")],
    };
    let folder = std::env::var_os("CUDA_PATH")
        .map(PathBuf::from)
        .or_else(|| signs.iter().find(|(sign, _)| Path::new(sign).exists()).map(|(_, folder)| folder.into()));
    match folder {
        Some(folder) if folder.join("include/cuda_runtime.h").is_file() => Ok(()),
        Some(folder) => Err(format!(
            "{} lacks include/cuda_runtime.h: {install}, or name its folder in CUDA_PATH",
            folder.display()
        )),
        None => {
            let looked: Vec<&str> = signs.iter().map(|(sign, _)| *sign).collect();
            Err(format!(
                "no CUDA toolkit was found: CUDA_PATH is not set and there is no {}: {install}",
                looked.join(" or ")
            ))
        }
    }
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
