use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::gaussian::Gaussian;
use crate::head_factor::HeadFactor;
use crate::inpaint::Hole;
use crate::potential::Potential;
use crate::sampler::standard_normals;

/// Three Gaussians in the plane of s.
fn components() -> Vec<Component> {
    vec![
        Component::new(1.0, vec![-1.5, 0.3], vec![0.6, 0.0, 0.2, 0.5]).unwrap(),
        Component::new(2.0, vec![0.8, -0.4], vec![0.9, 0.0, -0.3, 0.7]).unwrap(),
        Component::new(0.5, vec![0.2, 1.6], vec![0.4, 0.0, 0.0, 1.1]).unwrap(),
    ]
}

fn law(d: usize) -> Gaussian {
    crate::density::tests::gaussian(d, 3)
}

/// N(m, S) with the mixture along two directions, and that mixture.
fn mixed(law: &Gaussian) -> HeadFactor {
    let d = law.dim();
    let head = HeadFactor::new(law.covariance.inverse("S").unwrap(), law.mean.clone()).unwrap();
    let axes: Vec<f64> = (0..2 * d).map(|i| ((i * i) as f64 * 0.7).sin()).collect();
    let directions = head.directions(&axes).unwrap();
    head.with_mixture(Arc::new(Mixture::new(directions, components()).unwrap())).unwrap()
}

/// The same law as a list of Gaussians in R^d: weights, and N(m + S F'μ, S + S F'(LL' - I) F S).
fn listed(law: &Gaussian, mixture: &Mixture) -> Vec<(f64, Gaussian)> {
    let (d, k) = (law.dim(), 2);
    let reach = law.covariance.times(&mixture.directions).unwrap();
    let reach = view(&reach, k, d);
    mixture
        .components
        .iter()
        .map(|c| {
            let l = view(&c.factor, k, k);
            let change = l * l.transpose() - Mat::<f64>::identity(k, k);
            let change = to_rows((reach.transpose() * change * reach).as_ref());
            let covariance: Vec<f64> =
                law.covariance.dense().iter().zip(change).map(|(s, c)| s + c).collect();
            let off = product(&c.mean, reach);
            let mean = law.mean.iter().zip(off).map(|(m, o)| m + o).collect();
            (c.weight, Gaussian { mean, covariance: covariance.into() })
        })
        .collect()
}

fn sum_of_logs(logs: impl Iterator<Item = f64>) -> f64 {
    logs.map(f64::exp).sum::<f64>().ln()
}

#[test]
fn the_density_is_that_of_the_listed_gaussians() {
    let law = law(5);
    let head = mixed(&law);
    let listed = listed(&law, head.mixture().unwrap());
    let x = standard_normals(&mut ChaCha8Rng::seed_from_u64(1), 100 * 5);
    let (mut value, mut gradient) = (vec![0.0; 100], vec![0.0; 500]);
    head.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
    let log_z = head.log_z().unwrap();
    for (x, value) in x.chunks_exact(5).zip(&value) {
        let want = sum_of_logs(listed.iter().map(|(w, g)| w.ln() + g.log_density(x).unwrap()[0]));
        assert!((-value - log_z - want).abs() < 1e-10, "{} {want}", -value - log_z);
    }
}

