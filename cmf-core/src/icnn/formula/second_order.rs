//! Whole Hessians of the network, and their contractions.

use super::{Formula, Forward, Linearised};
use crate::ops::Ops;

/// A point batch with all that a Hessian and its contraction there share.
pub struct Curved<T> {
    at: Linearised<T>,
    /// J of each layer: [n, width, d].
    jacobians: Vec<T>,
}

/// A network's rows in the metric of a symmetric M: of two rows, u M v'.
struct Metric<T> {
    /// Of each layer two arrays [n, width, d] whose rows' products are those of J and J M.
    jacobians: Vec<[T; 2]>,
    /// Rows [.., width, d] whose products with the second of these are those of J M and A_r: a layer each for each r.
    forms: Vec<Vec<T>>,
    /// m of [`Formula::contracted`]: [n, N].
    squared_lengths: T,
}

/// The derivative of a contraction in the Jacobian of a layer.
struct JacobianSlope<T> {
    /// Weights of rows [n, width], and rows [n, width, d].
    own: [T; 2],
    /// What the layer above adds: [n, width, d].
    from_above: Option<T>,
}

impl<T> JacobianSlope<T> {
    /// In one array: [n, width, d].
    fn whole<O: Ops<Tensor = T>>(&self, ops: &O) -> T {
        let [weights, rows] = &self.own;
        let own = ops.mul(&ops.unsqueeze(weights, 2), rows);
        match &self.from_above {
            Some(above) => ops.add(&own, above),
            None => own,
        }
    }
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
        let weighted =
            |rows: &O::Tensor, weights: &O::Tensor| [rows.clone(), ops.mul(&ops.unsqueeze(weights, 2), rows)];
        let p = ops.concat(&x.at.backward.p, 1);
        let mut pairs: Vec<_> =
            x.jacobians.iter().zip(&x.at.curvature).map(|(j, e)| weighted(j, e)).collect();
        pairs.extend((1..=self.arch.rank).map(|r| weighted(&ops.unsqueeze(&self.block(r), 0), &p)));
        let mut hessian = self.symmetric_product_and_head(pairs);
        if let Some(diagonal) = &self.weights.diagonal {
            let along = ops.unsqueeze(&ops.matmul(&p, diagonal), 1);
            hessian = ops.add(&hessian, &ops.mul(&ops.unsqueeze(&ops.identity(d), 0), &along));
        }
        hessian
    }

    /// The symmetric Σ a' b of `pairs` plus Q: [n, d, d].
    fn symmetric_product_and_head(&self, mut pairs: Vec<[O::Tensor; 2]>) -> O::Tensor {
        let (ops, d) = (self.ops, self.arch.dim);
        let head = ops.unsqueeze(&self.head_rows(), 0);
        let Some(spikes) = &self.weights.spikes else {
            return ops.add(&ops.symmetric_product(&pairs), &head);
        };
        pairs.push([head.clone(), ops.mul(&ops.unsqueeze(&spikes.excess, 2), &head)]);
        let floor = ops.mul(&ops.identity(d), &spikes.floor);
        ops.add(&ops.symmetric_product(&pairs), &ops.unsqueeze(&floor, 0))
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
        let pairs = (0..=self.arch.rank)
            .map(|r| {
                let row = by_slope(r, e);
                let terms = (0..=self.arch.rank).map(|s| ops.mul(&column(&by_slope(s, &row)), &forms[s]));
                let sum = self.total(terms);
                let weighted = match r {
                    0 => sum,
                    _ => ops.add(&sum, &ops.mul(&column(&backward.p[0]), &forms[r])),
                };
                [&forms[r], &weighted].map(|rows| ops.unsqueeze(rows, 0))
            })
            .collect();
        ops.squeeze(&self.symmetric_product_and_head(pairs), 0)
    }

    /// ∇_x ⟨M, ∇²w(x)⟩ with the symmetric M held fixed: [n, d], [n, d, d] -> [n, d].
    pub fn hessian_contraction(&self, x: &Curved<O::Tensor>, m: &O::Tensor) -> O::Tensor {
        let ops = self.ops;
        let squares = |r: usize| ops.quadratic_forms(&self.block(r), m);
        let mut squared_lengths = self.total((1..=self.arch.rank).map(squares));
        if let Some(diagonal) = &self.weights.diagonal {
            let on_diagonal = ops.mul(m, &ops.unsqueeze(&ops.identity(self.arch.dim), 0));
            let trace = ops.squeeze(&ops.sum(&on_diagonal, 2), 2);
            squared_lengths = ops.add(&squared_lengths, &ops.matmul(&trace, &ops.transpose(diagonal)));
        }
        let jacobians = x.jacobians.iter().map(|j| [j.clone(), ops.matmul(j, m)]).collect();
        self.contracted(x, Metric { jacobians, forms: self.squared_forms(O::Tensor::clone), squared_lengths })
    }

    /// What `take` makes of the rows A_r of each layer [1, width, d]: a layer each for each r.
    fn squared_forms(&self, take: impl Fn(&O::Tensor) -> O::Tensor) -> Vec<Vec<O::Tensor>> {
        let of_layers = |r: usize| {
            let block = self.block(r);
            (0..self.layers()).map(|l| take(&self.rows_of_layer(&block, l))).collect()
        };
        (1..=self.arch.rank).map(of_layers).collect()
    }

    /// ∇_x log det ∇²w(x) of a network without diagonal terms: [n, d] -> [n, d].
    ///
    /// `in_whitened` has rows u of an array [n, units, d] to u L^{-T}, where ∇²w(x) = L L': lengths and products of these
    /// are those in the metric of M = (∇²w)^{-1}, which is not formed.
    pub fn log_det_gradient(
        &self,
        x: &Curved<O::Tensor>,
        in_whitened: impl Fn(&O::Tensor) -> O::Tensor,
    ) -> O::Tensor {
        assert!(self.weights.diagonal.is_none(), "diagonal terms go with the whole inverse");
        let ops = self.ops;
        let jacobians = x.jacobians.iter().map(&in_whitened).map(|j| [j.clone(), j]).collect();
        let forms = self.squared_forms(in_whitened);
        let squared_lengths = self.total(forms.iter().map(|layers| {
            let lengths = layers.iter().map(|a| ops.squeeze(&ops.inner(a, a, 2), 2));
            ops.concat(&lengths.collect::<Vec<_>>(), 1)
        }));
        self.contracted(x, Metric { jacobians, forms, squared_lengths })
    }

    /// The gradient of ⟨M, ∇²w⟩ = Σ_l e_l·k_l + p·m + const with k = diag(J M J') and
    /// m = Σ_r diag(A_r M A_r') + δ diag(M): its reverse pass through p and q, then J, then s, down to x.
    fn contracted(&self, x: &Curved<O::Tensor>, metric: Metric<O::Tensor>) -> O::Tensor {
        let (ops, w) = (self.ops, self.weights);
        let Linearised { forward, backward, curvature: curvatures } = &x.at;
        let products = |a: &O::Tensor, b: &O::Tensor| ops.squeeze(&ops.inner(a, b, 2), 2);

        // Through p and q, from the first layer (last in the backward pass) to the last.
        let mut s_bar: Vec<O::Tensor> = Vec::with_capacity(self.layers());
        let mut q_bar: Option<O::Tensor> = None;
        for (l, [jacobian, by_m]) in metric.jacobians.iter().enumerate() {
            let k = products(by_m, jacobian);
            let mut p_bar = self.of_layer(&metric.squared_lengths, l);
            if let Some(q_below) = &q_bar {
                p_bar = ops.add(&p_bar, &ops.matmul(q_below, &w.mixing[l - 1]));
            }
            let through_e = ops.mul(&ops.mul(&k, &backward.q[l]), &self.act(&forward.s[l], 3));
            s_bar.push(ops.add(&through_e, &ops.mul(&p_bar, &curvatures[l])));
            let direct = ops.mul(&k, &self.act(&forward.s[l], 2));
            q_bar = Some(ops.add(&direct, &ops.mul(&p_bar, &forward.slope[l])));
        }

        // Through J, last layer first: J̄_l = 2 e_l J_l M and what comes from above.
        let mut through_j: Vec<JacobianSlope<O::Tensor>> = Vec::with_capacity(self.layers());
        for l in (0..self.layers()).rev() {
            let mut slope = JacobianSlope {
                own: [ops.scale(&curvatures[l], 2.0), metric.jacobians[l][1].clone()],
                from_above: None,
            };
            if let Some(above) = through_j.last() {
                let mixed = ops.matmul(&w.mixing[l], &above.whole(ops));
                let along = products(&metric.jacobians[l][0], &mixed);
                s_bar[l] = ops.add(&s_bar[l], &ops.mul(&along, &self.act(&forward.s[l], 2)));
                slope.from_above = Some(ops.mul(&ops.unsqueeze(&forward.slope[l], 2), &mixed));
            }
            through_j.push(slope);
        }
        through_j.reverse();

        // Through s, last layer first, and then down to x.
        for l in (1..self.layers()).rev() {
            let back = ops.matmul(&s_bar[l], &ops.transpose(&w.mixing[l - 1]));
            s_bar[l - 1] = ops.add(&s_bar[l - 1], &ops.mul(&back, &forward.slope[l - 1]));
        }
        let s_bar = ops.concat(&s_bar, 1);
        let squared = metric
            .forms
            .iter()
            .zip(&forward.squared)
            .map(|(forms, squared)| {
                let along = through_j.iter().zip(forms).map(|(slope, form)| {
                    let [weight, by_m] = &slope.own;
                    let own = ops.mul(weight, &products(by_m, form));
                    match &slope.from_above {
                        Some(above) => ops.add(&own, &products(above, form)),
                        None => own,
                    }
                });
                let direct = ops.concat(&along.collect::<Vec<_>>(), 1);
                ops.add(&ops.mul(&s_bar, squared), &direct)
            })
            .collect();
        let mut out = self.pull_back(s_bar.clone(), squared);
        if let Some(diagonal) = &w.diagonal {
            out = ops.add(&out, &ops.mul(&forward.x, &ops.matmul(&s_bar, diagonal)));
            let whole: Vec<O::Tensor> = through_j.iter().map(|slope| slope.whole(ops)).collect();
            let direct = ops.sum(&ops.mul(&ops.concat(&whole, 1), &ops.unsqueeze(diagonal, 0)), 1);
            out = ops.add(&out, &ops.squeeze(&direct, 1));
        }
        out
    }
}
