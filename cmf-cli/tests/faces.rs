//! The shipped model of colour pictures through the binary: scored, sampled, and a face completed.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use cmf_core::Potential;
use cmf_core::host::Array;
use cmf_core::icnn::Icnn;
use cmf_core::onnx::{Metadata, ModelFile, Probe, export};
use cmf_plugins::data::{self, Split};
use common::{folder, run};
use image::RgbImage;

/// The first held-out face that is drawn, as a picture.
fn face() -> RgbImage {
    let faces = data::open("synthetic-faces", None, 0).unwrap();
    let mut row = vec![0.0; 32 * 32 * 3];
    faces.data.read(Split::HeldOut, &[0], &mut row).unwrap();
    RgbImage::from_raw(32, 32, row.iter().map(|v| (v * 255.0).round() as u8).collect()).unwrap()
}

#[test]
fn faces_are_scored_sampled_and_completed() {
    let folder = folder();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faces.onnx");
    let model = model.display();
    face().save(folder.path().join("face.png")).unwrap();

    let score = format!("score --model {model} --data synthetic-faces --rows 2 --add-noise --seed 1 --json");
    let scored = run(folder.path(), &score).ok().json();
    assert_eq!(scored["method"], "exact");
    assert_eq!(scored["rows"].as_array().unwrap().len(), 2, "{scored}");
    assert!(scored["rows"][0].get("standard_error").is_none(), "{scored}");

    run(folder.path(), &format!("sample --model {model} -n 2 -o two.png")).ok();

    // The eyes.
    let (x, y, width, height) = (10, 12, 12, 5);
    let line =
        format!("inpaint --model {model} face.png --mask-rect {x},{y},{width},{height} -o out.png --json");
    let done = run(folder.path(), &line).ok().json();
    assert_eq!(done["done"][0]["hidden_pixels"], width * height, "{done}");
    let (before, after) = (face(), image::open(folder.path().join("out.png")).unwrap().into_rgb8());
    let (mut model_error, mut grey_error) = (0.0, 0.0);
    for (i, j, pixel) in after.enumerate_pixels() {
        let truth = before.get_pixel(i, j);
        if (x..x + width).contains(&i) && (y..y + height).contains(&j) {
            let off = |a: u8, b: u8| (f64::from(a) - f64::from(b)).powi(2);
            model_error += pixel.0.iter().zip(truth.0).map(|(&a, b)| off(a, b)).sum::<f64>();
            grey_error += truth.0.iter().map(|&b| off(128, b)).sum::<f64>();
        } else {
            assert_eq!(pixel, truth, "a known pixel, {i},{j}");
        }
    }
    // The completion knows the face's colours at least.
    assert!(model_error < 0.5 * grey_error, "{model_error} against {grey_error} of grey");
}

/// 3072 dimensions are exact for a network that bends along few directions; where one form leaves them, densities are
/// estimated, and say so.
#[test]
fn a_network_that_bends_elsewhere_is_estimated() {
    let folder = folder();
    let file = ModelFile::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faces.onnx")).unwrap();
    let network = file.network().unwrap();
    let (arch, mut weights) = (network.architecture().clone(), network.weights().clone());
    let mut rows = weights.x_side.to_vec();
    rows[0] += 0.1;
    weights.x_side = Array::matrix(rows, arch.x_side_rows(), arch.dim);
    let mixture = network.gibbs().unwrap().mixture().unwrap().clone();
    let edited = Icnn::new(arch, weights).unwrap().with_mixture(mixture).unwrap();
    let probes = Probe::record(&edited.cast::<f64>().unwrap(), &vec![0.5; file.dim()]).unwrap();
    let path = folder.path().join("edited.onnx");
    export(&path, &edited, &Metadata { probes, ..file.metadata().unwrap().clone() }).unwrap();

    let line = "score --model edited.onnx --data synthetic-faces --rows 1 --add-noise --json";
    let scored = run(folder.path(), line).ok().json();
    assert_eq!(scored["method"], "estimated");
    assert!(scored["rows"][0]["standard_error"].as_f64().unwrap() > 0.0, "{scored}");
}