#[test]
fn gradients_and_products_are_those_of_differences() {
    let law = law(4);
    let head = mixed(&law);
    // More rows than one thread's piece.
    let n = CHUNK + 3;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (x, v) = (standard_normals(&mut rng, 4 * n), standard_normals(&mut rng, 4 * n));
    let at = |t: f64| {
        let moved: Vec<f64> = x.iter().zip(&v).map(|(x, v)| x + t * v).collect();
        let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; 4 * n]);
        head.value_and_gradient(&moved, &mut value, &mut gradient).unwrap();
        (value, gradient)
    };
    let h = 1e-5;
    let ((_, here), (up, above), (down, below)) = (at(0.0), at(h), at(-h));
    let mut hv = vec![0.0; 4 * n];
    head.hvp(&x, &v, &mut hv).unwrap();
    for i in 0..n {
        let row = 4 * i..4 * (i + 1);
        let slope = (up[i] - down[i]) / (2.0 * h);
        let want = dot(&here[row.clone()], &v[row.clone()]);
        // h² times third derivatives of up to 1e3, and roundings of values of about 100 over h.
        assert!((slope - want).abs() < 1e-6 * (1.0 + want.abs()), "{slope} {want}");
        for j in row {
            let bend = (above[j] - below[j]) / (2.0 * h);
            assert!((bend - hv[j]).abs() < 1e-5 * (1.0 + hv[j].abs()), "{bend} {}", hv[j]);
        }
        // The metric bounds the curvature from above, by the spread of the components' slopes.
        let mut metric = [0.0; 16];
        head.metrics(&x[4 * i..4 * (i + 1)], &mut metric);
        let v = &v[4 * i..4 * (i + 1)];
        let bound = dot(&product(v, view(&metric, 4, 4)), v);
        assert!(bound > 0.0 && dot(&hv[4 * i..4 * (i + 1)], v) <= bound + 1e-9, "{bound}");
    }
}

