//! Whole Hessians of the network, and their contractions.

use super::{Formula, Forward, Linearised};
use crate::ops::Ops;

/// A point batch with all that a Hessian and its contraction there share.
pub struct Curved<T> {
    at: Linearised<T>,
    /// J of each layer: [n, width, d].
    jacobians: Vec<T>,
}

impl<O: Ops> Formula<'_, O> {
    /// ∂(linear, squared and diagonal input of a layer's units)/∂x: [n, width, d].
    fn input_jacobian(&self, forward: &Forward<O::Tensor>, layer: usize) -> O::Tensor {
        let ops = self.ops;
        let rows = |a: &O::Tensor| self.rows_of_layer(a, layer);
        let column = |a: &O::Tensor| ops.unsqueeze(&self.of_layer(a, layer), 2);
        let mut jacobian = rows(&self.block(0));
        for (r, form) in forward.squared.iter().enumerate() {
            jacobian = ops.add(&jacobian, &ops.mul(&column(form), &rows(&self.block(r + 1))));
        }
        if let Some(diagonal) = &self.weights.diagonal {
            let scaled = ops.mul(&rows(diagonal), &ops.unsqueeze(&forward.x, 1));
            jacobian = ops.add(&jacobian, &scaled);
        }
        jacobian
    }

    /// J of each layer: [n, width, d].
    fn jacobians(&self, forward: &Forward<O::Tensor>) -> Vec<O::Tensor> {
        let ops = self.ops;
        let mut all: Vec<O::Tensor> = Vec::with_capacity(self.layers());
        for l in 0..self.layers() {
            let mut jacobian = self.input_jacobian(forward, l);
            if l > 0 {
                let below = ops.mul(&ops.unsqueeze(&forward.slope[l - 1], 2), &all[l - 1]);
                let mixed = ops.matmul(&ops.transpose(&self.weights.mixing[l - 1]), &below);
                jacobian = ops.add(&mixed, &jacobian);
            }
            all.push(jacobian);
        }
        all
    }

    /// The passes at x that [`Formula::hessian`] and [`Formula::hessian_contraction`] share.
    pub fn curved(&self, x: &O::Tensor) -> Curved<O::Tensor> {
        let at = self.linearise(x);
        let jacobians = self.jacobians(&at.forward);
        Curved { at, jacobians }
    }

    /// ∇²w(x) = Σ_l J_l' diag(e_l) J_l + Σ_r A_r' diag(p) A_r + diag(δ'p) + Q: [n, d] -> [n, d, d].
    pub fn hessian(&self, x: &Curved<O::Tensor>) -> O::Tensor {
        let (ops, d) = (self.ops, self.arch.dim);
        let jacobian = ops.concat(&x.jacobians, 1);
        let e = ops.unsqueeze(&ops.concat(&x.at.curvature, 1), 2);
        let weighted = ops.mul(&e, &jacobian);
        let mut hessian = ops.symmetric_product(&jacobian, &weighted);
        let p = ops.concat(&x.at.backward.p, 1);
        let column = ops.unsqueeze(&p, 2);
        for r in 1..=self.arch.rank {
            let rows = ops.unsqueeze(&self.block(r), 0);
            let weighted = ops.mul(&column, &rows);
            hessian = ops.add(&hessian, &ops.symmetric_product(&rows, &weighted));
        }
        if let Some(diagonal) = &self.weights.diagonal {
            let along = ops.unsqueeze(&ops.matmul(&p, diagonal), 1);
            hessian = ops.add(&hessian, &ops.mul(&ops.unsqueeze(&ops.identity(d), 0), &along));
        }
        self.with_head(hessian)
    }

    /// Hessians [n, d, d] plus Q.
    fn with_head(&self, mut hessian: O::Tensor) -> O::Tensor {
        let (ops, d) = (self.ops, self.arch.dim);
        let head = ops.unsqueeze(&self.head_rows(), 0);
        let Some(spikes) = &self.weights.spikes else {
            return ops.add(&hessian, &head);
        };
        let weighted = ops.mul(&ops.unsqueeze(&spikes.excess, 2), &head);
        hessian = ops.add(&hessian, &ops.symmetric_product(&head, &weighted));
        let floor = ops.mul(&ops.identity(d), &spikes.floor);
        ops.add(&hessian, &ops.unsqueeze(&floor, 0))
    }

    /// The mean Hessian over the `n` rows of `x`: [n, d] -> [d, d].
    ///
    /// Of one layer without diagonal terms it is F' M F + Q, where F holds the forms b_i and a_{i,r} and M joins those of one
    /// unit: about what one Hessian costs. Of others it is the average of n of them.
    pub fn mean_hessian(&self, n: usize, x: &O::Tensor) -> O::Tensor {
        let ops = self.ops;
        let mean = |a: &O::Tensor| ops.scale(&ops.sum(a, 0), 1.0 / n as f64);
        if !self.arch.is_flat() {
            return ops.squeeze(&mean(&self.hessian(&self.curved(x))), 0);
        }
        let Linearised { forward, backward, curvature } = self.linearise(x);
        let column = |a: &O::Tensor| ops.transpose(&mean(a));
        // The slopes of J_i = b_i + Σ_r (a_{i,r}·x) a_{i,r} in its forms: 1 and a_{i,r}·x.
        let forms: Vec<O::Tensor> = (0..=self.arch.rank).map(|block| self.block(block)).collect();
        let e = &curvature[0];
        let by_slope = |r: usize, a: &O::Tensor| match r {
            0 => a.clone(),
            _ => ops.mul(a, &forward.squared[r - 1]),
        };
        let weighted: Vec<O::Tensor> = (0..=self.arch.rank)
            .map(|r| {
                let row = by_slope(r, e);
                let terms = (0..=self.arch.rank).map(|s| ops.mul(&column(&by_slope(s, &row)), &forms[s]));
                let sum = self.total(terms);
                match r {
                    0 => sum,
                    _ => ops.add(&sum, &ops.mul(&column(&backward.p[0]), &forms[r])),
                }
            })
            .collect();
        let stacked = |parts: &[O::Tensor]| ops.unsqueeze(&ops.concat(parts, 0), 0);
        let hessian = self.with_head(ops.symmetric_product(&stacked(&forms), &stacked(&weighted)));
        ops.squeeze(&hessian, 0)
    }

    /// ∇_x ⟨M, ∇²w(x)⟩ with the symmetric M held fixed: [n, d], [n, d, d] -> [n, d].
    ///
    /// ⟨M, ∇²w⟩ = Σ_l e_l·k_l + p·m + const with k = diag(J M J') and m = Σ_r diag(A_r M A_r') + δ diag(M);
    /// the code below is its reverse pass through p and q, then J, then s, down to x.
    pub fn hessian_contraction(&self, x: &Curved<O::Tensor>, m: &O::Tensor) -> O::Tensor {
        let (ops, w) = (self.ops, self.weights);
        let Curved { at: Linearised { forward, backward, curvature: curvatures }, jacobians } = x;
        let jm: Vec<O::Tensor> = jacobians.iter().map(|j| ops.matmul(j, m)).collect();

        let squares = |r: usize| ops.quadratic_forms(&self.block(r), m);
        let mut m_units = (2..=self.arch.rank).fold(squares(1), |sum, r| ops.add(&sum, &squares(r)));
        if let Some(diagonal) = &w.diagonal {
            let on_diagonal = ops.mul(m, &ops.unsqueeze(&ops.identity(self.arch.dim), 0));
            let trace = ops.squeeze(&ops.sum(&on_diagonal, 2), 2);
            m_units = ops.add(&m_units, &ops.matmul(&trace, &ops.transpose(diagonal)));
        }

        // Through p and q, from the first layer (last in the backward pass) to the last.
        let mut s_bar: Vec<O::Tensor> = Vec::with_capacity(self.layers());
        let mut q_bar: Option<O::Tensor> = None;
        for l in 0..self.layers() {
            let k = ops.squeeze(&ops.inner(&jm[l], &jacobians[l], 2), 2);
            let mut p_bar = self.of_layer(&m_units, l);
            if let Some(q_below) = &q_bar {
                p_bar = ops.add(&p_bar, &ops.matmul(q_below, &w.mixing[l - 1]));
            }
            let through_e = ops.mul(&ops.mul(&k, &backward.q[l]), &self.act(&forward.s[l], 3));
            s_bar.push(ops.add(&through_e, &ops.mul(&p_bar, &curvatures[l])));
            let direct = ops.mul(&k, &self.act(&forward.s[l], 2));
            q_bar = Some(ops.add(&direct, &ops.mul(&p_bar, &forward.slope[l])));
        }

        // Through J, last layer first.
        let mut j_bar: Vec<O::Tensor> = (0..self.layers())
            .map(|l| ops.mul(&ops.unsqueeze(&ops.scale(&curvatures[l], 2.0), 2), &jm[l]))
            .collect();
        for l in (1..self.layers()).rev() {
            let mixed = ops.matmul(&w.mixing[l - 1], &j_bar[l]);
            let along = ops.squeeze(&ops.inner(&jacobians[l - 1], &mixed, 2), 2);
            s_bar[l - 1] = ops.add(&s_bar[l - 1], &ops.mul(&along, &self.act(&forward.s[l - 1], 2)));
            let passed = ops.mul(&ops.unsqueeze(&forward.slope[l - 1], 2), &mixed);
            j_bar[l - 1] = ops.add(&j_bar[l - 1], &passed);
        }

        // Through s, last layer first, and then down to x.
        for l in (1..self.layers()).rev() {
            let back = ops.matmul(&s_bar[l], &ops.transpose(&w.mixing[l - 1]));
            s_bar[l - 1] = ops.add(&s_bar[l - 1], &ops.mul(&back, &forward.slope[l - 1]));
        }
        let s_bar = ops.concat(&s_bar, 1);
        let squared = (1..=self.arch.rank)
            .map(|r| {
                let along = |(l, j): (usize, &O::Tensor)| {
                    ops.squeeze(&ops.inner(j, &self.rows_of_layer(&self.block(r), l), 2), 2)
                };
                let direct = j_bar.iter().enumerate().map(along);
                let direct = ops.concat(&direct.collect::<Vec<_>>(), 1);
                ops.add(&ops.mul(&s_bar, &forward.squared[r - 1]), &direct)
            })
            .collect();
        let mut out = self.pull_back(s_bar.clone(), squared);
        if let Some(diagonal) = &w.diagonal {
            out = ops.add(&out, &ops.mul(&forward.x, &ops.matmul(&s_bar, diagonal)));
            let j_bar = ops.concat(&j_bar, 1);
            let direct = ops.sum(&ops.mul(&j_bar, &ops.unsqueeze(diagonal, 0)), 1);
            out = ops.add(&out, &ops.squeeze(&direct, 1));
        }
        out
    }
}
