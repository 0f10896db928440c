//! The same answers from tract and from ONNX Runtime. These tests need its library: `ORT_DYLIB_PATH`, one of the
//! system, or that of an installed Python package; `cargo test -- --ignored with_onnxruntime` runs them.

use std::path::{Path, PathBuf};

use crate::common::{folder, gradient, run};

/// Arguments that choose ONNX Runtime: the library that is found, or else that of Python.
fn ort() -> &'static str {
    let found = run(Path::new("."), "doctor --json").json()["onnxruntime"]["found"] == true;
    if found { "--engine ort" } else { "--engine ort --ort-lib python" }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn verify_finds_every_difference_within_its_tolerance() {
    for name in ["mnist", "eight-gaussians", "faces"] {
        let line = format!("verify models/{name}.onnx --device cpu --json {}", ort());
        let json = run(&root(), &line).ok().json();
        assert_eq!(json["engines"][1]["engine"], "ort", "{json}");
    }
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn every_command_says_that_it_computed() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    for line in [
        "score --model MODEL img.png",
        "sample --model MODEL -n 2 --steps 8 --out s.npy",
        "inpaint --model MODEL img.png --mask-rect 0,4,8,4",
    ] {
        let done = run(folder.path(), &format!("{line} --json {}", ort())).ok();
        let json = done.json();
        assert_eq!((&json["engine"], &json["device"]), (&"ort".into(), &"cpu".into()), "{line}");
        assert_eq!(done.stderr.matches("device: cpu (").count(), 1, "{}", done.stderr);
    }
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn a_seed_gives_the_same_bits() {
    let folder = folder();
    for name in ["a.npy", "b.npy"] {
        run(folder.path(), &format!("sample --model MODEL -n 5 --steps 40 --out {name} {}", ort())).ok();
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a.npy"), read("b.npy"));
}

#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn digits_inpainted_by_both_engines_differ_by_one_grey_level_at_most() {
    let folder = folder();
    let digit = image::open(root().join("examples/digit.png")).unwrap().to_luma8();
    digit.save(folder.path().join("digit.png")).unwrap();
    let model = root().join("models/mnist.onnx").display().to_string();
    let fill = |rectangle: &str, name: &str, engine: &str| {
        let line =
            format!("inpaint --model {model} digit.png --mask-rect {rectangle} -o {name}.png {engine}");
        run(folder.path(), &line).ok();
        image::open(folder.path().join(format!("{name}.png"))).unwrap().to_luma8()
    };
    for rectangle in ["0,14,28,14", "0,0,14,28", "8,8,12,12"] {
        let (a, b) = (fill(rectangle, "tract", "--engine tract"), fill(rectangle, "ort", ort()));
        let worst = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{rectangle}: a pixel differs by {worst:?} grey levels");
    }
}

/// A GPU that a library cannot use is an error, whatever the machine has.
#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn a_gpu_that_is_not_there_is_an_error_that_says_why() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    // No machine has a GPU of this number.
    run(folder.path(), &format!("score --model MODEL img.png --device cuda:99 {}", ort()))
        .fails_with(&["--device cuda:99 cannot be used: "]);
}

/// A library whose code was lost while it was copied: its headers and symbols are whole, and whoever runs it dies.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs a libonnxruntime: set ORT_DYLIB_PATH"]
fn a_library_that_kills_is_named_and_doctor_survives_it() {
    let line = format!("doctor --json {}", ort().replace("--engine ort", ""));
    let found = run(Path::new("."), &line).json()["onnxruntime"]["path"].as_str().unwrap().to_string();
    let mut bytes = std::fs::read(found).unwrap();
    let (from, to) = (bytes.len() / 10, bytes.len() * 9 / 10);
    bytes[from..to].fill(0);
    let folder = folder();
    std::fs::write(folder.path().join("libonnxruntime.so"), bytes).unwrap();
    let done = run(folder.path(), "doctor --ort-lib libonnxruntime.so --json");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let json = done.json();
    assert_eq!(json["healthy"], false);
    assert!(json["onnxruntime"]["error"].as_str().unwrap().contains("damaged"), "{json}");
    // Other commands die of it, and say of what.
    gradient(8).save(folder.path().join("img.png")).unwrap();
    let done = run(folder.path(), "score --model MODEL img.png --engine ort --ort-lib libonnxruntime.so");
    assert_eq!((done.code, &done.stdout[..]), (None, ""), "{}", done.stderr);
    assert!(done.stderr.contains("libonnxruntime.so. If it is damaged"), "{}", done.stderr);
}
