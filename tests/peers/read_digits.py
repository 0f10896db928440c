"""Reads completed digits with a small network: are they still the digit that they were, and how far off are they?

    python tests/peers/read_digits.py --data MNIST_FOLDER --cnn cnn.pt HOLES/*/gaussian HOLES/*/filled

Trains a small convolutional network on MNIST if the file given by --cnn is not there (a few minutes on 2 cores; at
least 98.5 percent of the test digits are then read rightly) and keeps it there. Then, for each folder of pictures
<index>.png (index: place in the test set), prints how many there are, which share the network reads as the true
digit, and the mean squared error in the hole, pixels in [0, 1]. The hole is taken from the folder `masks` beside the
folder, as make_holes.py writes it. Last come the same digits untouched. Other files in a folder, such as
samples, are passed over.
"""

import argparse
import pathlib

import numpy as np
import torch
from torch import nn

import mnist_idx
from mnist_idx import SIDE

EPOCHS = 3
BATCH = 128
LEAST_ACCURACY = 0.985


def reader():
    """The network: bytes scaled to [0, 1] as [n, 1, 28, 28] -> [n, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def as_input(digits):
    return torch.tensor(digits, dtype=torch.float32).div_(255).view(-1, 1, SIDE, SIDE)


def read(network, digits):
    """The digit that the network sees in each row."""
    with torch.inference_mode():
        parts = [network(as_input(digits[i : i + 1000])).argmax(1) for i in range(0, len(digits), 1000)]
    return torch.cat(parts).numpy()


def train(digits, labels):
    """A network trained on all of `digits` for a few epochs."""
    torch.manual_seed(0)
    network, targets = reader(), torch.tensor(labels, dtype=torch.long)
    optimiser = torch.optim.Adam(network.parameters())
    steps = EPOCHS * -(-len(digits) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(digits)).split(BATCH):
            loss = nn.functional.cross_entropy(network(as_input(digits[batch.numpy()])), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return network


def trained(path, data):
    """The network kept at `path`, trained first if there is none."""
    if path.exists():
        network = reader()
        network.load_state_dict(torch.load(path, weights_only=True))
        return network
    network = train(*mnist_idx.load(data, "train"))
    torch.save(network.state_dict(), path)
    return network


def load_folder(folder, count):
    """Indices, pictures and holes [n, 784] of a folder; `count` is the size of the test set."""
    indices = mnist_idx.picture_indices(folder)
    if not indices:
        raise SystemExit(f"{folder}: expected pictures <index>.png, found none")
    if indices[-1] >= count:
        raise SystemExit(f"{folder}: {indices[-1]}.png is beyond the {count} test digits")
    load = lambda where: np.stack([mnist_idx.read_picture(where / f"{i}.png") for i in indices])
    return indices, load(folder), load(folder.parent / "masks") >= 128


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of MNIST's four idx files")
    parser.add_argument("--cnn", type=pathlib.Path, required=True, help="where the network is kept")
    parser.add_argument("folders", type=pathlib.Path, nargs="*")
    arguments = parser.parse_args()

    network = trained(arguments.cnn, arguments.data)
    digits, labels = mnist_idx.load(arguments.data, "t10k")
    right = read(network, digits) == labels
    print(f"the reader is right on {right.mean():.4f} of all {len(digits)} test digits")
    if right.mean() < LEAST_ACCURACY:
        print(f"WARNING: less than {LEAST_ACCURACY}; a better reader is needed to compare completions")
    if not arguments.folders:
        return

    print(f"\n{'':<40}{'digits':>8}{'read':>8}{'error':>10}")
    every = set()
    for folder in arguments.folders:
        indices, pictures, hidden = load_folder(folder, len(digits))
        changed = pictures.astype(np.int64) - digits[indices]
        if (changed[~hidden] != 0).any():
            print(f"WARNING: {folder} changes pixels outside the hole")
        accuracy = (read(network, pictures) == labels[indices]).mean()
        error = ((changed[hidden] / 255) ** 2).mean()
        print(f"{str(folder):<40}{len(indices):>8}{accuracy:>8.3f}{error:>10.4f}", flush=True)
        every.update(indices)
    print(f"{'untouched':<40}{len(every):>8}{right[sorted(every)].mean():>8.3f}{0:>10.4f}")


if __name__ == "__main__":
    main()
