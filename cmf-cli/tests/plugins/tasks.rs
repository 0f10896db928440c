//! Tasks: the built-in ones static and through the library, and new ones that the core does not know.

use std::path::Path;

use cmf_core::linalg::{Cholesky, matmul};
use cmf_core::onnx::ModelFile;
use image::{GrayImage, Luma};
use npyz::NpyFile;

use crate::build::{cc, cli, example, own, root};
use crate::common::{flat_model, folder, gradient, half_hidden, mixed_model, model};

fn npy(path: &Path) -> Vec<f64> {
    NpyFile::new(&std::fs::read(path).unwrap()[..]).unwrap().into_vec().unwrap()
}

#[test]
fn built_in_tasks_give_the_same_numbers_and_pixels_through_the_library() {
    same_through_the_library(&model(8));
}

/// Without the mixtures a library's tasks would have other densities, and completions that start elsewhere.
#[test]
fn so_do_those_of_a_model_with_mixtures() {
    same_through_the_library(&mixed_model());
}

fn same_through_the_library(model: &Path) {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    half_hidden(8).save(path("hole.png")).unwrap();
    gradient(8).save(path("grey.png")).unwrap();
    let model = model.to_str().unwrap();
    let library = own();
    let run = |task: &str, out: &str, more: &[&str]| {
        let name = task.rsplit('#').next().unwrap().to_string();
        let args = [&["run", task, "--model", model, "--seed", "5", "--json", "-o", out], more].concat();
        std::fs::create_dir_all(path(out)).unwrap();
        (name, cli(folder.path(), &args).ok().json()["results"].clone())
    };
    for (task, more, outputs) in [
        ("inpaint", &["hole.png"][..], &["hole.inpainted.png"][..]),
        ("inpaint", &["grey.png", "--mask-rect", "0,4,8,4", "--estimate", "mean"], &["grey.inpainted.png"]),
        ("score", &["grey.png", "--add-noise"], &[]),
        ("sample", &["--number", "6", "--steps", "40"], &["task.samples.npy", "task.samples.png"]),
    ] {
        let (_, built_in) = run(task, "static", more);
        let (_, loaded) = run(&format!("plugin:{}#{task}", library.display()), "dynamic", more);
        assert_eq!(built_in, loaded, "{task}");
        for name in outputs {
            let bytes = |folder: &str| std::fs::read(path(folder).join(name)).unwrap();
            assert_eq!(bytes("static"), bytes("dynamic"), "{task}: {name}");
        }
    }
    // And the same as the commands of those names.
    let args = ["inpaint", "--model", model, "--seed", "5", "hole.png"];
    cli(folder.path(), &args).ok();
    let command = image::open(path("hole.inpainted.png")).unwrap().to_luma8();
    assert_eq!(command, image::open(path("static/hole.inpainted.png")).unwrap().to_luma8());
    let args = ["sample", "--model", model, "--seed", "5", "-n", "6", "--steps", "40", "--out", "s.npy"];
    cli(folder.path(), &args).ok();
    // The command's solves start in whitened coordinates: both end within the tolerance of 1e-4 in the gradient, times the
    // variances of the Gibbs factor, below 1 here.
    let (command, task) = (npy(&path("s.npy")), npy(&path("static/task.samples.npy")));
    assert_eq!(command.len(), task.len());
    assert!(command.iter().zip(&task).all(|(a, b)| (a - b).abs() < 1e-3));
    let score = |args: &[&str]| cli(folder.path(), args).ok().json();
    let command = score(&["score", "--model", model, "grey.png", "--json"]);
    let task = score(&["run", "score", "--model", model, "grey.png", "--json"]);
    assert_eq!(command["rows"][0]["log_density"], task["results"][0]["log_density"]);
}

#[test]
fn energies_give_the_same_samples_through_the_library() {
    let folder = folder();
    let spec = format!("plugin:{}#himmelblau", own().display());
    let draw = |energy: &str, out: &str| {
        let args = ["sample", "--energy", energy, "-n", "10", "--steps", "60", "--seed", "4", "--out", out];
        cli(folder.path(), &args).ok();
        npy(&folder.path().join(out))
    };
    assert_eq!(draw("himmelblau", "static.npy"), draw(&spec, "dynamic.npy"));
}

