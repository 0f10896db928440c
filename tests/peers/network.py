"""The convex network of a model file, read from its initialisers and written once for every array library.

Not a script: `speed.py`, `sampling.py`, `training.py` and `gpu.py` import it. The layout is that of `Weights` in cmf-core/src/icnn/mod.rs. With n points,
dimension d, N hidden units and rank r, `x_side` [(1 + r) N + d, d] holds the rows b_i, r blocks of rows a_i, and Q;
layer l has s_l = act(s_{l-1}) W_l + b·x + ½ Σ_r (a_r·x)² + ½ δ·x² + c, and
w(x) = Σ_l u_l·act(s_l) + ½ (x - a)' Q (x - a) + constant.
"""

import base64
import itertools
import json
from typing import Any, Callable, NamedTuple

import numpy as np
import onnx


class Architecture(NamedTuple):
    """The shape of the network: `cmf.architecture`."""

    dim: int
    widths: list[int]
    rank: int
    diagonal: bool
    activation: dict
    gibbs: str = "whole"
    """What the Gibbs factor is of: the whole of w, or its head ½ (x - a)' Q (x - a)."""

    @property
    def units(self):
        return sum(self.widths)

    @property
    def layers(self):
        """The range of each layer's units among all units."""
        ends = list(itertools.accumulate(self.widths, initial=0))
        return [slice(start, end) for start, end in zip(ends, ends[1:])]

    @property
    def products(self):
        """The matrix products of one gradient at a single point, as (inner length, columns)."""
        rows = (1 + self.rank) * self.units
        mixing = list(zip(self.widths, self.widths[1:]))
        forward = [(self.dim, rows + self.dim), *mixing]
        backward = [(rows, self.dim), *((b, a) for a, b in mixing)]
        diagonal = [(self.dim, self.units), (self.units, self.dim)] if self.diagonal else []
        return forward + backward + diagonal

    @property
    def flop(self):
        """Floating-point operations of these products at a single point: two for each multiply-add."""
        return sum(2 * inner * columns for inner, columns in self.products)


class Library(NamedTuple):
    """What the formulas need of an array library beyond operators and slices."""

    act: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    """The derivative of `act`."""
    join: Callable[[list], Any]
    """Joins arrays along the last axis."""


def read(path):
    """The architecture, the weights by name as float32 arrays, and the other `cmf.*` properties."""
    model = onnx.load(path, load_external_data=False)
    properties = {p.key: p.value for p in model.metadata_props}
    if "cmf.architecture" not in properties:
        raise SystemExit(f"{path}: expected a model file of cmf-cli, found no property cmf.architecture")
    arch = Architecture(**json.loads(properties["cmf.architecture"]))
    layers = [f"mixing_{l}" for l in range(2, len(arch.widths) + 1)]
    names = ["x_side", "bias", "output", "centre", "pull", "constant", *layers]
    names += ["diagonal"] if arch.diagonal else []
    stored = {t.name: t for t in model.graph.initializer}
    return arch, {name: onnx.numpy_helper.to_array(stored[name]) for name in names}, properties


def gaussian_start(arch, properties):
    """a and S^(1/3) in float64, with S the covariance of the data in the file: the Gaussian solution N(a, S^(1/3)).

    Its transport map is a + S^(1/3) x. Chains and solves start there, preconditioned by S^(1/3), here as in cmf-core.
    """
    # The mean, then the upper triangle of the covariance, row by row.
    d = arch.dim
    numbers = np.frombuffer(base64.b64decode(properties["cmf.gaussian"]), "<f4").astype(float)
    upper = np.zeros((d, d))
    upper[np.triu_indices(d)] = numbers[d:]
    values, vectors = np.linalg.eigh(upper, UPLO="U")
    roots = np.cbrt(values)
    return vectors / (1 + roots) @ (vectors.T @ numbers[:d]), (vectors * roots) @ vectors.T


