"""The NEON kernels without ARM hardware: calls are recorded here and replayed by a cross-compiled driver under QEMU.

A recorded call is what the Cython classes were told, hence any geometry and blocking that the library can come up
with, the arrays as they lie in memory, and the result. `neon_driver.cpp` replays it on the tables `neon` and `scalar`.
"""

import contextlib
import ctypes
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from field_records import Map, Mask, View, WeightView, forget_plans
from helpers import FEW_CASES, PASSES, SKIPS, TRANSPOSED, Case, call, in_layout, operands, prepared, sparse_ints

import sparseconv as sc
from sparseconv import _conv, cpu

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "sparseconv" / "kernels"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"
# As in setup.py, but for the optimisation of what is only compared with.
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror"]
KERNEL_FLAGS = [*FLAGS, "-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-Wno-maybe-uninitialized"]
UNTOUCHED = np.float32(-7777)

CASES = (
    *FEW_CASES,
    Case(17, 24, (6, 7), (3, 3), padding=1, kind=1),
    Case(40, 33, (6, 7), (3, 3), padding=1),
    Case(40, 33, (7, 9), (3, 3), stride=2, padding=1, kind=1),
    Case(17, 24, (5, 6), (1, 1)),
    Case(16, 40, (8, 6), (3, 3), stride=2, dilation=3, padding=2, kind=2),
    Case(16, 24, (14, 14), (3, 3), batch=8, padding=1, kind=1),  # weights are packed ahead
    Case(8, 8, (3, 70), (1, 7), padding=(0, 3)),
)

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER} (Debian: g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR} (Debian: qemu-user)"),
    pytest.mark.skipif(not (KERNELS / "isa_neon.cpp").exists(), reason="needs the sources"),
]


# --- recording ---


class Recorder:
    """Writes calls down as C++ functions, and their arrays as floats."""

    def __init__(self):
        self.name = ""
        self.names, self.functions, self.data, self.floats = [], [], [], 0

    def store(self, region):
        """Appends floats; returns where they begin."""
        self.data.append(region)
        self.floats += region.size
        return self.floats - region.size

    def memory(self, array):
        """(all memory between an array's first and last element in address order, place of the array's own first)."""
        low, high = np.lib.array_utils.byte_bounds(array)
        region = np.frombuffer(ctypes.string_at(low, high - low), np.float32)
        return region, (array.ctypes.data - low) // 4

    def record(self, kind, lines, inputs, member, target, execute, mask=None):
        """Runs the call; the function of `lines` must do the same to the memory of `target`, and of `mask`."""
        before, first = self.memory(target)
        execute()
        after, _ = self.memory(target)
        body = [f"sc_{kind}_task task = {{}};", *lines]
        for place, array in inputs.items():
            if array is not None:
                region, start = self.memory(array)
                body.append(f"task.{place} = data + {self.store(region) + start};")
        at = self.store(before), self.store(after)
        bits = "" if mask is None else f", {{{numbers(mask)}}}"
        body.append(
            f'check("{self.name}", task, task.{member}, {first}, data + {at[0]}, data + {at[1]}, {before.size}{bits});'
        )
        head = f"static void case_{len(self.functions)}(float *data) {{"
        self.functions.append("\n    ".join([head, *body]) + "\n}\n")
        self.names.append(self.name)

    def header(self):
        calls = "".join(f"    case_{index}(data);\n" for index in range(len(self.functions)))
        return "\n".join(self.functions) + f"\nstatic void run_cases(float *data) {{\n{calls}}}\n"


def numbers(values):
    return ", ".join(str(int(value)) for value in values)


def structs(values):
    return ", ".join("{" + numbers(row) + "}" for row in values)


def map_lines(made):
    fields = dict(made.fields)
    table, passes, taps = fields.pop("row_table"), fields.pop("passes"), fields.pop("taps")
    outer_passes = fields.pop("outer_passes")
    return [
        f"static const int64_t table[] = {{{numbers(table)}}};",
        f"static const sc_pass passes[] = {{{structs(passes)}}};",
        f"static const sc_pass outer_passes[] = {{{structs(outer_passes) or '{}'}}};",
        f"static const sc_tap taps[] = {{{structs(taps)}}};",
        *(f"task.map.{name} = {int(value)};" for name, value in fields.items()),
        f"task.map.row_table = table, task.map.passes = passes, task.map.pass_count = {len(passes)};",
        f"task.map.outer_passes = outer_passes, task.map.outer_pass_count = {len(outer_passes)};",
        "task.map.taps = taps;",
    ]


def view_lines(member, view):
    image, rows, column, channel, block = view.fields
    name = member.replace(".", "_")
    return [
        f"static const int64_t {name}_rows[] = {{{numbers(rows)}}};",
        f"task.{member} = {{nullptr, {numbers((image, column, channel, block))}, {name}_rows}};",
    ]


