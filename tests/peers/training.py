"""Times updates of maximum likelihood on digits from a model file, here and in eager PyTorch, on one device.

    python tests/peers/training.py models/mnist.onnx --mnist FOLDER [--device cpu|cuda] [--batch 128] [--updates 60]

Both take the same update: three Metropolis-adjusted Langevin steps of the particles, unless the Gibbs factor is of the
head, the linear solves Hess w(y) u = v by preconditioned conjugate gradients until the relative residual is below 2e-2,
the gradient of E[V(∇w(y)) - u' Hess w(y) v] - E V(x) by automatic differentiation, V = w or its head, Adam, and the average of the weights. Here:
`cmf-cli train --init MODEL`, which cargo builds first unless --program names it; an update's seconds are those that it
writes to metrics.csv. PyTorch: the gradient written by hand as in `network.py`, its Hessian products by a second
backward pass over one graph, the loss through forward-mode differentiation; each update ends with a wait for the device,
and residuals are looked at every four products, as here. Products are float32 throughout; --tf32 lets PyTorch's round
their factors to 11 bits.

Printed: the median milliseconds of an update of each, after --warm-up updates that are not counted, and what both say
of the particles and solves.
"""

import argparse
import csv
import json
import math
import pathlib
import subprocess
import tempfile
import time

from speed import THREADS, libraries, program  # Sets the number of threads; before torch.

import numpy as np
import torch

import langevin
import mnist_idx
import network

LANGEVIN_STEPS = 3
LANGEVIN_STEP = 0.5
LAMBDA_EVERY = 20
LAMBDA_ITERATIONS = 8
LAMBDA_PARTICLES = 32
SOLVE_TOLERANCE = 2e-2
SOLVE_STEPS = 30
LOOK_EVERY = 4
RATE = 1e-3
AVERAGE = 0.99


def inverse_softplus(a):
    return a + np.log(-np.expm1(-np.maximum(a, 1e-6)))


class Trainer:
    """The model's network with free parameters, its particles, and the metric S^(1/3) of the data in the file."""

    def __init__(self, path, batch, device):
        self.arch, weights, properties = network.read(path)
        _, self.library, _ = libraries(self.arch.activation)
        if self.arch.diagonal:
            raise SystemExit(f"{path}: networks with diagonal terms are not written here")
        d, self.device = self.arch.dim, device
        centre, covariance = network.gaussian_start(self.arch, properties)
        there = lambda a: torch.from_numpy(np.array(a, np.float32)).to(device)
        self.covariance, self.factor = there(covariance), there(np.linalg.cholesky(covariance))
        self.sigma = float(properties["cmf.sigma"])

        split = (1 + self.arch.rank) * self.arch.units
        head = weights["x_side"][split:].astype(float)
        values, vectors = np.linalg.eigh(head)
        share = (0.5 if self.arch.gibbs == "whole" else 0.02) * values[0]
        parameter = lambda a: there(a).requires_grad_()
        self.forms, self.bias = parameter(weights["x_side"][:split]), parameter(weights["bias"])
        mixing = {name: weights[name] for name in weights if name.startswith("mixing")}
        self.positive = {name: parameter(inverse_softplus(np.maximum(a.astype(float) * len(a), 1e-6)))
                         for name, a in (mixing | {"output": weights["output"]}).items()}  # fmt: skip
        self.root = parameter(vectors * np.sqrt(values - share) @ vectors.T)
        self.spread = parameter(np.full(d, inverse_softplus(share)))
        self.centre = parameter(weights["centre"])
        self.constant = torch.zeros(1, 1, device=device)
        groups = [([self.forms, self.bias], 1.0), (list(self.positive.values()), 6.7),
                  ([self.root, self.spread, self.centre], 0.17)]  # fmt: skip
        self.adam = torch.optim.Adam([{"params": p, "lr": RATE * pace} for p, pace in groups], betas=(0.9, 0.99))
        with torch.no_grad():
            self.average = {name: a.clone() for name, a in self.weights().items()}
        self.x = there(centre) + torch.randn(batch, d, device=device) @ self.factor.T
        self.power = torch.randn(min(LAMBDA_PARTICLES, batch), d, device=device)
        self.updates, self.step = 0, None

    def weights(self):
        """The effective weights, differentiable in the parameters."""
        softplus = torch.nn.functional.softplus
        head = self.root @ self.root.T + torch.diag(softplus(self.spread))
        positive = {name: softplus(a) / len(a) for name, a in self.positive.items()}
        return positive | {
            "x_side": torch.cat([self.forms, head]), "bias": self.bias, "centre": self.centre,
            "pull": self.centre @ head, "constant": self.constant,
        }  # fmt: skip

    def value_and_gradient(self, w, x):
        return network.value_and_gradient(self.arch, w, x, self.library)

    def hessian_products(self, w, x):
        """A function from directions [n, d] to Hess w(x) times them."""
        x = x.clone().requires_grad_()
        gradient = self.value_and_gradient(w, x)[1]
        return lambda v: torch.autograd.grad(gradient, x, v, retain_graph=True)[0]

    def langevin(self, w):
        """Moves the particles; returns the mean probability of acceptance."""
        if self.updates % LAMBDA_EVERY == 0:
            product = self.hessian_products(w, self.x[: len(self.power)])
            for _ in range(LAMBDA_ITERATIONS):
                after = product(self.power @ self.factor.T) @ self.factor
                norm = after.norm(dim=1, keepdim=True)
                largest = (norm / self.power.norm(dim=1, keepdim=True)).max()
                self.power = after / norm
            self.step = LANGEVIN_STEP / (1.1 * largest.item())
        with torch.no_grad():
            return self.moves(w)

    def moves(self, w):
        """The Langevin steps themselves."""
        value_and_gradient = lambda x: self.value_and_gradient(w, x)
        at, total = (self.x, *value_and_gradient(self.x)), 0.0
        for _ in range(LANGEVIN_STEPS):
            at, probability = langevin.step(value_and_gradient, at, self.step, self.covariance, self.factor)
            total = total + probability.mean() / LANGEVIN_STEPS
        self.x = at[0]
        return total

    def solve(self, w, y, v):
        """u with Hess w(y) u = v by conjugate gradients, the worst relative residual, and the products spent."""
        product = self.hessian_products(w, y)
        u, r = torch.zeros_like(v), v.clone()
        z = r @ self.covariance
        p, rz = z.clone(), (r * z).sum(1, keepdim=True)
        start = rz.clone()
        worst = lambda: (rz / start).max().sqrt().item()
        for done in range(SOLVE_STEPS):
            if done and done % LOOK_EVERY == 0 and worst() <= SOLVE_TOLERANCE:
                return u, worst(), done
            hp = product(p)
            alpha = rz / (p * hp).sum(1, keepdim=True)
            u, r = u + alpha * p, r - alpha * hp
            z = r @ self.covariance
            after = (r * z).sum(1, keepdim=True)
            p, rz = z + after / rz * p, after
        return u, worst(), SOLVE_STEPS

    def update(self, y):
        """One update on noisy data [batch, d]; returns acceptance, worst residual and products of the solves."""
        weights = self.weights()
        w = {name: a.detach() for name, a in weights.items()}
        for name, mean in self.average.items():
            mean.lerp_(w[name], 1 - AVERAGE)
        whole = self.arch.gibbs == "whole"
        acceptance = self.langevin(w) if whole else 1.0
        with torch.no_grad():
            image = self.value_and_gradient(w, y)[1]
            precision = w["x_side"][-self.arch.dim :]
            along = self.value_and_gradient(w, image)[1] if whole else (image - w["centre"]) @ precision
        probe = torch.randint(0, 2, y.shape, device=self.device) * 2.0 - 1
        u, residual, products = self.solve(w, y, probe)
        gradient = lambda y: self.value_and_gradient(weights, y)[1]
        first, second = torch.func.jvp(gradient, (y,), (probe,))
        value = lambda x: self.value_and_gradient(weights, x)[0]
        if whole:
            contrast = value(image).mean() - value(self.x.detach()).mean()
        else:
            head, off = weights["x_side"][-self.arch.dim :], image - weights["centre"]
            contrast = 0.5 * ((off @ head * off).sum(1).mean() - torch.logdet(head))
        loss = ((first * along).sum(1) - (second * u).sum(1)).mean() + contrast
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.updates += 1
        if not math.isfinite(loss.item()):
            raise SystemExit(f"PyTorch: the loss of update {self.updates} is {loss.item()}")
        return float(acceptance), residual, products


