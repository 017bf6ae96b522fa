#!/usr/bin/env bash
# An operator made with torch.library.custom_op and register_autograd cannot be differentiated by torch.func.grad.
#
# Versions  torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11 or newer, Linux x86-64.
# Guessed   register_autograd is the recommended way to give an operator a derivative, so both of torch's engines take it:
#           Tensor.backward and torch.func.grad.
# Seen      backward works. torch.func.grad raises a RuntimeError that asks for a setup_context staticmethod, which the
#           operator was registered with.
# Matters   Layers from custom_op fail in code that uses functional transforms (per-sample gradients, meta-learning). An
#           autograd.Function at the operator's Autograd key, entered at functorch's own level, works in both.
# Date      2026-11-29
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch


@torch.library.custom_op("demo::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


def keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


cube.register_autograd(lambda ctx, gradient: gradient * 3 * ctx.saved_tensors[0] ** 2, setup_context=keep)

x = torch.tensor(2.0, requires_grad=True)
cube(x).backward()
print("Tensor.backward:", x.grad.item())
try:
    print("torch.func.grad:", torch.func.grad(cube)(torch.tensor(2.0)).item())
    failed = False
except RuntimeError as error:
    print("torch.func.grad: RuntimeError:", str(error).splitlines()[0][:160])
    failed = "setup_context" in str(error)
sys.exit(0 if failed and x.grad.item() == 12 else 1)
PYTHON