#[test]
fn samples_of_an_energy_have_its_moments() {
    let folder = folder();
    let args = ["sample", "--energy", "gaussian", "--set", "mean=1,-2", "--set", "std=2,0.5", "--set"];
    let args = [&args[..], &["correlation=0.6", "-n", "4000", "--steps", "400", "--out", "a.npy", "--json"]]
        .concat();
    cli(folder.path(), &args).ok();
    let x = npy(&folder.path().join("a.npy"));
    let n = x.len() as f64 / 2.0;
    let mean = |f: &dyn Fn(&[f64]) -> f64| x.chunks_exact(2).map(f).sum::<f64>() / n;
    // Chains are independent: standard errors of n = 4000 draws, five of them.
    for (found, want, spread) in [
        (mean(&|p| p[0]), 1.0, 2.0),
        (mean(&|p| p[1]), -2.0, 0.5),
        (mean(&|p| (p[0] - 1.0).powi(2)), 4.0, 4.0 * 2_f64.sqrt()),
        (mean(&|p| (p[1] + 2.0).powi(2)), 0.25, 0.25 * 2_f64.sqrt()),
        // Var(uv) = s²t² (1 + r²).
        (mean(&|p| (p[0] - 1.0) * (p[1] + 2.0)), 0.6, 1.36_f64.sqrt()),
    ] {
        assert!((found - want).abs() < 5.0 * spread / n.sqrt(), "{found} {want}");
    }
}

/// On the rim of their domains these stand at hundreds and thousands of nats, so steep that no Langevin step from
/// there is accepted: no chain may stay.
#[test]
fn no_chain_stays_on_the_rim_of_the_domain() {
    let folder = folder();
    // At the temperatures that are their defaults, 20 and 2.
    let rosenbrock = |p: &[f64]| ((1.0 - p[0]).powi(2) + 100.0 * (p[1] - p[0] * p[0]).powi(2)) / 20.0;
    let camel = |p: &[f64]| {
        let x = p[0] * p[0];
        (2.0 * x - 1.05 * x * x + x * x * x / 6.0 + p[0] * p[1] + p[1] * p[1]) / 2.0
    };
    type Surface = fn(&[f64]) -> f64;
    let energies: [(&str, Surface); 2] = [("rosenbrock", rosenbrock), ("three-hump-camel", camel)];
    for (name, energy) in energies {
        let args = ["sample", "--energy", name, "-n", "500", "--steps", "400", "--out", "a.npy"];
        cli(folder.path(), &args).ok();
        let worst = npy(&folder.path().join("a.npy")).chunks_exact(2).map(energy).fold(0.0, f64::max);
        // E of Rosenbrock's law is exponential with mean 1, that of the camel falls as fast: of 500 draws one
        // beyond 20 has a probability of about 500 e^-20 = 1e-6.
        assert!(worst < 20.0, "{name}: {worst}");
    }
}

/// The model of the tests is (nearly) Gaussian, N(m, S), so the MAP of y under noise s is known:
/// z = m + S (S + s² I)^{-1} (y - m).
#[test]
fn denoising_finds_the_map_of_a_gaussian() {
    let folder = folder();
    let noisy = GrayImage::from_fn(8, 8, |x, y| Luma([(100 + (x * 37 + y * 61) % 80) as u8]));
    noisy.save(folder.path().join("noisy.png")).unwrap();
    let model = model(8);
    let library = example("task");
    let (model_text, library) = (model.to_str().unwrap(), library.to_str().unwrap());
    let args =
        ["run", "--plugin", library, "denoise", "--model", model_text, "--noise", "0.1", "--steps", "500"];
    let done = cli(folder.path(), &[&args[..], &["noisy.png", "--json"]].concat()).ok().json();
    assert_eq!(done["results"][0]["converged"], true);
    assert_eq!(done["outputs"][0], "noisy.denoised.png");
    let found = image::open(folder.path().join("noisy.denoised.png")).unwrap().to_luma8();

    let gaussian = ModelFile::open(&model).unwrap().metadata().unwrap().gaussian.clone().unwrap();
    let d = 64;
    let centred: Vec<f64> =
        noisy.iter().zip(&gaussian.mean).map(|(v, m)| f64::from(*v) / 255.0 - m).collect();
    let mut with_noise = gaussian.covariance.dense().into_owned();
    with_noise.iter_mut().step_by(d + 1).for_each(|v| *v += 0.1 * 0.1);
    let mut solved = centred;
    Cholesky::new(&with_noise, d, "S + s^2 I").unwrap().solve_rows(&mut solved).unwrap();
    let map = matmul(&gaussian.covariance.dense(), &solved, d, d, 1);
    for (i, (found, (map, mean))) in found.iter().zip(map.iter().zip(&gaussian.mean)).enumerate() {
        // The ascent ends within 1% of the noise, 0.001, root mean square: no pixel is off by more than eight
        // times that, as there are 64; and half a grey level.
        let (found, want) = (f64::from(*found) / 255.0, mean + map);
        assert!((found - want).abs() < 0.01, "pixel {i}: {found} {want}");
    }
}

