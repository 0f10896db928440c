//! Two interleaved half circles, as a data set plugin for CMF.

use cmf_plugin::{DataSet, Entry, Error, Parameters, Result, Shape, Split};

/// Points (cos t, sin t) or (1 - cos t, ½ - sin t), t uniform on [0, π], plus uniform noise.
struct TwoMoons {
    rows: usize,
    noise: f64,
    seed: u64,
}

impl TwoMoons {
    /// Number `k` on [0, 1) of row `row`: a hash (splitmix64), so that rows need not be stored.
    fn random(&self, row: usize, k: u64) -> f64 {
        let mut z = self.seed.wrapping_add((4 * row as u64 + k).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / 2.0_f64.powi(64)
    }
}

impl DataSet for TwoMoons {
    fn shape(&self) -> Shape {
        Shape::Vector { dim: 2 }
    }

    fn pixel_range(&self) -> Option<(f64, f64)> {
        None // Points are no images.
    }

    fn rows(&self, split: Split) -> usize {
        match split {
            Split::Train => self.rows,
            Split::HeldOut => (self.rows / 10).max(1),
        }
    }

    fn read(&self, split: Split, rows: &[usize], out: &mut [f64]) -> Result<()> {
        for (&row, point) in rows.iter().zip(out.chunks_exact_mut(2)) {
            if row >= self.rows(split) {
                return Err(Error::invalid(format!("row {row} of {}", self.rows(split))));
            }
            // Held-out rows come after the training rows.
            let row = if split == Split::Train { row } else { self.rows + row };
            let t = std::f64::consts::PI * self.random(row, 0);
            let moon = if row % 2 == 0 { [t.cos(), t.sin()] } else { [1.0 - t.cos(), 0.5 - t.sin()] };
            for (k, (value, moon)) in point.iter_mut().zip(moon).enumerate() {
                *value = moon + self.noise * (2.0 * self.random(row, 1 + k as u64) - 1.0);
            }
        }
        Ok(())
    }

    fn licence(&self) -> Option<&str> {
        Some("CC0-1.0")
    }
}

fn create(parameters: &Parameters) -> Result<Box<dyn DataSet>> {
    Ok(Box::new(TwoMoons {
        rows: parameters.count("rows")?,
        noise: parameters.number("noise")?,
        seed: parameters.seed("seed")?,
    }))
}

cmf_plugin::export! {
    datasets: [Entry {
        name: "two-moons",
        about: "Two interleaved half circles",
        parameters: r#"{"type":"object","properties":{
            "rows":{"type":"integer","description":"Training rows","default":10000,"minimum":1,"maximum":100000000},
            "noise":{"type":"number","description":"Half-width of the uniform noise","default":0.1,"minimum":0},
            "seed":{"type":"integer","description":"Seed of the points","default":0,"minimum":0}}}"#,
        create,
    }],
}
