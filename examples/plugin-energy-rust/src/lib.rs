//! A double well in the plane, as a plugin for CMF.

use cmf_plugin::{Energy, Entry, Parameters, Result};

/// E(x, y) = depth (x² - 1)² + ½ stiffness y²: two modes at x = ±1.
struct DoubleWell {
    depth: f64,
    stiffness: f64,
}

impl Energy for DoubleWell {
    fn dim(&self) -> usize {
        2
    }

    /// Where chains start.
    fn domain(&self) -> (Vec<f64>, Vec<f64>) {
        (vec![-2.0, -2.0], vec![2.0, 2.0])
    }

    /// `x` holds the points one after the other; lengths have been checked.
    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        for ((p, value), g) in x.chunks_exact(2).zip(value).zip(gradient.chunks_exact_mut(2)) {
            let well = p[0] * p[0] - 1.0;
            *value = self.depth * well * well + 0.5 * self.stiffness * p[1] * p[1];
            g[0] = 4.0 * self.depth * p[0] * well;
            g[1] = self.stiffness * p[1];
        }
        Ok(())
    }

    /// Optional: without it the host takes differences of gradients.
    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        for ((p, v), h) in x.chunks_exact(2).zip(v.chunks_exact(2)).zip(hv.chunks_exact_mut(2)) {
            h[0] = 4.0 * self.depth * (3.0 * p[0] * p[0] - 1.0) * v[0];
            h[1] = self.stiffness * v[1];
        }
        Ok(())
    }
}

/// The parameters have passed the schema below, defaults filled in.
fn create(parameters: &Parameters) -> Result<Box<dyn Energy>> {
    Ok(Box::new(DoubleWell {
        depth: parameters.number("depth")?,
        stiffness: parameters.number("stiffness")?,
    }))
}

cmf_plugin::export! {
    energies: [Entry {
        name: "double-well",
        about: "A double well in the plane",
        parameters: r#"{"type":"object","properties":{
            "depth":{"type":"number","description":"Height of the barrier, in nats","default":3,"minimum":0},
            "stiffness":{"type":"number","description":"Curvature across the wells","default":4,"minimum":0}}}"#,
        create,
    }],
}