#[test]
fn help_and_errors_of_a_task_come_from_its_schema() {
    let folder = folder();
    let library = example("task");
    let spec = format!("plugin:{}", library.display());
    let help = cli(folder.path(), &["run", &spec, "--help"]).ok().stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in
        ["--noise <NOISE>", "Standard deviation of the noise", "[default: 0.2]", "<FILE>...", "--model"]
    {
        assert!(help.contains(words), "no {words:?} in {help}");
    }
    let general = cli(folder.path(), &["run", "--help"]).ok().stdout;
    assert!(general.contains("Tasks: sample, score, inpaint"), "{general}");
    let none = cli(folder.path(), &["run"]);
    assert!(none.code == Some(2) && none.stderr.contains("TASK is missing"), "{}", none.stderr);
    let usage = |args: &[&str], words: &str| {
        let done = cli(folder.path(), &[&["run", spec.as_str()], args].concat());
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(words), "no {words:?} in {}", done.stderr);
    };
    usage(&[], "<FILE>...");
    usage(&["a.png", "--noise", "x"], "expected a number from 0, found \"x\"");
    usage(&["a.png", "--steps", "0"], "expected a whole number from 1 to 100000, found 0");
    usage(&["a.png", "--loud"], "--loud");
    cli(folder.path(), &["run", &spec, "a.png"]).fails_with(&["needs a model"]);
    cli(folder.path(), &["run", "dream"]).fails_with(&["there is no task dream; expected one of sample"]);
    let flat = flat_model();
    gradient(8).save(folder.path().join("a.png")).unwrap();
    let args = ["run", &spec, "--model", flat.to_str().unwrap(), "a.png"];
    cli(folder.path(), &args).fails_with(&["a.png: expected an image of 2 numbers"]);
}

