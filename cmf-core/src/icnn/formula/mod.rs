//! Value, gradient, Hessian-vector product, Hessian and Hessian contraction of the network, each
//! written once over [`Ops`] and interpreted by the host, the ONNX builder and Burn. Whole Hessians stand in `second_order`.
//!
//! Notation, for layer l: s is the pre-activation, q = ∂w/∂act(s), p = q act'(s) = ∂w/∂s,
//! J = ∂s/∂x [units, d] and e = q act''(s). Rows of a batch are independent throughout.

mod second_order;

pub use second_order::Curved;

use super::{Architecture, FormsAlong, Weights};
use crate::ops::Ops;

/// The network's formulas for one interpreter and one set of weights.
pub struct Formula<'a, O: Ops> {
    ops: &'a O,
    arch: &'a Architecture,
    weights: &'a Weights<O::Tensor>,
}

/// What a forward pass leaves for the derivatives.
struct Forward<T> {
    /// x: [n, d].
    x: T,
    /// The head's rows times x - a: Q (x - a) [n, d], or V (x - a) [n, k].
    head: T,
    /// a_{i,r}·x for each r: [n, N].
    squared: Vec<T>,
    /// Pre-activations s of each layer: [n, width].
    s: Vec<T>,
    /// act'(s) of each layer: [n, width].
    slope: Vec<T>,
    /// act(s) of all units: [n, N].
    active: T,
}

/// What a backward pass leaves: q and p of each layer.
struct Backward<T> {
    /// [n, width], or [1, width] for the last layer.
    q: Vec<T>,
    /// [n, width].
    p: Vec<T>,
}

/// A point batch with its forward and backward passes, ready for Hessian-vector products.
pub struct Linearised<T> {
    forward: Forward<T>,
    backward: Backward<T>,
    /// e of each layer: [n, width].
    curvature: Vec<T>,
}

/// Tangents of a forward pass along one direction.
struct Tangent<T> {
    /// Of s, each layer: [n, width].
    s: Vec<T>,
    /// Of a_{i,r}·x: [n, N] for each r.
    squared: Vec<T>,
    /// The head's rows times v: Q v [n, d], or V v [n, k].
    head: T,
}

impl<'a, O: Ops> Formula<'a, O> {
    /// Binds the formulas to an interpreter and weights.
    pub fn new(ops: &'a O, arch: &'a Architecture, weights: &'a Weights<O::Tensor>) -> Self {
        Formula { ops, arch, weights }
    }

    fn layers(&self) -> usize {
        self.arch.widths.len()
    }

    /// The part of an [n, N] array that belongs to one layer.
    fn of_layer(&self, a: &O::Tensor, layer: usize) -> O::Tensor {
        let range = self.arch.layer(layer);
        self.ops.slice(a, 1, range.start, range.end)
    }

    /// The rows of an [N, d] array that belong to one layer: [1, width, d].
    fn rows_of_layer(&self, a: &O::Tensor, layer: usize) -> O::Tensor {
        let range = self.arch.layer(layer);
        self.ops.unsqueeze(&self.ops.slice(a, 0, range.start, range.end), 0)
    }

    /// Rows of the x-side matrix: block 0 is b, block r >= 1 is a_{.,r}.
    fn block(&self, block: usize) -> O::Tensor {
        let n = self.arch.units();
        self.ops.slice(&self.weights.x_side, 0, block * n, (block + 1) * n)
    }

    /// The part of [n, (1 + r) N + h] products that belongs to the head.
    fn of_head(&self, products: &O::Tensor) -> O::Tensor {
        let from = (1 + self.arch.rank) * self.arch.units();
        self.ops.slice(products, 1, from, from + self.arch.head_rows())
    }

    /// The head's rows: Q [d, d], or V [k, d].
    fn head_rows(&self) -> O::Tensor {
        if let Some(along) = &self.weights.along {
            return along.directions.clone();
        }
        let from = (1 + self.arch.rank) * self.arch.units();
        self.ops.slice(&self.weights.x_side, 0, from, from + self.arch.head_rows())
    }

