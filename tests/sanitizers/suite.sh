#!/usr/bin/env bash
# The test suite in a build with AddressSanitizer, and with UndefinedBehaviorSanitizer but for the kernels (GCC's):
#
#     tests/sanitizers/suite.sh FOLDER [arguments of pytest]
#
# FOLDER gets the build and a log. PYTHON (default python) needs what the tests need, setuptools and Cython. A report
# ends the process that made it, so its test fails.
#
# - Kernels with both would compile for half an hour: `python tests/sanitizers` has them, without optimisation.
# - Left out: tests that limit a process's memory (the sanitizer maps terabytes), those that look at the installed
#   binary or compile their own, those of emulated CPUs (QEMU takes 15 GB for the sanitizer's maps), and those of
#   sparseconv bench, which time.
# - Memory that is still there at the end is not looked for: Python and NumPy leave thousands of blocks.
#   `python tests/sanitizers` looks for it, in a program without Python.
set -euo pipefail
folder=$(realpath -m "${1:?needs a folder for the build}")
shift
python=$(command -v "${PYTHON:-python}")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
compiler=${CXX:-g++}

mkdir -p "$folder/tree"
cd "$root"
git ls-files -z --cached --others --exclude-standard | tar -cf - --null -T - | tar -xf - -C "$folder/tree"
cd "$folder/tree"
checks="-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
words=$(printf '"%s", ' $checks)
grep -q '"-O3"' setup.py && grep -q '"-Wl,-s", ' setup.py && grep -q '"-fno-rtti", ' setup.py  # what is replaced
sed -i "s/\"-O3\"/$words\"-O1\"/; s/\"-Wl,-s\", /\"-fsanitize=address,undefined\", /" setup.py
sed -i 's/"-fno-rtti", /"-fno-rtti", "-fno-sanitize=undefined", /' setup.py
CXX=$compiler "$python" setup.py -q build_ext --inplace >"$folder/build.log" 2>&1 || { tail -n 50 "$folder/build.log"; exit 1; }

library() { ${compiler#ccache } -print-file-name="$1"; }
export LD_PRELOAD="$(library libasan.so) $(library libubsan.so) $(library libstdc++.so)"
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export PYTHONMALLOC=malloc PYTHONPATH=$folder/tree
# The frameworks' own libraries do not know of the sanitizer; their tests make no other calls of ours.
skipped="tests/memory/test_memory_limits.py tests/memory/test_cgroups.py tests/memory/test_memory.py
tests/kernels/test_codegen.py tests/kernels/test_neon.py tests/kernels/test_older_cpus.py tests/benchmark tests/package tests/frameworks"
"$python" -m pytest -p no:cacheprovider -q $(printf -- '--ignore=%s ' $skipped) "$@"