#[test]
fn a_task_in_c_goes_there_and_back() {
    let folder = folder();
    let library = folder.path().join("libround_trip_c.so");
    cc(&root().join("examples/plugin-task-c/plugin.c"), "cmf-plugins/include", &[], &library);
    let image = gradient(8);
    image.save(folder.path().join("a.png")).unwrap();
    let spec = format!("plugin:{}", library.display());
    let args = ["run", &spec, "--model", model(8).to_str().unwrap(), "a.png", "--json"].map(String::from);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = cli(folder.path(), &args).ok().json();
    assert_eq!(done["results"][0]["converged"], true);
    let back = image::open(folder.path().join("a.round-trip.png")).unwrap().to_luma8();
    // The solve ends at a residual of 1e-4 in grad w, and pixels are rounded to 1/255.
    assert!(back.iter().zip(image.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
}

/// Every tool of the host answers wrong calls and corner cases with a code and words, and lives on.
#[test]
fn the_hosts_tools_survive_wrong_calls() {
    let folder = folder();
    let library = folder.path().join("libnosy.so");
    cc(&root().join("tests/plugins/nosy.c"), "cmf-plugins/include", &[], &library);
    let spec = format!("plugin:{}", library.display());
    let done = cli(folder.path(), &["run", &spec, "--model", model(8).to_str().unwrap(), "--json"]).ok();
    assert!(done.stderr.contains("warning: a line of the log: is not UTF-8"), "{}", done.stderr);
    let results = done.json()["results"].as_array().unwrap().clone();
    let (ok, failed, invalid) = (0, 1, 2);
    let expected = [
        ("none ", ok, ""),
        ("good ", ok, ""),
        ("d value", invalid, "d: expected 64, the model's dimension, found 65"),
        ("d gibbs", invalid, "found 63"),
        ("d gaussian", invalid, "found 63"),
        ("null x", invalid, "x: expected room for 64, found NULL"),
        ("null status", invalid, "status: expected room for 1, found NULL"),
        ("null report", invalid, "report: expected room for 1, found NULL"),
        ("null context", invalid, "context: expected room for 1, found NULL"),
        ("null label", invalid, "label: expected text, found NULL"),
        ("null info", invalid, "info: expected room for 1, found NULL"),
        ("large n", invalid, "x: too many numbers"),
        ("overlap", invalid, "hv: overlaps another array of the call"),
        ("few steps", invalid, "expected at least 8, found 3"),
        ("no rows of nothing", invalid, "expected rows of 0 numbers"),
        ("huge image", invalid, "too many numbers"),
        ("empty image", invalid, "an image of 0x4 pixels"),
        ("two channels", invalid, "2 channels, expected 1 or 3"),
        // Words with a quotation mark in them are left out by the plugin.
        ("label", invalid, ""),
        ("nan", failed, "number 1 is NaN"),
        ("no json", invalid, ""),
        ("input 99", invalid, "there is no input 99"),
        ("image of input 99", invalid, "there is no input 99"),
        ("latin text", invalid, "the result: is not UTF-8"),
    ];
    assert_eq!(results.len(), 8 + 2 + expected.len() - 2, "{results:#?}");
    for result in results {
        let what = result["what"].as_str().unwrap();
        let (_, code, words) = expected.iter().find(|e| what.starts_with(e.0)).unwrap();
        assert!(result["code"] == *code && result["text"].as_str().unwrap().contains(words), "{result}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_data_set_plugin_is_scored_like_any() {
    let folder = folder();
    let (model, library) = (flat_model(), example("dataset"));
    let spec = format!("plugin:{}?rows=50&noise=0", library.display());
    let args = ["score", "--model", model.to_str().unwrap(), "--data", &spec, "--json"];
    let rows = cli(folder.path(), &args).ok().json()["rows"].as_array().unwrap().len();
    assert_eq!(rows, 5, "a tenth is held out");
    let args = ["score", "--model", model.to_str().unwrap(), "--data", &spec.replace("noise", "sound")];
    cli(folder.path(), &args)
        .fails_with(&["there is no parameter sound; expected one of: noise, rows, seed"]);
    // By its name, once --plugin says where it is.
    let named = |library: &[&str]| {
        let args = ["score", "--model", model.to_str().unwrap(), "--data", "two-moons?rows=50"];
        cli(folder.path(), &[&args[..], library].concat())
    };
    named(&["--plugin", library.to_str().unwrap()]).ok();
    let args = ["score", "--model", model.to_str().unwrap(), "--data", library.to_str().unwrap()];
    cli(folder.path(), &args).fails_with(&["is a library; for its data set write plugin:"]);
    named(&[]).fails_with(&["there is no data set two-moons", "nor is there a file or folder of this name"]);
}

/// As the documentation has it: built, put into the platform's folder with its manifest, then known by its name.
#[test]
fn denoise_is_a_task_by_its_name_once_it_is_in_the_platforms_folder() {
    let folder = folder();
    let home = folder.path().join("data/cmf/plugins");
    std::fs::create_dir_all(&home).unwrap();
    let built = example("task");
    let library = home.join(built.file_name().unwrap());
    std::fs::copy(&built, &library).unwrap();
    gradient(8).save(folder.path().join("noisy.png")).unwrap();
    let line = ["run", "denoise", "--model", model(8).to_str().unwrap(), "noisy.png"].map(String::from);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    cli(folder.path(), &line).fails_with(&["there is no task denoise", "has no good manifest", "--manifest"]);
    cli(folder.path(), &["plugin", "check", library.to_str().unwrap(), "--manifest"]).ok();
    cli(folder.path(), &line).ok();
    assert!(folder.path().join("noisy.denoised.png").exists());
    assert!(cli(folder.path(), &["run", "denoise", "--help"]).ok().stdout.contains("--noise <NOISE>"));
}

#[cfg(feature = "train")]
#[test]
fn a_data_set_plugin_is_learned_from_and_resumed() {
    let folder = folder();
    let library = folder.path().join("libspiral_c.so");
    cc(&root().join("examples/plugin-dataset-c/plugin.c"), "cmf-plugins/include", &[], &library);
    // Relative on the command line, absolute in the run: a resumed run finds it from anywhere.
    let line = "train --data plugin:./libspiral_c.so?rows=200 --out run --updates 2 --widths 4 --batch 8 --particles 8";
    cli(folder.path(), &line.split(' ').collect::<Vec<_>>()).ok();
    let info = cli(folder.path(), &["info", "run/model.onnx", "--json"]).ok().stdout;
    assert!(info.contains("CC0-1.0") && info.contains("libspiral_c.so"), "{info}");
    // A run's settings are a file, not the user's word that a library may run.
    let resumed = |more: &[&str]| {
        cli(&folder.path().join("run"), &[&["train", "--resume", "--out", "."], more].concat())
    };
    resumed(&[]).fails_with(&[
        "run.json: what it learns from:",
        "is not approved",
        "or name it with --plugin",
    ]);
    resumed(&["--plugin", "../libspiral_c.so"]).ok();
    cli(&folder.path().join("run"), &["plugin", "trust", "../libspiral_c.so"]).ok();
    resumed(&[]).ok();
}