def weight_lines(member, view):
    group, lane, channel, tap, outer_taps, flat = view.fields
    return [
        f"static const int64_t {member}_taps[] = {{{numbers(outer_taps)}}};",
        f"task.{member} = {{nullptr, {numbers((group, lane, channel, tap))}, {member}_taps, {int(flat)}}};",
    ]


def needed_lines(mask):
    """A mask of floats, which are recorded like other arrays."""
    if mask is None:
        return []
    view, kind = mask.fields
    assert kind == "f"
    return [*view_lines("needed.view", view), "task.needed.kind = SC_MASK_FLOATS;"]


def field_lines(fields):
    return [f"task.{name} = {int(value)};" for name, value in fields.items()]


def mask_lines(member, mask):
    if mask is None:
        return []
    return [f"static const uint8_t {member}[] = {{{numbers(mask.ravel())}}};", f"task.{member} = {member};"]


@contextlib.contextmanager
def recording(monkeypatch):
    """While it lasts, every kernel call is recorded; the blocking is that of six accumulators, as NEON has."""
    recorder = Recorder()

    class Rows(_conv.Rows):
        def __init__(self, used, source, target, weight, *, needed=None, live=None, **fields):
            super().__init__(used, source, target, weight, needed=needed, **fields)
            self.lines = [
                *map_lines(used), *view_lines("in", source), *view_lines("out", target),
                *weight_lines("weight", weight), *needed_lines(needed), *field_lines(fields),
            ]  # fmt: skip

        def run(self, source, weight, bias, target, threads, threshold=0, mask=None, needed=None, live=None):
            assert live is None, "not recorded"
            inputs = {"in.data": source, "weight.data": weight, "bias": bias, "needed.data": needed}
            lines = [*self.lines, f"task.threshold = {float(threshold)}f;"]
            execute = lambda: super(Rows, self).run(  # noqa: E731
                source, weight, bias, target, threads, threshold, mask, needed
            )
            recorder.record("rows", lines, inputs, "out.data", target, execute, mask)

    class Gradient(_conv.Gradient):
        def __init__(self, used, a, b, gradient, *, live=None, **fields):
            super().__init__(used, a, b, gradient, **fields)
            self.lines = [
                *map_lines(used), *view_lines("a", a), *view_lines("b", b), *weight_lines("gradient", gradient),
                *field_lines(fields),
            ]  # fmt: skip

        def run(self, a, b, gradient, threads, threshold=0, mask=None, pairs=None, live=None):
            assert live is None, "not recorded"
            lines = [*self.lines, *mask_lines("mask", mask), *mask_lines("pairs", pairs)]
            lines.append(f"task.threshold = {float(threshold)}f;")
            execute = lambda: super(Gradient, self).run(  # noqa: E731
                a, b, gradient, threads, threshold, mask, pairs
            )
            recorder.record("gradient", lines, {"a.data": a, "b.data": b}, "gradient.data", gradient, execute)

    original = _conv.bias_gradient

    def bias_gradient(view, source, target, batch, rows, columns, channels, threads):
        sizes = {"batch": batch, "rows": rows, "columns": columns, "channels": channels}
        execute = lambda: original(view, source, target, batch, rows, columns, channels, threads)  # noqa: E731
        lines = [*view_lines("in", view), *field_lines(sizes)]
        recorder.record("bias", lines, {"in.data": source}, "out", target, execute)

    with monkeypatch.context() as patch, cpu.use_isa("scalar"):
        for replacement in (Map, View, Mask, WeightView, Rows, Gradient, bias_gradient):
            patch.setattr(_conv, replacement.__name__, replacement)
        forget_plans()
        try:
            yield recorder
        finally:
            forget_plans()


