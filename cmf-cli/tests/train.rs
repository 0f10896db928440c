//! `cmf-cli train` and `export`: a run on disk, resumed, exported, refused.
#![cfg(feature = "train")]
#![allow(missing_docs)]

mod common;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{binary, folder, names, run};
use sha2::{Digest, Sha256};

/// A small run in the plane, of as many updates.
fn circles(updates: u32) -> String {
    format!("train --data circles --widths 8 --batch 16 --particles 16 --look-every 20 --updates {updates}")
}

fn spawn(folder: &Path, line: &str) -> Child {
    let mut command = binary();
    command.current_dir(folder).args(line.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the run in `folder` has recorded as many updates.
fn wait_for_updates(folder: &Path, updates: usize) {
    let begin = Instant::now();
    let recorded = || std::fs::read_to_string(folder.join("metrics.csv")).map_or(0, |t| t.lines().count());
    while recorded() <= updates {
        assert!(begin.elapsed() < Duration::from_secs(120), "no {updates} updates in 2 minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The update numbers in the metrics.
fn updates(folder: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

/// run.json of the run in `folder`.
fn record(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_metrics_previews_a_checkpoint_and_a_model_that_works() {
    let folder = folder();
    let done = run(folder.path(), &format!("{} --out run --json", circles(40))).ok();
    let run_folder = folder.path().join("run");
    let want = [
        "checkpoint.bin",
        "metrics.csv",
        "model.onnx",
        "preview-000020.png",
        "preview-000040.png",
        "run.json",
    ];
    assert_eq!(names(&run_folder), want);
    assert_eq!(updates(&run_folder), (1..=40).collect::<Vec<_>>());
    assert!(done.json()["sinkhorn_divergence"].as_f64().unwrap().is_finite());
    run(folder.path(), "verify run/model.onnx").ok();
    run(folder.path(), "export run --out m.onnx --licence CC0-1.0").ok();
    let info = run(folder.path(), "info m.onnx --json").ok().json();
    assert_eq!(info["licence"], "CC0-1.0");
    assert_eq!(info["data"]["name"], "circles");
    assert!(info["log_z"]["standard_error"].as_f64().unwrap() > 0.0);
    run(folder.path(), "sample --model m.onnx -n 20 -o a.png").ok();
    run(folder.path(), "score --model m.onnx --data circles --rows 3").ok();
}

#[cfg(unix)]
#[test]
fn a_killed_run_resumes_and_ends_where_an_unbroken_one_does() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    run(folder.path(), &format!("{} --out unbroken", circles(400))).ok();
    let mut child = spawn(folder.path(), &format!("{} --out broken --checkpoint-every 0", circles(400)));
    wait_for_updates(&path("broken"), 10);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(!path("broken/model.onnx").exists(), "it was done before it could be killed");
    let resumed = run(folder.path(), "train --resume --out broken").ok();
    assert!(resumed.stderr.contains("resumed after"), "{}", resumed.stderr);
    assert_eq!(updates(&path("broken")), (1..=400).collect::<Vec<_>>());
    let model = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(model("broken/model.onnx") == model("unbroken/model.onnx"), "the weights differ");
}

#[test]
fn an_amortised_run_records_its_guesses_and_resumes() {
    let folder = folder();
    let line = format!("{} --amortise --conjugate-updates 20 --conjugate-weight 0 --out run", circles(30));
    run(folder.path(), &line).ok();
    let text = std::fs::read_to_string(folder.path().join("run/metrics.csv")).unwrap();
    let guesses: Vec<&str> = text.lines().map(|line| line.split(',').nth(8).unwrap()).collect();
    assert_eq!(guesses[0], "guess_residual");
    assert!(guesses[1..=20].iter().all(|g| g.parse::<f64>().is_ok_and(f64::is_finite)), "{text}");
    assert!(guesses[21..].iter().all(|g| g.is_empty()), "the likelihood needs no conjugates: {text}");
    run(folder.path(), "train --resume --out run").ok();
    run(folder.path(), &format!("{} --amortise --conjugate-weight 0 --out other", circles(30)))
        .fails_with(&["amortise", "conjugate_updates"]);
    assert_eq!(names(folder.path()), ["run"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_from_which_the_run_ends_as_an_unbroken_one() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    run(folder.path(), &format!("{} --out unbroken", circles(400))).ok();
    // No checkpoint but the one that Ctrl-C writes.
    let child = spawn(folder.path(), &format!("{} --out run --checkpoint-every 1000000", circles(400)));
    wait_for_updates(&path("run"), 5);
    let signalled =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let done: common::Finished = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(
        done.stderr.contains("checkpoint written") && done.stderr.contains("--resume"),
        "{}",
        done.stderr
    );
    assert_eq!(names(&path("run")).iter().filter(|name| name.ends_with(".tmp")).count(), 0);
    let recorded = *updates(&path("run")).last().unwrap();
    assert!(recorded < 400, "it was done before it could be interrupted");
    // The model of the checkpoint is that of the last recorded update.
    let json = run(folder.path(), "export run --out m.onnx --json").ok().json();
    assert_eq!(json["updates"].as_u64(), Some(recorded as u64));
    let resumed = run(folder.path(), "train --resume --out run").ok();
    assert!(resumed.stderr.contains(&format!("resumed after {recorded} updates")), "{}", resumed.stderr);
    assert_eq!(updates(&path("run")), (1..=400).collect::<Vec<_>>());
    let model = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(model("run/model.onnx") == model("unbroken/model.onnx"), "the weights differ");
}

/// An array [rows, 2] in the .npy format, version 1.0: magic, version, header length, header padded to 64
/// bytes, numbers.
fn npy(rows: usize, numbers: &[f64]) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, 2), }}");
    let header = format!("{header:<117}\n");
    let length = (header.len() as u16).to_le_bytes();
    let numbers: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &numbers].concat()
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_folder_is_named_and_keeps_no_run() {
    let folder = folder();
    // Not even root can make folders or files in sysfs.
    run(folder.path(), &format!("{} --out /sys/run", circles(5))).fails_with(&["/sys/run", "cannot make"]);
    run(folder.path(), &format!("{} --out run", circles(5))).ok();
    run(folder.path(), "export run --out /sys/m.onnx").fails_with(&["/sys/m.onnx", "cannot write"]);
    run(folder.path(), "export run --out /dev/full/m.onnx").fails_with(&["/dev/full"]);
}

/// A disk that fills up at the beginning or in the middle of a run.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_a_run_which_goes_on_when_there_is_room() {
    let folder = folder();
    // Room for the settings, not for the checkpoint.
    let done = common::limited(folder.path(), 4, &format!("{} --out run", circles(60)));
    done.fails_with(&["run/checkpoint.bin", "cannot write"]);
    assert_eq!(names(&folder.path().join("run")), ["run.json"]);
    std::fs::remove_dir_all(folder.path().join("run")).unwrap();

    // With room for the checkpoint but not for all of the metrics, the run stops and can go on.
    run(folder.path(), &format!("{} --out whole", circles(60))).ok();
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    let blocks = size("whole/checkpoint.bin").div_ceil(512) + 1;
    // Without previews, which take more room than a checkpoint.
    let long = circles(2000).replace("--look-every 20", "--look-every 2000 --checkpoint-every 0 --out run");
    common::limited(folder.path(), blocks, &long).fails_with(&["run/metrics.csv", "cannot write"]);
    let before = updates(&folder.path().join("run")).len();
    assert!((10..2000).contains(&before), "{before} updates recorded");
    run(folder.path(), "train --resume --out run --look-every 2000").ok();
    assert_eq!(updates(&folder.path().join("run")), (1..=2000).collect::<Vec<_>>());

    let exported = common::limited(folder.path(), 1, "export whole --out m.onnx");
    exported.fails_with(&["m.onnx", "cannot write"]);
    assert_eq!(names(folder.path()), ["run", "whole"]);
}

#[test]
fn data_and_folders_that_cannot_be_used() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let train = |line: &str| run(folder.path(), &format!("train --widths 8 --updates 5 {line}"));

    std::fs::create_dir(path("empty")).unwrap();
    train("--data empty --out run").fails_with(&["empty", "found 0 images", "expected at least 2"]);
    std::fs::write(path("none.csv"), "").unwrap();
    train("--data none.csv --out run").fails_with(&["none.csv"]);
    std::fs::write(path("none.npy"), npy(0, &[])).unwrap();
    train("--data none.npy --out run").fails_with(&["none.npy", "0"]);
    std::fs::write(path("nan.npy"), npy(3, &[1.0, 2.0, 3.0, f64::NAN, 5.0, 6.0])).unwrap();
    train("--data nan.npy --out run").fails_with(&["nan.npy", "NaN"]);
    train("--data circles --out run --learning-rate 0").fails_with(&["learning_rate", "positive", "found 0"]);
    train("--data circles --out run --widths 0").fails_with(&["at least one unit", "[8, 0]"]);
    // Nothing was written, not even the folder.
    assert_eq!(names(folder.path()), ["empty", "nan.npy", "none.csv", "none.npy"]);

    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full/a.txt"), "mine").unwrap();
    train("--data circles --out full").fails_with(&["full", "not empty", "--resume"]);
    assert_eq!(names(&path("full")), ["a.txt"]);
    run(folder.path(), "train --resume --out full").fails_with(&["full/run.json", "cannot read"]);
    run(folder.path(), "export full --out m.onnx").fails_with(&["full/run.json"]);
    run(folder.path(), "export full --out m.png").fails_with(&["m.png", ".onnx"]);
    train("--data circles --out full/a.txt").fails_with(&["full/a.txt"]);
    train("--data circles --out full/a.txt/run").fails_with(&["full/a.txt/run"]);
    let done = run(folder.path(), "train --resume --updates 7 --out full");
    assert_eq!(done.code, Some(2), "settings of a run cannot change: {}", done.stderr);
}

#[test]
fn colour_pictures_are_learned_from_built_in_data_sets_with_parameters() {
    let folder = folder();
    let set = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/cartoonset-small");
    let drawn = "--data synthetic-faces?rows=60&side=8 --out drawn";
    run(folder.path(), &format!("train {drawn} --widths 8 --batch 16 --particles 16 --updates 3")).ok();
    let info = run(folder.path(), "info drawn/model.onnx --json").ok().json();
    assert_eq!(info["data"]["name"], "synthetic-faces?rows=60&side=8", "{info}");
    // The path after the name, or as a parameter: the same faces, of which one is held out.
    let score = |data: &str| {
        let line = format!("score --model drawn/model.onnx --data {data} --json");
        let found = run(folder.path(), &line).ok().json();
        assert_eq!(found["rows"].as_array().unwrap().len(), 1, "{found}");
        found["mean"].as_f64().unwrap()
    };
    assert_eq!(score(&format!("cartoonset:{set}?side=8")), score(&format!("cartoonset?side=8&path={set}")));

    let fails = |data: &str, words: &[&str]| {
        run(folder.path(), &format!("train --data {data} --out run --updates 3")).fails_with(words);
    };
    fails(&format!("cartoonset:{set}?side=65"), &["side: expected a whole number from 8 to 64, found 65"]);
    fails(&format!("cartoonset:{set}?width=8"), &["no parameter width", "path, side"]);
    fails("cartoonset", &["cartoonset needs a path"]);
    fails("cartoonset:none?side=8", &["none: "]);
    fails("synthetic-faces?rows=0", &["rows: expected a whole number from 1 to 100000, found 0"]);
}

#[test]
fn a_head_of_few_directions_is_learned_resumed_and_used() {
    let folder = folder();
    let set = "--data synthetic-faces?rows=60&side=8";
    let settings = "--head 6 --widths 8 --batch 16 --particles 16 --updates 6";
    run(folder.path(), &format!("train {set} {settings} --out faces")).ok();
    let info = run(folder.path(), "info faces/model.onnx --json").ok().json();
    assert_eq!(info["architecture"]["head"]["rank"], 6, "{info}");
    run(folder.path(), "train --resume --out faces").ok();
    run(folder.path(), "verify faces/model.onnx").ok();
    run(folder.path(), "sample --model faces/model.onnx -n 2 --steps 20 -o grid.png --separate s").ok();
    let picture = names(&folder.path().join("s")).remove(0);
    let line = format!("inpaint --model faces/model.onnx s/{picture} --mask-rect 2,2,3,3 -o filled.png");
    run(folder.path(), &line).ok();
    // The weights of the file, with its head, begin another run.
    let again = "--init faces/model.onnx --batch 16 --particles 16 --updates 2";
    run(folder.path(), &format!("train {set} {again} --out again")).ok();
    run(folder.path(), &format!("train {set} {again} --conjugate-weight 1 --out other")).fails_with(&[
        "faces/model.onnx",
        "Gibbs factor of its quadratic head",
        "--conjugate-weight",
    ]);
    run(folder.path(), &format!("train {set} --head 70 --out other"))
        .fails_with(&["between 1 and 60 leading directions of 60 rows", "found 70"]);
    for (options, word) in
        [("--head 0", "\"full\" or a number"), ("--init faces/model.onnx --head 6", "--head")]
    {
        let refused = run(folder.path(), &format!("train {set} {options} --out other"));
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
}

#[test]
fn the_source_becomes_a_mixture_if_rows_suffice() {
    let folder = folder();
    let set = "--data synthetic-faces?rows=1200&side=8";
    let settings = "--widths 8 --batch 16 --particles 16 --updates 6";
    let trained = run(folder.path(), &format!("train {set} {settings} --out faces")).ok();
    // 1080 rows are for training, 500 for each component: too few for the covariances along 100 directions, or 50.
    for what in ["source: a mixture of 2 Gaussians along 25 directions", "data: a mixture of 2 Gaussians"] {
        assert!(trained.stderr.contains(what), "{}", trained.stderr);
    }
    let components = |model: &str| {
        let info = run(folder.path(), &format!("info {model} --json")).ok().json();
        [&info["source_components"], &info["data_components"]].map(|n| n.as_u64().unwrap())
    };
    assert_eq!(components("faces/model.onnx"), [2, 2]);
    let text = run(folder.path(), "info faces/model.onnx").ok().stdout;
    assert!(text.contains("with a mixture of 2 Gaussians along 25 directions"), "{text}");
    // Engines agree on its density, exports repeat, and every command takes it.
    run(folder.path(), "verify faces/model.onnx").ok();
    run(folder.path(), "export faces --out again.onnx").ok();
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("faces/model.onnx"), bytes("again.onnx"));
    run(folder.path(), "sample --model again.onnx -n 4 -o grid.png --separate s").ok();
    let picture = names(&folder.path().join("s")).remove(0);
    for estimate in ["mode", "mean"] {
        let rest = format!("--mask-rect 2,2,4,4 --estimate {estimate} -o {estimate}.png");
        run(folder.path(), &format!("inpaint --model again.onnx s/{picture} {rest}")).ok();
    }
    // A run that starts from the file goes on with its mixture.
    let settings_of_more = "--batch 16 --particles 16 --updates 2";
    run(folder.path(), &format!("train {set} {settings_of_more} --init faces/model.onnx --out more")).ok();
    assert_eq!(components("more/model.onnx"), [2, 2]);
    let few = "--data synthetic-faces?rows=400&side=8";
    let trained =
        run(folder.path(), &format!("train {few} {settings_of_more} --init faces/model.onnx --out few"));
    assert!(trained.ok().stderr.contains("too few rows"));
    assert_eq!(components("few/model.onnx"), [2, 1]);
    // One Gaussian where that is asked for, or where the Gibbs factor is of all of w.
    run(folder.path(), &format!("train {set} {settings} --components 1 --out one")).ok();
    assert_eq!(components("one/model.onnx"), [1, 1]);
    run(folder.path(), &format!("train {set} {settings} --gibbs whole --components 2 --out other"))
        .fails_with(&["components must be", "found 2"]);
    run(folder.path(), &format!("train {set} {settings} --components 300 --out other"))
        .fails_with(&["components must be at most 256, found 300"]);
}

#[test]
fn a_run_starts_from_the_weights_of_a_model_file() {
    let folder = folder();
    run(folder.path(), &format!("{} --out first", circles(200))).ok();
    // A learning rate so small that nothing is learned: what comes out is what went in.
    let still = "--learning-rate 1e-12 --batch 16 --particles 16";
    run(
        folder.path(),
        &format!("train --data circles --init first/model.onnx --out again --updates 2 {still}"),
    )
    .ok();
    let scores = |model: &str| -> Vec<f64> {
        let json =
            run(folder.path(), &format!("score --model {model} --data circles --rows 20 --json")).ok().json();
        json["rows"].as_array().unwrap().iter().map(|r| r["log_density"].as_f64().unwrap()).collect()
    };
    let (first, again) = (scores("first/model.onnx"), scores("again/model.onnx"));
    // log Z is estimated anew and shifts all of them; apart from that f32 rounds a softplus and its inverse.
    let shift = again[0] - first[0];
    assert!(shift.abs() < 0.5, "{shift}");
    for (a, b) in first.iter().zip(&again) {
        assert!((b - a - shift).abs() < 1e-3, "{a} {b} {shift}");
    }
    let info = |model: &str| run(folder.path(), &format!("info {model} --json")).ok().json();
    assert_eq!(info("first/model.onnx")["architecture"], info("again/model.onnx")["architecture"]);

    // Which file it was stands in run.json and, without its place, in the model's card.
    let file = std::fs::read(folder.path().join("first/model.onnx")).unwrap();
    let sha256: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let init = &record(&folder.path().join("again"))["init"];
    assert_eq!(init, &serde_json::json!({ "path": "first/model.onnx", "sha256": sha256 }));
    let card = serde_json::json!({ "file": "model.onnx", "sha256": sha256 });
    assert_eq!(info("again/model.onnx")["recipe"]["init"], card);
    run(folder.path(), "export again --out exported.onnx").ok();
    assert_eq!(info("exported.onnx")["recipe"]["init"], card);
    std::fs::remove_file(folder.path().join("exported.onnx")).unwrap();
    assert!(record(&folder.path().join("first"))["init"].is_null());
    assert!(info("first/model.onnx")["recipe"]["init"].is_null());

    let line = format!("train --data circles --init {} --out other", common::model(8).display());
    run(folder.path(), &line).fails_with(&["is a model of 64 numbers a row", "circles has 2"]);
    let both = run(folder.path(), &format!("{} --init first/model.onnx --out other", circles(2)));
    assert_eq!(both.code, Some(2), "the network is the file's: {}", both.stderr);
    assert_eq!(names(folder.path()), ["again", "first"]);
}

#[test]
fn one_held_out_row_is_enough_to_learn_though_not_to_measure() {
    let folder = folder();
    std::fs::write(folder.path().join("few.csv"), "0,0\n1,0\n0,1\n1,1\n2,1\n1,2\n").unwrap();
    let line = "train --data few.csv --widths 4 --batch 8 --particles 8 --updates 5 --out run --json";
    let done = run(folder.path(), line).ok().json();
    assert!(done["sinkhorn_divergence"].is_null(), "{done}");
    run(folder.path(), "verify run/model.onnx").ok();
}

#[test]
fn a_gpu_that_cannot_train_is_an_error_that_says_why_and_writes_nothing() {
    let folder = folder();
    // No machine has as many GPUs; without the feature, driver or compiler that is what the message says.
    let line = format!("{} --out run --device cuda:63", circles(5));
    run(folder.path(), &line).fails_with(&["--device cuda:63 cannot be used: "]);
    if !cfg!(feature = "cuda") {
        let line = format!("{} --out run --device cuda", circles(5));
        run(folder.path(), &line).fails_with(&["--device cuda:0 cannot be used", "with the feature `cuda`"]);
    }
    let several =
        |devices: &str| run(folder.path(), &format!("{} --out run --devices {devices}", circles(5)));
    several("cuda:62,cuda:63").fails_with(&["--device cuda:62 cannot be used: "]);
    assert_eq!(names(folder.path()).len(), 0);
    for wrong in [
        run(folder.path(), &format!("{} --out run --device gpu", circles(5))),
        run(folder.path(), &format!("{} --out run --device cpu --devices cuda:0", circles(5))),
        several("cuda:0,cpu"),
    ] {
        assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    }

    run(folder.path(), &format!("{} --out run", circles(5))).ok();
    let before = record(&folder.path().join("run"));
    run(folder.path(), "train --resume --out run --device cuda:63").fails_with(&["cannot be used"]);
    assert_eq!(record(&folder.path().join("run")), before);
}

#[test]
fn the_device_of_a_run_is_said_and_recorded() {
    let folder = folder();
    let usual = run(folder.path(), &format!("{} --out usual --json", circles(5))).ok();
    assert!(!usual.stderr.contains("device:"), "{}", usual.stderr);
    let auto = run(folder.path(), &format!("{} --out auto --device auto --json", circles(5))).ok();
    let taken = auto.json()["device"].as_str().unwrap().to_string();
    let why = auto.json()["device_why"].as_str().unwrap().to_string();
    assert_eq!(auto.stderr.matches(&format!("device: {taken} ({why})")).count(), 1, "{}", auto.stderr);
    for (name, device, why) in
        [("usual", "cpu".into(), serde_json::Value::Null), ("auto", taken.clone(), why.into())]
    {
        let record = record(&folder.path().join(name));
        assert_eq!((&record["device"], &record["device_why"]), (&device.into(), &why), "{record}");
    }
    assert_eq!(usual.json()["device"], "cpu");
    // Going on elsewhere, or for another reason, is recorded, and is all that changes.
    let settings = record(&folder.path().join("usual"))["settings"].clone();
    run(folder.path(), "train --resume --out usual --device auto").ok();
    let resumed = record(&folder.path().join("usual"));
    assert_eq!((&resumed["device"], &resumed["settings"]), (&taken.into(), &settings));
    assert!(resumed["device_why"].is_string(), "{resumed}");

    // A run of a version that knew no devices.
    let mut old = resumed;
    old.as_object_mut().unwrap().retain(|key, _| !key.starts_with("device"));
    std::fs::write(folder.path().join("usual/run.json"), old.to_string()).unwrap();
    run(folder.path(), "train --resume --out usual").ok();
}
