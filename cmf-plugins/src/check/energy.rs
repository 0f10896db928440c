//! Checks of energies, through the raw functions: the host's own wrappers would hide what is wrong.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use cmf_plugin::abi::CmfEnergyFactory;
use cmf_plugin::{Energy, Error, Schema, Status, call};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::buffer::{Output, points};
use super::{Check, Suite, close, eight_threads, offered};
use crate::host::{Library, Offer, PluginEnergy, explained};

/// Largest relative difference between what a function says and differences of the other.
const TOLERANCE: f64 = 1e-4;

/// Coordinates that are looked at one by one once a gradient is known to be wrong.
const MOST_BLAMED: usize = 1000;

/// An energy with the functions it is called by.
struct Subject<'a> {
    energy: PluginEnergy,
    factory: &'static CmfEnergyFactory,
    low: Vec<f64>,
    high: Vec<f64>,
    offer: &'a Offer,
    parameters: cmf_plugin::Parameters,
}

pub(super) fn check(suite: &mut Suite, library: &Library, offer: &Offer) {
    let Some(factory) = library.energies() else { return };
    let mut subject = None;
    let parameters = Schema::parse(&offer.parameters).map_err(|e| e.text).and_then(|s| suite.parameters(&s));
    suite.check("dimension and domain", |_| {
        let parameters = parameters?;
        let energy = PluginEnergy::new(factory, offered(offer, &parameters)).map_err(|e| e.text)?;
        let (low, high) = energy.domain();
        let note = format!("{} dimensions", energy.dim());
        subject = Some(Subject { energy, factory, low, high, offer, parameters });
        Ok(note)
    });
    let Some(subject) = subject else { return };
    let d = subject.low.len();
    // Rows of large dimensions are few, so that the suite stays quick.
    let n = (20_000 / d).clamp(2, 16);
    suite.check("a batch in the domain", |rng| subject.batch(rng, n));
    suite.check("wrong lengths and unknown names", |_| subject.misuse());
    suite.check("gradient against differences", |rng| subject.gradient(rng, n));
    suite.check("Hessian products", |rng| subject.hvp(rng, n));
    suite.check("NaN, infinite, huge and no rows", |rng| subject.extremes(rng, n));
    suite.check("a large batch", |rng| subject.large(rng, (200_000 / d).clamp(2, 10_000)));
    suite.check("created and destroyed 1000 times", |_| subject.lives());
    suite.check("eight threads at once", |rng| subject.threads(rng, n));
}