/// Means and covariances of 40,000 draws: five standard errors, 0.005 and 0.007 of a variance.
#[test]
fn draws_have_the_moments_of_the_list() {
    let law = law(3);
    let head = mixed(&law);
    let n = 40_000;
    let x = head.draw(n, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let want = moments(&listed(&law, head.mixture().unwrap()));
    assert_moments(&x, &want, 5.0);
}

/// The mean and covariance of a list of weighted Gaussians.
fn moments(list: &[(f64, Gaussian)]) -> Gaussian {
    let d = list[0].1.dim();
    let (mut mean, mut square) = (vec![0.0; d], vec![0.0; d * d]);
    for (w, g) in list {
        add_scaled(&mut mean, *w, &g.mean);
        add_scaled(&mut square, *w, &g.covariance.dense());
        (0..d * d).for_each(|ij| square[ij] += w * g.mean[ij / d] * g.mean[ij % d]);
    }
    (0..d * d).for_each(|ij| square[ij] -= mean[ij / d] * mean[ij % d]);
    Gaussian { mean, covariance: square.into() }
}

/// Rows [n, d] have these moments within so many standard errors of Gaussian ones.
#[track_caller]
fn assert_moments(x: &[f64], want: &Gaussian, errors: f64) {
    let d = want.dim();
    let found = Gaussian::fit(x, d, 0.0).unwrap();
    let (s, f) = (want.covariance.dense(), found.covariance.dense());
    let root_n = ((x.len() / d) as f64).sqrt();
    for i in 0..d {
        let off = (found.mean[i] - want.mean[i]).abs();
        assert!(off < errors * s[i * (d + 1)].sqrt() / root_n, "{i}: {off}");
        for j in 0..d {
            let scale = (2.0 * s[i * (d + 1)] * s[j * (d + 1)]).sqrt();
            let off = (s[i * d + j] - f[i * d + j]).abs();
            assert!(off < errors * scale / root_n, "{i} {j}: {off} of {scale}");
        }
    }
}

/// E[y_h | y_known], its likeliest part and draws, against the listed Gaussians' own conditionals. With one hidden
/// coordinate s has one dimension less than it has numbers.
#[test]
fn a_hole_follows_the_mixture() {
    let law = law(5);
    let head = mixed(&law);
    let mixture = head.mixture().unwrap();
    let listed = listed(&law, mixture);
    let y = [0.4, -0.9, 1.3, 0.2, -0.5];
    for hidden in [&[1, 4][..], &[0, 1, 2, 4], &[3]] {
        let hole = Hole::new(&law, &y, hidden).unwrap().with_mixture(&law, Some(mixture)).unwrap();
        let known: Vec<usize> = (0..5).filter(|i| !hidden.contains(i)).collect();
        let seen: Vec<f64> = known.iter().map(|&i| y[i]).collect();
        let logs: Vec<f64> = listed
            .iter()
            .map(|(w, g)| {
                let mean = known.iter().map(|&i| g.mean[i]).collect();
                let marginal = Gaussian { mean, covariance: g.covariance.block(&known, &known).into() };
                w.ln() + marginal.log_density(&seen).unwrap()[0]
            })
            .collect();
        let total = sum_of_logs(logs.iter().copied());
        let given: Vec<(f64, Gaussian)> = logs
            .iter()
            .zip(&listed)
            .map(|(l, (_, g))| ((l - total).exp(), g.conditional(&y, hidden).unwrap()))
            .collect();
        let want = moments(&given);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        // Conditional variances below 1e-8 are taken for that.
        assert!(near(hole.mean(), &want.mean), "{hidden:?}: {:?} {:?}", hole.mean(), want.mean);
        let best = given.iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert!(near(hole.likeliest(), &best.1.mean), "{hidden:?}");
        // Pairs of opposite draws: half as many count.
        let n = 40_000;
        let draws = hole.offsets(n, &mut ChaCha8Rng::seed_from_u64(4)).unwrap();
        let h = hidden.len();
        let draws = crate::linalg::plus(draws, hole.mean());
        assert_eq!(draws.len(), n * h);
        assert_moments(&draws, &want, 5.0 * 2.0_f64.sqrt());
    }
}

#[test]
fn numbers_make_the_same_mixture_and_bad_ones_none() {
    let law = law(4);
    let head = mixed(&law);
    let mixture = head.mixture().unwrap();
    let numbers = mixture.numbers();
    assert_eq!(numbers.len(), 2 + 2 * 4 + 3 * (1 + 2 + 3));
    let back = Mixture::from_numbers(&numbers, 4).unwrap();
    // Weights are divided by a sum of 1, that is rounded.
    assert!(back.numbers().iter().zip(&numbers).all(|(a, b)| (a - b).abs() <= 1e-15 * b.abs()));
    let refused = |change: &dyn Fn(&mut Vec<f64>)| {
        let mut numbers = numbers.clone();
        change(&mut numbers);
        Mixture::from_numbers(&numbers, 4).unwrap_err().to_string()
    };
    assert!(refused(&|n| n[0] = 1e9).contains("a mixture begins with"));
    assert!(refused(&|n| n[1] = 1.5).contains("a mixture begins with"));
    assert!(refused(&|n| n.truncate(1)).contains("a mixture begins with"));
    assert!(refused(&|n| n.truncate(20)).contains("numbers of a mixture"));
    assert!(refused(&|n| n[3] = f64::NAN).contains("finite"));
    assert!(refused(&|n| n[10] = 0.0).contains("weight above 0"));
    assert!(refused(&|n| n[13] = -1.0).contains("positive diagonal"));
    assert!(Mixture::from_numbers(&numbers, 5).is_err());
    let other = HeadFactor::new(vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 2]).unwrap();
    assert!(other.with_mixture(mixture.clone()).is_err());
}