    /// x - a: [n, d].
    fn centred(&self, forward: &Forward<O::Tensor>) -> O::Tensor {
        self.ops.sub(&forward.x, &self.weights.centre)
    }

    /// u' Q v of rows u and v [n, d] with their products `hu` and `hv` with the head's rows: [n, 1].
    fn head_form(&self, u: &O::Tensor, hu: &O::Tensor, v: &O::Tensor, hv: &O::Tensor) -> O::Tensor {
        let ops = self.ops;
        match &self.weights.spikes {
            None => ops.sum(&ops.mul(u, hv), 1),
            Some(spikes) => {
                let across = ops.mul(&ops.sum(&ops.mul(u, v), 1), &spikes.floor);
                ops.add(&across, &ops.sum(&ops.mul(&ops.mul(hu, hv), &spikes.excess), 1))
            }
        }
    }

    /// The sum of at least one term.
    fn total(&self, terms: impl Iterator<Item = O::Tensor>) -> O::Tensor {
        terms.reduce(|sum, term| self.ops.add(&sum, &term)).expect("pairs and ranks are at least 1")
    }

    /// act^{(order)}(s).
    fn act(&self, s: &O::Tensor, order: u8) -> O::Tensor {
        self.ops.activation(s, self.arch.activation, order)
    }

    /// Products of rows with the x-side matrix: [n, d] -> [n, (1 + r) N + h].
    fn products(&self, rows: &O::Tensor) -> O::Tensor {
        let ops = self.ops;
        let Some(FormsAlong { forms, directions }) = &self.weights.along else {
            return ops.matmul(rows, &ops.transpose(&self.weights.x_side));
        };
        let along = ops.matmul(rows, &ops.transpose(directions));
        ops.concat(&[ops.matmul(&along, &ops.transpose(forms)), along], 1)
    }

    /// act(s) of all units: [n, N].
    pub fn active(&self, x: &O::Tensor) -> O::Tensor {
        self.forward(x).active
    }

    fn forward(&self, x: &O::Tensor) -> Forward<O::Tensor> {
        self.forward_from(x, &self.products(x))
    }

    fn forward_from(&self, x: &O::Tensor, products: &O::Tensor) -> Forward<O::Tensor> {
        let (ops, w, n) = (self.ops, self.weights, self.arch.units());
        let mut input = ops.add(&ops.slice(products, 1, 0, n), &w.bias);
        let mut squared = Vec::with_capacity(self.arch.rank);
        for r in 1..=self.arch.rank {
            let form = ops.slice(products, 1, r * n, (r + 1) * n);
            input = ops.add(&input, &ops.scale(&ops.mul(&form, &form), 0.5));
            squared.push(form);
        }
        if let Some(diagonal) = &w.diagonal {
            let term = ops.matmul(&ops.mul(x, x), &ops.transpose(diagonal));
            input = ops.add(&input, &ops.scale(&term, 0.5));
        }
        let head = ops.sub(&self.of_head(products), &w.pull);
        let mut s = vec![self.of_layer(&input, 0)];
        let mut active = vec![self.act(&s[0], 0)];
        for l in 1..self.layers() {
            s.push(ops.add(&self.of_layer(&input, l), &ops.matmul(&active[l - 1], &w.mixing[l - 1])));
            active.push(self.act(&s[l], 0));
        }
        let slope = s.iter().map(|s| self.act(s, 1)).collect();
        Forward { x: x.clone(), head, squared, s, slope, active: ops.concat(&active, 1) }
    }

