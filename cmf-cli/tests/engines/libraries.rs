//! A library that cannot serve is an error that names it, what it is, and what to do; never a hang or a panic.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Finished, binary, folder, gradient, model, run};

/// Compiles a library that has ONNX Runtime's symbol.
fn stand_in(folder: &Path, name: &str, defines: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/stand_in.c");
    let out = folder.join(name);
    let mut command = Command::new(std::env::var("CC").unwrap_or("cc".into()));
    command.args(["-std=c11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]).args(defines);
    let done = command.arg("-o").arg(&out).arg(source).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

/// Scores an image by ONNX Runtime. A command that hangs is ended, and fails the test.
fn score(folder: &Path, arguments: &[&str], variable: Option<&Path>) -> Finished {
    gradient(8).save(folder.join("img.png")).unwrap();
    let mut command = binary();
    command.current_dir(folder).args(["score", "--model"]).arg(model(8)).args(["img.png", "--engine", "ort"]);
    command.args(arguments).env_remove("ORT_DYLIB_PATH").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(variable.map(|path| ("ORT_DYLIB_PATH", path)));
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("hangs: {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap().into()
}

/// Tries a library in both ways in which it can be named.
fn refused(library: &Path, words: &[&str]) {
    let name = library.file_name().unwrap().to_str().unwrap();
    let words = [words, &[name]].concat();
    let folder = folder();
    let named = score(folder.path(), &["--ort-lib", library.to_str().unwrap()], None);
    named.fails_with(&[&words[..], &["--ort-lib"]].concat());
    let by_variable = score(folder.path(), &[], Some(library));
    by_variable.fails_with(&[&words[..], &["ORT_DYLIB_PATH"]].concat());
}

const INSTALL: &str = "Install ONNX Runtime 1.17 or later";

/// The header of a library of 32-bit x86, alone.
fn elf_of_32_bits() -> Vec<u8> {
    let mut header = vec![0; 52];
    header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    for (at, value) in [(16, 3_u16), (18, 3), (20, 1), (40, 52), (42, 32), (46, 40)] {
        header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    header
}

#[test]
fn files_that_are_no_library_of_this_machine() {
    let folder = folder();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    refused(&write("empty.so", b""), &["is an empty file", INSTALL]);
    refused(&write("text.so", b"not a library at all\n"), &["is a text file", INSTALL]);
    refused(&write("other.so", &elf_of_32_bits()), &["is a library for another architecture", INSTALL]);
    refused(&write("noise.so", b"\x01\xff\xfe\x00 noise"), &["of an unknown kind", INSTALL]);
}

#[test]
fn a_library_that_is_cut_short() {
    let folder = folder();
    let whole = std::fs::read(stand_in(folder.path(), "whole.so", &[])).unwrap();
    for keep in [64, whole.len() / 2, whole.len() - 1] {
        let path = folder.path().join("cut.so");
        std::fs::write(&path, &whole[..keep]).unwrap();
        refused(&path, &["expected a", "dynamic library", INSTALL]);
    }
}

/// Without its section table, which stands at the end, only the segments tell that the file was cut; the
/// system's loader would map them and die of a bus error.
#[cfg(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
#[test]
fn a_stripped_library_that_is_cut_short() {
    let folder = folder();
    let mut bytes = std::fs::read(stand_in(folder.path(), "whole.so", &[])).unwrap();
    bytes[40..48].fill(0); // e_shoff
    bytes[60..64].fill(0); // e_shnum, e_shstrndx
    let path = folder.path().join("cut.so");
    std::fs::write(&path, &bytes[..bytes.len() / 4]).unwrap();
    refused(&path, &["is cut short", INSTALL]);
}

#[test]
fn versions_that_do_not_serve() {
    let folder = folder();
    let make = |name: &str, define: &str| stand_in(folder.path(), name, &[define]);
    refused(&make("old.so", "-DVERSION=\"1.16.3\""), &["is version 1.16.3, which is too old", INSTALL]);
    refused(&make("new.so", "-DVERSION=\"2.0.0\""), &["is version 2.0.0, which is too new", INSTALL]);
    refused(&make("odd.so", "-DVERSION=\"latest\""), &["its version is \"latest\"", INSTALL]);
    refused(&make("liar.so", "-DVERSION=\"1.99.0\""), &["does not offer the interface of 1.17", INSTALL]);
}

#[test]
fn libraries_of_something_else() {
    let folder = folder();
    let make = |name: &str, define: &str| stand_in(folder.path(), name, &[define]);
    refused(&make("else.so", "-DNO_SYMBOL"), &["lacks the symbol OrtGetApiBase", INSTALL]);
    refused(&make("nowhere.so", "-DNOWHERE"), &["leads nowhere", INSTALL]);
}

#[test]
fn what_is_not_there() {
    refused(Path::new("/nowhere/libonnxruntime.so"), &["there is no such file"]);
    let folder = folder();
    let empty = folder.path().join("lib");
    std::fs::create_dir(&empty).unwrap();
    refused(&empty, &["is a folder without"]);
    // A folder is searched for the library; this one holds a release that is too old.
    let suffix = std::env::consts::DLL_SUFFIX;
    stand_in(&empty, &format!("{}onnxruntime{suffix}", std::env::consts::DLL_PREFIX), &[]);
    score(folder.path(), &["--ort-lib", empty.to_str().unwrap()], None).fails_with(&["1.16.3", "too old"]);
}

/// The first library of the search decides: an old one in the system's folders is not passed over in silence.
#[cfg(target_os = "linux")]
#[test]
fn the_search_says_where_it_looked_and_what_it_took() {
    let folder = folder();
    let old = stand_in(folder.path(), "libonnxruntime.so", &[]);
    gradient(8).save(folder.path().join("img.png")).unwrap();
    let by_search = |path: &Path| -> Finished {
        let mut command = binary();
        command.current_dir(folder.path()).args(["score", "--model"]).arg(model(8));
        command.args(["img.png", "--engine", "ort"]).env_remove("ORT_DYLIB_PATH");
        command.env("LD_LIBRARY_PATH", path).output().unwrap().into()
    };
    let old = by_search(old.parent().unwrap());
    old.fails_with(&["libonnxruntime.so", "1.16.3", "too old", "the system's library folders"]);
    // What lies in the working directory is not looked at.
    let none = by_search(Path::new("."));
    if none.code != Some(0) {
        let words =
            ["was not found in: ORT_DYLIB_PATH (not set)", "beside the executable", "/usr/lib", INSTALL];
        none.fails_with(&words);
    }
}

#[test]
fn a_python_without_the_package_is_named() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    let asked = || -> Finished {
        let mut command = binary();
        command.current_dir(folder.path()).args(["score", "--model"]).arg(model(8));
        command.args(["img.png", "--engine", "ort", "--ort-lib", "python"]).env("PATH", folder.path());
        command.output().unwrap().into()
    };
    asked().fails_with(&["--ort-lib python: python3 cannot be run", "python cannot be run", "pip install"]);
    // One that fails is named, and the next is asked.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for (name, text) in [("python3", "#!/bin/sh\necho broken >&2; exit 3\n"), ("python", "#!/bin/sh\n")] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        asked().fails_with(&["python3 failed (exit status: 3: broken)", "python has no package onnxruntime"]);
    }
}

#[test]
fn a_library_without_its_engine_is_refused() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    run(folder.path(), "score --model MODEL img.png --ort-lib x.so").fails_with(&["--engine ort"]);
}

#[test]
#[ignore = "needs a Python with the package onnxruntime in the path"]
fn the_library_of_a_python_package_is_found() {
    let mut command = binary();
    command.args(["verify", "--engine", "ort", "--ort-lib", "python", "--json"]).arg(model(8));
    let json = Finished::from(command.env_remove("ORT_DYLIB_PATH").output().unwrap()).ok().json();
    assert!(json["engines"][1]["onnxruntime"].is_string(), "{json}");
}
