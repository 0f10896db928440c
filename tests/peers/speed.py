"""Times one gradient of a model's potential in other libraries: value and gradient in x of a whole batch.

    python tests/peers/speed.py models/mnist.onnx [--second-order] [--json FILE] [--repeats N]
    THREADS=1 python tests/peers/speed.py models/mnist.onnx

Measured, on the CPU with THREADS threads (2 unless the environment says otherwise): this project's engines (tract, ONNX
Runtime, and the interpreter on the host that training uses) by `cmf-cli bench`, which cargo builds first; PyTorch with the
gradient written by hand and by autograd, JAX (jit of vmap of value_and_grad), and onnxruntime on the file itself;
beside them the ceiling, the time that the fastest float32 matrix product found here would need for the multiply-adds of
the network in the file. (tract and ONNX Runtime as used here leave out units that rounding hides, a fifth of those of the
digits and a sixth of the products; GFLOP/s are of the whole network for all.)
Every answer is first compared with float64 NumPy. With --second-order also log rho(y) = -w(∇w(y)) + log det ∇²w(y)
of one point, alone and with its gradient, by the dense Hessian here, in JAX, and in PyTorch with the Hessian written by
hand.

Printed: for each batch size a table of median and shortest milliseconds, GFLOP/s, and the shortest time in units of
the ceiling's. The engines take turns in several rounds, so that a busy minute of the machine falls on all of them.
--json writes the same figures as JSON.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

THREADS = int(os.environ.get("THREADS", "2"))
# Read when the libraries are loaded; XLA sizes its pool by the processors that the process may use.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import torch

import network
from network import Library

# ONNX Runtime's library in the package that is timed beside it.
LIBRARY = str(pathlib.Path(onnxruntime.__file__).parent / "capi")
ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCHES = (64, 256)
ROUNDS = 5
# Idle pools spin for a while after their last product and would slow down the next engine.
PAUSE = 0.2
# This project's engines, and how long each is timed in one round.
OWN_ENGINES = ("tract", "ort", "host")
OWN_SECONDS = 0.5
# Sums of up to about 10^3 float32 products are exact to about 1e-5 of the largest term; a wrong formula is wrong
# in the first digits.
TOLERANCE = 1e-4


def libraries(activation):
    """The activation in NumPy, PyTorch and JAX."""
    if activation["name"] == "elu":
        return (
            Library(lambda t: np.where(t > 0, t, np.expm1(np.minimum(t, 0))), lambda t: np.exp(np.minimum(t, 0)),
                    functools.partial(np.concatenate, axis=-1)),
            Library(torch.nn.functional.elu, lambda t: t.clamp(max=0).exp(), functools.partial(torch.cat, dim=-1)),
            Library(jax.nn.elu, None, None),
        )  # fmt: skip
    beta = activation["beta"]
    return (
        Library(lambda t: np.logaddexp(0, beta * t) / beta, lambda t: 0.5 + 0.5 * np.tanh(0.5 * beta * t),
                functools.partial(np.concatenate, axis=-1)),
        Library(lambda t: torch.nn.functional.softplus(t, beta), lambda t: torch.sigmoid(beta * t),
                functools.partial(torch.cat, dim=-1)),
        Library(lambda t: jax.nn.softplus(beta * t) / beta, None, None),
    )  # fmt: skip


def engines(path, arch, weights):
    """By name: a function from points [n, d] (NumPy) to a closure that evaluates them, and that closure's outputs."""
    _, for_torch, for_jax = libraries(arch.activation)
    w_torch = {name: torch.from_numpy(a.copy()) for name, a in weights.items()}
    w_jax = {name: jnp.asarray(a) for name, a in weights.items()}

    def torch_by_hand(x):
        x = torch.from_numpy(x)

        def run():
            with torch.inference_mode():
                return network.value_and_gradient(arch, w_torch, x, for_torch)

        return run

    def torch_autograd(x):
        x = torch.from_numpy(x).requires_grad_()

        def run():
            value = network.value(arch, w_torch, x, for_torch)
            [gradient] = torch.autograd.grad(value.sum(), x)
            return value.detach(), gradient

        return run

    one_point = jax.value_and_grad(lambda x, w: network.value(arch, w, x, for_jax))
    jitted = jax.jit(jax.vmap(one_point, in_axes=(0, None)))

    def jax_autodiff(x):
        x = jnp.asarray(x)
        return lambda: jax.block_until_ready(jitted(x, w_jax))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {
        "PyTorch, by hand": torch_by_hand,
        "PyTorch, autograd": torch_autograd,
        "JAX, jit vmap grad": jax_autodiff,
        "onnxruntime": lambda x: lambda: session.run(["value", "gradient"], {name: x}),
    }


