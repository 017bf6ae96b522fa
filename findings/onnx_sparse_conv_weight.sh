#!/usr/bin/env bash
# A pruned convolution weight stored as ONNX sparse_initializer: the format's own tools disagree about it.
#
# Versions  onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   sparse_initializer is part of the standard since IR version 5, so what the checker accepts, the standard's
#           own shape inference, evaluator, converter and extractor take as well.
# Seen      The checker accepts a Conv whose weight is sparse, and ONNX Runtime computes what the dense weight gives.
#           Shape inference counts no dimensions of the weight (so the checker's full mode fails), the reference
#           evaluator asks a sparse tensor for a field that sparse tensors do not have, the version converter takes the
#           weight for undefined, and the extractor refuses.
# Matters   It is the one place in ONNX where zeros of pruned weights cost nothing. Who exports a pruned network for
#           others has to write dense zeros.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor

rng = np.random.default_rng(0)
weight = np.where(rng.random((4, 3, 3, 3)) < 0.8, 0, rng.standard_normal((4, 3, 3, 3))).astype(np.float32)
x = rng.standard_normal((1, 3, 8, 8), dtype=np.float32)
places = np.flatnonzero(weight)
sparse = helper.make_sparse_tensor(
    helper.make_tensor("w", TensorProto.FLOAT, [places.size], weight.reshape(-1)[places]),
    helper.make_tensor("w_places", TensorProto.INT64, [places.size], places),
    weight.shape,
)


def model(**weights):
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "pruned",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
        **weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(one):
    return onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": x})[0]


pruned = model(sparse_initializer=[sparse])
dense = model(initializer=[onnx.numpy_helper.from_array(weight, "w")])


def close():
    if not np.allclose(run(pruned), run(dense), atol=1e-5):
        raise AssertionError("other numbers than with the dense weight")


tools = {
    "checker": lambda: onnx.checker.check_model(pruned),
    "onnxruntime": close,
    "checker, full": lambda: onnx.checker.check_model(pruned, full_check=True),
    "shape inference": lambda: onnx.shape_inference.infer_shapes(pruned, strict_mode=True),
    "reference evaluator": lambda: ReferenceEvaluator(pruned).run(None, {"x": x}),
    "version converter": lambda: onnx.version_converter.convert_version(pruned, 21),
    "extractor": lambda: Extractor(pruned).extract_model(["x"], ["y"]),
}
works = []
for name, use in tools.items():
    try:
        use()
        works.append(name)
        print(f"{name}: works")
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
sys.exit(0 if works == ["checker", "onnxruntime"] else 1)
PYTHON
