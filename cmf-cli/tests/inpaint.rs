//! `cmf-cli inpaint`: what it fills, keeps and writes.
#![allow(missing_docs)]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{binary, folder, gradient, half_hidden, lower_half, model, names, run};
use image::{DynamicImage, GrayImage, ImageBuffer, LumaA, Rgb, RgbImage};

#[test]
fn fills_the_transparent_pixels_and_keeps_every_known_byte() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    let done = run(folder.path(), "inpaint --model MODEL img.png").ok();
    assert_eq!(done.stdout, "img.inpainted.png\n");
    assert_eq!(names(folder.path()), ["img.inpainted.png", "img.png"]);
    let out = image::open(folder.path().join("img.inpainted.png")).unwrap();
    let DynamicImage::ImageLumaA8(out) = out else { panic!("{:?}", out.color()) };
    let input = half_hidden(8);
    for (x, y, pixel) in out.enumerate_pixels() {
        if y < 4 {
            assert_eq!(pixel, input.get_pixel(x, y));
        } else {
            assert_eq!(pixel.0[1], 255, "the filling is opaque");
        }
    }
    // The model's neighbours correlate with e^{-1/2}: the filling's first row follows the known row.
    let (left, right) = (out.get_pixel(0, 4).0[0], out.get_pixel(7, 4).0[0]);
    assert!(right > left + 10, "the known row rises from left to right, the filling {left} to {right}");
}

#[test]
fn the_three_kinds_of_holes_agree() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    half_hidden(8).save(path("alpha.png")).unwrap();
    gradient(8).save(path("grey.png")).unwrap();
    lower_half(8).save(path("mask.png")).unwrap();
    let mut inverted = lower_half(8);
    image::imageops::invert(&mut inverted);
    inverted.save(path("inverted.png")).unwrap();
    run(folder.path(), "inpaint --model MODEL alpha.png").ok();
    for (hole, out) in [
        ("--mask mask.png", "a.png"),
        ("--mask inverted.png --invert-mask", "b.png"),
        ("--mask-rect 0,4,8,4", "c.png"),
    ] {
        run(folder.path(), &format!("inpaint --model MODEL grey.png {hole} -o {out}")).ok();
        let want = image::open(path("alpha.inpainted.png")).unwrap().into_luma8();
        let found = image::open(path(out)).unwrap();
        assert_eq!(found.color(), image::ColorType::L8, "{hole}");
        assert_eq!(found.into_luma8(), want, "{hole}");
    }
}

#[test]
fn soft_masks_are_cut_at_half() {
    let folder = folder();
    gradient(8).save(folder.path().join("img.png")).unwrap();
    // 127 is known, 128 is not.
    GrayImage::from_fn(8, 8, |x, _| image::Luma([120 + x as u8]))
        .save(folder.path().join("mask.png"))
        .unwrap();
    run(folder.path(), "inpaint --model MODEL img.png --mask mask.png --estimate mean -o out.png")
        .fails_with(&["no hole", "no white pixel"]);
    GrayImage::from_fn(8, 8, |x, _| image::Luma([122 + x as u8]))
        .save(folder.path().join("mask.png"))
        .unwrap();
    let done = run(folder.path(), "inpaint --model MODEL img.png --mask mask.png -o out.png --json").ok();
    assert_eq!(done.json()["done"][0]["hidden_pixels"], 16);
}

#[test]
fn colour_input_of_one_hue_stays_rgb_for_a_grey_model() {
    let folder = folder();
    let grey = gradient(8);
    let rgb = RgbImage::from_fn(8, 8, |x, y| {
        let v = grey.get_pixel(x, y).0[0];
        // The hole may hold any colour: nobody reads it.
        if y < 4 { Rgb([v; 3]) } else { Rgb([250, 0, 0]) }
    });
    rgb.save(folder.path().join("img.png")).unwrap();
    run(folder.path(), "inpaint --model MODEL img.png --mask-rect 0,4,8,4").ok();
    let out = image::open(folder.path().join("img.inpainted.png")).unwrap();
    let DynamicImage::ImageRgb8(out) = out else { panic!("{:?}", out.color()) };
    for (x, y, pixel) in out.enumerate_pixels() {
        assert!(y >= 4 || pixel == rgb.get_pixel(x, y));
        assert!(pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2], "the filling is grey");
    }
}