def program():
    """The path of this project's program, built if need be."""
    command = ["cargo", "build", "--workspace", "--release", "--bin", "cmf-cli", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    [path] = [m["executable"] for m in built if m.get("target", {}).get("name") == "cmf-cli" and m.get("executable")]
    return path


class Own:
    """One of this project's engines, timed by `cmf-cli bench`: each call is a process that times its repetitions."""

    def __init__(self, program, path, engine, task, batch=1):
        self.engine = engine
        chosen = {"tract": ["--engine", "tract"], "ort": ["--engine", "ort", "--ort-lib", LIBRARY, "--device", "cpu"]}
        self.command = [program, "bench", str(path), "--json", "--quiet", "--only", task, "--batch", str(batch),
                        *chosen.get(engine, ["--device", "cpu"])]  # fmt: skip

    def times(self, seconds):
        """Milliseconds of each call within so many seconds, after one that is not counted."""
        command = [*self.command, "--seconds", str(seconds)]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["figures"]
        [figure] = [f for f in figures if f["engine"].startswith(self.engine)]
        return figure["all_ms"] or [figure["cold_ms"]]


def verify(program, path):
    """Ends the program unless `cmf-cli verify` finds every engine of this project within its tolerance."""
    subprocess.run([program, "verify", str(path), "--ort-lib", LIBRARY], check=True)


def close(found, expected, what):
    """Ends the program unless two arrays agree to TOLERANCE of the largest number; NaN does not agree."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error <= TOLERANCE:
        sys.exit(f"{what}: differs by {error:.1e} of the largest number, more than {TOLERANCE:.0e}")


def measure(runs, repeats):
    """Milliseconds of each of `repeats` calls of every function; the functions take turns in rounds."""
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            time.sleep(PAUSE)
            each = -(-repeats // ROUNDS)
            if isinstance(run, Own):
                times[name] += run.times(OWN_SECONDS)
                continue
            run()
            for _ in range(each):
                start = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def sgemm(shapes, repeats):
    """GFLOP/s of the fastest float32 product among `shapes` [n, inner, columns] in NumPy and PyTorch, and which."""
    rng = np.random.default_rng(0)
    runs, flop = {}, {}
    for n, inner, columns in shapes:
        a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((n, inner), (inner, columns)))
        c = np.empty((n, columns), np.float32)
        tensors = torch.from_numpy(a), torch.from_numpy(b)
        label = f"{n} x {inner} x {columns}"
        runs[f"NumPy {label}"] = functools.partial(np.matmul, a, b, out=c)
        runs[f"PyTorch {label}"] = functools.partial(torch.mm, *tensors, out=torch.from_numpy(np.empty_like(c)))
        flop[f"NumPy {label}"] = flop[f"PyTorch {label}"] = 2 * n * inner * columns
    times = measure(runs, repeats)
    rates = {name: flop[name] / min(times[name]) * 1e-6 for name in runs}
    best = max(rates, key=rates.get)
    return {"gflops": rates[best], "product": best, "all_gflops": rates}


def row(name, times, gflop, ceiling_ms):
    median, shortest = float(np.median(times)), min(times)
    ratio = shortest / ceiling_ms
    print(f"  {name:<20}{median:10.2f}{shortest:10.2f}{gflop / shortest * 1e3:10.0f}{ratio:10.2f}")
    return {"median_ms": median, "min_ms": shortest, "min_over_ceiling": ratio}


def first_order(program, path, arch, weights, batch, repeats):
    """Compares and times the engines at one batch size."""
    exact, _, _ = libraries(arch.activation)
    x = np.random.default_rng(0).random((batch, arch.dim), dtype=np.float32)
    w64 = {name: a.astype(np.float64) for name, a in weights.items()}
    value, gradient = network.value_and_gradient(arch, w64, x.astype(np.float64), exact)
    peers = {name: at(x) for name, at in engines(path, arch, weights).items()}
    for name, run in peers.items():
        found = run()
        close(found[0], value, f"{name}: value at batch {batch}")
        close(found[1], gradient, f"{name}: gradient at batch {batch}")
    runs = {f"CMF ({engine})": Own(program, path, engine, "gradient", batch) for engine in OWN_ENGINES} | peers

    ceiling = sgemm([(1024,) * 3, *((batch, *product) for product in arch.products)], repeats)
    gflop = batch * arch.flop * 1e-9
    ceiling["ms"] = gflop / ceiling["gflops"] * 1e3
    times = measure(runs, repeats)
    print(f"\nbatch {batch}: {gflop:.3f} GFLOP")
    print(f"  {'':<20}{'median ms':>10}{'min ms':>10}{'GFLOP/s':>10}{'x ceiling':>10}")
    print(f"  {'ceiling':<20}{'':10}{ceiling['ms']:10.2f}{ceiling['gflops']:10.0f}{1:10.2f}  ({ceiling['product']})")
    rows = {name: row(name, times[name], gflop, ceiling["ms"]) for name in runs}
    return {"batch": batch, "gflop": gflop, "ceiling": ceiling, "engines": rows}


def hessian_by_hand(arch, w, x):
    """∇²w(x) in PyTorch: J' diag(e) J of each layer, A' diag(p) A of the squared forms, and the head: [d] -> [d, d]."""
    _, library, _ = libraries(arch.activation)
    beta = arch.activation.get("beta")
    bend = lambda t: library.slope(t) * (1 - library.slope(t)) * beta if beta else torch.where(t < 0, t.exp(), 0.0)
    s, forms, _ = network.forward(arch, w, x, library)
    rows = w["x_side"].split(arch.units)  # linear forms, squared forms, then the head's rows in pieces
    linear, squared = rows[0], rows[1 : 1 + arch.rank]
    jacobians = []
    for l, units in enumerate(arch.layers):
        jacobian = linear[units] + sum(form[units, None] * a[units] for form, a in zip(forms, squared))
        if arch.diagonal:
            jacobian = jacobian + w["diagonal"][units] * x
        if l:
            jacobian = jacobian + w[f"mixing_{l + 1}"].T @ (library.slope(s[l - 1])[:, None] * jacobians[-1])
        jacobians.append(jacobian)
    hessian = w["x_side"][(1 + arch.rank) * arch.units :]
    p = None
    for l in reversed(range(len(s))):
        units = arch.layers[l]
        q = w["output"][0, units]
        if p is not None:
            q = q + w[f"mixing_{l + 2}"] @ p
        p = q * library.slope(s[l])
        hessian = hessian + jacobians[l].T @ ((q * bend(s[l]))[:, None] * jacobians[l])
        hessian = hessian + sum(a[units].T @ (p[:, None] * a[units]) for a in squared)
        if arch.diagonal:
            hessian = hessian + torch.diag(p @ w["diagonal"][units])
    return hessian


def second_order(program, path, arch, weights, repeats):
    """Times the log-density of one point, alone and with its gradient, here and in the others, which are compared first.

    A mixture in the Gibbs factor is evaluated here alone: some percent of a gradient, beside a dense Hessian nothing.
    """
    exact, _, for_jax = libraries(arch.activation)
    y = np.random.default_rng(1).random(arch.dim, dtype=np.float32)

    def log_rho(y, w):
        potential = lambda x: network.value(arch, w, x, for_jax)
        return jnp.linalg.slogdet(jax.hessian(potential)(y))[1] - network.gibbs_value(arch, w, jax.grad(potential)(y), for_jax)

    w_torch = {name: torch.from_numpy(a.copy()) for name, a in weights.items()}
    for_torch = libraries(arch.activation)[1]

    def in_torch(y):
        factor = torch.linalg.cholesky(hessian_by_hand(arch, w_torch, y))
        gradient = network.value_and_gradient(arch, w_torch, y, for_torch)[1]
        return 2 * factor.diagonal().log().sum() - network.gibbs_value(arch, w_torch, gradient, for_torch)

    def torch_alone():
        with torch.inference_mode():
            return in_torch(torch.from_numpy(y_single)).item()

    def torch_with_gradient():
        point = torch.from_numpy(y_single).requires_grad_()
        found = in_torch(point)
        return found.item(), torch.autograd.grad(found, point)[0].numpy()

    w_jax = {name: jnp.asarray(a) for name, a in weights.items()}
    alone, with_gradient = jax.jit(log_rho), jax.jit(jax.value_and_grad(log_rho))
    y_single, point = y, jnp.asarray(y)
    runs = {
        "JAX, value": lambda: jax.block_until_ready(alone(point, w_jax)),
        "JAX, value, gradient": lambda: jax.block_until_ready(with_gradient(point, w_jax)),
        "PyTorch, value": torch_alone,
        "PyTorch, value, gradient": torch_with_gradient,
    }

    # The Hessian by central differences of the exact gradient: in float64 with this step, to about 1e-9.
    w64 = {name: a.astype(np.float64) for name, a in weights.items()}

    def reference(y, h=1e-5):
        gradient = lambda x: network.value_and_gradient(arch, w64, x, exact)[1]
        steps = h * np.eye(arch.dim)
        hessian = (gradient(y + steps) - gradient(y - steps)) / (2 * h)
        return np.linalg.slogdet(hessian)[1] - network.gibbs_value(arch, w64, gradient(y), exact)

    found, slope = runs["JAX, value, gradient"]()
    y, slope = y.astype(np.float64), np.asarray(slope, np.float64)
    close(runs["JAX, value"](), reference(y), "JAX: log-density")
    close(found, reference(y), "JAX: log-density with its gradient")
    # Along the gradient itself; the step keeps the difference far above the rounding and the third order far below.
    along, h = slope / np.linalg.norm(slope), 1e-3
    difference = (reference(y + h * along) - reference(y - h * along)) / (2 * h)
    close(slope @ along, difference, "JAX: gradient of the log-density")
    found, slope = torch_with_gradient()
    close(torch_alone(), reference(y), "PyTorch: log-density")
    close(found, reference(y), "PyTorch: log-density with its gradient")
    close(slope.astype(np.float64) @ along, difference, "PyTorch: gradient of the log-density")

    runs |= {
        "CMF, value": Own(program, path, "tract", "score"),
        "CMF, value, gradient": Own(program, path, "tract", "score-gradient"),
    }
    times = measure(runs, repeats)
    print("\nlog-density of one point, by the dense Hessian" + f"\n  {'':<26}{'median ms':>10}{'min ms':>10}")
    rows = {name: {"median_ms": float(np.median(t)), "min_ms": min(t)} for name, t in times.items()}
    for name, figures in rows.items():
        print(f"  {name:<26}{figures['median_ms']:10.1f}{figures['min_ms']:10.1f}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--second-order", action="store_true", help="also time the log-density and its gradient")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--repeats", type=int, default=50, metavar="N", help="timed calls of each function")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)

    arch, weights, _ = network.read(arguments.model)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "torch", "jax", "onnxruntime")}
    figures = {"model": arguments.model.name, "architecture": arch._asdict(), "threads": THREADS, "versions": versions}
    print(f"{arguments.model}: d = {arch.dim}, widths {arch.widths}, rank {arch.rank}, {arch.activation}")
    print(f"{THREADS} threads; " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    own = program()
    verify(own, arguments.model)
    figures["gradient"] = [
        first_order(own, arguments.model, arch, weights, batch, arguments.repeats) for batch in BATCHES
    ]
    if arguments.second_order:
        repeats = max(ROUNDS, arguments.repeats // 5)
        figures["log_density"] = second_order(own, arguments.model, arch, weights, repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
