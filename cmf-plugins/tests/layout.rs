//! The header and its Rust twins have the same layout, by the word of the system's C compiler.

use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use cmf_plugin::abi::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Name of each struct, its size and alignment, and its fields with their offsets.
type Layout = (&'static str, usize, usize, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($c:literal, $rust:ty, $($field:ident),+) => {
        ($c, size_of::<$rust>(), align_of::<$rust>(), vec![$((stringify!($field), offset_of!($rust, $field))),+])
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!("cmf_error", CmfError, text),
        layout!("cmf_entry", CmfEntry, name, about, parameters),
        layout!(
            "cmf_energy_factory",
            CmfEnergyFactory,
            count,
            entries,
            create,
            destroy,
            dim,
            domain,
            value_and_gradient,
            hvp
        ),
        layout!("cmf_dataset_info", CmfDatasetInfo, rank, shape, rows, pixel_range, licence),
        layout!("cmf_dataset_factory", CmfDatasetFactory, count, entries, create, destroy, info, read),
        layout!(
            "cmf_model_info",
            CmfModelInfo,
            dim,
            rank,
            shape,
            pixel_range,
            sigma,
            log_z,
            log_z_error,
            has_log_z,
            has_hessian
        ),
        layout!("cmf_gibbs_report", CmfGibbsReport, acceptance, step_size, r_hat, effective_sample_size),
        layout!("cmf_input_info", CmfInputInfo, name, rank, shape, has_alpha, unused),
        layout!(
            "cmf_host",
            CmfHost,
            context,
            model,
            value_and_gradient,
            hvp,
            hessian,
            contraction,
            conjugate,
            gibbs,
            log_density,
            gaussian,
            uniform,
            normal,
            seed,
            input_count,
            input_info,
            input_read,
            write_image,
            write_table,
            result,
            progress,
            log,
            cancelled,
            head_factor,
            mixture
        ),
        layout!("cmf_task_factory", CmfTaskFactory, count, entries, run),
        layout!("cmf_plugin", CmfPlugin, abi_major, abi_minor, name, version, get_factory),
    ]
}

fn cc(args: &[&str], out: &Path, source: &Path) {
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let done = Command::new(compiler).args(args).arg("-o").arg(out).arg(source).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn sizes_and_offsets_are_those_of_c() {
    // The frozen header has to agree for as long as the major version is 1.
    for include in ["cmf-plugins/include", "tests/abi/1.0"] {
        let mut probe = "#include <stdio.h>\n#include \"cmf_plugin.h\"\nint main(void) {\n".to_string();
        let mut expected = Vec::new();
        for (name, size, align, fields) in layouts() {
            probe += &format!("printf(\"{name} %zu %zu\\n\", sizeof({name}), _Alignof({name}));\n");
            expected.push(format!("{name} {size} {align}"));
            for (field, offset) in fields {
                probe += &format!("printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));\n");
                expected.push(format!("{name}.{field} {offset}"));
            }
        }
        for (name, value) in [
            ("CMF_OK", OK),
            ("CMF_FAILED", FAILED),
            ("CMF_INVALID", INVALID),
            ("CMF_UNSUPPORTED", UNSUPPORTED),
            ("CMF_CANCELLED", CANCELLED),
            ("CMF_PANIC", PANIC),
            ("(int)CMF_ABI_MAJOR", MAJOR as i32),
            ("CMF_TRAIN", TRAIN as i32),
            ("CMF_HELD_OUT", HELD_OUT as i32),
            ("CMF_CONVERGED", CONVERGED),
            ("CMF_OUT_OF_STEPS", OUT_OF_STEPS),
            ("CMF_STALLED", STALLED),
            ("CMF_NON_FINITE", NON_FINITE),
            ("CMF_EVALUATED", EVALUATED),
            ("CMF_NOT_POSITIVE_DEFINITE", NOT_POSITIVE_DEFINITE),
            ("CMF_NOT_FINITE", NOT_FINITE),
            ("CMF_UNCONVERGED", UNCONVERGED),
            ("CMF_INFO", INFO as i32),
            ("CMF_WARNING", WARNING as i32),
            ("CMF_NO_INPUT == (size_t)-1", i32::from(NO_INPUT == usize::MAX)),
        ] {
            probe += &format!("printf(\"{name} %d\\n\", {name});\n");
            expected.push(format!("{name} {value}"));
        }
        for (name, value) in [("CMF_ENERGY", ENERGY), ("CMF_DATASET", DATASET), ("CMF_TASK", TASK)] {
            probe += &format!("printf(\"{name} %s\\n\", {name});\n");
            expected.push(format!("{name} {value}"));
        }
        probe += "return 0;\n}\n";
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("probe.c"), folder.path().join("probe"));
        std::fs::write(&source, probe).unwrap();
        let include = format!("-I{}", root().join(include).display());
        cc(&["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", &include], &program, &source);
        let said = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    }
}

/// Every struct of the header is compared above, and every field: what C lists is what is listed here.
#[test]
fn no_struct_or_field_is_left_out() {
    let header = std::fs::read_to_string(root().join("cmf-plugins/include/cmf_plugin.h")).unwrap();
    let structs = header.matches("typedef struct cmf_").count();
    // Two more are opaque: cmf_energy and cmf_dataset.
    assert_eq!(structs - 2, layouts().len());
    assert!(header.lines().count() <= 250, "the header is to stay short");
    // Every field is a member of a C struct: a line in a struct that ends in a semicolon begins one.
    let bodies =
        header.split("typedef struct cmf_").skip(1).filter_map(|s| s.split_once('{')?.1.split_once("\n}"));
    let fields: usize = bodies.map(|(body, _)| without_comments(body).matches(';').count()).sum();
    assert_eq!(fields, layouts().iter().map(|(_, _, _, fields)| fields.len()).sum::<usize>());
    let minor = format!("#define CMF_ABI_MINOR {MINOR}u");
    assert!(header.contains(&minor), "no {minor:?} in the header");
}

fn without_comments(text: &str) -> String {
    text.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, rest)| rest)).collect()
}

/// As long as the minor version is that of the frozen header, nothing has been added and nothing may differ.
#[test]
fn the_header_is_the_frozen_one_until_the_minor_version_rises() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    if MINOR == 0 {
        assert!(read("cmf-plugins/include/cmf_plugin.h") == read("tests/abi/1.0/cmf_plugin.h"));
    }
}

#[test]
fn the_header_is_clean_as_cpp_where_there_is_a_compiler() {
    if Command::new("c++").arg("--version").output().is_err() {
        eprintln!("there is no C++ compiler here: not checked");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("probe.cpp");
    std::fs::write(&source, "#include \"cmf_plugin.h\"\nint main() { return CMF_OK; }\n").unwrap();
    let include = format!("-I{}", root().join("cmf-plugins/include").display());
    let args = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", &include];
    let done =
        Command::new("c++").args(args).arg("-o").arg(folder.path().join("probe")).arg(&source).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
