//! The linear solves behind the log-determinant's gradient.

use burn::prelude::*;

use super::super::ops::Precise;
use super::metric::{Metric, choose, dots};
use super::{Potential, ranked, scalar};
use crate::error::Result;

/// Iterations between two looks at the residuals, each of which waits for the device: a few, because one costs
/// about as much as an iteration's launches.
const LOOK_EVERY: usize = 4;
/// A row whose squared relative residual is below this is solved to the rounding of f32.
const ROUNDING: f64 = 1e-13;

/// Solves ∇²w(y_i) u_i = v_i by conjugate gradients preconditioned by P, until each relative residual (in the
/// norm of P) is below `tolerance` or `most` products were spent: [n, d], [n, d] -> [n, d], and the worst of the
/// residuals.
///
/// Rows that are solved or lost to rounding stay as they are while others go on.
pub(super) fn hessian_solve<B: Precise>(
    w: &Potential<'_, B>,
    metric: &Metric<B>,
    y: &Tensor<B, 2>,
    v: &Tensor<B, 2>,
    tolerance: f64,
    most: usize,
) -> Result<(Tensor<B, 2>, f64)> {
    let point = w.linearise(&ranked(y));
    let mut u = v.zeros_like();
    let mut r = v.clone();
    let mut z = metric.apply(r.clone());
    let mut p = z.clone();
    let start = dots(&r, &z);
    let mut rz = start.clone();
    let floor = start.clone() * ROUNDING;
    let worst = |rz: &Tensor<B, 2>| scalar((rz.clone() / start.clone()).max().sqrt());
    for done in 0..most {
        if done > 0 && done.is_multiple_of(LOOK_EVERY) && worst(&rz)? <= tolerance {
            break;
        }
        let hp = w.hvp(&point, &ranked(&p)).matrix();
        let curvature = dots(&p, &hp);
        // False for NaN, too.
        let going = curvature.clone().greater_elem(0.0).bool_and(rz.clone().greater(floor.clone()));
        let alpha = rz.clone() / curvature;
        u = choose(&going, u.clone() + p.clone() * alpha.clone(), &u);
        r = choose(&going, r.clone() - hp * alpha, &r);
        z = choose(&going, metric.apply(r.clone()), &z);
        let next = dots(&r, &z);
        let beta = next.clone() / rz;
        p = choose(&going, z.clone() + p.clone() * beta, &p);
        rz = next;
    }
    Ok((u, worst(&rz)?))
}
