#!/usr/bin/env bash
# compressed-tensors' sparse-bitmask files: row_offsets of a convolution weight are no offsets.
#
# Versions  compressed-tensors 0.14.0 (the last release with the compressor), torch 2.13.0, Python 3.11, Linux x86-64.
# Guessed   row_offsets says how many nonzero values come before each row of the last axis, so that rows can be read
#           alone, as it does for the two axes of a linear layer.
# Seen      Counts are summed along the first axis only. For (K, C, R, S) every (c, r) has its own sum over the filters:
#           offsets repeat, do not grow in the order of the values, and end far below their number. The package does not
#           notice, since its own decompression does not look at them.
# Matters   A reader that trusts them takes wrong values for all but the first row of each filter. Rows of such a weight
#           can only be found by counting the bits of the mask.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check compressed-tensors==0.14.0 psutil  # which it needs and does not ask for
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor


def offsets(weight):
    counts = (weight != 0).sum(-1).flatten()
    return BitmaskTensor.from_dense(weight).row_offsets.flatten().tolist(), (counts.cumsum(0) - counts).tolist()


linear = (torch.arange(40) % 3).float().reshape(4, 10)
conv = (torch.arange(120) % 3).float().reshape(2, 3, 2, 10)
for name, weight in (("linear, 4 x 10", linear), ("convolution, 2 x 3 x 2 x 10", conv)):
    stored, right = offsets(weight)
    print(f"{name}:\n  stored {stored}\n  right  {right}")
again = BitmaskTensor.from_dense(conv).decompress()
print("its own decompression is right all the same:", torch.equal(again, conv))
as_seen = offsets(linear)[0] == offsets(linear)[1] and offsets(conv)[0] != offsets(conv)[1] and torch.equal(again, conv)
sys.exit(0 if as_seen else 1)
PYTHON
