#!/usr/bin/env bash
# A result written through an MLX array's own writable memory changes other MLX arrays, which MLX itself never does.
#
# Versions  mlx[cpu] 0.32.4, numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   MLX arrays are values: assigning to elements of one leaves slices that were taken of it before as they were.
#           So memory that an array offers as writable is its own.
# Seen      memoryview(a) is writable and shares a's memory, and so do its evaluated slices, a reshaped or transposed a,
#           and mx.contiguous(a): a write through the buffer protocol changes them all. a[...] = 7 changes a alone.
#           mx.array(a) and a + 0 are copies.
# Matters   Who passes an MLX array as out= to a library that shares memory gets the result in each array that was ever
#           cut from it. A fresh array (mx.zeros), or mx.array(a), is safe.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import mlx.core as mx
import numpy as np

MADE = {
    "slice": lambda a: a[1:3],
    "reshaped": lambda a: mx.reshape(a, (16,)),
    "transposed": lambda a: a.T,
    "contiguous": mx.contiguous,
    "mx.array": mx.array,
    "a + 0": lambda a: a + 0,
}


def others(write):
    """The largest element of each array made of a, after something was written to a."""
    a = mx.zeros((4, 4))
    mx.eval(a)
    made = {name: make(a) for name, make in MADE.items()}
    mx.eval(*made.values())
    write(a)
    mx.eval(a, *made.values())
    assert float(a.max()) == 7
    return {name: float(one.max()) for name, one in made.items()}


def by_buffer(a):
    view = memoryview(a)
    assert not view.readonly
    np.asarray(view)[...] = 7


def by_assignment(a):
    a[...] = 7


buffer, assignment = others(by_buffer), others(by_assignment)
for name in MADE:
    print(f"{name:10}  after a write through memoryview(a): {buffer[name]:.0f}   after a[...] = 7: {assignment[name]:.0f}")
shared = {"slice", "reshaped", "transposed", "contiguous"}
as_seen = all(buffer[name] == (7 if name in shared else 0) and assignment[name] == 0 for name in MADE)
sys.exit(0 if as_seen else 1)
PYTHON
