//! `cmf-cli sample`, `score`, `info` and `verify` on small models.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use cmf_core::icnn::{Icnn, Weights};
use cmf_core::onnx::{ModelFile, export};
use common::{SIGMA, binary, flat_model, folder, gradient, model, names, run};
use npyz::NpyFile;

fn read_npy(path: &Path) -> (Vec<u64>, Vec<f64>) {
    let file = NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn samples_come_as_a_grid_as_numbers_and_one_by_one() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let done = run(
        folder.path(),
        "sample --model MODEL -n 5 --steps 20 -o a.png -o a.npy -o a.csv --separate each --columns 3 --json",
    )
    .ok();
    let grid = image::open(path("a.png")).unwrap();
    // 3 x 2 images of 8 pixels with gaps of 2 around.
    assert_eq!((grid.width(), grid.height()), (32, 22));
    let (shape, numbers) = read_npy(&path("a.npy"));
    assert_eq!(shape, [5, 64]);
    let csv = std::fs::read_to_string(path("a.csv")).unwrap();
    let from_csv: Vec<f64> =
        csv.lines().flat_map(|l| l.split(',').map(|v| v.parse::<f64>().unwrap())).collect();
    assert_eq!(from_csv, numbers);
    assert_eq!(
        names(&path("each")),
        ["sample-1.png", "sample-2.png", "sample-3.png", "sample-4.png", "sample-5.png"]
    );
    let first = image::open(path("each/sample-1.png")).unwrap().into_luma8();
    for (pixel, number) in first.pixels().zip(&numbers) {
        assert_eq!(f64::from(pixel.0[0]), (number * 255.0).round().clamp(0.0, 255.0));
    }
    let json = done.json();
    assert_eq!((json["written"].as_u64(), json["unconverged"].as_u64()), (Some(5), Some(0)), "{json}");
    assert_eq!(json["noise"], "removed");
}

#[test]
fn samples_of_the_plane_have_the_moments_of_their_model() {
    let folder = folder();
    let model = flat_model().display().to_string();
    run(folder.path(), &format!("sample --model {model} -n 4000 --seed 3 -o a.npy -o a.png")).ok();
    let (_, y) = read_npy(&folder.path().join("a.npy"));
    let mean = |f: &dyn Fn(&[f64]) -> f64| y.chunks_exact(2).map(f).sum::<f64>() / 4000.0;
    let (mx, my) = (mean(&|p| p[0]), mean(&|p| p[1]));
    // The model is its Gaussian; standard errors over 4000 draws are 0.022 and 0.011 for the means and 2.2
    // percent for the variances: five of each.
    assert!((mx - 1.0).abs() < 0.11 && (my + 2.0).abs() < 0.055, "{mx} {my}");
    let (vx, vy) = (mean(&|p| (p[0] - mx).powi(2)), mean(&|p| (p[1] - my).powi(2)));
    assert!((vx / 2.0 - 1.0).abs() < 0.11 && (vy / 0.5 - 1.0).abs() < 0.11, "{vx} {vy}");
    assert!(image::open(folder.path().join("a.png")).is_ok());
}

#[test]
fn seeds_reproduce_samples() {
    let folder = folder();
    let draw = |seed: u32| {
        run(folder.path(), &format!("sample --model MODEL -n 3 --steps 20 --seed {seed} -o a.npy")).ok();
        std::fs::read(folder.path().join("a.npy")).unwrap()
    };
    let first = draw(1);
    assert_eq!(draw(1), first);
    assert_ne!(draw(2), first);
}

#[test]
fn removing_noise_brings_samples_nearer_to_smooth() {
    let folder = folder();
    let roughness = |noise: &str| {
        run(folder.path(), &format!("sample --model MODEL -n 32 --steps 40 --noise {noise} -o a.npy")).ok();
        let (_, y) = read_npy(&folder.path().join("a.npy"));
        let pairs = y
            .chunks_exact(8)
            .flat_map(|row| row.windows(2).map(|w| (w[0] - w[1]).powi(2)).collect::<Vec<_>>());
        pairs.sum::<f64>() / (y.len() as f64 * 7.0 / 8.0)
    };
    // The noise alone makes 2 sigma^2 of the squared difference of neighbours.
    let (kept, removed) = (roughness("keep"), roughness("remove"));
    assert!(kept - removed > SIGMA * SIGMA, "{kept} {removed}");
}

