//! The log-density above the reach of a dense Hessian: stochastic Lanczos quadrature.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Pushed, Status, finite};
use crate::error::{Error, Result, check_len};
use crate::linalg::{SymmetricEigen, dot};
use crate::potential::{Potential, rows};
use crate::preconditioner::Preconditioner;
use crate::source::Source;

/// Stochastic Lanczos quadrature of a log-determinant.
#[derive(Debug, Clone, Copy)]
pub struct Lanczos {
    /// Rademacher probes a row, at least 2; the standard error falls with their square root.
    pub probes: usize,
    /// Most Lanczos steps a probe; each is one Hessian-vector product.
    pub max_steps: usize,
    /// A probe stops when four steps change its quadrature by less than this, relative to the
    /// quadrature of |log|.
    pub tolerance: f64,
    /// Seed of the probes. All rows of a call share their probes.
    pub seed: u64,
}

impl Default for Lanczos {
    fn default() -> Self {
        Lanczos { probes: 32, max_steps: 80, tolerance: 1e-3, seed: 0 }
    }
}

/// Estimated log-densities of a batch of rows.
#[derive(Debug, Clone)]
pub struct EstimatedLogDensity {
    /// The estimate of log ρ(y_i) in nats, -∞ where the status says why: [n].
    pub value: Vec<f64>,
    /// Standard error of the estimate over the probes (0 where there is no value): [n].
    pub standard_error: Vec<f64>,
    /// How each row ended: [n].
    pub status: Vec<Status>,
}

/// Steps between two looks at the quadrature.
const LOOK: usize = 4;

/// Estimates log ρ of each row of `y` [n, d] through Hessian-vector products alone.
///
/// With a `preconditioner` P = L L' near H^{-1} (the inverse Hessian of the model's closed-form start),
/// log det H = -log det P + tr log(L' H L); the trace is estimated with Rademacher probes z as the
/// mean of d e_1' log(T) e_1, T the Lanczos tridiagonal started from z/√d (Ubaru, Chen and Saad,
/// 2017, algorithm 1), with full reorthogonalisation. The better P fits, the smaller the variance.
/// Memory: probes x steps x d numbers. Errors: shapes, bad settings.
pub fn estimated_log_density(
    w: &dyn Potential,
    log_z: f64,
    y: &[f64],
    preconditioner: &Preconditioner,
    settings: Lanczos,
) -> Result<EstimatedLogDensity> {
    let d = w.dim();
    let n = rows(y, d)?;
    check_len("preconditioner dimension", preconditioner.dim(), d)?;
    if settings.probes < 2 || settings.max_steps == 0 {
        return Err(Error::Invalid("Lanczos quadrature needs two probes and one step at least".into()));
    }
    let log_det_p = preconditioner.log_det();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let start = 1.0 / (d as f64).sqrt();
    let probes: Vec<f64> =
        (0..settings.probes * d).map(|_| if rng.random::<bool>() { start } else { -start }).collect();

    let mut out = EstimatedLogDensity {
        value: vec![f64::NEG_INFINITY; n],
        standard_error: vec![0.0; n],
        status: vec![Status::NotFinite; n],
    };
    for (i, row) in y.chunks_exact(d).enumerate() {
        let pushed = Pushed::new(w, Source::Gibbs, row)?;
        if !(finite(row) && pushed.value[0].is_finite()) {
            continue;
        }
        let operator = Operator { w, preconditioner, points: row.repeat(settings.probes) };
        let (quadratures, status) = quadrature(&operator, &probes, settings)?;
        out.status[i] = status;
        if matches!(status, Status::Evaluated | Status::QuadratureUnconverged) {
            let m = settings.probes as f64;
            let mean = quadratures.iter().sum::<f64>() / m;
            let variance = quadratures.iter().map(|q| (q - mean).powi(2)).sum::<f64>() / (m - 1.0);
            out.value[i] = mean - log_det_p - pushed.value[0] - log_z;
            out.standard_error[i] = (variance / m).sqrt();
        }
    }
    Ok(out)
}

/// The preconditioned Hessian L' H(y) L at one point, applied to rows.
struct Operator<'a> {
    w: &'a dyn Potential,
    preconditioner: &'a Preconditioner,
    /// The point once a probe: [m, d].
    points: Vec<f64>,
}

