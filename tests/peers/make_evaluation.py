"""Writes the fixture that the evaluation's tests compare with: POT's and scikit-learn's numbers on small samples.

    python tests/peers/make_evaluation.py cmf-core/tests/golden/evaluation.json

Sinkhorn: ot.solve_sample with cost |x - y|^2 and regularisation KL(plan | a b'), whose value holds the regularisation,
as in the divergence of Feydy et al. (2019); sliced: ot.sliced_wasserstein_distance along directions that the fixture
gives; MMD: the unbiased statistic from sklearn.metrics.pairwise.rbf_kernel; precision and recall from
sklearn.neighbors. Points have few digits so that the file is short and exact.
"""

import json
import sys

import numpy as np
import ot
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors


def transport(x, y, epsilon):
    result = ot.solve_sample(
        x, y, reg=epsilon, reg_type="KL", metric="sqeuclidean", max_iter=200_000, tol=1e-11
    )
    return float(result.value)


def divergence(x, y, epsilon):
    return transport(x, y, epsilon) - transport(x, x, epsilon) / 2 - transport(y, y, epsilon) / 2


def mmd_squared(x, y, bandwidth):
    def mean_off_diagonal(k):
        n = len(k)
        return (k.sum() - np.trace(k)) / (n * (n - 1))

    kernel = lambda a, b: rbf_kernel(a, b, gamma=0.5 / bandwidth**2)
    return float(mean_off_diagonal(kernel(x, x)) + mean_off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean())


def share_covered(centres, points, k):
    """Share of points within the distance of a centre to its k-th neighbour, of any centre."""
    # The nearest of k + 1 neighbours is the centre itself.
    radii = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(centres).kneighbors(centres)[0][:, k]
    distances = np.sqrt(((points[:, None, :] - centres[None, :, :]) ** 2).sum(-1))
    return float((distances <= radii[None, :]).any(1).mean())


def case(seed, n, m, d, shift):
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((n, d)) * rng.uniform(0.5, 2, d) + shift, 4)
    y = np.round(rng.standard_normal((m, d)) * rng.uniform(0.5, 2, d), 4)
    directions = rng.standard_normal((12, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    mean_cost = ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1).mean()
    epsilon, bandwidth, k = float(round(0.1 * mean_cost, 4)), float(round(np.sqrt(mean_cost / 2), 4)), 3
    return {
        "d": d,
        "x": x.ravel().tolist(),
        "y": y.ravel().tolist(),
        "epsilon": epsilon,
        "transport": transport(x, y, epsilon),
        "sinkhorn_divergence": divergence(x, y, epsilon),
        "directions": directions.ravel().tolist(),
        "sliced_wasserstein": float(ot.sliced_wasserstein_distance(x, y, projections=directions.T, p=2)),
        "bandwidth": bandwidth,
        "mmd_squared": mmd_squared(x, y, bandwidth),
        "neighbours": k,
        # y is the data, x is generated.
        "precision": share_covered(y, x, k),
        "recall": share_covered(x, y, k),
    }


def main():
    cases = [case(1, 60, 60, 2, 0.5), case(2, 40, 70, 2, 0.0), case(3, 50, 50, 20, 0.3)]
    made_by = {"script": "tests/peers/make_evaluation.py", "POT": ot.__version__, "numpy": np.__version__}
    with open(sys.argv[1], "w") as file:
        json.dump({"made_by": made_by, "cases": cases}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
