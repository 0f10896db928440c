//! The conformance suite that every `SecondOrder` potential passes, and random networks to run it on.

use cmf_core::gaussian::Gaussian;
use cmf_core::host::Array;
use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn, Weights, initial_weights};
use cmf_core::ops::Activation;
use cmf_core::potential::{Purpose, Whitened};
use cmf_core::preconditioner::Preconditioner;
use cmf_core::symmetric::Symmetric;
use cmf_core::{Potential, SecondOrder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers uniform in [-1, 1].
pub fn uniform(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A network far from its closed-form start, so that every term matters.
pub fn random_network(
    dim: usize,
    widths: &[usize],
    rank: usize,
    diagonal: bool,
    activation: Activation,
) -> Icnn<f64> {
    let widths = widths.to_vec();
    random_weights(Architecture {
        dim,
        widths,
        rank,
        diagonal,
        activation,
        head: Head::Full,
        gibbs: GibbsFactor::Whole,
    })
}

/// The same with a head of `k` directions, two squared forms a unit and diagonal terms.
pub fn random_spiked(dim: usize, widths: &[usize], k: usize, activation: Activation) -> Icnn<f64> {
    let (widths, head) = (widths.to_vec(), Head::Spiked { rank: k });
    random_weights(Architecture {
        dim,
        widths,
        rank: 2,
        diagonal: true,
        activation,
        head,
        gibbs: GibbsFactor::Whole,
    })
}

/// A network with forms in the span of the head's directions, as training keeps them, and without diagonal terms.
pub fn random_within(dim: usize, widths: &[usize], k: usize, gibbs: GibbsFactor) -> Icnn<f64> {
    let (activation, head) = (Activation::Softplus { beta: 2.0 }, Head::Spiked { rank: k });
    let arch =
        Architecture { dim, widths: widths.to_vec(), rank: 2, diagonal: false, activation, head, gibbs };
    let w = random_weights(arch.clone());
    let rows = w.weights().x_side.to_vec();
    let (forms, directions) = rows.split_at(rows.len() - k * dim);
    let along = |form: &[f64], v: &[f64]| form.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
    let inside = forms.chunks_exact(dim).flat_map(|form| {
        let mut inside = vec![0.0; dim];
        for v in directions.chunks_exact(dim) {
            inside.iter_mut().zip(v).for_each(|(inside, v_i)| *inside += along(form, v) * v_i);
        }
        inside
    });
    let rows: Vec<f64> = inside.chain(directions.iter().copied()).collect();
    let x_side = Array::matrix(rows, arch.x_side_rows(), dim);
    Icnn::new(arch, Weights { x_side, ..w.weights().clone() }).unwrap()
}

/// The same of any architecture.
pub fn random_weights(arch: Architecture) -> Icnn<f64> {
    let (dim, rank) = (arch.dim, arch.rank);
    let mut rng = ChaCha8Rng::seed_from_u64(7 + dim as u64);
    let data = uniform(&mut rng, 20 * dim * dim);
    let gaussian = match arch.head {
        Head::Full => Gaussian::fit(&data, dim, 0.3),
        Head::Spiked { rank } => Gaussian::fit_leading(&data, dim, 0.3, rank),
    };
    let start = gaussian.unwrap().quadratic_start().unwrap();
    let start = initial_weights(&arch, &start, 3).unwrap();
    let named: Vec<(String, Vec<f64>)> =
        start.named(&arch).into_iter().map(|(name, _, array)| (name, array.to_vec())).collect();
    let weights = Weights::build(&arch, |name, [rows, cols]| {
        let mut data = named.iter().find(|(n, _)| n == name).unwrap().1.clone();
        match name {
            "output" => data.iter_mut().for_each(|v| *v = 0.5 + 0.5 * rng.random_range(0.0..1.0)),
            "diagonal" => data.iter_mut().for_each(|v| *v = rng.random_range(0.0..0.5)),
            "head_excess" => data.iter_mut().for_each(|v| *v *= rng.random_range(0.0..1.0)),
            "x_side" => data[rank.min(1) * arch.units() * cols..(1 + rank) * arch.units() * cols]
                .iter_mut()
                .for_each(|v| *v += 0.3 * rng.random_range(-1.0..1.0)),
            _ => {}
        }
        Ok::<_, ()>(Array::matrix(data, rows, cols))
    })
    .unwrap();
    Icnn::new(arch, weights).unwrap()
}

/// The same network with the Gibbs factor of its head.
pub fn with_factor_of_head(w: &Icnn<f64>) -> Icnn<f64> {
    let arch = Architecture { gibbs: GibbsFactor::Head, ..w.architecture().clone() };
    Icnn::new(arch, w.weights().clone()).unwrap()
}

fn close(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    let scale = b.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * scale,
            "{what}[{i}]: {a} and {b} differ by more than {tolerance} of {scale}"
        );
    }
}

