//! The ring: a density that is high at one distance from the origin.

use cmf_core::linalg::dot;
use cmf_plugin::{Energy, Entry};

use super::{Rows, Rowwise, centred_box, positive};

pub(super) const RING: Entry<dyn Energy> = Entry {
    name: "ring",
    about: "A ring, in more dimensions a sphere, with a Gaussian profile in the radius",
    parameters: r#"{"type":"object","properties":{
        "dim":{"type":"integer","description":"Dimension","default":2,"minimum":1,"maximum":10000},
        "radius":{"type":"number","description":"Radius","default":3,"minimum":0},
        "std":{"type":"number","description":"Width","default":0.4,"minimum":0}}}"#,
    create: |p| {
        Ok(Box::new(Rows(Ring {
            d: p.count("dim")?,
            radius: positive(p, "radius")?,
            std: positive(p, "std")?,
        })))
    },
};

/// E(x) = (|x| - r)² / 2s². Its gradient jumps at the origin, where it is taken to be 0.
struct Ring {
    d: usize,
    radius: f64,
    std: f64,
}

impl Rowwise for Ring {
    fn dim(&self) -> usize {
        self.d
    }

    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        centred_box(self.d, self.radius + 4.0 * self.std)
    }

    fn row(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let (length, variance) = (dot(x, x).sqrt(), self.std * self.std);
        let pull = if length > 0.0 { (1.0 - self.radius / length) / variance } else { 0.0 };
        gradient.iter_mut().zip(x).for_each(|(g, x)| *g = pull * x);
        (length - self.radius).powi(2) / (2.0 * variance)
    }

    /// [(1 - r/|x|) v + r (x·v) x/|x|³]/s².
    fn row_hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) {
        let (length, variance) = (dot(x, x).sqrt(), self.std * self.std);
        if length == 0.0 {
            return hv.fill(0.0);
        }
        let (across, along) = (1.0 - self.radius / length, self.radius * dot(x, v) / length.powi(3));
        for ((h, x), v) in hv.iter_mut().zip(x).zip(v) {
            *h = (across * v + along * x) / variance;
        }
    }
}
