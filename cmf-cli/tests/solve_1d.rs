//! `solve-1d` as a user meets it.

mod common;

use common::{folder, names, run};

#[test]
fn a_gaussian_has_the_closed_form_and_the_table_is_whole() {
    let dir = folder();
    let line = "solve-1d --law 1:0.5:2 --exact --bins 20000 --out w.csv --out w.npy --json";
    let found = run(dir.path(), line).ok().json();
    assert_eq!(found["status"], "converged");
    assert!(found["residual"].as_f64().unwrap() < 1e-3);
    // N(m, v) has the Gibbs factor N(m / (1 + v^{1/3}), v^{1/3}). The grid has cells of 1.6e-3 on eight deviations to
    // both sides.
    let root = 4.0_f64.cbrt();
    assert!((found["gibbs_variance"].as_f64().unwrap() / root - 1.0).abs() < 1e-4, "{found}");
    assert!((found["gibbs_mean"].as_f64().unwrap() - 0.5 / (1.0 + root)).abs() < 1e-4, "{found}");
    assert_eq!(names(dir.path()), ["w.csv", "w.npy"]);
    let text = std::fs::read_to_string(dir.path().join("w.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("x,potential,slope,gibbs_density"));
    let rows: Vec<Vec<f64>> = lines.map(|l| l.split(',').map(|v| v.parse().unwrap()).collect()).collect();
    assert_eq!(rows.len(), 20_001);
    let width = rows[1][0] - rows[0][0];
    let mass: f64 = rows.iter().map(|r| r[3] * width).sum();
    // The trapezoidal rule; the density vanishes at both ends.
    assert!((mass - 1.0).abs() < 1e-5, "{mass}");
    assert!(rows.iter().flatten().all(|v| v.is_finite()));
}

#[test]
fn samples_come_from_a_file() {
    let dir = folder();
    let column: String =
        (0..1000).map(|k| format!("{}\n", 3.0 + ((k * 7919) % 1000) as f64 / 250.0)).collect();
    std::fs::write(dir.path().join("a.csv"), column).unwrap();
    for potential in ["conjugate", "moment"] {
        let line = format!("solve-1d --data a.csv --bins 2000 --potential {potential} --json");
        let found = run(dir.path(), &line).ok().json();
        // 1000 even steps of 1/250 from 3 on.
        assert!((found["law_mean"].as_f64().unwrap() - 4.998).abs() < 2e-3, "{found}");
        assert_eq!(found["status"], "converged");
        let shift = found["shift"].as_f64().unwrap();
        assert_eq!(shift == 0.0, potential == "conjugate");
    }
    std::fs::write(dir.path().join("two.csv"), "1,2\n3,4\n").unwrap();
    run(dir.path(), "solve-1d --data two.csv").fails_with(&["two.csv has 2 numbers a row, expected 1"]);
    run(dir.path(), "solve-1d --data a.csv --domain 4,5").fails_with(&["outside of the domain [4, 5]"]);
    run(dir.path(), "solve-1d --data a.csv --out w.txt").fails_with(&["w.txt", ".csv or .npy"]);
}

#[test]
fn unconverged_is_said_and_counts_as_failed() {
    let dir = folder();
    let line = "solve-1d --law three-uneven --exact --bins 2000 --iterations 3";
    let found = run(dir.path(), line);
    assert_eq!(found.code, Some(1));
    assert!(found.stdout.contains("not converged after 3 iterations"), "{}", found.stdout);
    assert!(found.stderr.contains("--iterations"), "{}", found.stderr);
}

#[test]
fn unknown_laws_are_named() {
    let found = run(folder().path(), "solve-1d --law four");
    assert_eq!(found.code, Some(2));
    for words in ["four", "three-wide", "WEIGHT:MEAN:DEVIATION"] {
        assert!(found.stderr.contains(words), "{}", found.stderr);
    }
    assert_eq!(run(folder().path(), "solve-1d").code, Some(2));
}