/// `w`, by whatever engine, in its whitened coordinates is `reference` at L z: values, gradients L'∇w, Hessian products
/// L'∇²w L v. `noise` is the relative rounding error of one evaluation.
pub fn whitened_agrees(w: &dyn Potential, reference: &Icnn<f64>, noise: f64) {
    let d = w.dim();
    let mut hessian = vec![0.0; d * d];
    reference.hessian(&vec![0.1; d], &mut hessian).unwrap();
    let mut near = Symmetric::from(hessian).inverse("the Hessian").unwrap().dense().into_owned();
    // Some coordinates are measured in much shorter units than w is wide, so that the head keeps them as directions.
    let unit = |i: usize| if i % 3 == 1 { 0.2 } else { 1.0 };
    near.iter_mut().enumerate().for_each(|(k, v)| *v *= unit(k / d) * unit(k % d));
    let near = Preconditioner::new(&near.into()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for purpose in [Purpose::Chains(&near), Purpose::Conjugates(&uniform(&mut rng, 20 * d))] {
        let whitened = w.whitened(purpose).unwrap().expect("coordinates that gain");
        is_reference_in_coordinates(&whitened, reference, noise);
    }
}

fn is_reference_in_coordinates(whitened: &Whitened, reference: &Icnn<f64>, noise: f64) {
    let Whitened { potential, coordinates } = whitened;
    let (d, n) = (reference.dim(), 5);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    // As an engine that computes in f32 sees them.
    let mut points =
        || -> Vec<f64> { uniform(&mut rng, n * d).iter().map(|&v| f64::from(v as f32)).collect() };
    let (z, v) = (points(), points());
    let run = |w: &dyn Potential, x: &[f64], v: &[f64]| {
        let (mut value, mut gradient, mut hv) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d]);
        w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
        w.hvp(x, v, &mut hv).unwrap();
        [value, gradient, hv]
    };
    let [value, gradient, hv] = run(&**potential, &z, &v);
    let (x, there) = (coordinates.colour(&z).unwrap(), coordinates.colour(&v).unwrap());
    let [expected, pushed, product] = run(reference, &x, &there);
    close("whitened value", &value, &expected, noise);
    close("whitened gradient", &gradient, &coordinates.pull_back(&pushed).unwrap(), noise);
    close("whitened hvp", &hv, &coordinates.pull_back(&product).unwrap(), noise);
    close("whitened point", &coordinates.whiten(&x).unwrap(), &z, 1e-12);
}

/// Derivatives agree with central differences, and a row's answer does not depend on its batch.
///
/// `noise` is the relative rounding error of one evaluation; a central difference with step h then has
/// error noise/h + h², smallest near h = noise^{1/3}, of size noise^{2/3} up to the size of third
/// derivatives (the factor 50).
pub fn conformance(w: &dyn SecondOrder, x: &[f64], noise: f64) {
    let d = w.dim();
    let n = x.len() / d;
    let h = noise.cbrt();
    let tolerance = 50.0 * noise.powf(2.0 / 3.0);
    let gradient = |x: &[f64]| {
        let (mut v, mut g) = (vec![0.0; x.len() / d], vec![0.0; x.len()]);
        w.value_and_gradient(x, &mut v, &mut g).unwrap();
        (v, g)
    };
    let moved = |k: usize, by: f64| {
        let mut y = x.to_vec();
        y.iter_mut().skip(k).step_by(d).for_each(|v| *v += by);
        y
    };
    let (value, grad) = gradient(x);
    let mut hessian = vec![0.0; n * d * d];
    w.hessian(x, &mut hessian).unwrap();
    let m: Vec<f64> = {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let raw = uniform(&mut rng, n * d * d);
        (0..n * d * d)
            .map(|k| {
                let (b, i, j) = (k / (d * d), k / d % d, k % d);
                raw[k] + raw[b * d * d + j * d + i]
            })
            .collect()
    };
    let mut contraction = vec![0.0; n * d];
    w.hessian_contraction(x, &m, &mut contraction).unwrap();
    for k in 0..d {
        let ((up, gu), (down, gd)) = (gradient(&moved(k, h)), gradient(&moved(k, -h)));
        let slope: Vec<f64> = up.iter().zip(&down).map(|(u, l)| (u - l) / (2.0 * h)).collect();
        let along: Vec<f64> = grad.iter().skip(k).step_by(d).copied().collect();
        close("gradient", &along, &slope, tolerance * value.iter().fold(1.0f64, |m, v| m.max(v.abs())));
        let column: Vec<f64> = gu.iter().zip(&gd).map(|(u, l)| (u - l) / (2.0 * h)).collect();
        let unit: Vec<f64> = (0..n * d).map(|i| f64::from(i % d == k)).collect();
        let mut hv = vec![0.0; n * d];
        w.hvp(x, &unit, &mut hv).unwrap();
        close("hvp", &hv, &column, tolerance);
        let from_hessian: Vec<f64> = (0..n * d).map(|i| hessian[i * d + k]).collect();
        close("hessian", &from_hessian, &hv, 30.0 * noise);
        let product = |y: &[f64]| -> Vec<f64> {
            let mut hessian = vec![0.0; n * d * d];
            w.hessian(y, &mut hessian).unwrap();
            let terms: Vec<f64> = hessian.iter().zip(&m).map(|(h, m)| h * m).collect();
            terms.chunks(d * d).map(|c| c.iter().sum()).collect()
        };
        let (up, down) = (product(&moved(k, h)), product(&moved(k, -h)));
        let slope: Vec<f64> = up.iter().zip(&down).map(|(u, l)| (u - l) / (2.0 * h)).collect();
        let along: Vec<f64> = contraction.iter().skip(k).step_by(d).copied().collect();
        close("contraction", &along, &slope, tolerance * d as f64);
    }
    let mut each = (vec![0.0; n], vec![0.0; n * d]);
    for i in 0..n {
        let (v, g) = gradient(&x[i * d..][..d]);
        each.0[i] = v[0];
        each.1[i * d..][..d].copy_from_slice(&g);
    }
    close("value of one row", &each.0, &value, 30.0 * noise);
    close("gradient of one row", &each.1, &grad, 30.0 * noise);
}