def in_pytorch(arguments):
    """Milliseconds of each counted update, and the last one's figures."""
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    trainer = Trainer(arguments.model, arguments.batch, device)
    digits, _ = mnist_idx.load(arguments.mnist, "train")
    digits = torch.tensor(digits, device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(arguments.warm_up + arguments.updates):
        wait()
        start = time.perf_counter()
        y = digits[torch.randint(len(digits), (arguments.batch,), device=device)] / 255
        figures = trainer.update(y + trainer.sigma * torch.randn_like(y))
        wait()
        times.append((time.perf_counter() - start) * 1e3)
    return times[arguments.warm_up :], figures


def here(arguments, binary):
    """The same of this project's program."""
    with tempfile.TemporaryDirectory() as folder:
        updates = arguments.warm_up + arguments.updates
        command = [binary, "train", "--data", f"mnist:{arguments.mnist}", "--init", arguments.model, "--out", f"{folder}/run",
                   "--updates", updates, "--batch", arguments.batch, "--particles", arguments.batch, "--learning-rate", RATE,
                   "--device", arguments.device, "--look-every", updates + 1, "--quiet"]  # fmt: skip
        subprocess.run(list(map(str, command)), check=True)
        with open(f"{folder}/run/metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    times = [(b - a) * 1e3 for a, b in zip(seconds, seconds[1:])]
    return times[arguments.warm_up - 1 :], (float(rows[-1]["acceptance"]), float(rows[-1]["residual"]), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--mnist", type=pathlib.Path, required=True, help="the folder of the four idx files")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--tf32", action="store_true", help="PyTorch's products round their factors to 11 bits")
    parser.add_argument("--program", help="the built cmf-cli, with the feature cuda for --device cuda")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    binary = arguments.program or program()
    found = {"CMF": here(arguments, binary), "PyTorch": in_pytorch(arguments)}
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{THREADS} threads"
    print(f"updates of {arguments.batch} points on {where}, PyTorch {torch.__version__}")
    medians = {name: float(np.median(times)) for name, (times, _) in found.items()}
    for name, (times, (acceptance, residual, products)) in found.items():
        spent = "" if products is None else f", {products} products a solve"
        print(f"  {name:8} {medians[name]:8.1f} ms   {medians['PyTorch'] / medians[name]:5.2f} x PyTorch's speed"
              f"   accepted {acceptance:.2f}, residual {residual:.1e}{spent}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps({"where": where, "batch": arguments.batch, "median_ms": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
