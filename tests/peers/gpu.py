"""Times one gradient of a model's potential on an NVIDIA GPU: by this project through ONNX Runtime, and in PyTorch.

    python tests/peers/gpu.py models/mnist.onnx --program cmf-cli --ort-lib libonnxruntime.so [--batch 256,4096]

Beside them the ceiling: the time that the fastest float32 matrix product found on the GPU would need for the same
multiply-adds, without rounding factors to 11 bits (TF32), which ONNX Runtime is told to leave out here as well. This
project's times are those of `cmf-cli bench`, whose points come from and go to the host's memory; PyTorch is timed
with points that stay on the GPU, and with points that travel.

Printed: for each batch size the shortest milliseconds, TFLOP/s, and the time in units of the ceiling's.
"""

import argparse
import json
import pathlib
import subprocess
import time

from speed import TOLERANCE, libraries  # Sets the number of threads; before torch.

import numpy as np
import torch

import network


def shortest(run, seconds=1.0):
    """Milliseconds of the shortest call, each with a wait for the GPU, after ten that are not counted."""
    times, end = [], time.perf_counter() + seconds
    for _ in range(10):
        run()
    while time.perf_counter() < end:
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def ceiling(shapes):
    """TFLOP/s of the fastest float32 product among `shapes` [n, inner, columns]."""
    rates = []
    for n, inner, columns in shapes:
        a, b = torch.randn(n, inner, device="cuda"), torch.randn(inner, columns, device="cuda")
        rates.append(2e-9 * n * inner * columns / shortest(lambda: a @ b, 0.3))
    return max(rates)


def own(arguments, batch):
    """Milliseconds of this project's gradient on the GPU, with the points' way there and back."""
    command = [arguments.program, "bench", arguments.model, "--only", "gradient", "--batch", batch, "--engine", "ort",
               "--device", "cuda", "--ort-lib", arguments.ort_lib, "--json", "--quiet"]  # fmt: skip
    answer = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    [figure] = [f for f in json.loads(answer)["figures"] if f["engine"].startswith("ort")]
    return figure["warm_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--program", required=True, help="the built cmf-cli")
    parser.add_argument("--ort-lib", required=True, help="a libonnxruntime.so with its CUDA provider beside it")
    parser.add_argument("--batch", default="256,4096", help="sizes of batches, with commas between")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    arch, weights, _ = network.read(arguments.model)
    exact, library, _ = libraries(arch.activation)
    there = {name: torch.from_numpy(a.copy()).cuda() for name, a in weights.items()}
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    with torch.inference_mode():
        for batch in map(int, arguments.batch.split(",")):
            x = np.random.default_rng(0).random((batch, arch.dim), dtype=np.float32)
            on_gpu, on_host = torch.from_numpy(x).cuda(), torch.from_numpy(x).pin_memory()
            stay = lambda: network.value_and_gradient(arch, there, on_gpu, library)
            travel = lambda: [a.cpu() for a in network.value_and_gradient(arch, there, on_host.cuda(), library)]
            doubles = {name: a.astype(np.float64) for name, a in weights.items()}
            want = network.value_and_gradient(arch, doubles, x[:64].astype(np.float64), exact)[1]
            off = np.abs(travel()[1][:64].numpy() - want).max() / np.abs(want).max()
            if not off < TOLERANCE:
                raise SystemExit(f"PyTorch's gradient is off by {off:.1e}")
            rate = ceiling([(4096,) * 3, *((batch, *product) for product in arch.products)])
            tflop = batch * arch.flop * 1e-12
            at_best = tflop / rate * 1e3
            print(f"batch {batch}: ceiling {at_best:.3f} ms at {rate:.1f} TFLOP/s")
            times = {"CMF (ort, cuda)": own(arguments, batch), "PyTorch, points travel": shortest(travel),
                     "PyTorch, points stay": shortest(stay)}  # fmt: skip
            for name, ms in times.items():
                print(f"  {name:24}{ms:9.3f} ms{tflop / ms * 1e3:8.1f} TFLOP/s{ms / at_best:8.2f} x ceiling")


if __name__ == "__main__":
    main()