#[test]
fn a_folder_is_filled_with_masks_matched_by_stem() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("in")).unwrap();
    std::fs::create_dir(path("masks")).unwrap();
    for name in ["a", "b"] {
        gradient(8).save(path(&format!("in/{name}.bmp"))).unwrap();
        lower_half(8).save(path(&format!("masks/{name}.png"))).unwrap();
    }
    std::fs::write(path("in/notes.txt"), "no image").unwrap();
    let done = run(folder.path(), "inpaint --model MODEL in --mask masks -o out --json").ok();
    assert_eq!(names(&path("out")), ["a.png", "b.png"]);
    assert_eq!(done.json()["done"].as_array().unwrap().len(), 2);
    let out = image::open(path("out/b.png")).unwrap().into_luma8();
    for (x, y, pixel) in out.enumerate_pixels().filter(|(_, y, _)| *y < 4) {
        assert_eq!(pixel, gradient(8).get_pixel(x, y));
    }
}

#[test]
fn one_bad_image_does_not_stop_the_others() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("in")).unwrap();
    half_hidden(8).save(path("in/a.png")).unwrap();
    std::fs::write(path("in/b.png"), "no image").unwrap();
    half_hidden(8).save(path("in/c.png")).unwrap();
    let done = run(folder.path(), "inpaint --model MODEL in -o out --json");
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("in/b.png") && done.stderr.contains("2 done, 1 failed"), "{}", done.stderr);
    assert_eq!(names(&path("out")), ["a.png", "c.png"]);
    let json = done.json();
    assert!(json["failed"][0]["error"].as_str().unwrap().contains("no image"), "{json}");
}

#[test]
fn a_batch_gives_the_bytes_of_one_image_at_a_time_on_any_number_of_threads() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("in")).unwrap();
    std::fs::create_dir(path("alone")).unwrap();
    let stems = ["a", "b", "c", "d", "e"];
    for (k, name) in stems.iter().enumerate() {
        let mut image = half_hidden(8);
        image.pixels_mut().for_each(|p| p.0[0] = p.0[0].wrapping_add(9 * k as u8));
        image.save(path(&format!("in/{name}.png"))).unwrap();
        run(folder.path(), &format!("inpaint --model MODEL in/{name}.png -o alone --samples 2")).ok();
    }
    let alone = names(&path("alone"));
    assert_eq!(alone.len(), 4 * stems.len());
    for threads in ["1", "2", "3", "8"] {
        let out = format!("out-{threads}");
        let done: common::Finished = binary()
            .current_dir(folder.path())
            .env("RAYON_NUM_THREADS", threads)
            .args(["inpaint", "--json", "--samples", "2", "in", "-o", &out, "--model"])
            .arg(model(8))
            .output()
            .unwrap()
            .into();
        let json = done.ok().json();
        let order: Vec<&str> =
            json["done"].as_array().unwrap().iter().map(|d| d["image"].as_str().unwrap()).collect();
        assert_eq!(order, stems.map(|name| format!("in/{name}.png")));
        assert_eq!(names(&path(&out)), alone);
        for name in &alone {
            let read = |from: &str| std::fs::read(path(from).join(name)).unwrap();
            assert!(read("alone") == read(&out), "{name} on {threads} threads");
        }
    }
}

#[test]
fn a_second_run_over_a_folder_does_not_fill_its_own_outputs() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("a.png")).unwrap();
    for _ in 0..2 {
        run(folder.path(), "inpaint --model MODEL . --samples 1").ok();
        let want = ["a.inpainted.png", "a.png", "a.sample-1.png", "a.std.png"];
        assert_eq!(names(folder.path()), want);
    }
}

#[test]
fn samples_differ_keep_what_is_known_and_come_with_their_spread() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    half_hidden(8).save(path("img.png")).unwrap();
    let done = run(folder.path(), "inpaint --model MODEL img.png --samples 3 --seed 4").ok();
    let written =
        ["img.inpainted.png", "img.sample-1.png", "img.sample-2.png", "img.sample-3.png", "img.std.png"];
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), written);
    let pictures: Vec<ImageBuffer<LumaA<u8>, Vec<u8>>> =
        written[1..4].iter().map(|name| image::open(path(name)).unwrap().into_luma_alpha8()).collect();
    for picture in &pictures {
        for (x, y, pixel) in picture.enumerate_pixels().filter(|(_, y, _)| *y < 4) {
            assert_eq!(pixel, half_hidden(8).get_pixel(x, y));
        }
    }
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
    let spread = image::open(path("img.std.png")).unwrap().into_luma8();
    for (_, y, pixel) in spread.enumerate_pixels() {
        // A pixel's standard deviation is 0.2 before anything is known: 0.4 of white, 102 of 255, and
        // three times that is beyond what 8 draws give by chance.
        assert!(if y < 4 { pixel.0[0] == 0 } else { (1..=204).contains(&pixel.0[0]) }, "{y}: {pixel:?}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_seed_others() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    let bytes = |seed: u32| {
        run(folder.path(), &format!("inpaint --model MODEL img.png --samples 1 --seed {seed}")).ok();
        std::fs::read(folder.path().join("img.sample-1.png")).unwrap()
    };
    let first = bytes(1);
    assert_eq!(bytes(1), first);
    assert_ne!(bytes(2), first);
}