def record_calls(recorder):
    """Every pass of every case, and what else kernels do: bias, ReLU, linear layers, views, denormals."""
    for case in (*CASES, *TRANSPOSED[:4]):
        for name in PASSES:
            first, second, expected = prepared(case, name, 0.5)
            for skip in SKIPS[name][1:]:
                recorder.name = f"{name} {case} {skip}"
                out = np.full_like(expected, UNTOUCHED)
                call(sc, case, name, first, second, skip=skip, out=out)
    case = FEW_CASES[0]
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    grads = operands(case, "backward_data", 0.5)[0]
    recorder.name = "bias and relu"
    bias = sparse_ints((case.out_c,), 0, 9)
    for skip in ("none", "input"):
        y = sc.conv2d(x, weight, bias, padding=1, activation="relu", skip=skip)
        assert y.any()
        assert (y == 0).any()
    recorder.name = "mask of relu"
    masked = Case(17, 48, (5, 14), (3, 3), padding=1, kind=1)
    for skip in ("none", "input"):
        arrays = in_layout(masked, "forward", *operands(masked, "forward", 0.5))
        _, mask = call(sc, masked, "forward", *arrays, skip=skip, activation="relu", return_mask=True)
        assert 0.2 < np.unpackbits(mask).mean() < 0.8
    for name in PASSES:
        recorder.name = f"threshold {name}"
        for thresholded in FEW_CASES[:3]:
            first, second = in_layout(thresholded, name, *operands(thresholded, name, 0.3))
            call(sc, thresholded, name, first, second, threshold=2)  # some elements are equal to it
            first.flat[::97] = np.nan
            call(sc, thresholded, name, first, second, threshold=0.5)
    recorder.name = "views"
    room = np.full((2, 11, 29, 2 * case.in_c + 1), UNTOUCHED)
    moved = room[:, 1::2, 1::2, ::2].transpose(0, 3, 1, 2)[:, : case.in_c]
    moved[...] = x
    out = np.full((2, 5, 14, 3 * case.out_c), UNTOUCHED)[..., ::3].transpose(0, 3, 1, 2)
    sc.conv2d(moved, weight[:, ::-1], padding=1, out=out)
    sc.conv2d_backward_weight(moved, grads, 3, padding=1, out=np.full((33, 3, 17, 3), UNTOUCHED).transpose(0, 2, 1, 3))
    for masked in FEW_CASES:
        first, second = in_layout(masked, "backward_data", *operands(masked, "backward_data", 0.5))
        needed = np.nan_to_num(in_layout(masked, "forward", *operands(masked, "forward", 0.5))[0])
        for skip in ("none", "grad_output", "output"):
            recorder.name = f"output_mask {masked} {skip}"
            out = np.full_like(needed, UNTOUCHED)
            call(sc, masked, "backward_data", first, second, skip=skip, output_mask=needed, out=out)
    recorder.name = "output_mask"
    mask = np.zeros(case.weight_shape, bool)
    mask[:20, 3:] = True
    mask[1::2, :, 1] = False
    for skip in SKIPS["backward_weight"][1:]:
        out = np.full(mask.shape, UNTOUCHED)
        sc.conv2d_backward_weight(x, grads, 3, padding=1, skip=skip, output_mask=mask, out=out)
    recorder.name = "denormals"
    for skip in ("none", "input"):
        sc.conv2d(np.where(x == 0, np.float32(1e-40), x), weight, padding=1, skip=skip)
    sc.conv2d(np.full_like(x, 1e-40), np.full_like(weight, np.inf), padding=1, skip="input")
    for layout_name in ("NCHW", "NHWC"):
        recorder.name = f"grad_bias {layout_name}"
        sc.grad_bias(sparse_ints((3, 33, 5, 40), 0.3, 4), layout=layout_name)
    recorder.name = "linear"
    features = sparse_ints((9, 70), 0.5, 5)
    y = sc.linear(features, sparse_ints((37, 70), 0, 6), bias=sparse_ints((37,), 0, 7))
    sc.linear_backward_weight(features, y)


# --- replaying ---


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """Names of the recorded calls and what the driver said."""
    folder = tmp_path_factory.mktemp("neon")
    with pytest.MonkeyPatch.context() as monkeypatch, recording(monkeypatch) as recorder:
        record_calls(recorder)
    (folder / "cases.h").write_text(recorder.header())
    np.concatenate(recorder.data).tofile(folder / "arrays")
    units = {
        KERNELS / "isa_neon.cpp": [*KERNEL_FLAGS, "-march=armv8-a"],
        KERNELS / "isa_scalar.cpp": [*KERNEL_FLAGS, "-O1"],
        ROOT / "tests" / "neon_driver.cpp": [*FLAGS, "-O1", f"-I{KERNELS}", f"-I{folder}"],
    }

    def build(unit):
        to = folder / f"{unit.stem}.o"
        done = subprocess.run([COMPILER, *units[unit], "-c", unit, "-o", to], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return to

    with ThreadPoolExecutor(2) as executor:
        objects = list(executor.map(build, units))
    subprocess.run([COMPILER, *objects, "-o", folder / "driver"], check=True)
    done = subprocess.run(
        [EMULATOR, "-L", LIBRARIES, folder / "driver", folder / "arrays"], capture_output=True, text=True, timeout=300
    )
    return recorder.names, done


def test_neon_equals_scalar(replayed):
    """No difference in any bit: to the scalar table, to the result on this machine, in the memory around them."""
    names, done = replayed
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0 failures"
    for name in names:
        assert f"{name}: " in done.stdout


def test_results_are_not_mostly_zero(replayed):
    names, done = replayed
    found = re.findall(r"^(.+): (\d+) of (\d+) nonzero$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in found] == names
    shares = [int(nonzero) / int(floats) for name, nonzero, floats in found]
    plain = [share for share, name in zip(shares, names, strict=True) if name not in ("denormals", "views")]
    assert len(names) > 100
    assert np.mean(plain) > 0.6
    assert sum(share < 0.1 for share in plain) == 0


def test_masks_and_float_state(replayed):
    lines = replayed[1].stdout.splitlines()
    kinds = ("float_state", "masks", "compressed", "pruning masks", "stochastic pruning")
    assert lines[: len(kinds)] == [f"{kind}: done" for kind in kinds]
