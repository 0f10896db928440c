"""Learns laws in the plane here and by the neural dual of OTT-JAX: how long until the samples are as good?

    python tests/peers/neural_dual.py --out FOLDER [--laws circles s-curve] [--seconds 180] [--json FILE]

Each law is drawn once into FOLDER as .npy: points to learn from and points to compare with. `cmf-cli train`, which cargo
builds first, learns them with this project's defaults, 512 points an update, as a conjugate moment measure and as a
map from N(0, I). OTT-JAX learns a map from N(0, I) by its W2NeuralDual with the networks and optimisers
of its tutorial (four layers of 64 units, an input-convex network for the potential and a plain one for the conjugate's
guess; Adam at 5e-4 with a cosine over the time it is given), as many points an update, and its default of L-BFGS steps
from each guess of a conjugate (Amos, 2023). Both projects see the data with Gaussian noise of standard deviation 0.05.
Every sample is judged by `cmf-cli eval`: the Sinkhorn divergence to the same held-out points, ten batches of 1024.

Printed for each law: the seconds of training and the divergence here, those of OTT-JAX at its six checkpoints, the first
of them that is as good as ours, and the floor, the divergence of data to data. Seconds are of training alone; OTT-JAX's
leave out compilation and checkpoints.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ott.neural.methods import neuraldual
from ott.neural.networks import icnn, potentials
from sklearn.datasets import make_circles, make_s_curve

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIGMA = 0.05
BATCH = 512
# Points to learn from, and to compare with.
POINTS = (50_000, 50_000)
# Updates of OTT-JAX at the start, in which it compiles; those that measure its pace; how many checkpoints there are.
FIRST, TIMED, CHECKPOINTS = 3, 5, 6
HIDDEN = [64, 64, 64, 64]

LAWS = {
    "circles": lambda n, seed: 4 * make_circles(n, factor=0.5, noise=0.05, random_state=seed)[0],
    "s-curve": lambda n, seed: 5 * make_s_curve(n, noise=0.01, random_state=seed)[0][:, [2, 0]],
}


def cmf(*arguments):
    return subprocess.run(
        [ROOT / "target/release/cmf-cli", *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def divergence(data, *of):
    """Mean and standard error over the batches, and the floor's mean."""
    answer = json.loads(
        cmf("eval", *of, "--data", data, "--metrics", "sinkhorn", "--rows", 1024, "--repeats", 10, "--json", "-q")
    )
    figure = answer["comparison"]["figures"][0]
    error = figure["deviation"] / len(figure["values"]) ** 0.5
    return {"divergence": figure["mean"], "error": error, "floor": figure["floor_mean"]}


def ours(method, train, held_out, folder):
    run = folder / method
    cmf("train", "--data", train, "--sigma", SIGMA, "--method", method, "--look-every", 10**6, "-o", run, "-q")
    with open(run / "metrics.csv", newline="") as rows:
        seconds = float(list(csv.reader(rows))[-1][1])
    return {"seconds": seconds} | divergence(held_out, "--model", run / "model.onnx")


def batches(draw, seed):
    key = jax.random.PRNGKey(seed)
    while True:
        key, now = jax.random.split(key)
        yield draw(now)


class Enough(Exception):
    pass


def neural_dual(points, held_out, folder, budget):
    """Divergences of OTT-JAX's samples after so many seconds of training."""
    points = jnp.asarray(points)
    normal = lambda key: jax.random.normal(key, (BATCH, 2))

    @jax.jit
    def noisy(key):
        rows, noise = jax.random.split(key)
        chosen = points[jax.random.randint(rows, (BATCH,), 0, len(points))]
        return chosen + SIGMA * jax.random.normal(noise, chosen.shape)

    start = (normal(jax.random.PRNGKey(9)), noisy(jax.random.PRNGKey(10)))

    def train(planned, seen):
        """Trains with a cosine over so many updates; seen(step, duals) is called after each, outside of the clock."""
        rate = optax.cosine_decay_schedule(5e-4, planned, alpha=1e-2)
        solver = neuraldual.W2NeuralDual(
            2,
            neural_f=icnn.ICNN(dim_data=2, dim_hidden=HIDDEN, pos_weights=True, gaussian_map_samples=start),
            neural_g=potentials.PotentialMLP(dim_hidden=HIDDEN, is_potential=False),
            optimizer_f=optax.adam(rate, b1=0.5, b2=0.5),
            optimizer_g=optax.adam(rate, b1=0.9, b2=0.999),
            num_train_iters=10**9,
            valid_freq=10**9,
            log_freq=10**9,
            pos_weights=True,
            rng=jax.random.PRNGKey(0),
        )
        spent, since = 0.0, None

        def look(step, duals):
            nonlocal spent, since
            # An update is not over before this; waiting for it costs nothing on the processor.
            jax.block_until_ready(solver.state_f.params)
            if since is not None:
                spent += time.perf_counter() - since
            if step >= FIRST:
                seen(step - FIRST, spent, duals)
                since = time.perf_counter()

        try:
            solver(batches(normal, 1), batches(noisy, 2), batches(normal, 3), batches(noisy, 4), callback=look)
        except Enough:
            pass

    pace = []

    def measure(updates, spent, _):
        if updates == TIMED:
            pace.append(spent / updates)
            raise Enough

    train(1000, measure)
    source = jax.random.normal(jax.random.PRNGKey(11), (10 * 1024, 2))
    checkpoints = []

    def check(updates, spent, duals):
        if spent < budget * (len(checkpoints) + 1) / CHECKPOINTS:
            return
        samples = np.asarray(duals.transport(source), np.float32)
        file = folder / f"ott-{updates}.npy"
        np.save(file, samples[np.isfinite(samples).all(axis=1)])
        checkpoints.append({"updates": updates, "seconds": spent, "file": file})
        if len(checkpoints) == CHECKPOINTS:
            raise Enough

    train(max(int(budget / pace[0]), 1), check)
    return [
        {"updates": c["updates"], "seconds": c["seconds"]} | divergence(held_out, "--samples", c["file"])
        for c in checkpoints
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--seconds", type=float, default=180.0, help="how long OTT-JAX may train")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "-p", "cmf-cli"], cwd=ROOT, check=True)
    report = {}
    for law in arguments.laws:
        folder = arguments.out / law
        folder.mkdir(parents=True)
        points = LAWS[law](POINTS[0], 0).astype(np.float32)
        compared = LAWS[law](POINTS[1], 1)
        compared += SIGMA * np.random.default_rng(2).standard_normal(compared.shape)
        train, held_out = folder / "train.npy", folder / "held-out.npy"
        np.save(train, points)
        np.save(held_out, compared.astype(np.float32))
        here = {method: ours(method, train, held_out, folder) for method in ("cmf", "gaussian-icnn")}
        theirs = neural_dual(points, held_out, folder, arguments.seconds)
        report[law] = here | {"ott-jax": theirs}
        print(f"\n{law}: floor {here['cmf']['floor']:.3f}")
        for method, found in here.items():
            print(f"  {method:16} {found['seconds']:6.1f} s  {found['divergence']:.3f} +- {found['error']:.3f}")
        for c in theirs:
            print(f"  {'OTT-JAX':16} {c['seconds']:6.1f} s  {c['divergence']:.3f} +- {c['error']:.3f}"
                  f"   ({c['updates']} updates)")  # fmt: skip
        for method, found in here.items():
            as_good = [c for c in theirs if c["divergence"] <= found["divergence"] + found["error"]]
            reached = f"after {as_good[0]['seconds']:.0f} s" if as_good else "not in this time"
            print(f"  OTT-JAX as good as {method}: {reached}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
