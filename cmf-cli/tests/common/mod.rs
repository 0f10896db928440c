//! The real binary, run on models and images made for the occasion.
#![allow(dead_code, missing_docs)] // Each test file uses its own part of this.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use cmf_core::Potential;
use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::host::Array;
use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn, initial_weights};
use cmf_core::mixture::Mixture;
use cmf_core::onnx::{Data, LogZ, Metadata, Probe, Shape, export};
use cmf_core::ops::Activation;
use image::{GrayImage, ImageBuffer, Luma, LumaA};
use tempfile::TempDir;

/// A finished command.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    /// Fails the test unless the command succeeded.
    pub fn ok(self) -> Finished {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the command failed, and said each of `words`.
    pub fn fails_with(self, words: &[&str]) -> Finished {
        assert_eq!(self.code, Some(1), "{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The binary, to be given arguments.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cmf-cli"))
}

/// Runs the binary in `folder` with the words of `line`, in which MODEL is the 8x8 model.
pub fn run(folder: &Path, line: &str) -> Finished {
    let words = line.split_whitespace().map(|word| match word {
        "MODEL" => model(8).display().to_string(),
        word => word.to_string(),
    });
    binary().current_dir(folder).args(words).output().unwrap().into()
}

/// Runs the binary with no file allowed to grow beyond `blocks` (of 512 or 1024 bytes, by the shell): writes then fail half-way, as on
/// a full disk, also for root and without a file system of the test's own.
#[cfg(unix)]
pub fn limited(folder: &Path, blocks: u64, line: &str) -> Finished {
    let words = line.split_whitespace().map(|word| match word {
        "MODEL" => model(8).display().to_string(),
        word => word.to_string(),
    });
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    Command::new("sh")
        .current_dir(folder)
        .args(["-c", &script, "sh"])
        .arg(binary().get_program())
        .args(words)
        .output()
        .unwrap()
        .into()
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A model of smooth grey images, `side` pixels wide and high.
pub fn model(side: usize) -> PathBuf {
    static SMALL: OnceLock<PathBuf> = OnceLock::new();
    static LARGE: OnceLock<PathBuf> = OnceLock::new();
    let made = if side == 8 { &SMALL } else { &LARGE };
    made.get_or_init(|| {
        let shape = Shape::Image { height: side, width: side, channels: 1 };
        write_model(
            &format!("images-{side}"),
            shape,
            &smooth_images(side),
            Some([0.0, 1.0]),
            GibbsFactor::Whole,
        )
    })
    .clone()
}

/// A model of correlated points in the plane.
pub fn flat_model() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let gaussian = || Gaussian { mean: vec![1.0, -2.0], covariance: vec![2.0, 0.6, 0.6, 0.5].into() };
    MADE.get_or_init(|| write_model("flat", Shape::Flat { dim: 2 }, &gaussian(), None, GibbsFactor::Whole))
        .clone()
}

/// A model of images of 8x8 with mixtures in the Gibbs factor of its head and in the data's Gaussian.
pub fn mixed_model() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let shape = Shape::Image { height: 8, width: 8, channels: 1 };
    let write = || write_model("mixed", shape, &smooth_images(8), Some([0.0, 1.0]), GibbsFactor::Head);
    MADE.get_or_init(write).clone()
}

/// Grey images of mean 0.5 whose pixels correlate over about two pixels, with noise of SIGMA added.
fn smooth_images(side: usize) -> Gaussian {
    let d = side * side;
    let at = |i: usize| ((i % side) as f64, (i / side) as f64);
    let covariance = (0..d * d).map(|ij| {
        let ((x, y), (p, q)) = (at(ij / d), at(ij % d));
        let distance = (x - p).abs() + (y - q).abs();
        0.04 * (-distance / 2.0).exp() + if ij / d == ij % d { SIGMA * SIGMA } else { 0.0 }
    });
    Gaussian { mean: vec![0.5; d], covariance: covariance.collect::<Vec<_>>().into() }
}

pub const SIGMA: f64 = 0.05;

fn write_model(
    name: &str,
    shape: Shape,
    gaussian: &Gaussian,
    pixel_range: Option<[f64; 2]>,
    gibbs: GibbsFactor,
) -> PathBuf {
    let start = gaussian.quadratic_start().unwrap();
    let architecture = Architecture {
        dim: gaussian.dim(),
        widths: vec![12, 8],
        rank: 1,
        diagonal: false,
        activation: Activation::Softplus { beta: 4.0 },
        head: Head::Full,
        gibbs,
    };
    let mut weights = initial_weights(&architecture, &start, 1).unwrap();
    // Without its hidden units the network is the Gaussian's potential, whose log Z is known.
    weights.output = Array::matrix(vec![0.0; architecture.units()], 1, architecture.units());
    let mut network: Icnn<f32> = Icnn::new(architecture.clone(), weights).unwrap().cast().unwrap();
    // Two Gaussians along one direction of the head, and of the data.
    let mixture = |law: &HeadFactor| {
        let mut numbers = vec![2.0, 1.0];
        numbers
            .extend(law.directions(&vec![1.0; gaussian.dim()]).unwrap().iter().map(|&v| f64::from(v as f32)));
        numbers.extend([0.75, -0.5, 0.5, 0.25, 1.5, 0.75]);
        Arc::new(Mixture::from_numbers(&numbers, gaussian.dim()).unwrap())
    };
    let (mut of_source, mut of_data) = (None, None);
    if let Some(head) = network.gibbs() {
        let precision = gaussian.covariance.inverse("S").unwrap();
        of_data = Some(mixture(&HeadFactor::new(precision, gaussian.mean.clone()).unwrap()));
        of_source = Some(mixture(head));
    }
    if let Some(mixture) = &of_source {
        network = network.with_mixture(mixture.clone()).unwrap();
    }
    let points: Vec<f64> =
        (0..3).flat_map(|k| gaussian.mean.iter().map(move |m| m + 0.1 * k as f64)).collect();
    let metadata = Metadata {
        shape,
        pixel_range,
        sigma: SIGMA,
        // Exact here; an error is stated so that tests can see it printed.
        log_z: Some(LogZ { value: start.log_z, standard_error: 0.25 }),
        gaussian: Some(Arc::new(gaussian.clone())),
        mixture: of_source,
        data_mixture: of_data,
        data: Data { name: "made for tests".into(), ..Data::default() },
        probes: Probe::record(&network.cast::<f64>().unwrap(), &points).unwrap(),
        ..Metadata::new(architecture)
    };
    // Tests share the files across threads and processes; each process writes its own.
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.onnx", std::process::id()));
    export(&path, &network, &metadata).unwrap();
    path
}

/// An image with all values from 40 to 200.
pub fn gradient(side: u32) -> GrayImage {
    GrayImage::from_fn(side, side, |x, y| Luma([(40 + (x + y) * 160 / (2 * side)) as u8]))
}

/// A grey image whose lower half is transparent.
pub fn half_hidden(side: u32) -> ImageBuffer<LumaA<u8>, Vec<u8>> {
    ImageBuffer::from_fn(side, side, |x, y| {
        LumaA([gradient(side).get_pixel(x, y).0[0], if 2 * y < side { 255 } else { 0 }])
    })
}

/// A mask that is white below the middle.
pub fn lower_half(side: u32) -> GrayImage {
    GrayImage::from_fn(side, side, |_, y| Luma([if 2 * y < side { 0 } else { 255 }]))
}
