//! What misbehaves is named by `plugin check`, and is an error or a documented end in a real command.

use std::path::{Path, PathBuf};

use crate::build::{cc, cli, panics, root};
use crate::common::folder;

/// The hostile plugin of this number in tests/plugins/hostile.c.
fn hostile(folder: &Path, how: u32) -> PathBuf {
    let out = folder.join(format!("libhostile{how}.so"));
    cc(&root().join("tests/plugins/hostile.c"), "cmf-plugins/include", &[&format!("-DHOW={how}")], &out);
    out
}

fn check(folder: &Path, library: &Path) -> crate::common::Finished {
    cli(folder, &["plugin", "check", library.to_str().unwrap(), "--timeout", "5", "--seed", "3"])
}

#[test]
fn each_way_to_misbehave_is_named() {
    let folder = folder();
    for (how, words) in [
        (1, "a batch in the domain: aborts"),
        (2, "a batch in the domain: segfaults"),
        (4, "left place 2 of gradient [48] unwritten; it says that its dimension is 3"),
        (5, "value is NaN in the domain"),
        (6, "wrote out of bounds: 1 places past the end of gradient [32]"),
        (9, "the moon is in the wrong place"),
        (10, "ended the process (exit status: 7)"),
        (11, "gradient against differences: the gradient says that coordinate "),
        (13, "answered CMF_CANCELLED, which only a task may: enough"),
        (14, "a large batch: wrote out of bounds: 20000 places past the end of gradient [20000]"),
    ] {
        let done = check(folder.path(), &hostile(folder.path(), how));
        assert_eq!(done.code, Some(1), "{how}: {}{}", done.stdout, done.stderr);
        assert!(
            done.stdout.contains("FAILED  energy hostile: ") && done.stdout.contains(words),
            "{how}: {}",
            done.stdout
        );
        assert!(done.stderr.contains("--seed 3"), "{}", done.stderr);
    }
}

#[test]
fn what_hangs_is_stopped() {
    let folder = folder();
    for (how, words) in [(3, "energy hostile: a batch in the domain: hangs"), (12, "load: hangs")] {
        let library = hostile(folder.path(), how);
        let done = cli(folder.path(), &["plugin", "check", library.to_str().unwrap(), "--timeout", "1"]);
        assert_eq!(done.code, Some(1));
        assert!(done.stdout.contains(words), "{}", done.stdout);
    }
}

#[test]
fn panics_are_named_and_are_errors_with_words() {
    let folder = folder();
    let library = panics();
    let done = check(folder.path(), &library);
    assert_eq!(done.code, Some(1));
    for words in [
        "energy panics: a batch in the domain: panicked: the sky fell",
        "data set panics: shape, rows and pixel range: panicked: no data today",
        "task panics: runs on a small model: panicked: the floor opened under seed 3",
    ] {
        assert!(done.stdout.contains(words), "no {words:?} in {}", done.stdout);
    }
    // The seed comes again with --seed, and so does the failure.
    assert_eq!(done.stdout, check(folder.path(), &library).stdout);

    let spec = format!("plugin:{}", library.display());
    for (args, words) in [
        (vec!["sample", "--energy", &spec, "--out", "a.npy"], "panicked: the sky fell"),
        (vec!["run", &spec], "panicked: the floor opened"),
    ] {
        let done = cli(folder.path(), &args);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(
            done.stderr.contains("error: plugin panics (") && done.stderr.contains(words),
            "{}",
            done.stderr
        );
    }
    assert!(!folder.path().join("a.npy").exists());
}

#[test]
fn what_is_no_plugin_is_refused_before_its_code_runs() {
    let folder = folder();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    // A library of this machine whose header says that it is another's: ELF's e_machine, 183 is AArch64.
    let foreign = folder.path().join("foreign.so");
    let mut bytes = std::fs::read(hostile(folder.path(), 9)).unwrap();
    let other: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    bytes[18..20].copy_from_slice(&other.to_le_bytes());
    if cfg!(target_os = "linux") {
        std::fs::write(&foreign, bytes).unwrap();
    }
    let mut cases = vec![
        (text, "text.so: is a text file, expected a dynamic library"),
        (hostile(folder.path(), 8), "lacks the symbol cmf_plugin_entry"),
    ];
    if foreign.exists() {
        cases.push((foreign, "is a library for another architecture: found Elf"));
    }
    for (library, words) in cases {
        check(folder.path(), &library).fails_with(&["error: ", words]);
        let spec = format!("plugin:{}", library.display());
        cli(folder.path(), &["sample", "--energy", &spec, "--out", "a.npy"]).fails_with(&[words]);
    }
    // A wrong version is in the library's own words, which take loading it.
    let library = hostile(folder.path(), 7);
    let done = check(folder.path(), &library);
    let words = "was built for plugin interface 9.0, this program supports 1.0 to 1.0: use a newer cmf-cli";
    assert!(done.code == Some(1) && done.stdout.contains(words), "{}", done.stdout);
    let spec = format!("plugin:{}", library.display());
    cli(folder.path(), &["sample", "--energy", &spec, "--out", "a.npy"]).fails_with(&[words]);
}

/// The signal stays what it was; who hears of it is told whose code was in the process.
#[cfg(unix)]
#[test]
fn a_fault_in_a_real_command_names_the_library() {
    let folder = folder();
    for how in [1, 2] {
        let spec = format!("plugin:{}", hostile(folder.path(), how).display());
        let done = cli(folder.path(), &["sample", "--energy", &spec, "--out", "a.npy"]);
        assert_eq!(done.code, None, "{}", done.stderr);
        let words = format!("libhostile{how}.so. If it is damaged");
        let said = done.stderr.matches("a fault ended the program").count();
        assert!(said == 1 && done.stderr.contains(&words), "{}", done.stderr);
        assert!(!folder.path().join("a.npy").exists());
    }
}

/// What a watchdog sends ends the program at once, as it did before anything handled it.
#[cfg(target_os = "linux")]
#[test]
fn an_abort_from_outside_ends_the_program() {
    let folder = folder();
    let spec = format!("plugin:{}", hostile(folder.path(), 3).display());
    let done: crate::common::Finished = std::process::Command::new("timeout")
        // In the foreground the signal is sent once, else to the group as well.
        .args(["--foreground", "--signal=ABRT", "--kill-after=30", "1"])
        .arg(crate::common::binary().get_program())
        .args(["sample", "--energy", &spec, "--out", "a.npy"])
        .current_dir(folder.path())
        .output()
        .unwrap()
        .into();
    // 137 if it had to be killed.
    assert_eq!(done.code, Some(124), "{}", done.stderr);
    assert_eq!(done.stderr.matches("libhostile3.so. If it is damaged").count(), 1, "{}", done.stderr);
}

#[test]
fn errors_in_a_real_command_are_words_and_no_output() {
    let folder = folder();
    for (how, words) in [
        (5, "the potential at chain 0 is not finite"),
        (9, "the moon is in the wrong place"),
        // No user asked to stop, so it is no silent end either.
        (13, "answered CMF_CANCELLED, which only a task may: enough"),
    ] {
        let spec = format!("plugin:{}", hostile(folder.path(), how).display());
        cli(folder.path(), &["sample", "--energy", &spec, "--out", "a.npy"]).fails_with(&[words]);
        assert!(!folder.path().join("a.npy").exists());
    }
}
