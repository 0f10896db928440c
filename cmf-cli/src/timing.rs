//! How long a call takes, and the speed of this machine's fastest matrix product to measure it by.

use std::time::{Duration, Instant};

use cmf_core::Result;
use cmf_core::icnn::Architecture;
use faer::linalg::matmul::matmul;
use serde::Serialize;

use crate::interrupt;

/// The times of one call, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// The first, which makes plans, packs weights and touches memory.
    pub cold_ms: f64,
    /// The shortest of the others: other work on the machine only ever adds time.
    pub warm_ms: f64,
    /// The median of the others.
    pub median_ms: f64,
    /// All others, in order.
    pub all_ms: Vec<f64>,
}

/// Calls once, once more, and then again until `budget` is spent, at most 1000 times. Fails if the user asks to stop.
pub fn time(budget: Duration, mut run: impl FnMut() -> Result<()>) -> Result<Times> {
    let mut once = || {
        let start = Instant::now();
        run().map(|()| start.elapsed())
    };
    let cold = once()?;
    let (mut warm, mut spent) = (Vec::new(), cold);
    while warm.is_empty() || (spent < budget && warm.len() < 1000) {
        interrupt::check()?;
        let took = once()?;
        warm.push(took);
        spent += took;
    }
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    let all_ms = warm.iter().map(ms).collect();
    warm.sort();
    Ok(Times { cold_ms: ms(&cold), warm_ms: ms(&warm[0]), median_ms: ms(&warm[warm.len() / 2]), all_ms })
}

/// The fastest f32 matrix product that was found.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ceiling {
    /// 10^9 multiplications and additions a second.
    pub gflops: f64,
    /// Its shape: [n, k] x [k, m].
    pub product: [usize; 3],
}

impl Ceiling {
    /// Measures products of a large square and of the network's own shapes, on all threads.
    pub fn measure(arch: &Architecture, batch: usize, budget: Duration) -> Result<Ceiling> {
        let forms = (1 + arch.rank) * arch.units();
        let shapes = [[1024; 3], [batch, arch.dim, arch.x_side_rows()], [batch, forms, arch.dim]];
        let mut fastest = Ceiling { gflops: 0.0, product: shapes[0] };
        for product in shapes {
            let gflops = rate(product, budget)?;
            if gflops > fastest.gflops {
                fastest = Ceiling { gflops, product };
            }
        }
        Ok(fastest)
    }

    /// Milliseconds that so many 10^9 multiplications and additions take at this speed.
    pub fn ms(&self, gflop: f64) -> f64 {
        gflop / self.gflops * 1e3
    }
}

/// GFLOP/s of one product.
fn rate([n, k, m]: [usize; 3], budget: Duration) -> Result<f64> {
    let a = faer::Mat::<f32>::from_fn(n, k, |i, j| (i + j) as f32 * 1e-3);
    let b = faer::Mat::<f32>::from_fn(k, m, |i, j| (i * j % 7) as f32);
    let mut c = faer::Mat::<f32>::zeros(n, m);
    let times = time(budget, || {
        matmul(c.as_mut(), faer::Accum::Replace, a.as_ref(), b.as_ref(), 1.0, faer::Par::rayon(0));
        Ok(())
    })?;
    Ok(2e-9 * (n * k * m) as f64 / times.warm_ms * 1e3)
}

/// The multiplications and additions of a network's matrix products, in 10^9.
pub struct Work<'a>(pub &'a Architecture);

impl Work<'_> {
    fn forms(&self) -> f64 {
        ((1 + self.0.rank) * self.0.units()) as f64
    }

    fn mixing(&self) -> f64 {
        self.0.widths.windows(2).map(|w| (w[0] * w[1]) as f64).sum()
    }

    /// Rows that a gradient multiplies backwards: the forms, and a spiked head's directions.
    fn backwards(&self) -> f64 {
        self.forms() + self.0.head.rank().unwrap_or(0) as f64
    }

    /// Of n gradients: the x side forwards, the forms (and a spiked head) backwards, mixing both ways.
    pub fn gradient(&self, n: usize) -> f64 {
        let (d, x_side) = (self.0.dim as f64, self.0.x_side_rows() as f64);
        2e-9 * n as f64 * (d * x_side + self.backwards() * d + 2.0 * self.mixing())
    }

    /// Of n Hessian products: as a gradient, and the x side of the direction forwards with mixing both ways.
    pub fn hvp(&self, n: usize) -> f64 {
        let (d, x_side) = (self.0.dim as f64, self.0.x_side_rows() as f64);
        self.gradient(n) + 2e-9 * n as f64 * (d * x_side + 2.0 * self.mixing())
    }

    /// Of n Hessians of one hidden layer: one triangle of A' D A, beside which the rest is small.
    pub fn hessian(&self, n: usize) -> Option<f64> {
        let d = self.0.dim as f64;
        (self.0.widths.len() == 1).then(|| 1e-9 * n as f64 * d * d * self.backwards())
    }
}

#[cfg(test)]
mod tests {
    use cmf_core::icnn::{GibbsFactor, Head};

    use super::*;

    #[test]
    fn the_first_call_is_apart_and_the_budget_ends_the_rest() {
        let mut calls = 0;
        let mut run = |budget| {
            calls = 0;
            let times = time(budget, || {
                calls += 1;
                Ok(())
            });
            (times.unwrap(), calls)
        };
        let (times, calls) = run(Duration::ZERO);
        assert_eq!((times.all_ms.len(), calls), (1, 2), "one cold call and one warm");
        let (times, calls) = run(Duration::from_secs(60));
        assert_eq!((times.all_ms.len(), calls), (1000, 1001), "calls that take no time end by their number");
        assert!(times.warm_ms <= times.median_ms);
    }

    #[test]
    fn work_is_that_of_the_products() {
        let activation = cmf_core::ops::Activation::Elu;
        let arch = Architecture {
            dim: 10,
            widths: vec![20, 5],
            rank: 1,
            diagonal: false,
            activation,
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        };
        // Forwards [n, 10] x [10, 60], backwards [n, 50] x [50, 10], mixing [n, 20] x [20, 5] and back.
        let expected = 2.0 * 3.0 * (600.0 + 500.0 + 200.0) * 1e-9;
        assert!((Work(&arch).gradient(3) - expected).abs() < 1e-15);
        // Forwards [n, 10] x [10, 54] with a head of four directions, backwards [n, 54] x [54, 10].
        let spiked = Architecture { head: Head::Spiked { rank: 4 }, ..arch };
        let expected = 2.0 * 3.0 * (540.0 + 540.0 + 200.0) * 1e-9;
        assert!((Work(&spiked).gradient(3) - expected).abs() < 1e-15);
    }
}
