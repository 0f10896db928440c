//! Benchmarks of optimisation, scaled so that e^{-E} is a density with several modes.

use cmf_plugin::{Energy, Entry};

use super::{Rows, Rowwise, centred_box, positive};

pub(super) const HIMMELBLAU: Entry<dyn Energy> = Entry {
    name: "himmelblau",
    about: "Himmelblau's function over a temperature: four modes in the plane",
    parameters: r#"{"type":"object","properties":{
        "temperature":{"type":"number","description":"What the function is divided by","default":20,"minimum":0}}}"#,
    create: |p| Ok(Box::new(Rows(Himmelblau(positive(p, "temperature")?)))),
};

pub(super) const STYBLINSKI_TANG: Entry<dyn Energy> = Entry {
    name: "styblinski-tang",
    about: "The function of Styblinski and Tang over a temperature: two modes in each coordinate",
    parameters: r#"{"type":"object","properties":{
        "dim":{"type":"integer","description":"Dimension","default":2,"minimum":1,"maximum":10000},
        "temperature":{"type":"number","description":"What the function is divided by","default":10,"minimum":0}}}"#,
    create: |p| Ok(Box::new(Rows(StyblinskiTang(p.count("dim")?, positive(p, "temperature")?)))),
};

pub(super) const THREE_HUMP_CAMEL: Entry<dyn Energy> = Entry {
    name: "three-hump-camel",
    about: "The three-hump camel over a temperature: three modes in the plane",
    parameters: r#"{"type":"object","properties":{
        "temperature":{"type":"number","description":"What the function is divided by","default":2,"minimum":0}}}"#,
    create: |p| Ok(Box::new(Rows(Camel(positive(p, "temperature")?)))),
};

/// E = [(x² + y - 11)² + (x + y² - 7)²]/T.
struct Himmelblau(f64);

impl Rowwise for Himmelblau {
    fn dim(&self) -> usize {
        2
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        centred_box(2, 6.0)
    }

    fn row(&self, p: &[f64], gradient: &mut [f64]) -> f64 {
        let (x, y) = (p[0], p[1]);
        let (f, g) = (x * x + y - 11.0, x + y * y - 7.0);
        gradient[0] = (4.0 * x * f + 2.0 * g) / self.0;
        gradient[1] = (2.0 * f + 4.0 * y * g) / self.0;
        (f * f + g * g) / self.0
    }

    fn row_hvp(&self, p: &[f64], v: &[f64], hv: &mut [f64]) {
        let (x, y) = (p[0], p[1]);
        let (f, g) = (x * x + y - 11.0, x + y * y - 7.0);
        let mixed = 4.0 * (x + y);
        hv[0] = ((4.0 * f + 8.0 * x * x + 2.0) * v[0] + mixed * v[1]) / self.0;
        hv[1] = (mixed * v[0] + (4.0 * g + 8.0 * y * y + 2.0) * v[1]) / self.0;
    }
}

/// E = ½ Σ (x_i⁴ - 16 x_i² + 5 x_i)/T.
struct StyblinskiTang(usize, f64);

impl Rowwise for StyblinskiTang {
    fn dim(&self) -> usize {
        self.0
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        centred_box(self.0, 5.0)
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.iter_mut().zip(x).for_each(|(g, x)| *g = (2.0 * x.powi(3) - 16.0 * x + 2.5) / self.1);
        x.iter().map(|x| 0.5 * (x.powi(4) - 16.0 * x * x + 5.0 * x)).sum::<f64>() / self.1
    }

    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        for ((h, x), v) in hv.iter_mut().zip(x).zip(v) {
            *h = (6.0 * x * x - 16.0) * v / self.1;
        }
    }
}

/// E = [2 x² - 1.05 x⁴ + x⁶/6 + x y + y²]/T.
struct Camel(f64);

impl Rowwise for Camel {
    fn dim(&self) -> usize {
        2
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        centred_box(2, 5.0)
    }

    fn row(&self, p: &[f64], gradient: &mut [f64]) -> f64 {
        let (x, y) = (p[0], p[1]);
        gradient[0] = (4.0 * x - 4.2 * x.powi(3) + x.powi(5) + y) / self.0;
        gradient[1] = (x + 2.0 * y) / self.0;
        (2.0 * x * x - 1.05 * x.powi(4) + x.powi(6) / 6.0 + x * y + y * y) / self.0
    }

    fn row_hvp(&self, p: &[f64], v: &[f64], hv: &mut [f64]) {
        let x = p[0];
        hv[0] = ((4.0 - 12.6 * x * x + 5.0 * x.powi(4)) * v[0] + v[1]) / self.0;
        hv[1] = (v[0] + 2.0 * v[1]) / self.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{energy, gradient, value};

    #[test]
    fn known_minima_are_minima() {
        // Published minimisers, to the digits that are given.
        for (name, x, want) in [
            ("himmelblau", [3.0, 2.0], 0.0),
            ("himmelblau", [-2.805_118, 3.131_312], 0.0),
            ("styblinski-tang", [-2.903_534, -2.903_534], -7.833_233),
            ("three-hump-camel", [0.0, 0.0], 0.0),
        ] {
            let energy = energy(name, "{}");
            assert!((value(energy.as_ref(), &x) - want).abs() < 1e-5, "{name}");
            assert!(gradient(energy.as_ref(), &x).iter().all(|g| g.abs() < 1e-5), "{name}");
        }
    }
}