impl Operator<'_> {
    /// Rows of `q` [m, d] to L' H L q.
    fn apply(&self, q: &[f64]) -> Result<Vec<f64>> {
        let mut product = vec![0.0; q.len()];
        self.w.hvp(&self.points, &self.preconditioner.colour(q)?, &mut product)?;
        self.preconditioner.pull_back(&product)
    }
}

/// One probe's Krylov space.
struct Krylov {
    basis: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    off_diagonal: Vec<f64>,
    quadrature: f64,
    done: bool,
}

impl Krylov {
    /// Takes A q for the last basis vector q, orthogonalises it twice against the basis (once is not
    /// enough in finite precision) and extends the tridiagonal.
    fn extend(&mut self, mut product: Vec<f64>) {
        let scale = dot(&product, &product).sqrt();
        let last = self.basis.len() - 1;
        self.diagonal.push(dot(&product, &self.basis[last]));
        for _ in 0..2 {
            for q in &self.basis {
                let c = dot(&product, q);
                product.iter_mut().zip(q).for_each(|(p, q)| *p -= c * q);
            }
        }
        let norm = dot(&product, &product).sqrt();
        // An invariant subspace: the quadrature is exact. f32 products reach it at 1e-6.
        if norm <= 1e-6 * scale {
            self.done = true;
            return;
        }
        product.iter_mut().for_each(|p| *p /= norm);
        self.off_diagonal.push(norm);
        self.basis.push(product);
    }

    /// d e_1' log(T) e_1 and the same of |log|, or nothing where T has an eigenvalue that is not
    /// positive.
    fn look(&self, d: usize) -> Result<Option<(f64, f64)>> {
        let k = self.diagonal.len();
        let mut t = vec![0.0; k * k];
        for i in 0..k {
            t[i * k + i] = self.diagonal[i];
            if i + 1 < k {
                t[i * k + i + 1] = self.off_diagonal[i];
                t[(i + 1) * k + i] = self.off_diagonal[i];
            }
        }
        let eigen = SymmetricEigen::new(&t, k)?;
        if eigen.values[0] <= 0.0 {
            return Ok(None);
        }
        let first = |f: fn(f64) -> f64| d as f64 * eigen.apply(f)[0];
        Ok(Some((first(f64::ln), first(|v| v.ln().abs()))))
    }
}

/// The quadratures of all probes [m] at one point, with the status of the row.
fn quadrature(operator: &Operator, probes: &[f64], settings: Lanczos) -> Result<(Vec<f64>, Status)> {
    let d = operator.w.dim();
    let mut spaces: Vec<Krylov> = probes
        .chunks_exact(d)
        .map(|z| Krylov {
            basis: vec![z.to_vec()],
            diagonal: vec![],
            off_diagonal: vec![],
            quadrature: f64::INFINITY,
            done: false,
        })
        .collect();
    for step in 1..=settings.max_steps.min(d) {
        // Probes that are done ride along: the product is one batch whatever their number.
        let q: Vec<f64> = spaces.iter().flat_map(|s| s.basis[s.basis.len() - 1].iter().copied()).collect();
        let products = operator.apply(&q)?;
        if !finite(&products) {
            return Ok((vec![], Status::NotFinite));
        }
        for (space, product) in spaces.iter_mut().zip(products.chunks_exact(d)).filter(|(s, _)| !s.done) {
            space.extend(product.to_vec());
            let last = space.done || step == settings.max_steps.min(d);
            if last || step % LOOK == 0 {
                let Some((value, magnitude)) = space.look(d)? else {
                    return Ok((vec![], Status::NotPositiveDefinite));
                };
                let change = (value - space.quadrature).abs();
                space.done |= change <= settings.tolerance * magnitude || step == d;
                space.quadrature = value;
            }
        }
        if spaces.iter().all(|s| s.done) {
            break;
        }
    }
    let status =
        if spaces.iter().all(|s| s.done) { Status::Evaluated } else { Status::QuadratureUnconverged };
    Ok((spaces.iter().map(|s| s.quadrature).collect(), status))
}
