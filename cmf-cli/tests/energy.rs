//! `cmf-cli train --energy` and `--method gaussian-icnn`: runs on disk, their models, energies that are refused.
#![cfg(feature = "train")]
#![allow(missing_docs)]

#[path = "plugins/build.rs"]
#[allow(dead_code)] // Some of it serves the tests of plugins alone.
mod build;
mod common;

use std::path::{Path, PathBuf};

use build::{cc, cli, root};
use common::{Finished, folder, names, run};

const SMALL: &str = "--widths 8 --batch 32 --particles 32 --updates 40 --look-every 20";

fn train(folder: &Path, line: &str) -> Finished {
    run(folder, &format!("train {SMALL} {line}"))
}

#[test]
fn a_run_of_an_energy_leaves_a_model_that_works() {
    let folder = folder();
    let line = "--energy ring?radius=1.5 --set std=0.5 --domain=-4,4 --out run --json";
    let done = train(folder.path(), line).ok().json();
    let share = done["effective_share"].as_f64().unwrap();
    assert!(share > 0.0 && share <= 1.0 && done["sinkhorn_divergence"].is_null(), "{done}");
    let run_folder = folder.path().join("run");
    let previews = ["preview-000020.png", "preview-000040.png"];
    assert_eq!(
        names(&run_folder),
        [&["checkpoint.bin", "metrics.csv", "model.onnx"], &previews[..], &["run.json"]].concat()
    );
    let metrics = std::fs::read_to_string(run_folder.join("metrics.csv")).unwrap();
    let rows: Vec<Vec<&str>> = metrics.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][9..], ["energy_deviation", "effective_share"]);
    assert!(rows[1..].iter().all(|row| row[2] == "energy" && row[9].parse::<f64>().unwrap() > 0.0));

    let info = run(folder.path(), "info run/model.onnx --json").ok().json();
    assert_eq!(info["data"]["name"], "energy ring?radius=1.5&std=0.5");
    assert_eq!(info["source"], "gibbs");
    assert_eq!(info["recipe"]["settings"]["method"]["domain"]["high"], serde_json::json!([4.0, 4.0]));
    assert!(info["log_z"]["standard_error"].as_f64().unwrap() > 0.0);
    run(folder.path(), "verify run/model.onnx").ok();
    run(folder.path(), "sample --model run/model.onnx -n 20 -o a.png --out a.csv").ok();
    run(folder.path(), "score --model run/model.onnx --data a.csv").ok();
    run(folder.path(), "export run --out again.onnx").ok();
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("again.onnx") == bytes("run/model.onnx"));
}

#[test]
fn a_run_of_an_energy_resumes_and_ends_where_an_unbroken_one_does() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    train(folder.path(), "--energy banana --out unbroken").ok();
    train(folder.path(), "--energy banana --out broken").ok();
    // As if the last updates and the model had never been: the checkpoint of the beginning of a run.
    std::fs::remove_file(path("broken/model.onnx")).unwrap();
    let text = std::fs::read_to_string(path("broken/run.json")).unwrap();
    assert!(text.contains("\"energy\": \"banana\"") && !text.contains("\"data\""), "{text}");
    let resumed = run(folder.path(), "train --resume --out broken").ok();
    assert!(resumed.stderr.contains("resumed after 40 updates"), "{}", resumed.stderr);
    let model = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(model("broken/model.onnx") == model("unbroken/model.onnx"), "the weights differ");
    for line in ["--energy banana", "--domain=-4,4", "--method gaussian-icnn"] {
        let done = run(folder.path(), &format!("train --resume --out broken {line}"));
        assert_eq!(done.code, Some(2), "{line}: {}", done.stderr);
    }
}

fn plugin(folder: &Path, source: &str, defines: &[&str]) -> PathBuf {
    let out = folder.join(format!("lib{}.so", source.replace(['/', '.'], "_")));
    cc(&root().join(source), "cmf-plugins/include", defines, &out);
    out
}

