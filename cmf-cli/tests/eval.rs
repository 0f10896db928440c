//! `eval` as a user meets it.

mod common;

use std::path::Path;

use common::{flat_model, folder, run};

/// Points on a spiral, moved right.
fn write_points(path: &Path, n: usize, shift: f64) {
    let point = |k: usize| {
        let (angle, r) = (k as f64 * 2.399_963, (k as f64 / n as f64).sqrt());
        format!("{},{}\n", shift + r * angle.cos(), r * angle.sin())
    };
    std::fs::write(path, (0..n).map(point).collect::<String>()).unwrap();
}

#[test]
fn files_are_compared_beside_the_floor() {
    let dir = folder();
    for (name, n, shift) in [("a.csv", 400, 0.0), ("b.csv", 900, 0.0), ("far.csv", 400, 1.0)] {
        write_points(&dir.path().join(name), n, shift);
    }
    let eval = |samples: &str| {
        let line = format!("eval --samples {samples} --data b.csv --rows 200 --repeats 3 --json");
        run(dir.path(), &line).ok().json()["comparison"].clone()
    };
    let (near, far) = (eval("a.csv"), eval("far.csv"));
    for (k, name) in ["Sinkhorn divergence", "sliced Wasserstein", "MMD squared"].into_iter().enumerate() {
        let (near, far) = (&near["figures"][k], &far["figures"][k]);
        assert_eq!(near["name"], name);
        assert_eq!(near["values"].as_array().unwrap().len(), 3);
        let mean = |f: &serde_json::Value| f["mean"].as_f64().unwrap();
        assert!(mean(far) > 4.0 * mean(near).abs(), "{near} {far}");
    }
    // A shift by 1 costs 1 at least: the divergence is that of the law moved.
    assert!((far["figures"][0]["mean"].as_f64().unwrap() - 1.0).abs() < 0.1, "{far}");
    let text =
        run(dir.path(), "eval --samples a.csv --data b.csv --rows 5000 --repeats 1 --metrics mmd").ok();
    assert!(text.stdout.starts_with("figure\tmean\tdeviation\tfloor"), "{}", text.stdout);
    assert!(text.stderr.contains("comparing 400 rows instead of 5000"), "{}", text.stderr);
}

#[test]
fn a_model_is_sampled_and_its_noise_told() {
    let dir = folder();
    write_points(&dir.path().join("b.csv"), 600, 0.0);
    let line = format!(
        "eval --model {} --data b.csv --rows 100 --repeats 1 --steps 50 --json",
        flat_model().display()
    );
    let found = run(dir.path(), &line).ok().json();
    assert_eq!(found["noise"], "added to data");
    assert_eq!(found["comparison"]["rows"], 100);
}

#[test]
fn misuse_is_explained() {
    let dir = folder();
    write_points(&dir.path().join("b.csv"), 20, 0.0);
    std::fs::write(dir.path().join("line.csv"), "1\n2\n3\n").unwrap();
    run(dir.path(), "eval --samples line.csv --data b.csv")
        .fails_with(&["line.csv has 1 numbers a row", "b.csv have 2"]);
    run(dir.path(), "eval --model MODEL --data b.csv").fails_with(&["has 64 numbers a row"]);
    assert_eq!(run(dir.path(), "eval --data b.csv").code, Some(2));
    assert_eq!(run(dir.path(), "eval --samples b.csv --data b.csv --rows 30000").code, Some(2));
}
