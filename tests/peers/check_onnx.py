"""Checks model files with the ONNX checker and with onnxruntime, and makes the golden answers.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -r tests/peers/requirements.txt
    /tmp/peers/bin/python tests/peers/check_onnx.py MODEL.onnx...
    /tmp/peers/bin/python tests/peers/check_onnx.py --golden cmf-core/tests/golden/*.onnx

For each file: `onnx.checker` (full check), one float32 input [batch, d], outputs value [batch] and gradient
[batch, d], the probes of the metadata replayed, and batches of 1, 2, 7 and 256 that agree row by row. With
--golden the answers for a batch of 7 are written beside the file as NAME.json.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

BATCHES = (1, 2, 7, 256)
# Sums of up to about 10^3 float32 products, taken in an order that depends on the batch: their rounding is
# below 1e-5 of the largest term; a wrong graph is wrong in the first digits.
TOLERANCE = 1e-4


def close(found, expected, what):
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(found - expected).max()) / scale
    if not error <= TOLERANCE:  # also catches NaN
        sys.exit(f"{what}: differs by {error:.2e} of the largest number, more than {TOLERANCE:.0e}")
    return error


def check(path, golden):
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [x] = session.get_inputs()
    outputs = {o.name: o.shape for o in session.get_outputs()}
    batch, d = x.shape
    # Files whose Gibbs factor is of the head hold its potential too.
    known = {"value": [batch], "gradient": [batch, d]}
    head = "head" if "cmf.mixture" in {p.key for p in model.metadata_props} else "gibbs"
    head = {f"{head}_value": [batch], f"{head}_gradient": [batch, d]}
    assert x.type == "tensor(float)" and isinstance(batch, str) and outputs in (known, known | head), (
        f"{path}: input {x.name} {x.shape} {x.type}, outputs {outputs}"
    )

    def run(points):
        return session.run(["value", "gradient"], {x.name: points})

    properties = {p.key: p.value for p in model.metadata_props}
    probes = json.loads(properties.get("cmf.probes", "[]"))
    errors = [0.0]
    for probe in probes:
        value, gradient = run(np.array([probe["x"]], np.float32))
        errors.append(close(value, np.array([probe["value"]]), f"{path}: a probe's value"))
        errors.append(close(gradient, np.array([probe["gradient"]]), f"{path}: a probe's gradient"))

    points = np.random.default_rng(0).normal(size=(max(BATCHES), d)).astype(np.float32)
    every = run(points)
    for n in BATCHES:
        value, gradient = run(points[:n])
        assert value.shape == (n,) and gradient.shape == (n, d)
        errors.append(close(value, every[0][:n], f"{path}: value of batch {n}"))
        errors.append(close(gradient, every[1][:n], f"{path}: gradient of batch {n}"))
    print(f"{path}: {len(model.graph.node)} nodes, {len(probes)} probes, largest relative difference {max(errors):.1e}")

    if golden:
        value, gradient = run(points[:7])
        answers = {
            "made_by": f"tests/peers/check_onnx.py --golden, onnxruntime {onnxruntime.__version__}, CPU",
            "x": points[:7].tolist(),
            "value": value.tolist(),
            "gradient": gradient.tolist(),
        }
        path.with_suffix(".json").write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--golden", action="store_true", help="write the answers beside each file")
    arguments = parser.parse_args()
    for path in arguments.models:
        check(path, arguments.golden)
