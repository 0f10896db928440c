"""Writes the first test digits of MNIST with holes in them, and the completions that inpainting has to beat.

    python tests/peers/make_holes.py --data MNIST_FOLDER --out HOLES [--count 500]

For each hole (lower, left, centre, random70) there appear
    HOLES/<hole>/images/<index>.png     the digit, black in the hole
    HOLES/<hole>/masks/<index>.png      white in the hole
    HOLES/<hole>/gaussian/<index>.png   the hole filled with the conditional mean of the Gaussian N(m, C + sigma² I),
                                        with m and C of the training digits in [0, 1] and sigma = 0.1
where <index> is the digit's place in the test set. The random hole hides 549 of the 784 pixels, others in each digit;
the same seed always hides the same ones. Prints the folders written.
"""

import argparse
import pathlib

import numpy as np

import mnist_idx
from mnist_idx import SIDE

SIGMA = 0.1
SEED = 0


def holes(count):
    """By name: which pixels of each digit are hidden, [count, 784]."""
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    middle = lambda i: (i >= 7) & (i < 21)
    fixed = {"lower": row >= SIDE // 2, "left": column < SIDE // 2, "centre": middle(row) & middle(column)}
    hidden = {name: np.tile(mask, (count, 1)) for name, mask in fixed.items()}
    # Each digit has its own generator, so that the count does not change any hole.
    ranks = [np.random.default_rng((SEED, i)).permutation(SIDE * SIDE) for i in range(count)]
    return hidden | {"random70": np.array(ranks) < round(0.7 * SIDE * SIDE)}


def moments(digits):
    """Mean and covariance of the rows of `digits` in [0, 1]."""
    d = digits.shape[1]
    total, products = np.zeros(d), np.zeros((d, d))
    for start in range(0, len(digits), 5000):  # bounds the memory
        x = digits[start : start + 5000] / 255.0
        total += x.sum(0)
        products += x.T @ x
    mean = total / len(digits)
    return mean, products / len(digits) - np.outer(mean, mean)


def conditional_mean(digits, hidden, mean, covariance):
    """m_h + S_hk S_kk^{-1} (x_k - m_k) in the hidden pixels h of each digit, as bytes; the known pixels k are kept."""
    filled = digits.copy()
    for digit, hide in zip(filled, hidden):
        known = ~hide
        deviation = digit[known] / 255.0 - mean[known]
        weights = np.linalg.solve(covariance[np.ix_(known, known)], deviation)
        completed = mean[hide] + covariance[np.ix_(hide, known)] @ weights
        digit[hide] = np.round(255 * completed.clip(0, 1))
    return filled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of MNIST's four idx files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="the first N test digits")
    arguments = parser.parse_args()

    training, _ = mnist_idx.load(arguments.data, "train")
    mean, covariance = moments(training)
    covariance += SIGMA**2 * np.eye(len(mean))
    digits = mnist_idx.load(arguments.data, "t10k")[0][: arguments.count]
    for name, hidden in holes(len(digits)).items():
        folder = arguments.out / name
        mnist_idx.write_pictures(folder / "images", np.where(hidden, np.uint8(0), digits))
        mnist_idx.write_pictures(folder / "masks", np.where(hidden, np.uint8(255), np.uint8(0)))
        mnist_idx.write_pictures(folder / "gaussian", conditional_mean(digits, hidden, mean, covariance))
        print(f"{folder}: {len(digits)} digits in images, masks and gaussian", flush=True)


if __name__ == "__main__":
    main()
