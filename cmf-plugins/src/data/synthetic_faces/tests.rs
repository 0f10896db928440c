use super::super::tests::all;
use super::super::{Split, open as open_by_name};
use super::*;

fn faces(rows: usize, seed: u64) -> SyntheticFaces {
    SyntheticFaces { rows, side: 32, seed }
}

#[test]
fn a_row_depends_on_seed_and_number_alone() {
    let few = faces(20, 3).opened();
    let many = faces(40, 3).opened();
    assert_eq!(few.data.shape(), Shape::Image { height: 32, width: 32, channels: 3 });
    assert_eq!((few.data.rows(Split::Train), few.data.rows(Split::HeldOut)), (20, 2));
    assert_eq!((many.data.rows(Split::Train), many.data.rows(Split::HeldOut)), (40, 4));
    for split in [Split::Train, Split::HeldOut] {
        let (few, many) = (all(few.data.as_ref(), split), all(many.data.as_ref(), split));
        assert_eq!(few, many[..few.len()]);
    }
    // Drawn on demand as in advance, the last first.
    let (on_demand, d) = (faces(20, 3), few.data.shape().dim());
    let mut out = vec![f64::NAN; 2 * d];
    on_demand.read(Split::Train, &[19, 0], &mut out).unwrap();
    let train = all(few.data.as_ref(), Split::Train);
    assert_eq!(out, [&train[19 * d..], &train[..d]].concat());
    assert!(on_demand.read(Split::HeldOut, &[2], &mut out[..d]).is_err());
    assert_eq!(few.sha256, faces(20, 3).opened().sha256);
    assert_ne!(few.sha256, faces(20, 4).opened().sha256);
}

#[test]
fn no_two_faces_are_the_same() {
    let opened = faces(50, 0).opened();
    let d = opened.data.shape().dim();
    let mut values = all(opened.data.as_ref(), Split::Train);
    values.extend(all(opened.data.as_ref(), Split::HeldOut));
    let rows: Vec<&[f64]> = values.chunks_exact(d).collect();
    for (i, row) in rows.iter().enumerate() {
        assert!(rows[..i].iter().all(|other| other != row), "row {i}");
    }
}

#[test]
fn a_face_has_white_around_it_and_its_skin_on_the_cheeks() {
    let side = 64;
    for stream in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        rng.set_stream(stream);
        let face = Attributes::draw(&mut rng);
        let pixels = draw(&face, side);
        let at = |x: usize, y: usize| &pixels[3 * (side * y + x)..][..3];
        for i in 0..side {
            for [x, y] in [[i, 0], [i, side - 1], [0, i], [side - 1, i]] {
                assert_eq!(at(x, y), [255; 3], "row {stream}, border at {x}, {y}");
            }
        }
        // Below the left eye, at 210, 300 of 500 units, no feature lies within the reach of the filter
        // but dark glasses and beards.
        if face.beard == attributes::Beard::None && face.glasses == attributes::Glasses::None {
            assert_eq!(at(210 * side / 500, 304 * side / 500), face.skin, "row {stream}");
        }
    }
}

#[test]
fn sides_show_the_same_face() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let face = Attributes::draw(&mut rng);
    let (small, large) = (draw(&face, 32), draw(&face, 64));
    // Means over 2 x 2 pixels of the large picture against the small one: both are means of the drawing, through
    // filters of the same form and twice the width, so they differ at edges only.
    let mut total = 0.0;
    for (i, &v) in small.iter().enumerate() {
        let (x, y, c) = (i / 3 % 32, i / 96, i % 3);
        let four = [[0, 0], [0, 1], [1, 0], [1, 1]];
        let mean: f64 =
            four.iter().map(|[dx, dy]| f64::from(large[3 * (64 * (2 * y + dy) + 2 * x + dx) + c])).sum();
        total += (mean / 4.0 - f64::from(v)).abs() / 255.0;
    }
    let mean = total / small.len() as f64;
    assert!(mean < 0.02, "mean difference {mean}");
}

#[test]
fn the_registry_draws_the_default_number() {
    let opened = open_by_name("synthetic-faces", None, 1).unwrap();
    assert_eq!(opened.data.rows(Split::Train), ROWS);
    let values = all(opened.data.as_ref(), Split::HeldOut);
    assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
}
