#!/usr/bin/env bash
# Installs a wheel in new environments, with the oldest and with the newest NumPy and threadpoolctl that
# pyproject.toml allows, and runs tests there, away from the sources:
#
#     bash tests/package/wheel.sh WHEEL [python3.11 python3.13 ...]
#
# The oldest packages run on the first Python, the newest on all of them. Needs a package index for pip.
set -euo pipefail
wheel=$(realpath "${1:?needs a wheel}")
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
pythons=("${@:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 OPENBLAS_NUM_THREADS=1

# "numpy>=2.0" becomes "numpy==2.0.*"
oldest=$(sed -n 's/^dependencies = \[\(.*\)\]$/\1/p' "$root/pyproject.toml" | tr -d '",' | sed 's/>=\([0-9.]*\)/==\1.*/g')
[ -n "$oldest" ] || { echo "pyproject.toml has no dependencies on one line" >&2; exit 1; }

mkdir "$work/away"
cp -r "$root/tests" "$root/pyproject.toml" "$work/away/"
selection="conv/test_forward.py conv/test_backward_data.py conv/test_backward_weight.py conv/test_transpose.py
conv/test_semantics.py arrays/test_arrays.py masks/test_masks.py masks/test_compressed.py weights/test_packed.py
kernels/test_dispatch.py pruning/test_pruning_topk.py threads/test_threads.py"

check() {  # a Python, what it is called, packages
    local python=$1 name=$2
    shift 2
    "$python" -m venv "$work/$name"
    "$work/$name/bin/pip" install -q "$wheel" pytest hypothesis "$@"
    (
        cd "$work/away"
        "$work/$name/bin/python" - "$work/$name" <<'PYTHON'
import platform
import sys

import numpy
import threadpoolctl

import sparseconv

assert sparseconv.__file__.startswith(sys.argv[1]), sparseconv.__file__
print(f"Python {platform.python_version()}, NumPy {numpy.__version__}, threadpoolctl {threadpoolctl.__version__}:",
      *sparseconv.cpu.available_isas())
PYTHON
        # shellcheck disable=SC2046
        "$work/$name/bin/python" -m pytest -q -p no:cacheprovider $(printf 'tests/%s ' $selection) | tail -n 12
        "$work/$name/bin/sparseconv" info >/dev/null
    )
}

# shellcheck disable=SC2086
check "${pythons[0]}" oldest $oldest
for python in "${pythons[@]}"; do
    check "$python" "newest-$(basename "$python")" --upgrade numpy threadpoolctl
done
