"""Times the sampling of images from a model file, end to end, here and in PyTorch: draws of the Gibbs factor, then conjugate solves.

    python tests/peers/sampling.py models/mnist.onnx [-n 1000] [--steps 300] [--rounds 3] [--json FILE]

Here: `cmf-cli sample --noise keep`, which cargo builds first, by tract and by ONNX Runtime, from the start of the process
to the .npy. PyTorch: the same network with its gradient written by hand; the same exact draws of a model whose Gibbs
factor is of its head, or as many Metropolis-adjusted Langevin steps with a preconditioner; and the same solver for the conjugate (Barzilai-Borwein lengths, rows leave the batch once their
residual is below 1e-4); model and libraries are loaded before its clock starts. Both run on two threads (THREADS says
otherwise) and in turns.

Printed: the shortest seconds of each, the largest residual of the rows, and the gradients that PyTorch evaluated.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import speed  # Sets the number of threads; before torch.
from speed import LIBRARY, THREADS, libraries, program

import numpy as np
import torch

import langevin
import network

TOLERANCE = 1e-4


class Sampler:
    """The model in PyTorch, preconditioned and started as here: by the Gaussian solution."""

    def __init__(self, path):
        self.arch, weights, properties = network.read(path)
        self.weights = {name: torch.from_numpy(a.copy()) for name, a in weights.items()}
        _, self.library, _ = libraries(self.arch.activation)
        centre, covariance = network.gaussian_start(self.arch, properties)
        self.centre, self.covariance = torch.from_numpy(centre).float(), torch.from_numpy(covariance).float()
        self.factor = torch.from_numpy(np.linalg.cholesky(covariance)).float()
        self.of_head = [torch.from_numpy(a) for a in network.head_factor(self.arch, weights)]
        found = network.mixture(self.arch, properties)
        self.mixture = found and [torch.from_numpy(a) for a in found]
        self.gradients = 0

    def value_and_gradient(self, x):
        self.gradients += len(x)
        return network.value_and_gradient(self.arch, self.weights, x, self.library)

    def source(self, n, steps):
        """n draws of the Gibbs factor: [n, d]."""
        if self.arch.gibbs == "whole":
            return self.langevin(n, steps)
        mean, covariance = self.of_head
        x = torch.randn(n, self.arch.dim).double() @ torch.linalg.cholesky(covariance).T
        if self.mixture:
            # Along F x is standard normal; a component of the mixture takes its place there.
            directions, weights, means, factors = self.mixture
            own = x @ directions.T
            of = torch.multinomial(weights, n, replacement=True)
            s = means[of] + (factors[of] @ own[:, :, None])[:, :, 0]
            x += (s - own) @ directions @ covariance
        return (mean + x).float()

    def langevin(self, n, steps):
        """MALA: draws of e^-w, [n, d]; the first half of the steps tunes their size."""
        x = self.centre + torch.randn(n, self.arch.dim) @ self.factor.T
        at, size = (x, *self.value_and_gradient(x)), 0.3
        for t in range(steps):
            at, probability = langevin.step(self.value_and_gradient, at, size, self.covariance, self.factor)
            if t < steps // 2:
                size *= np.exp(2 * (probability.mean().item() - 0.574) / (t + 1) ** 0.5)
        return at[0]

    def conjugate(self, x):
        """argmax <x, y> - w(y) of each row, and the residuals."""
        y = self.centre + x @ self.covariance
        found, residuals = torch.empty_like(x), torch.empty(len(x))
        rows = torch.arange(len(x))
        g = self.value_and_gradient(y)[1] - x
        length = torch.ones(len(x), 1)
        for _ in range(1000):
            residual = g.square().mean(1).sqrt()
            done = residual <= TOLERANCE
            found[rows[done]], residuals[rows[done]] = y[done], residual[done]
            keep = ~done
            rows, x, y, g, length = rows[keep], x[keep], y[keep], g[keep], length[keep]
            if not len(rows):
                return found, residuals
            direction = -g @ self.covariance
            moved = y + length * direction
            new = self.value_and_gradient(moved)[1] - x
            # Inner products in the metric of the preconditioner.
            s, change = length * direction, new - g
            curvature = (s * change).sum(1, keepdim=True)
            pushed = (change @ self.covariance * change).sum(1, keepdim=True)
            inner = length * -(s * g).sum(1, keepdim=True)
            long, short = inner / curvature, curvature / pushed
            length = torch.where(curvature > 0, torch.where(short < 0.5 * long, short, long), 10 * length)
            y, g = moved, new
        raise SystemExit(f"{len(rows)} conjugates did not converge in PyTorch")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    binary, sampler = program(), Sampler(arguments.model)
    times, residuals = {}, {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for seed in range(arguments.rounds):
            for engine in ("tract", "ort"):
                command = [binary, "sample", "--model", arguments.model, "-n", arguments.n, "--steps", arguments.steps,
                           "--noise", "keep", "--seed", seed, "--engine", engine, "--device", "cpu",
                           "--out", f"{folder}/samples.npy", "--json", "--quiet"]  # fmt: skip
                command += ["--ort-lib", LIBRARY] if engine == "ort" else []
                start = time.perf_counter()
                answer = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
                times.setdefault(engine, []).append(time.perf_counter() - start)
                found = json.loads(answer)
                if found["unconverged"]:
                    raise SystemExit(f"{engine}: {found['unconverged']} conjugates did not converge")
                residuals[engine] = max(residuals.get(engine, 0.0), found["worst_residual"])
            torch.manual_seed(seed)
            sampler.gradients = 0
            start = time.perf_counter()
            _, residual = sampler.conjugate(sampler.source(arguments.n, arguments.steps))
            times.setdefault("PyTorch", []).append(time.perf_counter() - start)
            residuals["PyTorch"] = max(residuals.get("PyTorch", 0.0), residual.max().item())
    how = f"{arguments.steps} Langevin steps" if sampler.arch.gibbs == "whole" else "exact draws of the Gibbs factor"
    print(f"{arguments.n} samples, {how}, {THREADS} threads, shortest of {arguments.rounds}")
    for name, seconds in times.items():
        ratio = min(times["PyTorch"]) / min(seconds)
        print(f"  {name:8} {min(seconds):7.2f} s   {ratio:5.2f} x PyTorch's speed   largest residual {residuals[name]:.1e}")
    print(f"  PyTorch evaluated {sampler.gradients / arguments.n:.1f} gradients a sample")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": times, "residual": residuals}, indent=2) + "\n")


if __name__ == "__main__":
    main()
