//! Curved valleys: the twisted Gaussian and Rosenbrock's function.

use cmf_plugin::{Energy, Entry};

use super::{Rows, Rowwise, positive};

pub(super) const BANANA: Entry<dyn Energy> = Entry {
    name: "banana",
    about: "A Gaussian in the plane, bent (Haario, Saksman and Tamminen, 1999)",
    parameters: r#"{"type":"object","properties":{
        "std":{"type":"number","description":"Standard deviation of the first coordinate","default":2,"minimum":0},
        "bend":{"type":"number","description":"How much the second coordinate follows the square of the first","default":0.5}}}"#,
    create: |p| Ok(Box::new(Rows(Banana { std: positive(p, "std")?, bend: p.number("bend")? }))),
};

pub(super) const ROSENBROCK: Entry<dyn Energy> = Entry {
    name: "rosenbrock",
    about: "Rosenbrock's curved valley over a temperature (Goodman and Weare, 2010)",
    parameters: r#"{"type":"object","properties":{
        "dim":{"type":"integer","description":"Dimension","default":2,"minimum":2,"maximum":10000},
        "a":{"type":"number","description":"Where the valley's floor is lowest","default":1},
        "b":{"type":"number","description":"Steepness of its walls","default":100,"minimum":0},
        "temperature":{"type":"number","description":"What the function is divided by","default":20,"minimum":0}}}"#,
    create: |p| {
        Ok(Box::new(Rows(Rosenbrock {
            d: p.count("dim")?,
            a: p.number("a")?,
            b: p.number("b")?,
            temperature: positive(p, "temperature")?,
        })))
    },
};

/// E(x) = x₁²/2s² + ½ (x₂ + b (x₁² - s²))²: x₁ ~ N(0, s²), x₂ + b (x₁² - s²) ~ N(0, 1).
struct Banana {
    std: f64,
    bend: f64,
}

impl Rowwise for Banana {
    fn dim(&self) -> usize {
        2
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        let (wide, drop) = (3.0 * self.std, self.bend.abs() * 8.0 * self.std * self.std + 3.0);
        (vec![-wide, -drop], vec![wide, drop])
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let variance = self.std * self.std;
        let straight = x[1] + self.bend * (x[0] * x[0] - variance);
        gradient[0] = x[0] / variance + 2.0 * self.bend * x[0] * straight;
        gradient[1] = straight;
        0.5 * (x[0] * x[0] / variance + straight * straight)
    }

    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        let variance = self.std * self.std;
        let straight = x[1] + self.bend * (x[0] * x[0] - variance);
        let slope = 2.0 * self.bend * x[0];
        hv[0] = (1.0 / variance + 2.0 * self.bend * straight + slope * slope) * v[0] + slope * v[1];
        hv[1] = slope * v[0] + v[1];
    }
}

/// E(x) = Σ_i [b (x_{i+1} - x_i²)² + (a - x_i)²] / T over neighbours.
struct Rosenbrock {
    d: usize,
    a: f64,
    b: f64,
    temperature: f64,
}

impl Rowwise for Rosenbrock {
    fn dim(&self) -> usize {
        self.d
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        (vec![-5.0; self.d], vec![10.0; self.d])
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let mut sum = 0.0;
        for i in 0..self.d - 1 {
            let (wall, floor) = (x[i + 1] - x[i] * x[i], self.a - x[i]);
            sum += self.b * wall * wall + floor * floor;
            gradient[i] += (-4.0 * self.b * x[i] * wall - 2.0 * floor) / self.temperature;
            gradient[i + 1] += 2.0 * self.b * wall / self.temperature;
        }
        sum / self.temperature
    }

    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        hv.fill(0.0);
        for i in 0..self.d - 1 {
            let wall = x[i + 1] - x[i] * x[i];
            let mixed = -4.0 * self.b * x[i];
            let first = -4.0 * self.b * wall + 8.0 * self.b * x[i] * x[i] + 2.0;
            hv[i] += (first * v[i] + mixed * v[i + 1]) / self.temperature;
            hv[i + 1] += (mixed * v[i] + 2.0 * self.b * v[i + 1]) / self.temperature;
        }
    }
}