impl Subject<'_> {
    /// Calls value_and_gradient on n rows with d numbers each, outputs between canaries.
    fn evaluate(&self, n: usize, d: usize, x: &[f64]) -> Result<(Output, Output), Error> {
        let f = self.factory.value_and_gradient.ok_or_else(|| Error::failed("value_and_gradient is NULL"))?;
        let (mut value, mut gradient) = (Output::new("value", n), Output::new("gradient", n * d));
        let (v, g) = (value.as_mut_ptr(), gradient.as_mut_ptr());
        // SAFETY: the object is live and the arrays have the lengths that n and d say.
        call(|error| unsafe { f(self.energy.object(), n, d, x.as_ptr(), v, g, error) })
            .map_err(|e| explained("", e))?;
        Ok((value, gradient))
    }

    fn both(&self, x: &[f64]) -> Result<(Vec<f64>, Vec<f64>), String> {
        let d = self.low.len();
        let (value, gradient) = self.evaluate(x.len() / d, d, x).map_err(|e| e.text)?;
        let (value, gradient) = (value.complete(), gradient.complete());
        Ok((value?.to_vec(), gradient?.to_vec()))
    }

    fn batch(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let d = self.low.len();
        let x = points(rng, n, &self.low, &self.high);
        let (value, gradient) =
            self.both(&x).map_err(|e| format!("{e}; it says that its dimension is {d}"))?;
        for (what, all) in [("value", &value), ("gradient", &gradient)] {
            if let Some(v) = all.iter().find(|v| !v.is_finite()) {
                return Err(format!("{what} is {v} in the domain, expected finite numbers"));
            }
        }
        for i in 0..n {
            let (v, g) = self.both(&x[i * d..][..d])?;
            // Sums may run in another order for another batch.
            close(&format!("value of row {i} alone and in a batch of {n}"), &v, &value[i..=i], 1e-9)?;
            close(
                &format!("gradient of row {i} alone and in a batch of {n}"),
                &g,
                &gradient[i * d..][..d],
                1e-9,
            )?;
        }
        Ok(format!("{n} rows"))
    }

    fn misuse(&self) -> Check {
        let d = self.low.len();
        for wrong in [d + 1, d - 1, 0] {
            let x = vec![0.5; 2 * wrong.max(1)];
            match self.evaluate(2, wrong, &x) {
                Ok(_) => return Err(format!("accepted rows of {wrong} numbers, its dimension is {d}")),
                Err(e) if e.status == Status::Invalid => {}
                Err(e) => {
                    return Err(format!(
                        "rows of {wrong} numbers: answered {:?} ({e}), expected CMF_INVALID",
                        e.status
                    ));
                }
            }
        }
        let create = self.factory.create.ok_or("create is NULL")?;
        let name = CString::new("no-such-energy").unwrap_or_default();
        let parameters = CString::new("{}").unwrap_or_default();
        let mut object = null_mut();
        // SAFETY: both texts and the place for the object are ours.
        match call(|error| unsafe { create(name.as_ptr(), parameters.as_ptr(), &mut object, error) }) {
            Ok(()) => Err("made an energy of a name that it does not offer, expected CMF_INVALID".into()),
            Err(e) if e.status == Status::Invalid => Ok(String::new()),
            Err(e) => Err(format!("an unknown name: answered {:?} ({e}), expected CMF_INVALID", e.status)),
        }
    }

    /// E's slope at x along v: as the gradient says, by differences, and their relative difference. The differences
    /// are central, of fourth order, with several steps: rounding spoils the small ones and curvature the large
    /// ones, so the best counts.
    fn slopes(&self, x: &[f64], v: &[f64]) -> Result<(f64, f64, f64), String> {
        let (value, gradient) = self.both(x)?;
        let along: f64 = gradient.iter().zip(v).map(|(g, v)| g * v).sum();
        let size: f64 =
            gradient.iter().zip(v).map(|(g, v)| (g * v).abs()).sum::<f64>() + 1e-3 * value[0].abs() + 1e-9;
        let mut best = (f64::NAN, f64::INFINITY);
        for h in [1e-2, 1e-3, 1e-4, 1e-5] {
            let steps = [1.0, -1.0, 2.0, -2.0];
            let moved: Vec<f64> =
                steps.iter().flat_map(|t| x.iter().zip(v).map(move |(x, v)| x + t * h * v)).collect();
            let (e, _) = self.both(&moved)?;
            let slope = (8.0 * (e[0] - e[1]) - (e[2] - e[3])) / (12.0 * h);
            let error = (slope - along).abs() / size;
            if error < best.1 {
                best = (slope, error);
            }
        }
        Ok((along, best.0, best.1))
    }

    /// Slopes of E along random directions; where one is wrong, the coordinate that is most to blame.
    fn gradient(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let mut worst: f64 = 0.0;
        for _ in 0..n {
            let x = points(rng, 1, &self.low, &self.high);
            let sides: Vec<f64> = self.low.iter().zip(&self.high).map(|(l, h)| h - l).collect();
            let v: Vec<f64> = sides.iter().map(|side| side * (rng.random::<f64>() - 0.5)).collect();
            let (along, slope, error) = self.slopes(&x, &v)?;
            worst = worst.max(error);
            if error <= TOLERANCE {
                continue;
            }
            let at =
                format!("at x = {:?}{}", &x[..x.len().min(4)], if x.len() > 4 { " and so on" } else { "" });
            let mut blame =
                (0.0, format!("E changes by {along} along a direction where it changes by {slope}"));
            for i in 0..x.len().min(MOST_BLAMED) {
                let mut axis = vec![0.0; x.len()];
                axis[i] = sides[i];
                let (along, slope, error) = self.slopes(&x, &axis)?;
                let gap = (along - slope).abs();
                if error > TOLERANCE && gap > blame.0 {
                    let (said, is) = (along / sides[i], slope / sides[i]);
                    blame = (gap, format!("coordinate {i} is {said}, by differences of E it is {is}"));
                }
            }
            return Err(format!("the gradient says that {}, {at}", blame.1));
        }
        Ok(format!("largest relative difference {worst:.0e}"))
    }

    fn hvp(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let d = self.low.len();
        let product = |x: &[f64], v: &[f64]| -> Result<Option<Vec<f64>>, String> {
            let Some(f) = self.factory.hvp else { return Ok(None) };
            let n = x.len() / d;
            let mut hv = Output::new("hv", x.len());
            let at = hv.as_mut_ptr();
            // SAFETY: the object is live and the arrays have the lengths that n and d say.
            match call(|error| unsafe { f(self.energy.object(), n, d, x.as_ptr(), v.as_ptr(), at, error) }) {
                Ok(()) => hv.complete().map(|hv| Some(hv.to_vec())),
                Err(e) if e.status == Status::Unsupported => hv.checked().map(|_| None),
                Err(e) => Err(e.text),
            }
        };
        let none = product(&[], &[])?.is_none();
        if let (false, Some(f)) = (none, self.factory.hvp) {
            let (x, mut hv) = (vec![0.5; d + 1], Output::new("hv", d + 1));
            let at = hv.as_mut_ptr();
            // SAFETY: the object is live and the arrays have the lengths that n and d say.
            match call(|error| unsafe {
                f(self.energy.object(), 1, d + 1, x.as_ptr(), x.as_ptr(), at, error)
            }) {
                Err(e) if e.status == Status::Invalid => {}
                Err(e) => {
                    return Err(format!(
                        "rows of {} numbers: answered {:?} ({e}), expected CMF_INVALID",
                        d + 1,
                        e.status
                    ));
                }
                Ok(()) => return Err(format!("accepted rows of {} numbers, its dimension is {d}", d + 1)),
            }
        }
        let x = points(rng, n, &self.low, &self.high);
        let mut direction = || -> Vec<f64> { (0..n * d).map(|_| rng.random::<f64>() - 0.5).collect() };
        let (u, v) = (direction(), direction());
        let (Some(hu), Some(hv)) = (product(&x, &u)?, product(&x, &v)?) else {
            return if none {
                Ok("none".into())
            } else {
                Err("says for no rows that it has them, and for rows that it has not".into())
            };
        };
        if none {
            return Err("says for no rows that it has none, and for rows gives them".into());
        }
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for i in 0..n {
            let row = |a: &[f64]| a[i * d..][..d].to_vec();
            let (u, v, hu, hv, x) = (row(&u), row(&v), row(&hu), row(&hv), row(&x));
            let size = dot(&hu, &hu).sqrt() + dot(&hv, &hv).sqrt() + 1e-9;
            let (one, other) = (dot(&u, &hv), dot(&v, &hu));
            if (one - other).abs().is_nan() || (one - other).abs() > 1e-7 * size {
                return Err(format!("the Hessian is not symmetric: u'Hv = {one}, v'Hu = {other}"));
            }
            let mut best = f64::INFINITY;
            for h in [1e-2, 1e-3, 1e-4, 1e-5] {
                let moved: Vec<f64> = [1.0, -1.0, 2.0, -2.0]
                    .iter()
                    .flat_map(|t| x.iter().zip(&v).map(move |(x, v)| x + t * h * v))
                    .collect();
                let (_, g) = self.both(&moved)?;
                let slope = |k: usize| (8.0 * (g[k] - g[d + k]) - (g[2 * d + k] - g[3 * d + k])) / (12.0 * h);
                let error = (0..d).map(|k| (slope(k) - hv[k]).abs()).fold(0.0, f64::max);
                best = best.min(error / size);
            }
            if best > TOLERANCE {
                return Err(format!(
                    "Hessian products differ from differences of gradients by {best:.1e} of their size"
                ));
            }
        }
        Ok("symmetric and consistent".into())
    }

    fn extremes(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let d = self.low.len();
        let good = points(rng, n, &self.low, &self.high);
        let (value, gradient) = self.both(&good)?;
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, f64::MIN_POSITIVE] {
            let mut x = good.clone();
            x[..d].fill(odd);
            match self.evaluate(n, d, &x) {
                Ok((v, g)) => {
                    let what = format!("a row of {odd} in the batch changed another row");
                    close(&what, &v.complete()?[1..], &value[1..], 1e-9)?;
                    close(&what, &g.complete()?[d..], &gradient[d..], 1e-9)?;
                }
                Err(e) if e.status == Status::Panic => return Err(format!("a row of {odd}: {e}")),
                Err(_) => {}
            }
        }
        let f = self.factory.value_and_gradient.ok_or("value_and_gradient is NULL")?;
        // SAFETY: by the header arrays may be NULL for no rows.
        call(|error| unsafe { f(self.energy.object(), 0, d, null(), null_mut(), null_mut(), error) })
            .map_err(|e| format!("no rows: answered an error ({e}), expected CMF_OK"))?;
        Ok(String::new())
    }

    fn large(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let d = self.low.len();
        let x = points(rng, n, &self.low, &self.high);
        let (value, _) = self.both(&x)?;
        let (v, _) = self.both(&x[(n - 1) * d..])?;
        close("the last value", &v, &value[n - 1..], 1e-9)?;
        Ok(format!("{n} rows"))
    }

    fn lives(&self) -> Check {
        for _ in 0..1000 {
            PluginEnergy::new(self.factory, offered(self.offer, &self.parameters)).map_err(|e| e.text)?;
        }
        Ok(String::new())
    }

    fn threads(&self, rng: &mut ChaCha8Rng, n: usize) -> Check {
        let x = points(rng, n, &self.low, &self.high);
        let (value, gradient) = self.both(&x)?;
        eight_threads(|| {
            let (mut v, mut g) = (vec![0.0; value.len()], vec![0.0; gradient.len()]);
            for _ in 0..200 {
                self.energy.value_and_gradient(&x, &mut v, &mut g).map_err(|e| e.text)?;
                close("value with other threads at work", &v, &value, 1e-9)?;
                close("gradient with other threads at work", &g, &gradient, 1e-9)?;
            }
            Ok(String::new())
        })
    }
}
