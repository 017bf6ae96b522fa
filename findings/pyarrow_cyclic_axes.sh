#!/usr/bin/env bash
# pyarrow turns a channels-last batch into other numbers, without an error.
#
# Versions  pyarrow 26.0.0, numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   FixedShapeTensorArray.from_numpy_ndarray(x).to_numpy_ndarray() equals x for any memory order of x.
# Seen      It does where the axes of an image are in place or two of them are exchanged. It does not where all three
#           are moved round: an (N, C, H, W) view of NHWC memory, what channels-last frameworks hand out, comes back as
#           (N, H, W, C) reshaped to other axes. The permutation that is stored is the inverse of the one that is read.
# Matters   Such arrays are the usual input of a convolution library. It cannot see that the numbers were exchanged
#           before they arrived, so its documentation has to say so.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import itertools
import sys

import numpy as np
import pyarrow as pa

wrong = []
for axes in itertools.permutations((1, 2, 3)):
    memory = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    x = memory.transpose(0, *axes)
    stored = pa.FixedShapeTensorArray.from_numpy_ndarray(x)
    back = stored.to_numpy_ndarray()
    same = np.array_equal(back, x)
    if not same:
        wrong.append(axes)
    print(f"axes {axes}: went in {x.shape}, permutation {stored.type.permutation}, came back {back.shape}, equal: {same}")
print("wrong for:", wrong)
sys.exit(0 if wrong == [(2, 3, 1), (3, 1, 2)] else 1)
PYTHON
