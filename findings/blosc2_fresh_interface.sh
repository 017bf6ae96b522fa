#!/usr/bin/env bash
# A compressed blosc2 array offers NumPy writable memory that is not its own: what is written there is lost.
#
# Versions  blosc2 4.14.1, numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   An object with __array_interface__ shares its memory: NumPy's array protocol is about the address of data,
#           and np.array(a, copy=False) fails where a copy would be needed.
# Seen      Each look at __array_interface__ decompresses into a new array, which stands in "data" instead of a pair of
#           address and read-only flag. np.asarray(a) and np.array(a, copy=False) are writable copies. Writing to them
#           changes nothing in a, and nothing warns.
# Matters   A library that writes a result into out= through this protocol gets no error, and its user no result. out=
#           has to be looked at twice: memory that is not the same both times is refused.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check blosc2==4.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import blosc2
import numpy as np

array = blosc2.asarray(np.zeros((4, 5), np.float32))
first, second = array.__array_interface__, array.__array_interface__
view = np.array(array, copy=False)
view[...] = 7
print("type of data in the interface:", type(first["data"]).__name__)
print("the same memory at two looks: ", np.shares_memory(first["data"], second["data"]))
print("copy=False gave writable memory:", view.flags.writeable)
print("largest element after writing 7:", float(array[:].max()))
as_seen = (
    isinstance(first["data"], np.ndarray)
    and not np.shares_memory(first["data"], second["data"])
    and view.flags.writeable
    and float(array[:].max()) == 0
)
sys.exit(0 if as_seen else 1)
PYTHON