/// Of 6,000 draws of three Gaussians that hardly overlap, each has 860 rows or more: five standard errors of a mean are
/// 0.17 of a deviation, of a variance 0.25, and the prior of 30 rows moves a variance by 0.035 of its distance from 1.
#[test]
fn a_fit_finds_the_gaussians_that_rows_come_from() {
    let apart = [(1.0, [-6.0, 0.0]), (2.0, [6.0, 1.0]), (4.0, [0.0, 7.0])];
    let components =
        apart.map(|(w, mean)| Component::new(w, mean.to_vec(), vec![0.9, 0.0, 0.3, 0.6]).unwrap()).to_vec();
    let identity = vec![1.0, 0.0, 0.0, 1.0];
    let truth = Arc::new(Mixture::new(identity.clone(), components).unwrap());
    let unit = HeadFactor::new(identity.clone(), vec![0.0; 2]).unwrap();
    let s = unit.with_mixture(truth.clone()).unwrap().draw(6000, &mut ChaCha8Rng::seed_from_u64(7)).unwrap();
    let fit = MixtureFit { components: 3, rounds: 30, seed: 1 };
    let found = fit.fit(identity.clone(), &s, 2, &mut |_| true).unwrap();
    for c in &truth.components {
        let apart = |f: &Component| (f.mean[0] - c.mean[0]).hypot(f.mean[1] - c.mean[1]);
        let near = found.components.iter().min_by(|a, b| apart(a).total_cmp(&apart(b))).unwrap();
        assert!(apart(near) < 0.2, "{:?} {:?}", near.mean, c.mean);
        // Five standard errors of a share of 1/2: 0.032.
        assert!((near.weight - c.weight).abs() < 0.032, "{} {}", near.weight, c.weight);
        for (f, t) in near.factor.iter().zip(&c.factor) {
            assert!((f - t).abs() < 0.15, "{:?} {:?}", near.factor, c.factor);
        }
    }
    // As likely as the truth, to the 17 parameters' half a row each; and the same bits again.
    let mean = |m: &Mixture| m.gain(&s).iter().sum::<f64>() / 6000.0;
    assert!(mean(&found) > mean(&truth) - 17.0 / 6000.0, "{} {}", mean(&found), mean(&truth));
    assert_eq!(fit.fit(identity.clone(), &s, 2, &mut |_| true).unwrap(), found);
    // Too few rows, and a user who has seen enough.
    assert!(fit.fit(identity.clone(), &s[..4], 2, &mut |_| true).is_err());
    let stopped = fit.fit(identity, &s, 2, &mut |_| false);
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

/// Of two Gaussians at x = -2 and 2, by 3000 rows of which then 10,000 come shifted by 1 in y. Moments remember 1,000 rows,
/// so that e^{-10} is left of those of before; five standard errors of a mean of 500 rows are 0.16 of a deviation.
#[cfg(feature = "train")]
#[test]
fn a_mixture_follows_a_law_that_moves() {
    let at = |x: f64| Component::new(1.0, vec![x, 0.0], vec![0.5, 0.0, 0.1, 0.7]).unwrap();
    let identity = vec![1.0, 0.0, 0.0, 1.0];
    let truth = Arc::new(Mixture::new(identity.clone(), vec![at(-2.0), at(2.0)]).unwrap());
    let unit = HeadFactor::new(identity.clone(), vec![0.0; 2]).unwrap().with_mixture(truth).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let s = unit.draw(3000, &mut rng).unwrap();
    let fit = MixtureFit { components: 2, rounds: 30, seed: 1 };
    let fitted = fit.fit(identity.clone(), &s, 2, &mut |_| true).unwrap();
    let mut follower = Follower::new(&fitted, &s).unwrap();
    let means = |follower: &Follower| -> Vec<Vec<f64>> {
        let mut means: Vec<_> =
            follower.along(identity.clone()).unwrap().components.into_iter().map(|c| c.mean).collect();
        means.sort_by(|a, b| a[0].total_cmp(&b[0]));
        means
    };
    let near = |y: f64, follower: &Follower| {
        for (mean, x) in means(follower).iter().zip([-2.0, 2.0]) {
            assert!((mean[0] - x).abs() < 0.1 && (mean[1] - y).abs() < 0.12, "{mean:?} {x} {y}");
        }
    };
    // One round more than the fit.
    near(0.0, &follower);
    for _ in 0..100 {
        let mut s = unit.draw(100, &mut rng).unwrap();
        s.chunks_exact_mut(2).for_each(|s| s[1] += 1.0);
        follower.follow(&s).unwrap();
    }
    near(1.0, &follower);
    let again = Follower::from_numbers(&follower.numbers(), 2).unwrap();
    assert_eq!(again.along(identity.clone()).unwrap(), follower.along(identity).unwrap());
    assert!(Follower::from_numbers(&follower.numbers()[1..], 2).is_err());
}