#[test]
fn a_plugins_energy_is_learned_and_must_stay_the_same() {
    let folder = folder();
    let library = plugin(folder.path(), "examples/plugin-energy-c/plugin.c", &[]);
    let energy = format!("plugin:{}#double-well-c?depth=1", library.file_name().unwrap().to_str().unwrap());
    let small: Vec<&str> = SMALL.split(' ').collect();
    let args = [&["train", "--energy", &energy, "--out", "run"], &small[..]].concat();
    let done = cli(folder.path(), &args);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let info = cli(folder.path(), &["info", "run/model.onnx", "--json"]).json();
    assert_eq!(info["data"]["name"], "energy libexamples_plugin-energy-c_plugin_c.so#double-well-c?depth=1");
    assert_eq!(info["data"]["sha256"].as_str().unwrap().len(), 64);
    // The run knows where the library is, from any folder.
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let named = ["--plugin", library.to_str().unwrap()];
    let export = |more: &[&str]| cli(&other, &[&["export", "../run", "--out", "m.onnx"], more].concat());
    // A run's settings are a file, not the user's word that a library may run.
    export(&[]).fails_with(&["run.json", "is not approved", "or name it with --plugin"]);
    export(&named).ok();
    // Another library of that name is another energy.
    cc(&root().join("examples/plugin-energy-c/plugin.c"), "cmf-plugins/include", &["-O3"], &library);
    cli(folder.path(), &[&["train", "--resume", "--out", "run"], &named[..]].concat()).fails_with(&[
        "run.json",
        "has changed",
        "SHA-256",
    ]);
}

#[test]
fn energies_that_cannot_be_learned_from_are_diagnosed() {
    let folder = folder();
    let well = plugin(folder.path(), "examples/plugin-energy-c/plugin.c", &[]);
    let hostile = |how: u32| {
        let source = "tests/plugins/hostile.c";
        let out = folder.path().join(format!("libhostile{how}.so"));
        cc(&root().join(source), "cmf-plugins/include", &[&format!("-DHOW={how}")], &out);
        format!("plugin:{}", out.display())
    };
    for (energy, words) in [
        (hostile(5), &["is NaN", "in its domain"][..]),
        (hostile(11), &["gradient of the energy is not that of its values", "slope"]),
        (format!("plugin:{}?stiffness=0", well.display()), &["no finite normaliser"]),
        ("nowhere".into(), &["there is no energy nowhere", "banana"]),
        ("ring?radios=2".into(), &["no parameter radios", "radius"]),
    ] {
        let done = cli(folder.path(), &["train", "--energy", &energy, "--out", "run", "--updates", "5"]);
        done.fails_with(words);
        assert!(!folder.path().join("run").exists(), "{energy} left a run directory");
    }
    for (line, words) in [
        ("--energy ring --domain=-4,4,3", &["--domain", "expected 2 or 4 numbers", "found 3"]),
        ("--energy ring --domain=4,-4", &["domain of coordinate 0", "[4, -4]", "lower first"]),
        (
            "--energy ring --conjugate-weight 1",
            &["an energy has no data", "conjugate_weight", "conjugate_updates"],
        ),
    ] {
        train(folder.path(), &format!("{line} --out run")).fails_with(words);
    }
    // A domain that misses the mass is said.
    let done = train(folder.path(), "--energy ring --domain=-1,1 --out run");
    assert!(done.stderr.contains("percent of the mass of e^-E lies in the domain"), "{}", done.stderr);
    for line in ["--energy ring --data circles", "--energy ring --method gaussian-icnn", "--domain=-1,1", ""]
    {
        let done = train(folder.path(), &format!("{line} --out other"));
        assert_eq!(done.code, Some(2), "{line}: {}", done.stderr);
    }
}

