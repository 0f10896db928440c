"""Times the sampling of images from a model file, end to end, here and in PyTorch: Langevin steps, then conjugate solves.

    python tests/peers/sampling.py models/mnist.onnx [-n 1000] [--steps 300] [--rounds 3] [--json FILE]

Here: `cmf-cli sample --noise keep`, which cargo builds first, by tract and by ONNX Runtime, from the start of the process
to the .npy. PyTorch: the same network with its gradient written by hand, as many Metropolis-adjusted Langevin steps
with a preconditioner, and the same solver for the conjugate (Barzilai-Borwein lengths, rows leave the batch once their
residual is below 1e-4); model and libraries are loaded before its clock starts. Both run on two threads (THREADS says
otherwise) and in turns.

Printed: the shortest seconds of each, the largest residual of the rows, and the gradients that PyTorch evaluated.
"""

import argparse
import base64
import json
import pathlib
import subprocess
import tempfile
import time

import speed  # Sets the number of threads; before torch.
from speed import LIBRARY, THREADS, libraries, program

import numpy as np
import torch

import network

TOLERANCE = 1e-4


class Sampler:
    """The model in PyTorch, preconditioned as here: by S^(1/3), with S the covariance of the data that the file holds.

    The Gaussian solution N(a, S^(1/3)) with transport map a + S^(1/3) x is where chains and solves start, as here.
    """

    def __init__(self, path):
        self.arch, weights, properties = network.read(path)
        self.weights = {name: torch.from_numpy(a.copy()) for name, a in weights.items()}
        _, self.library, _ = libraries(self.arch.activation)
        # The mean, then the upper triangle of the covariance, row by row.
        d = self.arch.dim
        numbers = np.frombuffer(base64.b64decode(properties["cmf.gaussian"]), "<f4").astype(float)
        upper = np.zeros((d, d))
        upper[np.triu_indices(d)] = numbers[d:]
        values, vectors = np.linalg.eigh(upper, UPLO="U")
        roots = np.cbrt(values)
        covariance = (vectors * roots) @ vectors.T
        self.centre = torch.from_numpy(vectors / (1 + roots) @ (vectors.T @ numbers[:d])).float()
        self.factor = torch.from_numpy(np.linalg.cholesky(covariance)).float()
        self.covariance = torch.from_numpy(covariance).float()
        self.gradients = 0

    def value_and_gradient(self, x):
        self.gradients += len(x)
        return network.value_and_gradient(self.arch, self.weights, x, self.library)

    def langevin(self, n, steps):
        """MALA: draws of e^-w, [n, d]; the first half of the steps tunes their size."""
        x = self.centre + torch.randn(n, self.arch.dim) @ self.factor.T
        value, gradient = self.value_and_gradient(x)
        step = 0.3
        for t in range(steps):
            noise = torch.randn_like(x)
            moved = x - step * gradient @ self.covariance + (2 * step) ** 0.5 * noise @ self.factor.T
            new_value, new_gradient = self.value_and_gradient(moved)
            # In coordinates that P whitens, the way back is noise + sqrt(step / 2) L'(g + g').
            back = noise - (step / 2) ** 0.5 * (gradient + new_gradient) @ self.factor
            log_ratio = value - new_value + 0.5 * (noise.square().sum(1) - back.square().sum(1))
            accepted = torch.rand(n).log() < log_ratio
            x = torch.where(accepted[:, None], moved, x)
            gradient = torch.where(accepted[:, None], new_gradient, gradient)
            value = torch.where(accepted, new_value, value)
            if t < steps // 2:
                rate = log_ratio.exp().clamp(max=1).mean().item()
                step *= np.exp(2 * (rate - 0.574) / (t + 1) ** 0.5)
        return x

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
            _, residual = sampler.conjugate(sampler.langevin(arguments.n, arguments.steps))
            times.setdefault("PyTorch", []).append(time.perf_counter() - start)
            residuals["PyTorch"] = max(residuals.get("PyTorch", 0.0), residual.max().item())
    print(f"{arguments.n} samples, {arguments.steps} Langevin steps, {THREADS} threads, shortest of {arguments.rounds}")
    for name, seconds in times.items():
        ratio = min(times["PyTorch"]) / min(seconds)
        print(f"  {name:8} {min(seconds):7.2f} s   {ratio:5.2f} x PyTorch's speed   largest residual {residuals[name]:.1e}")
    print(f"  PyTorch evaluated {sampler.gradients / arguments.n:.1f} gradients a sample")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": times, "residual": residuals}, indent=2) + "\n")


if __name__ == "__main__":
    main()
