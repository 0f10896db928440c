//! Which plugins are found, and which of them may run.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::build::{cc, cli, command, root};
use crate::common::{Finished, folder};

const SAMPLE: [&str; 7] = ["sample", "--energy", "double-well-c", "-n", "8", "--steps", "20"];

/// A good energy in a folder, with its manifest.
fn installed(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let library = folder.join("libdouble_well_c.so");
    cc(&root().join("examples/plugin-energy-c/plugin.c"), "cmf-plugins/include", &[], &library);
    library
}

fn with_manifest(home: &Path, library: &Path) {
    cli(home, &["plugin", "check", library.to_str().unwrap(), "--manifest"]).ok();
}

fn sample(home: &Path, path: Option<&Path>, more: &[&str]) -> Finished {
    let mut command = command(home, &[&SAMPLE, more, &["--out", "a.csv"]].concat());
    if let Some(path) = path {
        command.env("CMF_PLUGIN_PATH", path);
    }
    command.output().unwrap().into()
}

#[test]
fn nothing_is_loaded_from_the_working_directory() {
    let home = folder();
    let library = installed(home.path());
    with_manifest(home.path(), &library);
    sample(home.path(), None, &[]).fails_with(&["there is no energy double-well-c"]);
    // An empty part of the path is not the working directory either.
    sample(home.path(), Some(Path::new(":")), &[]).fails_with(&["there is no energy double-well-c"]);
}

#[test]
fn a_named_library_runs_without_more_ado() {
    let home = folder();
    let library = installed(home.path());
    sample(home.path(), None, &["--plugin", library.to_str().unwrap()]).ok();
    let off = ["--no-plugins", "--plugin", library.to_str().unwrap()];
    sample(home.path(), None, &off).fails_with(&["there is no energy double-well-c"]);
    let spec = format!("plugin:{}", library.display());
    let args = ["sample", "--energy", &spec, "--no-plugins", "--out", "a.csv"];
    cli(home.path(), &args).fails_with(&["plugins are off"]);
    // A path where a name is expected is told apart.
    let args = ["sample", "--energy", "libdouble_well_c.so", "--out", "a.csv"];
    cli(home.path(), &args).fails_with(&["for the library at this path write plugin:libdouble_well_c.so"]);
    sample(home.path(), None, &["--plugin", "missing.so"]).fails_with(&["missing.so: there is no such file"]);
}

#[test]
fn the_platforms_folder_runs_and_its_manifests_are_listed_without_running() {
    let home = folder();
    let library = installed(&home.path().join("data/cmf/plugins"));
    // Without a manifest nobody knows what it offers.
    sample(home.path(), None, &[]).fails_with(&["there is no energy double-well-c"]);
    with_manifest(home.path(), &library);
    sample(home.path(), None, &[]).ok();
    // Not if anyone may have put it there, though.
    let set = |mode| {
        let folder = library.parent().unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    set(0o1777);
    sample(home.path(), None, &[]).fails_with(&["every user may put files into its folder"]);
    set(0o755);
    let listed = cli(home.path(), &["plugin", "list", "--json"]).ok().json();
    let plugin = &listed["plugins"][0];
    assert_eq!(plugin["manifest"]["energy"][0]["name"], "double-well-c");
    assert_eq!(plugin["may_run"], true);
    assert!(listed["builtin"]["energy"].as_array().unwrap().len() >= 9);
    for name in ["cartoonset", "synthetic-faces"] {
        assert!(listed["builtin"]["dataset"].as_array().unwrap().iter().any(|d| d["name"] == name), "{name}");
    }
    // Listing reads the manifest: a library that would end the process on loading is listed all the same.
    let hanging = library.with_file_name("libhostile.so");
    cc(&root().join("tests/plugins/hostile.c"), "cmf-plugins/include", &["-DHOW=12"], &hanging);
    let listed = cli(home.path(), &["plugin", "list", "--json"]).ok().json();
    assert_eq!(listed["plugins"].as_array().unwrap().len(), 2);
    // A manifest that promises too much is found out.
    let manifest = library.with_extension("toml");
    let text =
        std::fs::read_to_string(&manifest).unwrap().replace("double-well-c\"\nabout", "triple-well\"\nabout");
    std::fs::write(&manifest, &text).unwrap();
    let args = ["sample", "--energy", "triple-well", "--out", "a.csv"];
    cli(home.path(), &args).fails_with(&["its manifest lists the energy triple-well"]);
    // One of another interface is listed as what it is.
    std::fs::write(&manifest, text.replace("abi = \"1.0\"", "abi = \"7.0\"")).unwrap();
    let listed = cli(home.path(), &["plugin", "list"]).ok();
    let words = "was built for plugin interface 7.0, this program supports 1.0 to 1.0";
    assert!(listed.stdout.contains(words), "{}", listed.stdout);
    // A named library is asked itself, whatever its manifest says.
    sample(home.path(), None, &["--plugin", library.to_str().unwrap()]).ok();
    std::fs::write(&manifest, "name = 3").unwrap();
    let listed = cli(home.path(), &["plugin", "list"]).ok();
    assert!(listed.stdout.contains("is no plugin manifest"), "{}", listed.stdout);
}

#[test]
fn the_plugin_path_needs_approval_of_these_very_bytes() {
    let home = folder();
    let elsewhere = folder();
    let library = installed(elsewhere.path());
    with_manifest(home.path(), &library);
    let path = Some(elsewhere.path());
    sample(home.path(), path, &[]).fails_with(&["is not approved (SHA-256 ", "cmf-cli plugin trust"]);
    let done = cli(home.path(), &["plugin", "trust", library.to_str().unwrap()]).ok();
    assert!(done.stdout.contains("config/cmf/trusted-plugins.toml"), "{}", done.stdout);
    sample(home.path(), path, &[]).ok();
    sample(home.path(), path, &["--no-plugins"]).fails_with(&["there is no energy"]);
    // One byte more, and it is another library.
    let mut bytes = std::fs::read(&library).unwrap();
    bytes.push(0);
    std::fs::write(&library, bytes).unwrap();
    sample(home.path(), path, &[]).fails_with(&["is not approved"]);
    // An approval that anyone may have written is none.
    cli(home.path(), &["plugin", "trust", library.to_str().unwrap()]).ok();
    let store = home.path().join("config/cmf/trusted-plugins.toml");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o666)).unwrap();
    sample(home.path(), path, &[]).fails_with(&["every user may write this file"]);
}

#[test]
fn a_library_that_anyone_may_write_is_refused_even_when_named() {
    let home = folder();
    let library = installed(home.path());
    std::fs::set_permissions(&library, std::fs::Permissions::from_mode(0o777)).unwrap();
    let named = ["--plugin", library.to_str().unwrap()];
    sample(home.path(), None, &named).fails_with(&["every user may write this file", "chmod o-w"]);
}

#[test]
fn parameters_are_checked_against_the_schema() {
    let home = folder();
    for (word, words) in [
        ("temperature=-1", "temperature: expected a number from 0, found -1"),
        ("temperature=0", "expected a number above 0"),
        ("heat=1", "there is no parameter heat; expected one of: temperature"),
    ] {
        let args = ["sample", "--energy", "himmelblau", "--set", word, "--out", "a.csv"];
        cli(home.path(), &args).fails_with(&[words]);
    }
}
