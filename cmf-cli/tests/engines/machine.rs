//! Devices, and the commands about engines and the machine, without a library of ONNX Runtime.

use std::path::Path;

use crate::common::{Finished, binary, flat_model, folder, gradient, model, run};

#[test]
fn a_device_that_cannot_be_used_is_an_error_that_says_why() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    for device in ["cuda", "cuda:1"] {
        run(folder.path(), &format!("score --model MODEL img.png --device {device}")).fails_with(&[
            "--device cuda:",
            "cannot be used",
            "tract computes on processors only",
        ]);
    }
    let wrong = run(folder.path(), "score --model MODEL img.png --device gpu");
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("expected auto, cpu, cuda or cuda:N"), "{}", wrong.stderr);
}

#[test]
fn json_says_who_did_the_work() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    for line in [
        "score --model MODEL img.png --json",
        "sample --model MODEL -n 4 --steps 8 --out s.npy --json",
        "inpaint --model MODEL img.png --mask-rect 0,4,8,4 --json",
        "run sample --model MODEL --number 2 --steps 8 --out r.npy --device cpu --json",
        "eval --model MODEL --data s.npy --rows 2 --repeats 1 --steps 8 --metrics sliced --json",
    ] {
        let json = run(folder.path(), line).ok().json();
        assert_eq!((&json["engine"], &json["device"]), (&"tract".into(), &"cpu".into()), "{line}");
    }
}

#[test]
fn auto_says_once_what_it_took_and_why() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    let said = |line: &str| run(folder.path(), line).ok().stderr.matches("device: cpu (").count();
    assert_eq!(said("score --model MODEL img.png --device auto"), 1);
    assert_eq!(said("score --model MODEL img.png --device cpu"), 0);
    assert_eq!(said("score --model MODEL img.png --device auto --quiet"), 0);
    let json = run(folder.path(), "score --model MODEL img.png --device auto --json").ok().json();
    assert_eq!(json["device_why"], "tract computes on processors only");
}

#[test]
fn verify_compares_every_function_on_every_set_of_points() {
    let json = run(Path::new("."), "verify MODEL --engine tract --json").ok().json();
    assert_eq!(json["ok"], true);
    let [reference, tract] = &json["engines"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&reference["engine"], &tract["engine"]), (&"reference".into(), &"tract".into()));
    for points in ["probes", "1 random", "2 random", "7 random", "256 random"] {
        for function in ["value", "gradient", "hvp", "hessian", "log-density"] {
            let all = tract["differences"].as_array().unwrap();
            let one = all.iter().find(|d| d["points"] == points && d["function"] == function).unwrap();
            let (max, mean) = (one["max"].as_f64().unwrap(), one["mean"].as_f64().unwrap());
            assert!(mean <= max && max <= one["tolerance"].as_f64().unwrap(), "{one}");
            // f32 and f64 never agree in all digits of all numbers; this model's Hessian is exact in both.
            assert!(mean > 0.0 || function == "hessian", "{one}");
        }
    }
}

