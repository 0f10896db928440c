"""MNIST's idx files and folders of digit pictures: what `make_holes.py` and `read_digits.py` share. Not a script."""

import gzip
import pathlib

import numpy as np
from PIL import Image

SIDE = 28


def read_idx(path):
    """The unsigned bytes of one idx file, gzipped if its name ends in .gz."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        content = file.read()
    zero, kind, axes = content[:2], content[2], content[3]
    if zero != b"\0\0" or kind != 8:
        raise SystemExit(f"{path}: expected an idx file of unsigned bytes, found the start {content[:4].hex()}")
    shape = np.frombuffer(content, ">u4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def load(folder, part):
    """Digits [n, 784] and labels [n] as bytes; `part` is "train" or "t10k"."""

    def find(name):
        found = [p for p in (folder / f"{name}.gz", folder / name) if p.is_file()]
        if not found:
            raise SystemExit(f"{folder}: expected {name}.gz or {name}")
        return read_idx(found[0])

    images, labels = find(f"{part}-images-idx3-ubyte"), find(f"{part}-labels-idx1-ubyte")
    return images.reshape(len(images), SIDE * SIDE), labels


def write_pictures(folder, digits):
    """Writes each row of `digits` [n, 784] (bytes) as folder/<row>.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, digit in enumerate(digits):
        Image.fromarray(digit.reshape(SIDE, SIDE)).save(folder / f"{index}.png")


def picture_indices(folder):
    """The indices of the files <index>.png in a folder, in order."""
    return sorted(int(path.stem) for path in pathlib.Path(folder).glob("*.png") if path.stem.isdecimal())


def read_picture(path):
    """One grey picture as 784 bytes."""
    with Image.open(path) as picture:
        if picture.size != (SIDE, SIDE):
            raise SystemExit(f"{path}: expected {SIDE}x{SIDE} pixels, found {picture.size[0]}x{picture.size[1]}")
        return np.asarray(picture.convert("L")).ravel()
