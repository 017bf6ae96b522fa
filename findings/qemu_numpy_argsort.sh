#!/usr/bin/env bash
# Under QEMU 7.2's Haswell, NumPy's argsort gives an order that does not sort; sort is right, and so is a CPU without AVX2.
#
# Versions  qemu-user-static 7.2 of Debian 12 (1:7.2+dfsg-7+deb12u18+b3), numpy 2.4.6, Python 3.11 or newer, Linux
#           x86-64 with apt.
# Guessed   An emulator either has an instruction or refuses it: what runs under -cpu Haswell runs as on a Haswell, only
#           slower. So a test suite under QEMU stands for the older CPUs that nobody has at hand.
# Seen      np.argsort of nine int64 gives an order in which 14 stands behind 21, on every run, without a word. np.sort
#           is right. With NumPy's code for AVX2 off (NPY_DISABLE_CPU_FEATURES=X86_V3), under -cpu SandyBridge, and on
#           real CPUs with AVX2 the order is right.
# Matters   tests/kernels/test_older_cpus.py compares kernels on emulated CPUs with what NumPy says. An oracle that runs
#           under the emulator, too, has to leave its own vector code off, or a wrong test looks like a wrong kernel.
# Date      2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
(
    cd "$folder"
    apt-get download -qq 'qemu-user-static=1:7.2+dfsg-7+deb12u18+b3' 2>/dev/null
    dpkg -x qemu-user-static_*.deb qemu
)
qemu="$folder/qemu/usr/bin/qemu-x86_64-static"
"$qemu" --version | head -n 1
# The interpreter itself: QEMU starts no scripts.
python=$("$folder/venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
packages=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cat >"$folder/order.py" <<'PYTHON'
import numpy as np

values = np.array([21, 37, 14, 42, 9, 6, 19, 35, 14])
ordered = values[np.argsort(values)]
print(f"by argsort: {ordered.tolist()}   by sort: {np.sort(values).tolist()}")
print("wrong" if (np.diff(ordered) < 0).any() else "right")
PYTHON
order() { PYTHONPATH=$packages "$@" "$python" "$folder/order.py" 2>/dev/null; }
seen=""
show() {
    local said
    said=$(order "${@:2}")
    printf '%-24s %s\n' "$1" "$(head -n 1 <<<"$said")"
    seen="$seen $(tail -n 1 <<<"$said")"
}
show "Haswell" "$qemu" -cpu Haswell
show "Haswell, without AVX2" env NPY_DISABLE_CPU_FEATURES=X86_V3 "$qemu" -cpu Haswell
show "SandyBridge" "$qemu" -cpu SandyBridge
show "this CPU" env
[ "$seen" = " wrong right right right" ]