    fn backward(&self, forward: &Forward<O::Tensor>) -> Backward<O::Tensor> {
        let ops = self.ops;
        let output = |l: usize| self.of_layer(&self.weights.output, l);
        let mut q = vec![output(self.layers() - 1)];
        let mut p = Vec::with_capacity(self.layers());
        for l in (0..self.layers()).rev() {
            let p_l = ops.mul(&q[q.len() - 1], &forward.slope[l]);
            if l > 0 {
                let above = ops.matmul(&p_l, &ops.transpose(&self.weights.mixing[l - 1]));
                q.push(ops.add(&above, &output(l - 1)));
            }
            p.push(p_l);
        }
        q.reverse();
        p.reverse();
        Backward { q, p }
    }

    fn value_of(&self, forward: &Forward<O::Tensor>) -> O::Tensor {
        let (ops, w) = (self.ops, self.weights);
        let (centred, head) = (self.centred(forward), &forward.head);
        let quadratic = ops.scale(&self.head_form(&centred, head, &centred, head), 0.5);
        let network = ops.sum(&ops.mul(&forward.active, &w.output), 1);
        ops.add(&ops.add(&network, &quadratic), &w.constant)
    }

    /// Σ_i t_i ∇q_i-like pull-back: `linear` weighs the rows b, `squared[r]` the rows a_r: [n, d].
    fn pull_back(&self, linear: O::Tensor, squared: Vec<O::Tensor>) -> O::Tensor {
        let mut parts = vec![linear];
        parts.extend(squared);
        self.weighed_rows(&parts)
    }

    /// The same plus Q v for rows v with their products `hv` with the head's rows; a spiked Q shares the one product.
    fn pull_back_and_head(
        &self,
        linear: O::Tensor,
        squared: Vec<O::Tensor>,
        v: impl FnOnce() -> O::Tensor,
        hv: &O::Tensor,
    ) -> O::Tensor {
        let ops = self.ops;
        let Some(spikes) = &self.weights.spikes else {
            return ops.add(&self.pull_back(linear, squared), hv);
        };
        let mut parts = vec![linear];
        parts.extend(squared);
        parts.push(ops.mul(hv, &spikes.excess));
        ops.add(&self.weighed_rows(&parts), &ops.mul(&v(), &spikes.floor))
    }

    /// The first rows of the x-side matrix weighed by `parts`, as many as these have columns: [n, d].
    fn weighed_rows(&self, parts: &[O::Tensor]) -> O::Tensor {
        let (ops, forms) = (self.ops, 1 + self.arch.rank);
        if let Some(FormsAlong { forms: forms_along, directions }) = &self.weights.along {
            let (of_forms, of_head) = parts.split_at(forms);
            let mut along = ops.matmul(&ops.concat(of_forms, 1), forms_along);
            for part in of_head {
                along = ops.add(&along, part);
            }
            return ops.matmul(&along, directions);
        }
        let rows = match parts.len() > forms {
            true => self.arch.x_side_rows(),
            false => forms * self.arch.units(),
        };
        ops.matmul(&ops.concat(parts, 1), &ops.slice(&self.weights.x_side, 0, 0, rows))
    }

    fn gradient_of(&self, forward: &Forward<O::Tensor>, backward: &Backward<O::Tensor>) -> O::Tensor {
        let ops = self.ops;
        let p = ops.concat(&backward.p, 1);
        let squared = forward.squared.iter().map(|form| ops.mul(&p, form)).collect();
        let centred = || self.centred(forward);
        let mut gradient = self.pull_back_and_head(p.clone(), squared, centred, &forward.head);
        if let Some(diagonal) = &self.weights.diagonal {
            gradient = ops.add(&gradient, &ops.mul(&forward.x, &ops.matmul(&p, diagonal)));
        }
        gradient
    }

    /// w(x): [n, d] -> [n, 1].
    pub fn value(&self, x: &O::Tensor) -> O::Tensor {
        self.value_of(&self.forward(x))
    }

    /// (w(x), ∇w(x)): [n, d] -> ([n, 1], [n, d]).
    pub fn value_and_gradient(&self, x: &O::Tensor) -> (O::Tensor, O::Tensor) {
        let forward = self.forward(x);
        let backward = self.backward(&forward);
        (self.value_of(&forward), self.gradient_of(&forward, &backward))
    }