def head_factor(arch, w):
    """Mean and covariance in float64 of the Gibbs factor N(a, Q^(-1)) of the head."""
    return w["centre"][0].astype(float), np.linalg.inv(w["x_side"][-arch.dim :].astype(float))


class Mixture(NamedTuple):
    """The mixture in the Gibbs factor of the head, in float64: s = F (x - a) has the law sum_j pi_j N(mu_j, L_j L_j')."""

    directions: Any
    """F: [k, d]."""
    weights: Any
    """pi: [K]."""
    means: Any
    """mu: [K, k]."""
    factors: Any
    """L: [K, k, k]."""


def mixture(arch, properties):
    """That of `cmf.mixture`, or None: K, k, F, and of each component pi, mu and the rows of L up to the diagonal."""
    if "cmf.mixture" not in properties:
        return None
    numbers = np.frombuffer(base64.b64decode(properties["cmf.mixture"]), "<f4").astype(float)
    count, k = (int(v) for v in numbers[:2])
    directions, rest = np.split(numbers[2:], [k * arch.dim])
    weights, means, lower = np.split(rest.reshape(count, -1), [1, 1 + k], axis=1)
    factors = np.zeros((count, k, k))
    rows, columns = np.tril_indices(k)
    factors[:, rows, columns] = lower
    return Mixture(directions.reshape(k, -1), weights[:, 0] / weights.sum(), means, factors)


def gibbs_value(arch, w, x, library):
    """V(x), w or its head by what the Gibbs factor is of, without a mixture: [..., d] -> [...]."""
    if arch.gibbs == "whole":
        return value(arch, w, x, library)
    off = x - w["centre"][0]
    return 0.5 * (off @ w["x_side"][-arch.dim :] * off).sum(-1)


def forward(arch, w, x, library):
    """The pre-activations of each layer, the squared forms a_r·x, and the head Q (x - a)."""
    n = arch.units
    products = x @ w["x_side"].T
    inputs = products[..., :n] + w["bias"][0]
    forms = [products[..., r * n : (r + 1) * n] for r in range(1, arch.rank + 1)]
    for form in forms:
        inputs = inputs + 0.5 * form * form
    if arch.diagonal:
        inputs = inputs + 0.5 * ((x * x) @ w["diagonal"].T)
    s = [inputs[..., arch.layers[0]]]
    for l, layer in enumerate(arch.layers[1:], start=2):
        s.append(inputs[..., layer] + library.act(s[-1]) @ w[f"mixing_{l}"])
    return s, forms, products[..., (1 + arch.rank) * n :] - w["pull"][0]


def value_of(arch, w, x, s, head, library):
    """w(x) from the forward pass."""
    total = 0.5 * ((x - w["centre"][0]) * head).sum(-1) + w["constant"][0, 0]
    for layer, s_l in zip(arch.layers, s):
        total = total + library.act(s_l) @ w["output"][0, layer]
    return total


def value(arch, w, x, library):
    """w(x): [..., d] -> [...]."""
    s, _, head = forward(arch, w, x, library)
    return value_of(arch, w, x, s, head, library)


def value_and_gradient(arch, w, x, library):
    """w(x) and its gradient, written by hand: [..., d] -> [...], [..., d]."""
    s, forms, head = forward(arch, w, x, library)
    p = []  # the derivatives of w in the pre-activations, last layer first
    for l in reversed(range(len(s))):
        q = w["output"][0, arch.layers[l]]
        if p:
            q = q + p[-1] @ w[f"mixing_{l + 2}"].T
        p.append(q * library.slope(s[l]))
    p = library.join(p[::-1])
    rows = w["x_side"][: (1 + arch.rank) * arch.units]
    gradient = library.join([p, *(p * form for form in forms)]) @ rows + head
    if arch.diagonal:
        gradient = gradient + x * (p @ w["diagonal"])
    return value_of(arch, w, x, s, head, library), gradient
