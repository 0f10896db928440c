//! `reproduce` as a user meets it: the quickest figure, whole.

mod common;

use common::{folder, names, run};

#[test]
fn a_figure_is_pictures_numbers_and_one_report() {
    let dir = folder();
    let found = run(dir.path(), "reproduce 2 --quick --out made --json").ok().json();
    let figure = &found["figures"][0];
    assert_eq!(figure["figure"], "line");
    assert_eq!(figure["tables"][0]["rows"].as_array().unwrap().len(), 3);
    let made = dir.path().join("made");
    let stems = ["line-four-narrow", "line-three-uneven", "line-three-wide"];
    let mut want: Vec<String> = stems.iter().flat_map(|s| [format!("{s}.png"), format!("{s}.svg")]).collect();
    want.push("report.html".into());
    assert_eq!(names(&made), want);
    let png = image::open(made.join("line-three-wide.png")).unwrap();
    assert!(png.width() > 800 && png.height() > 600);
    let report = std::fs::read_to_string(made.join("report.html")).unwrap();
    assert_eq!(report.matches("src=\"data:image/png;base64,").count(), 3);
    for words in ["three-wide", "Settings and seeds", "&quot;samples&quot;: 100000"] {
        assert!(report.contains(words), "{words}");
    }
    // One file, no network.
    assert!(!report.contains("http"));
}

#[test]
fn what_is_missing_is_said_before_any_work() {
    let dir = folder();
    run(dir.path(), "reproduce all --quick --out made").fails_with(&[
        "models/mnist.onnx",
        "does not exist",
        "--model",
    ]);
    assert!(names(dir.path()).is_empty());
    assert_eq!(run(dir.path(), "reproduce --out made").code, Some(2));
    assert_eq!(run(dir.path(), "reproduce 99 --out made").code, Some(2));
}