    /// (V(x), ∇V(x)) of the head on its own, V(x) = ½ (x-a)' Q (x-a): [n, d] -> ([n, 1], [n, d]).
    pub fn head_value_and_gradient(&self, x: &O::Tensor) -> (O::Tensor, O::Tensor) {
        let (ops, w) = (self.ops, self.weights);
        let centred = ops.sub(x, &w.centre);
        let rows = self.head_rows();
        let head = ops.matmul(&centred, &ops.transpose(&rows));
        let value = ops.scale(&self.head_form(&centred, &head, &centred, &head), 0.5);
        let gradient = match &w.spikes {
            None => head,
            Some(spikes) => {
                let along = ops.matmul(&ops.mul(&head, &spikes.excess), &rows);
                ops.add(&along, &ops.mul(&centred, &spikes.floor))
            }
        };
        (value, gradient)
    }

    /// e = q act''(s) of each layer: [n, width].
    fn curvatures(&self, forward: &Forward<O::Tensor>, backward: &Backward<O::Tensor>) -> Vec<O::Tensor> {
        (0..self.layers()).map(|l| self.ops.mul(&backward.q[l], &self.act(&forward.s[l], 2))).collect()
    }

    /// The passes at x that every Hessian-vector product there shares.
    pub fn linearise(&self, x: &O::Tensor) -> Linearised<O::Tensor> {
        let forward = self.forward(x);
        let backward = self.backward(&forward);
        let curvature = self.curvatures(&forward, &backward);
        Linearised { forward, backward, curvature }
    }

    /// Tangents along a direction v, given its products with the x-side matrix.
    fn tangent(
        &self,
        forward: &Forward<O::Tensor>,
        v: &O::Tensor,
        products: &O::Tensor,
    ) -> Tangent<O::Tensor> {
        let (ops, w, n) = (self.ops, self.weights, self.arch.units());
        let mut input = ops.slice(products, 1, 0, n);
        let mut squared = Vec::with_capacity(self.arch.rank);
        for (r, form) in forward.squared.iter().enumerate() {
            let d_form = ops.slice(products, 1, (r + 1) * n, (r + 2) * n);
            input = ops.add(&input, &ops.mul(form, &d_form));
            squared.push(d_form);
        }
        if let Some(diagonal) = &w.diagonal {
            let along = ops.mul(&forward.x, v);
            input = ops.add(&input, &ops.matmul(&along, &ops.transpose(diagonal)));
        }
        let mut s = vec![self.of_layer(&input, 0)];
        for l in 1..self.layers() {
            let dz = ops.mul(&forward.slope[l - 1], &s[l - 1]);
            s.push(ops.add(&self.of_layer(&input, l), &ops.matmul(&dz, &w.mixing[l - 1])));
        }
        Tangent { s, squared, head: self.of_head(products) }
    }

    /// ∇²w(x) v at a linearised x: [n, d] -> [n, d].
    pub fn hvp(&self, at: &Linearised<O::Tensor>, v: &O::Tensor) -> O::Tensor {
        let (ops, w) = (self.ops, self.weights);
        let (forward, backward) = (&at.forward, &at.backward);
        let tangent = self.tangent(forward, v, &self.products(v));
        // Tangents of the backward pass, last layer first; the output weights do not move.
        let mut dp: Vec<O::Tensor> = Vec::with_capacity(self.layers());
        for l in (0..self.layers()).rev() {
            let mut dp_l = ops.mul(&at.curvature[l], &tangent.s[l]);
            if let Some(above) = dp.last() {
                let dq = ops.matmul(above, &ops.transpose(&w.mixing[l]));
                dp_l = ops.add(&dp_l, &ops.mul(&dq, &forward.slope[l]));
            }
            dp.push(dp_l);
        }
        dp.reverse();
        let p = ops.concat(&backward.p, 1);
        let dp = ops.concat(&dp, 1);
        let squared = forward
            .squared
            .iter()
            .zip(&tangent.squared)
            .map(|(form, d_form)| ops.add(&ops.mul(&dp, form), &ops.mul(&p, d_form)))
            .collect();
        let mut hv = self.pull_back_and_head(dp.clone(), squared, || v.clone(), &tangent.head);
        if let Some(diagonal) = &w.diagonal {
            hv = ops.add(&hv, &ops.mul(v, &ops.matmul(&p, diagonal)));
            hv = ops.add(&hv, &ops.mul(&forward.x, &ops.matmul(&dp, diagonal)));
        }
        hv
    }