#[test]
fn scores_are_printed_as_a_table_and_as_json() {
    let folder = folder();
    gradient(8).save(folder.path().join("a.png")).unwrap();
    image::GrayImage::from_fn(8, 8, |x, y| image::Luma([if (x + y) % 2 == 0 { 0 } else { 255 }]))
        .save(folder.path().join("checkers.png"))
        .unwrap();
    let done = run(folder.path(), "score --model MODEL a.png checkers.png").ok();
    let rows: Vec<Vec<&str>> = done.stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0], ["file", "nats", "bits_per_dim"]);
    let nats = |i: usize| rows[i][1].parse::<f64>().unwrap();
    assert!(nats(1) > nats(2) + 100.0, "smooth images are likely, checkers are not: {rows:?}");
    assert!(
        done.stderr.contains("mean of 2") && done.stderr.contains("standard error 0.250"),
        "{}",
        done.stderr
    );
    let json = run(folder.path(), "score --model MODEL a.png checkers.png --json").ok().json();
    assert_eq!(json["method"], "exact");
    assert!((json["rows"][0]["log_density"].as_f64().unwrap() - nats(1)).abs() < 1e-3);
    // -log2 rho / 64 + 8 for pixels in [0, 1].
    let bits = -nats(1) / std::f64::consts::LN_2 / 64.0 + 8.0;
    assert!((json["rows"][0]["bits_per_dim"].as_f64().unwrap() - bits).abs() < 1e-4);
}

#[test]
fn scores_with_noise_follow_the_seed_and_bad_files_do_not_stop_the_others() {
    let folder = folder();
    gradient(8).save(folder.path().join("a.png")).unwrap();
    std::fs::write(folder.path().join("b.png"), "no image").unwrap();
    let score = |seed: u32| {
        let done =
            run(folder.path(), &format!("score --model MODEL a.png b.png --add-noise --seed {seed} --json"));
        assert_eq!(done.code, Some(1));
        assert!(done.stderr.contains("b.png"), "{}", done.stderr);
        done.json()["rows"][0]["log_density"].as_f64().unwrap()
    };
    assert_eq!(score(1), score(1));
    assert_ne!(score(1), score(2));
}

#[test]
fn data_sets_are_scored_by_name() {
    let folder = folder();
    let model = flat_model().display().to_string();
    let json =
        run(folder.path(), &format!("score --model {model} --data circles --rows 5 --json")).ok().json();
    assert_eq!(json["rows"].as_array().unwrap().len(), 5);
    assert_eq!(json["rows"][4]["name"], "circles#4");
    run(folder.path(), "score --model MODEL --data circles").fails_with(&["circles", "2 numbers", "64"]);
}

#[test]
fn info_and_verify_say_what_a_model_is() {
    let done = run(Path::new("."), "info MODEL").ok();
    assert!(done.stdout.contains("images of 8x8 pixels, grey"), "{}", done.stdout);
    let json = run(Path::new("."), "info MODEL --json").ok().json();
    assert_eq!(json["dimension"], 64);
    assert_eq!(json["sigma"], SIGMA);
    let done = run(Path::new("."), "verify MODEL").ok();
    assert!(done.stdout.contains("tract on cpu") && done.stdout.contains("f64 reference"), "{}", done.stdout);
    assert_eq!(run(Path::new("."), "verify MODEL --json").ok().json()["ok"], true);
}

#[test]
fn verify_fails_where_the_weights_are_not_those_of_the_probes() {
    let folder = folder();
    let file = ModelFile::open(model(8)).unwrap();
    let network = file.network().unwrap();
    let weights = Weights { centre: network.weights().pull.clone(), ..network.weights().clone() };
    let other = Icnn::new(network.architecture().clone(), weights).unwrap();
    export(folder.path().join("m.onnx"), &other, file.metadata().unwrap()).unwrap();
    let done = run(folder.path(), "verify m.onnx");
    assert_eq!(done.code, Some(1), "{}\n{}", done.stdout, done.stderr);
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = |words: &[&str]| {
        let output = binary().args(words).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let top = help(&["--help"]);
    assert!(top.contains("Exit codes") && top.contains("130"), "{top}");
    for command in ["export", "sample", "score", "inpaint", "info", "verify", "doctor", "bench"] {
        assert!(top.contains(command), "{top}");
        let text = help(&[command, "--help"]);
        assert!(text.contains("Examples:") && text.contains(&format!("cmf-cli {command}")), "{text}");
    }
}