#[test]
fn doctor_says_what_there_is_and_why_the_rest_is_not_used() {
    let folder = folder();
    let doctor = |library: Option<&str>| {
        let mut command = binary();
        command.current_dir(folder.path()).args(["doctor", "--json"]).env_remove("ORT_DYLIB_PATH");
        command.env("XDG_DATA_HOME", folder.path()).env_remove("CMF_PLUGIN_PATH");
        crate::common::Finished::from(command.envs(library.map(|l| ("ORT_DYLIB_PATH", l))).output().unwrap())
    };
    let json = doctor(None).ok().json();
    assert_eq!(json["healthy"], true);
    assert!(json["processor"]["cores"].as_u64().unwrap() >= 1);
    let memory = &json["memory"];
    assert!(memory["total_bytes"].as_u64().unwrap() >= memory["available_bytes"].as_u64().unwrap());
    assert!(memory["available_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(json["onnxruntime"]["found"].is_boolean() && json["plugins"]["folder"].is_string());
    assert!(json["cuda"]["driver"].is_string() || json["cuda"]["not_used"].is_string(), "{json}");
    let training = json["cuda"]["not_used_in_training"].as_str();
    assert!(cfg!(feature = "cuda") || training.is_some_and(|why| why.contains("feature")), "{json}");

    std::fs::write(folder.path().join("broken.so"), "text").unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    std::fs::copy(flat_model(), folder.path().join("models/good.onnx")).unwrap();
    std::fs::write(folder.path().join("models/bad.onnx"), "text").unwrap();
    let done = doctor(Some("broken.so"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let json = done.json();
    assert!(json["onnxruntime"]["error"].as_str().unwrap().contains("is a text file"));
    assert!(json["models"][0]["error"].as_str().unwrap().contains("not an ONNX model"));
    assert_eq!(json["models"][1]["dimension"], 2);
}

#[test]
fn bench_times_every_task_of_every_engine() {
    let json =
        run(Path::new("."), "bench MODEL --engine tract --batch 1,3 --seconds 0.01 --json").ok().json();
    assert!(json["ceiling"]["gflops"].as_f64().unwrap() > 0.0);
    let figures = json["figures"].as_array().unwrap();
    let of = |task: &str| figures.iter().filter(|f| f["task"] == task).count();
    for (task, lines) in [
        ("gradient", 2),
        ("hvp", 2),
        ("hessian", 1),
        ("score", 1),
        ("score-gradient", 1),
        ("sample", 1),
        ("inpaint", 1),
    ] {
        assert_eq!(of(task), lines, "{task}");
    }
    assert!(figures.iter().all(|f| f["cold_ms"].as_f64().unwrap() > 0.0), "{json}");
    assert!(figures[0]["times_ceiling"].as_f64().unwrap() > 0.0 && figures[0]["gflop"].is_number());
    let host =
        run(Path::new("."), "bench MODEL --device cpu --only gradient --batch 2 --seconds 0.01 --json");
    let json = host.ok().json();
    let engines: Vec<_> = json["figures"].as_array().unwrap().iter().map(|f| f["engine"].clone()).collect();
    assert!(engines.contains(&"host".into()) && engines.contains(&"tract on cpu".into()), "{engines:?}");
    run(Path::new("."), "bench MODEL --seconds 0").fails_with(&["--seconds 0"]);
}

#[test]
fn bench_of_training_asks_no_engine_and_help_says_all_there_is() {
    let mut command = binary();
    command.args(["bench", "--only", "train", "--seconds", "0.01", "--json"]).arg(model(8));
    // A library that would be an error for whoever asks for it.
    let json = Finished::from(command.env("ORT_DYLIB_PATH", "nowhere.so").output().unwrap()).ok().json();
    assert_eq!(json["figures"][0]["engine"], "burn on cpu", "{json}");
    let help = run(Path::new("."), "bench --help").ok().stdout;
    assert!(help.contains("x ceiling") && help.contains("The first call is given apart"), "{help}");
}

/// The file's own answers are wrong: the reference says so, and each engine that its probes refuse is named.
#[test]
fn verify_shows_what_it_found_when_something_is_wrong() {
    use cmf_core::onnx::{ModelFile, export};
    let folder = folder();
    let file = ModelFile::open(model(8)).unwrap();
    let mut metadata = file.metadata().unwrap().clone();
    metadata.probes[0].value += 1.0;
    export(folder.path().join("wrong.onnx"), file.network().unwrap(), &metadata).unwrap();
    let found = run(folder.path(), "verify wrong.onnx --engine tract --json");
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(found.stderr.contains("tract failed: ") && found.stderr.contains("probe 0"), "{}", found.stderr);
    let json = found.json();
    assert_eq!(json["ok"], false);
    let [reference, tract] = &json["engines"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!(reference["differences"][0]["within_tolerance"], false);
    assert!(tract["error"].as_str().unwrap().contains("probe 0"), "{tract}");
    let table = run(folder.path(), "verify wrong.onnx --engine tract").stdout;
    assert!(table.contains("DIFFERS") && table.contains("FAILED"), "{table}");
}