#[test]
fn the_mean_is_the_average_of_what_is_drawn() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    run(folder.path(), "inpaint --model MODEL img.png --estimate mean --samples 64 -o out.png").ok();
    let read = |name: &str| image::open(folder.path().join(name)).unwrap().into_luma8();
    let mean = read("out.png");
    let draws: Vec<GrayImage> = (1..=64).map(|k| read(&format!("out.sample-{k}.png"))).collect();
    for (x, y, pixel) in mean.enumerate_pixels() {
        let average = draws.iter().map(|d| f64::from(d.get_pixel(x, y).0[0])).sum::<f64>() / 64.0;
        // A draw's standard deviation is at most 0.2 of 255; its average over 64 has 6.4; four of those.
        assert!((average - f64::from(pixel.0[0])).abs() < 26.0, "{x} {y}: {average} {pixel:?}");
    }
}

#[test]
fn resize_fills_a_larger_image_and_keeps_its_known_pixels() {
    let folder = folder();
    half_hidden(24).save(folder.path().join("img.png")).unwrap();
    run(folder.path(), "inpaint --model MODEL img.png").fails_with(&["img.png", "24x24", "8x8", "--resize"]);
    assert_eq!(names(folder.path()), ["img.png"]);
    let done = run(folder.path(), "inpaint --model MODEL img.png --resize").ok();
    assert!(done.stderr.contains("resampled"), "{}", done.stderr);
    let out = image::open(folder.path().join("img.inpainted.png")).unwrap().into_luma_alpha8();
    assert_eq!(out.dimensions(), (24, 24));
    for (x, y, pixel) in out.enumerate_pixels().filter(|(_, y, _)| *y < 12) {
        assert_eq!(pixel, half_hidden(24).get_pixel(x, y));
    }
    assert!(out.pixels().all(|p| p.0[1] == 255));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_batch_cleanly_with_a_summary() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("in")).unwrap();
    for k in 0..200 {
        half_hidden(28).save(path(&format!("in/{k:03}.png"))).unwrap();
    }
    let child = binary()
        .current_dir(folder.path())
        .args(["inpaint", "--json", "--model"])
        .arg(model(28))
        .args(["in", "-o", "out"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !path("out/000.png").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "the first image was not done in 2 minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let signalled =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let done: common::Finished = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains(" done, 0 failed, "), "{}", done.stderr);
    let json = done.json();
    let (finished, remaining) = (json["done"].as_array().unwrap(), json["remaining"].as_array().unwrap());
    assert_eq!(finished.len() + remaining.len(), 200);
    assert!(!finished.is_empty() && !remaining.is_empty());
    // What is there is whole, and nothing half-written remains.
    let written = names(&path("out"));
    assert_eq!(written.len(), finished.len());
    assert!(written.iter().all(|name| image::open(path("out").join(name)).is_ok()));
}

#[test]
fn more_evaluations_reach_the_mode_which_is_likelier_than_where_an_ascent_stops() {
    let folder = folder();
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let at = |file: &str| project.join(file).display().to_string();
    let (model, digit) = (at("models/mnist.onnx"), at("examples/digit.png"));
    let fill = |more: &str| {
        let line =
            format!("inpaint --model {model} {digit} --mask-rect 8,8,12,12 -o filled.png --json {more}");
        let done = run(folder.path(), &line).ok();
        let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let done = &json["done"][0];
        (done["ascent"].as_str().unwrap().to_string(), done["log_density"].as_f64().unwrap())
    };
    let (stopped, early) = fill("");
    let (converged, mode) = fill("--evaluations 100");
    assert_eq!((stopped.as_str(), converged.as_str()), ("out of evaluations", "converged"));
    // Converged: ½ g'A^{-1}g below 0.1 nats, where the early stop leaves several.
    assert!(mode > early + 1.0, "{early} {mode}");
}
