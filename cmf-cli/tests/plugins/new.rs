//! `plugin new` writes projects that build and pass `plugin check` unedited; the examples pass too.

use std::path::PathBuf;

use crate::build::{cargo, cc, cli, example, own, root};
use crate::common::folder;

fn passes(library: &str, folder: &std::path::Path) {
    let done = cli(folder, &["plugin", "check", library]).ok();
    assert!(done.stdout.contains(" passed, 0 failed"), "{}", done.stdout);
}

#[test]
fn a_new_project_in_c_builds_by_its_own_words_and_passes() {
    let folder = folder();
    for kind in ["energy", "dataset", "task"] {
        let name = format!("my-{kind}");
        let done = cli(folder.path(), &["plugin", "new", &name, "--kind", kind, "--lang", "c"]).ok();
        // The second line that it prints is the compiler's; the first goes into the folder.
        let build = done.stdout.lines().nth(1).unwrap();
        let project = folder.path().join(&name);
        let built =
            std::process::Command::new("sh").args(["-c", build]).current_dir(&project).output().unwrap();
        assert!(built.status.success(), "{build}: {}", String::from_utf8_lossy(&built.stderr));
        let library = project.join(format!("libmy_{kind}.so"));
        passes(library.to_str().unwrap(), folder.path());
        // A second time would overwrite.
        cli(folder.path(), &["plugin", "new", &name, "--kind", kind]).fails_with(&["is there already"]);
    }
}

#[test]
fn a_new_project_in_rust_builds_and_passes() {
    let folder = folder();
    for kind in ["energy", "dataset", "task"] {
        let name = format!("your-{kind}");
        cli(folder.path(), &["plugin", "new", &name, "--kind", kind, "--lang", "rust"]).ok();
        let library = cargo(&folder.path().join(&name), &format!("your_{kind}"));
        passes(library.to_str().unwrap(), folder.path());
        if kind == "energy" {
            let spec = format!("plugin:{}", library.display());
            cli(folder.path(), &["sample", "--energy", &spec, "-n", "20", "--steps", "50", "--out", "a.png"])
                .ok();
            assert!(image::open(folder.path().join("a.png")).is_ok());
        }
    }
}

#[test]
fn names_that_make_no_project_are_refused() {
    let folder = folder();
    for name in ["Upper", "-x", "a_b", "../x", "1x"] {
        cli(folder.path(), &["plugin", "new", "--kind", "energy", "--", name])
            .fails_with(&["lower case letters"]);
    }
}

#[test]
fn examples_and_the_built_ins_as_a_library_pass() {
    let folder = folder();
    for kind in ["energy", "task", "dataset"] {
        passes(example(kind).to_str().unwrap(), folder.path());
    }
    // The data sets that read files need one.
    let table: String = (0..30).map(|i| format!("{i},{}\n", i * i)).collect();
    std::fs::write(folder.path().join("a.csv"), table).unwrap();
    let library = own();
    let done = cli(folder.path(), &["plugin", "check", library.to_str().unwrap(), "--set", "path=a.csv"]);
    let expected = ["mnist", "images", "cartoonset", "npy"].map(|name| format!("FAILED  data set {name}: "));
    let failed: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert_eq!(failed.len(), 4, "a.csv is a table only: {failed:#?}");
    assert!(failed.iter().zip(expected).all(|(line, start)| line.starts_with(&start)), "{failed:#?}");
}

/// A plugin built against the header of 1.0 as it was released passes in every later release of 1.
#[test]
fn plugins_built_against_the_frozen_header_pass() {
    let folder = folder();
    for kind in ["energy", "dataset", "task"] {
        let library: PathBuf = folder.path().join(format!("libfrozen_{kind}.so"));
        cc(&root().join(format!("examples/plugin-{kind}-c/plugin.c")), "tests/abi/1.0", &[], &library);
        passes(library.to_str().unwrap(), folder.path());
    }
}