#[test]
fn the_baseline_says_its_source_and_is_drawn_from_it() {
    let folder = folder();
    train(folder.path(), "--data circles --method gaussian-icnn --conjugate-updates 20 --out run").ok();
    let info = run(folder.path(), "info run/model.onnx --json").ok().json();
    assert_eq!(info["source"], "gaussian");
    // log Z = log 2π, which is not an estimate.
    let log_z = &info["log_z"];
    assert!((log_z["value"].as_f64().unwrap() - 1.837_877_066_409_345).abs() < 1e-12);
    assert_eq!(log_z["standard_error"], 0.0);
    assert!(run(folder.path(), "info run/model.onnx").ok().stdout.contains("N(0, I)"));
    run(folder.path(), "verify run/model.onnx").ok();
    let drawn = run(folder.path(), "sample --model run/model.onnx -n 20 -o a.csv --json").ok();
    assert!(drawn.stderr.contains("drawn exactly"), "{}", drawn.stderr);
    let json = drawn.json();
    assert!(json["acceptance"].is_null() && json["source"] == "gaussian", "{json}");

    // log ρ(y) = log N(∇w(y); 0, I) + log det ∇²w(y) at the probes' points, by the file's own answers.
    let scored =
        run(folder.path(), "score --model run/model.onnx --data circles --rows 8 --json").ok().json();
    let file = cmf_core::onnx::ModelFile::open(folder.path().join("run/model.onnx")).unwrap();
    let probes = &file.metadata().unwrap().probes;
    for (row, probe) in scored["rows"].as_array().unwrap().iter().zip(probes) {
        // Probes are rounded to f32.
        let off = row["log_density"].as_f64().unwrap() - probe.log_density.unwrap();
        assert!(off.abs() < 1e-3, "{row} {probe:?}");
    }
    // Timed as what it is, without the tasks that do not take it.
    let timed =
        run(folder.path(), "bench run/model.onnx --engine tract --batch 1 --seconds 0.01 --json").ok();
    let tasks: Vec<_> =
        timed.json()["figures"].as_array().unwrap().iter().map(|f| f["task"].clone()).collect();
    assert!(tasks.contains(&"sample".into()) && tasks.contains(&"train".into()), "{tasks:?}");
    assert!(!tasks.contains(&"inpaint".into()) && timed.stderr.contains("no inpainting"), "{}", timed.stderr);
    run(folder.path(), "run score --model run/model.onnx a.csv").fails_with(&["run/model.onnx", "N(0, I)"]);

    // Learning goes on from it as what it is, or else it is said to become another model.
    let on = "train --data circles --init run/model.onnx --updates 2 --batch 16 --particles 16";
    let other = run(folder.path(), &format!("{on} --out other")).ok();
    assert!(other.stderr.contains("run/model.onnx is a generative network"), "{}", other.stderr);
    let same = run(folder.path(), &format!("{on} --method gaussian-icnn --out same")).ok();
    assert!(!same.stderr.contains("is a generative network"), "{}", same.stderr);
    assert_eq!(run(folder.path(), "info same/model.onnx --json").ok().json()["source"], "gaussian");
}

#[test]
fn the_baseline_of_images_is_sampled_but_does_not_inpaint() {
    let folder = folder();
    let digits = root().join("tests/fixtures/mnist-small").display().to_string();
    let line = format!(
        "train --data mnist:{digits} --method gaussian-icnn --widths 8 --batch 16 --particles 16 --updates 5 --out run"
    );
    run(folder.path(), &line).ok();
    let json = run(folder.path(), "sample --model run/model.onnx -n 4 -o a.png --json").ok().json();
    assert_eq!(json["noise"], "removed");
    let image = root().join("examples/img.png").display().to_string();
    run(folder.path(), &format!("inpaint --model run/model.onnx {image} -o filled.png"))
        .fails_with(&["run/model.onnx", "inpainting expects a conjugate moment measure"]);
    assert!(!folder.path().join("filled.png").exists());
}
