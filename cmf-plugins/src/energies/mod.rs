//! The built-in energies: functions E with gradients and Hessian products, to be sampled from e^{-E}.

mod gaussian;
mod lattice;
mod plane;
mod ring;
mod valley;

use cmf_core::potential::{check_hvp, check_value_and_gradient};
use cmf_plugin::{Energy, Entry, Error, Parameters, Result};

/// The built-in energies, by name.
pub static ENERGIES: [Entry<dyn Energy>; 10] = [
    gaussian::GAUSSIAN,
    gaussian::MIXTURE,
    ring::RING,
    valley::BANANA,
    valley::ROSENBROCK,
    plane::HIMMELBLAU,
    plane::STYBLINSKI_TANG,
    plane::THREE_HUMP_CAMEL,
    lattice::PHI4,
    lattice::ISING,
];

/// An energy that is computed one row at a time.
trait Rowwise: Send + Sync {
    fn dim(&self) -> usize;
    /// Low and high end, the same for every coordinate unless `domain` says otherwise.
    fn domain(&self) -> (Vec<f64>, Vec<f64>);
    /// E(x), with ∇E(x) written to `gradient`. All [d].
    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64;
    /// ∇²E(x) v written to `hv`. All [d].
    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]);
}

/// The energy of a [`Rowwise`].
struct Rows<T>(T);

impl<T: Rowwise> Energy for Rows<T> {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        self.0.domain()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let d = self.0.dim();
        check_value_and_gradient(d, x, value, gradient).map_err(Error::invalid)?;
        for ((x, value), gradient) in x.chunks_exact(d).zip(value).zip(gradient.chunks_exact_mut(d)) {
            *value = self.0.row(x, gradient);
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        let d = self.0.dim();
        check_hvp(d, x, v, hv).map_err(Error::invalid)?;
        for ((x, v), hv) in x.chunks_exact(d).zip(v.chunks_exact(d)).zip(hv.chunks_exact_mut(d)) {
            self.0.row_hvp(x, v, hv);
        }
        Ok(())
    }
}

/// The box [-half, half]^d.
fn centred_box(d: usize, half: f64) -> (Vec<f64>, Vec<f64>) {
    (vec![-half; d], vec![half; d])
}

/// A parameter that must be above 0.
fn positive(parameters: &Parameters, name: &str) -> Result<f64> {
    let value = parameters.number(name)?;
    if value > 0.0 {
        return Ok(value);
    }
    Err(Error::invalid(format!("parameter {name}: expected a number above 0, found {value}")))
}

#[cfg(test)]
mod tests {
    use cmf_plugin::Schema;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    pub(super) fn energy(name: &str, parameters: &str) -> Box<dyn Energy> {
        let entry = ENERGIES.iter().find(|e| e.name == name).unwrap();
        (entry.create)(&Schema::parse(entry.parameters).unwrap().complete(parameters).unwrap()).unwrap()
    }

    pub(super) fn value(energy: &dyn Energy, x: &[f64]) -> f64 {
        let (mut value, mut gradient) = ([0.0], vec![0.0; x.len()]);
        energy.value_and_gradient(x, &mut value, &mut gradient).unwrap();
        value[0]
    }

    pub(super) fn gradient(energy: &dyn Energy, x: &[f64]) -> Vec<f64> {
        let (mut value, mut gradient) = ([0.0], vec![0.0; x.len()]);
        energy.value_and_gradient(x, &mut value, &mut gradient).unwrap();
        gradient
    }

    #[test]
    fn derivatives_are_those_of_the_value() {
        let other = [
            ("gaussian", r#"{"mean":[1,2,-1],"std":[1,0.5,2],"correlation":0.4}"#),
            ("mixture", r#"{"dim":1,"means":[-1,2],"weights":[1,3],"std":0.5}"#),
            ("ring", r#"{"dim":3}"#),
            ("rosenbrock", r#"{"dim":4}"#),
            ("styblinski-tang", r#"{"dim":5}"#),
            ("ising", r#"{"side":5,"temperature":3}"#),
        ];
        let plain = ENERGIES.iter().map(|e| (e.name, "{}"));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (name, parameters) in plain.chain(other) {
            let energy = energy(name, parameters);
            let energy = energy.as_ref();
            let (low, high) = energy.domain();
            for _ in 0..20 {
                let mut uniform = |l: f64, h: f64| l + (h - l) * rng.random::<f64>();
                let x: Vec<f64> = low.iter().zip(&high).map(|(&l, &h)| uniform(l, h)).collect();
                let v: Vec<f64> = x.iter().map(|_| uniform(-1.0, 1.0)).collect();
                // Central differences of fourth order: the error is the fifth derivative times h^4/30 (the
                // polynomials here have degree at most 6) and rounding of 1e-16 |E|/h.
                let h = 1e-3;
                let at = |t: f64| -> Vec<f64> { x.iter().zip(&v).map(|(x, v)| x + t * v).collect() };
                let weights = [(1.0, 8.0), (-1.0, -8.0), (2.0, -1.0), (-2.0, 1.0)];
                let slope: f64 =
                    weights.iter().map(|(t, w)| w * value(energy, &at(t * h))).sum::<f64>() / (12.0 * h);
                let g = gradient(energy, &x);
                let along: f64 = g.iter().zip(&v).map(|(g, v)| g * v).sum();
                let scale = 1.0 + value(energy, &x).abs() + g.iter().map(|g| g.abs()).sum::<f64>();
                assert!((slope - along).abs() < 1e-8 * scale, "{name}: {slope} {along} at {x:?}");
                let mut hv = vec![0.0; x.len()];
                energy.hvp(&x, &v, &mut hv).unwrap();
                for i in 0..x.len() {
                    let slope: f64 =
                        weights.iter().map(|(t, w)| w * gradient(energy, &at(t * h))[i]).sum::<f64>()
                            / (12.0 * h);
                    let scale = scale + hv.iter().map(|h| h.abs()).sum::<f64>();
                    assert!((slope - hv[i]).abs() < 1e-8 * scale, "{name}: {slope} {} at {x:?}", hv[i]);
                }
            }
        }
    }

    #[test]
    fn parameters_that_make_no_energy_are_refused() {
        for (name, parameters, words) in [
            ("gaussian", r#"{"mean":[0],"std":[1,1]}"#, "as many"),
            ("gaussian", r#"{"mean":[0,0,0],"std":[1,1,1],"correlation":-0.6}"#, "above -0.5"),
            ("gaussian", r#"{"std":[0,1]}"#, "above 0"),
            ("mixture", r#"{"dim":3}"#, "multiple of 3"),
            ("mixture", r#"{"weights":[1]}"#, "weights"),
            ("ring", r#"{"std":0}"#, "above 0"),
        ] {
            let entry = ENERGIES.iter().find(|e| e.name == name).unwrap();
            let parameters = Schema::parse(entry.parameters).unwrap().complete(parameters).unwrap();
            let e = (entry.create)(&parameters).err().unwrap();
            assert!(e.text.contains(words), "{e}");
        }
    }
}