    /// Directional derivatives Dw(x)\[g\] and Σ_j D²w(x)\[u_j, v_j\]: x, g [n, d], u, v [k n, d], the first direction of
    /// all points before the second of all -> ([n, 1], [n, 1]).
    ///
    /// Forward passes only, so that differentiating the result in the weights costs one product a
    /// direction: what likelihood training needs.
    pub fn directional(
        &self,
        [n, k]: [usize; 2],
        x: &O::Tensor,
        g: &O::Tensor,
        [u, v]: [&O::Tensor; 2],
    ) -> (O::Tensor, O::Tensor) {
        let (ops, w) = (self.ops, self.weights);
        // One product serves the points and all directions.
        let products = self.products(&ops.concat(&[x.clone(), g.clone(), u.clone(), v.clone()], 0));
        let block = |a: &O::Tensor, i: usize| ops.slice(a, 0, i * n, (i + 1) * n);
        let part = |i: usize| block(&products, i);
        let forward = self.forward_from(x, &part(0));
        let along_g = self.tangent(&forward, g, &part(1));
        let slopes = forward.slope.iter().zip(&along_g.s).map(|(slope, ds)| ops.mul(slope, ds));
        let network = ops.mul(&ops.concat(&slopes.collect::<Vec<_>>(), 1), &w.output);
        let centred = self.centred(&forward);
        let slope = self.head_form(g, &along_g.head, &centred, &forward.head);
        let first = ops.add(&ops.sum(&network, 1), &slope);

        let along = |directions: &O::Tensor, i: usize, part_of: usize| {
            let direction = block(directions, i);
            let tangent = self.tangent(&forward, &direction, &part(part_of));
            (direction, tangent)
        };
        let pairs: Vec<_> = (0..k).map(|j| (along(u, j, 2 + j), along(v, j, 2 + k + j))).collect();
        // The second derivative of each layer is linear in the products of the tangents: one pass serves their sum.
        let mut input = self.total(pairs.iter().map(|((_, u), (_, v))| {
            self.total(u.squared.iter().zip(&v.squared).map(|(a, b)| ops.mul(a, b)))
        }));
        if let Some(diagonal) = &w.diagonal {
            let squares = self.total(pairs.iter().map(|((u, _), (v, _))| ops.mul(u, v)));
            input = ops.add(&input, &ops.matmul(&squares, &ops.transpose(diagonal)));
        }
        let curved = |l: usize, ds: O::Tensor| {
            let product = self.total(pairs.iter().map(|((_, u), (_, v))| ops.mul(&u.s[l], &v.s[l])));
            let bend = ops.mul(&self.act(&forward.s[l], 2), &product);
            ops.add(&bend, &ops.mul(&forward.slope[l], &ds))
        };
        let mut dz = vec![curved(0, self.of_layer(&input, 0))];
        for l in 1..self.layers() {
            let ds = ops.add(&self.of_layer(&input, l), &ops.matmul(&dz[l - 1], &w.mixing[l - 1]));
            dz.push(curved(l, ds));
        }
        let bends = ops.sum(&ops.mul(&ops.concat(&dz, 1), &w.output), 1);
        let head = self.total(
            pairs
                .iter()
                .map(|((u, along_u), (v, along_v))| self.head_form(u, &along_u.head, v, &along_v.head)),
        );
        let second = ops.add(&bends, &head);
        (first, second)
    }
}
