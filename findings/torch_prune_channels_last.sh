#!/usr/bin/env bash
# torch.nn.utils.prune: unstructured methods refuse weights in channels_last memory, structured ones take them.
#
# Versions  torch 2.13.0 (CPU build), Python 3.11 or newer.
# Guessed   A memory format changes where numbers lie, not what may be done with them: a model in channels_last, which
#           PyTorch's own tutorial advises for convolutions on CPUs, can be pruned like any other.
# Seen      l1_unstructured, random_unstructured and global_unstructured raise "view size is not compatible with input
#           tensor's size and stride" for a convolution in channels_last; the same weights in contiguous memory are
#           pruned. ln_structured takes both, and its mask has the weight's format. parameters_to_vector, which
#           global_unstructured calls, refuses such weights as well.
# Matters   Our advice is channels_last, and pruned weights are what skip="weight" is for: prune first, then change the
#           memory format (examples/prune_torch.py), or take sparseconv.pruning.topk_mask, which takes any strides.
# Date      2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat >"$folder/prune.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, prune

METHODS = {
    "l1_unstructured": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "random_unstructured": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "global_unstructured": lambda layer: prune.global_unstructured(
        [(layer, "weight")], pruning_method=prune.L1Unstructured, amount=0.5
    ),
    "ln_structured": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    "parameters_to_vector": lambda layer: parameters_to_vector([layer.weight]),
}
seen = {}
for name, method in METHODS.items():
    for memory in (torch.contiguous_format, torch.channels_last):
        layer = nn.Conv2d(4, 8, 3).to(memory_format=memory)
        try:
            method(layer)
            said = "done"
        except RuntimeError as error:
            said = str(error).partition(" (")[0]
        seen[name, memory] = said == "done"
        print(f"{name:22} {str(memory).partition('.')[2]:18} {said}")
expected = {
    (name, memory): memory == torch.contiguous_format or name == "ln_structured"
    for name in METHODS
    for memory in (torch.contiguous_format, torch.channels_last)
}
raise SystemExit(0 if seen == expected else "this has changed")
PYTHON
"$folder/venv/bin/python" "$folder/prune.py"
