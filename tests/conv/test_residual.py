"""`residual=`: y = act(conv + bias + residual), in the last store of every kernel that computes forward results.

One file: one option, on every kernel that knows it.
"""

from dataclasses import replace

import numpy as np
import pytest
from amx_emulated import needs_compiler
from awkward import guarded, needs_mprotect
from cases import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    SKIPS,
    TRANSPOSED_CASES,
    Case,
    call,
    operands,
    oracle,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from plans import Planner
from poison import poisoned

import sparseconv as sc
from sparseconv import reference

# What the tables of the other tests have too little of: narrow groups whose last vector overlaps the one before it,
# columns and rows that no tap reaches, lane blocks of several vectors, several chunks, one output, long rows.
MORE = (
    *(Case(24, 24, (6, 9), (3, 3), padding=1, groups=24, kind=kind) for kind in range(3)),
    *(Case(40, 40, (9, 14), (3, 3), stride=2, padding=1, groups=40, kind=kind) for kind in range(3)),
    Case(17, 17, (9, 8), (5, 5), padding=2, groups=17, kind=1),
    *(Case(24, 24, (4, 9), (3, 3), padding=1, groups=6, kind=kind) for kind in range(3)),
    Case(24, 36, (4, 7), (3, 3), padding=1, groups=12, kind=1),
    *(Case(19, 19, (3, 11), (2, 2), stride=3, groups=19, kind=kind, transposed=True) for kind in range(3)),
    *(Case(33, 40, (4, 5), (2, 2), stride=3, output_padding=(2, 0), kind=kind, transposed=True) for kind in range(3)),
    *(Case(40, 200, (6, 11), (3, 3), padding=1, kind=kind) for kind in range(3)),
    Case(130, 72, (14, 14), (1, 1), batch=9, kind=1),
    *(Case(64, 48, (1, 1), (1, 1), batch=1, kind=kind) for kind in range(3)),
    Case(16, 48, (3, 1300), (3, 3), padding=1, batch=1, kind=1),
    Case(2, 2, (2500,), (3,), padding=1, groups=2, kind=1),
    Case(18, 18, (2, 3), (1, 1), padding=2, stride=2, groups=18, kind=1),
    Case(17, 16, (3, 5), (1, 1), padding=2, kind=1),
)
ALL = (*CASES[::3], *FEW_CASES, *TRANSPOSED_CASES[::2], *MORE)
FEW = (*FEW_CASES, *MORE[::3], *TRANSPOSED_CASES[2:6])


def layer(case, sparsity=0.4, make=sparse_ints, relu=True):
    """Operands in the layout of the case, options, and what must come out."""
    x, weight = operands(case, "forward", sparsity, make=make)
    bias, residual = make((case.out_c,), 0.2, 9), 5 * make(case.out_shape, 0.3, 8)
    words = {"activation": "relu"} if relu else {}
    expected = oracle(case, "forward", x, weight, bias=bias, residual=residual, **words)
    if relu and expected.size > 200:
        assert 0.2 < np.count_nonzero(expected) / expected.size < 0.8
    x, residual = to_layout(x, case.layout, pad=np.nan), to_layout(residual, case.layout, pad=np.nan)
    return x, weight, {"bias": bias, "residual": residual, **words}, expected


def out_is_residual(case, x, weight, words, **more):
    """The result, written over the residual."""
    out = words["residual"].copy()
    assert call(sc, case, "forward", x, weight, **words | {"residual": out}, out=out, **more) is out
    return out


@pytest.mark.parametrize("case", ALL, ids=str)
def test_exact(isa, case):
    for relu in (True, False):
        x, weight, words, expected = layer(case, relu=relu)
        for skip in SKIPS["forward"]:
            before = words["residual"].copy()
            assert_exact(call(sc, case, "forward", x, weight, skip=skip, **words), expected, skip)
            assert_same_bits(words["residual"], before)
            assert_exact(out_is_residual(case, x, weight, words, skip=skip), expected, f"{skip}, out is residual")


@pytest.mark.parametrize("case", FEW, ids=str)
def test_without_bias_and_with_other_words(isa, case):
    x, weight, words, _ = layer(case)
    plain = operands(case, "forward", 0.4)
    residual = 5 * sparse_ints(case.out_shape, 0.3, 8)
    del words["bias"]
    expected = oracle(case, "forward", *plain, residual=residual, activation="relu")
    packed = sc.pack_weight(weight, groups=case.groups)
    for options in ({}, {"skip": "none"}, {"input_mask": np.nan_to_num(x) != 0}):
        assert_exact(call(sc, case, "forward", x, weight, **words, **options), expected, str(options))
    for skip in ("auto", "weight", "input", "none"):
        assert_exact(call(sc, case, "forward", x, packed, skip=skip, **words), expected, skip)
    above = np.where(np.abs(plain[0]) <= 2, np.float32(0), plain[0])
    expected = oracle(case, "forward", above, plain[1], residual=residual, activation="relu")
    assert_exact(call(sc, case, "forward", x, weight, threshold=2, **words), expected)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_return_mask(isa, case):
    x, weight, words, expected = layer(case)
    bits = np.packbits(expected != 0, bitorder="little")
    for skip in ("auto", "none", "input", "weight"):
        for given in (words["residual"], words["residual"].copy()[..., ::1].copy(order="F")):
            options = words | {"residual": given, "skip": skip, "return_mask": True}
            y, mask = call(sc, case, "forward", x, weight, **options)
            assert_exact(y, expected)
            assert_exact(mask, bits)


def views(array):
    """The same elements at other strides; lanes and gaps between them hold NaN."""
    yield "Fortran", array.copy(order="F")
    room = np.full(tuple(2 * size + 1 for size in array.shape), np.nan, array.dtype)
    gaps = room[tuple(slice(1, None, 2) for _ in array.shape)]
    gaps[...] = array
    yield "gaps", gaps
    room = np.full((*array.shape[:-1], array.shape[-1] + 3), np.nan, array.dtype)
    room[..., : array.shape[-1]] = array
    yield "wide rows", room[..., : array.shape[-1]]
    yield "backwards", array[tuple(slice(None, None, -1) for _ in array.shape)].copy()[
        tuple(slice(None, None, -1) for _ in array.shape)
    ]
    for axes in ((0, *range(2, array.ndim), 1), (0, array.ndim - 1, *range(1, array.ndim - 1))):
        yield f"in the order {axes}", array.transpose(axes).copy().transpose(np.argsort(axes))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_any_strides(isa, case):
    x, weight, words, expected = layer(case)
    for skip in ("none", "input", "weight"):
        for name, residual in views(words["residual"]):
            given = words | {"residual": residual, "skip": skip}
            assert_exact(call(sc, case, "forward", x, weight, **given), expected, f"{name} {skip}")
            if "backwards" in name:
                continue  # no result lies like that
            out = np.full(tuple(2 * size + 1 for size in expected.shape), np.nan, np.float32)
            out = out[tuple(slice(1, None, 2) for _ in expected.shape)]
            assert_exact(np.ascontiguousarray(call(sc, case, "forward", x, weight, **given, out=out)), expected, name)
            got = call(sc, case, "forward", x, weight, **given, out=residual)
            assert got is residual
            assert_exact(np.ascontiguousarray(got), expected, f"{name} {skip}, out is residual")


def test_broadcast(isa):
    """Strides of zero are strides: one row of a residual for all."""
    x, weight = sparse_ints((2, 5, 9, 24), 0.4, 1), sparse_ints((40, 24, 3, 3), 0, 2)
    for axes in ((0,), (1, 2), (3,)):
        shape = tuple(1 if axis in axes else size for axis, size in enumerate((2, 5, 9, 40)))
        residual = np.broadcast_to(5 * sparse_ints(shape, 0.3, 3), (2, 5, 9, 40))
        for skip in ("none", "input", "weight"):
            y = sc.conv2d(x, weight, padding=1, layout="NHWC", residual=residual, skip=skip)
            assert_exact(y, sc.conv2d(x, weight, padding=1, layout="NHWC", skip=skip) + residual)


@needs_mprotect
@pytest.mark.parametrize("case", FEW, ids=str)
def test_reads_nothing_beyond_the_residual(isa, case):
    x, weight, words, expected = layer(case)
    for at_end in (True, False):
        given = words | {"residual": guarded(words["residual"], at_end)}
        for skip in SKIPS["forward"]:
            assert_exact(call(sc, case, "forward", x, weight, skip=skip, **given), expected)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_reach(isa, case):
    """NaN and Inf of the residual are in exactly their own elements of the result; ReLU keeps NaN."""
    x, weight, words, expected = layer(case)
    channels_first = np.zeros(case.out_shape, np.float32)
    size = channels_first.size
    places = {0: np.nan, size // 2: np.inf, size // 3: np.nan, size - 1: np.nan}
    for place, value in places.items():
        channels_first.flat[place] = value
    added = to_layout(channels_first, case.layout)
    wanted = np.where(added == 0, expected, added)
    for skip in SKIPS["forward"]:
        residual = np.where(added == 0, words["residual"], added)
        given = words | {"residual": residual}
        assert_exact(call(sc, case, "forward", x, weight, skip=skip, **given), wanted, skip)
        assert_exact(out_is_residual(case, x, weight, given, skip=skip), wanted, skip)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_threads_change_no_bit(isa, case):
    case = replace(case, batch=7 if case.batch > 1 else 1)
    x, weight, words, _ = layer(case, 0.5, sparse_floats)
    for skip in SKIPS["forward"]:
        expected = call(sc, case, "forward", x, weight, skip=skip, num_threads=1, **words)
        for threads in (2, 3, 7):
            again = call(sc, case, "forward", x, weight, skip=skip, num_threads=threads, **words)
            assert_same_bits(again, expected, skip)
            again = out_is_residual(case, x, weight, words, skip=skip, num_threads=threads)
            assert_same_bits(again, expected, skip)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_floats(isa, case):
    """The residual comes after the sum, and is one more term of it."""
    x, weight, words, _ = layer(case, 0.5, sparse_floats, relu=False)
    wide = [array.astype(np.float64) for array in operands(case, "forward", 0.5, make=sparse_floats)]
    bias, residual = words["bias"].astype(np.float64), 5 * sparse_floats(case.out_shape, 0.3, 8).astype(np.float64)
    exact = oracle(case, "forward", *wide, bias=bias, residual=residual)
    magnitude = oracle(
        case, "forward", *map(np.abs, wide), bias=np.abs(bias), residual=np.abs(residual)
    )  # fmt: skip
    for skip in SKIPS["forward"]:
        y = call(sc, case, "forward", x, weight, skip=skip, **words)
        assert_within_bound(y, exact, magnitude, case.terms("forward") + 2, skip)
        plain = call(sc, case, "forward", x, weight, skip=skip, bias=words["bias"])
        if case.kind < 2:
            assert_same_bits(y, plain + words["residual"], skip)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_what_memory_held_changes_nothing(isa, case):
    x, weight, words, expected = layer(case)
    for bits in (0x7FFF7FFF, 0xFFFFFFFF, 0x7F7FFFFF):
        with poisoned(bits):
            for skip in SKIPS["forward"]:
                y = call(sc, case, "forward", x, weight, skip=skip, num_threads=2, **words)
                assert_exact(y, expected, f"{skip} {bits:x}")


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("skip", ["none", "input", "weight"])
@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_results_past_the_caches(isa, kernel, skip, layout):
    """They are streamed, but not over the residual itself."""
    x, weight = sparse_ints((2, 32, 100, 100), 0.8, 1), sparse_ints((128, 32, kernel, kernel), 0, 2)
    residual = 5 * sparse_ints((2, 128, 100, 100), 0.3, 3)
    x, residual = to_layout(x, layout), to_layout(residual, layout)
    options = {"padding": kernel // 2, "layout": layout, "activation": "relu", "skip": skip, "num_threads": 2}
    expected = np.maximum(sc.conv2d(x, weight, **options | {"activation": None}) + residual, 0)
    plan = sc.plan("conv2d", x, weight, residual=residual, **options)
    assert plan.kernel in ("rows_tiles", "weights_skip") or plan.blocking["stream"]
    assert_exact(sc.conv2d(x, weight, residual=residual, **options), expected)
    assert_exact(sc.conv2d(x, weight, residual=residual, out=residual, **options), expected)


@needs_compiler
@pytest.mark.parametrize("case", [*FEW, *MORE], ids=str)
def test_on_tiles(built, case):
    """AMX, emulated: the bits of the oracle, also where the vector kernel takes over."""
    with built.active():
        for relu in (True, False):
            x, weight, words, expected = layer(case, relu=relu)
            before = len(built.calls)
            assert_exact(call(sc, case, "forward", x, weight, skip="none", **words), expected)
            assert_exact(out_is_residual(case, x, weight, words, skip="none"), expected)
            kernel = call(Planner(), case, "forward", x, weight, skip="none", **words).kernel
            assert len(built.calls) == before + 2 * kernel.endswith("tiles")
        for _, residual in views(words["residual"]):
            given = words | {"residual": residual}
            assert_exact(call(sc, case, "forward", x, weight, skip="none", **given), expected)
        images = operands(case, "forward", 0.4)[0]
        images.flat[images.size // 2] = np.inf
        x = to_layout(images, case.layout, pad=np.nan)
        with np.errstate(all="ignore"):
            residual = 5 * sparse_ints(case.out_shape, 0.3, 8)
            wanted = oracle(case, "forward", images, weight, bias=words["bias"], residual=residual)
        finite = np.isfinite(wanted)
        y = out_is_residual(case, x, weight, words, skip="none")
        assert_exact(np.where(finite, y, 0), np.where(finite, wanted, 0).astype(np.float32))


@pytest.mark.parametrize("shape", [(70,), (9, 70), (3, 5, 70), (1, 1, 70), (0, 70)], ids=str)
@pytest.mark.parametrize("features", [33, 48])
def test_linear(isa, shape, features):
    x, weight, bias = sparse_ints(shape, 0.5, 1), sparse_ints((features, 70), 0.2, 2), sparse_ints((features,), 0.2, 3)
    residual = 50 * sparse_ints((*shape[:-1], features), 0.3, 4)
    expected = np.maximum(reference.linear(x, weight, bias) + residual, 0)
    packed = sc.pack_weight(weight)
    for skip in SKIPS["forward"]:
        for used in (weight, packed):
            y = sc.linear(x, used, bias, residual=residual, activation="relu", skip=skip)
            assert_exact(y, expected, skip)
            out = residual.copy()
            assert sc.linear(x, used, bias, residual=out, activation="relu", skip=skip, out=out) is out
            assert_exact(out, expected, skip)
    other = residual.copy(order="F")  # of three dimensions: no row, so it is copied
    assert_exact(sc.linear(x, weight, bias, residual=other, activation="relu"), expected)


def test_nothing_to_sum(isa):
    """Empty batches; results that no input reaches are bias and residual."""
    weight, bias = sparse_ints((18, 3, 1, 1), 0, 1), sparse_ints((18,), 0, 2)
    for layout in LAYOUTS[2]:
        for batch, size in ((0, 4), (2, 0)):
            x = to_layout(np.zeros((batch, 3, size, size), np.float32), layout)
            shape = (batch, 18, size + 4, size + 4)
            residual = to_layout(5 * sparse_ints(shape, 0.3, 3), layout, pad=np.nan)
            expected = to_layout(
                np.maximum(np.nan_to_num(5 * sparse_ints(shape, 0.3, 3)) + bias.reshape(-1, 1, 1), 0), layout
            )
            words = {"padding": 2, "layout": layout, "residual": residual, "activation": "relu"}
            if size:
                assert_exact(sc.conv2d(x, weight, bias, **words), expected)
                continue
            assert_exact(sc.conv2d(x, weight, bias, **words), expected)
            assert sc.plan("conv2d", x, weight, bias, **words).kernel == "none"
            y, mask = sc.conv2d(x, weight, bias, **words, return_mask=True)
            assert_exact(mask, sc.masks.nonzero_mask(y))
            words["residual"] = np.where(np.isnan(residual), 0, np.inf).astype(np.float32)
            bias[0], before = -np.inf, bias[0]
            assert np.isnan(sc.conv2d(x, weight, bias, **words)).any()
            bias[0] = before
            out = residual.copy()
            assert_exact(sc.conv2d(x, weight, bias, **words | {"residual": out}, out=out), expected)


@pytest.mark.parametrize("case", (*FEW_CASES, *TRANSPOSED_CASES[:4]), ids=str)
def test_float64(case):
    """The oracle itself: against a plain sum."""
    x, weight, words, _ = layer(case)
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    words = {name: one if name == "activation" else one.astype(np.float64) for name, one in words.items()}
    plain = call(sc, case, "forward", x, weight, bias=words["bias"])
    expected = np.nan_to_num(np.maximum(plain + words["residual"], 0))
    assert_exact(call(sc, case, "forward", x, weight, **words), expected)
    out = words["residual"].copy()
    assert_exact(call(sc, case, "forward", x, weight, **words | {"residual": out}, out=out), expected)
    assert call(Planner(), case, "forward", x, weight, **words).kernel == "reference"


# --- the argument ---

X, W = sparse_ints((2, 16, 6, 6), 0.5, 1), sparse_ints((16, 16, 3, 3), 0, 2)
LAYERS = {"conv2d": (X, W), "conv_transpose2d": (X, W), "linear": (X[0, 0], W[:5, :6, 0, 0])}


@pytest.mark.parametrize("name", LAYERS)
def test_bad_residuals(name):
    function = getattr(sc, name)
    y = function(*LAYERS[name])
    out = np.full_like(y, -7777)
    bad = {
        r"^residual: got shape .*expected \(": (y[:-1], y[..., :-1], y[0], y[None], np.zeros((), np.float32)),
        r"^residual: got dtype float64, expected float32": (y.astype(np.float64),),
        r"^residual: got dtype int": (y.astype(np.int32),),
        r"^residual: ": ([[1.0]], "residual", 3.0, y.tolist(), object()),
    }
    for match, values in bad.items():
        for value in values:
            with pytest.raises((TypeError, ValueError), match=match):
                function(*LAYERS[name], residual=value, out=out)
            with pytest.raises((TypeError, ValueError), match=match):
                sc.plan(name, *LAYERS[name], residual=value)
    assert (out == -7777).all()
    with pytest.raises(TypeError, match="positional"):
        function(*LAYERS[name], None, y)
    for other in (f"{name}_backward_data", f"{name}_backward_weight"):
        with pytest.raises(TypeError, match="residual"):
            getattr(sc, other)(*LAYERS[name], 3, residual=y)


def test_another_layout_is_named():
    residual = sc.conv2d(X, W, padding=1).transpose(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"^residual: got shape \(2, 6, 6, 16\), expected \(2, 16, 6, 6\)"):
        sc.conv2d(X, W, padding=1, residual=residual)


def test_overlap_is_refused(isa):
    """The residual may be the result, element by element, and nothing else of it."""
    y = sc.conv2d(X, W, padding=1)
    room = np.zeros((3, *y.shape[1:]), np.float32)
    room[:2] = y
    before = room.copy()
    expected = sc.conv2d(X, W, padding=1) + y
    for out, residual in (
        (room[1:], room[:2]), (room[:2], room[1:]), (room[:2, ::-1][:, ::-1][::-1][::-1], room[:2][::-1]),
        (room[:2], room[:2].transpose(0, 1, 3, 2)), (room[:2], room[:2][:, ::-1]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^out: got an array that overlaps residual, expected the resid"):
            sc.conv2d(X, W, padding=1, residual=residual, out=out)
    assert_exact(room, before)
    same = np.frombuffer(room[:2], np.float32).reshape(y.shape)
    assert_exact(sc.conv2d(X, W, padding=1, residual=room[:2], out=same), expected)
    assert_exact(room[:2], expected)
    x = X.copy()
    with pytest.raises(ValueError, match=r"^out: got an array that overlaps x"):
        sc.conv2d(x, W, padding=1, residual=x, out=x)
    assert_exact(sc.conv2d(x, W, padding=1, residual=x), sc.conv2d(x, W, padding=1) + x)  # both are only read
    assert_exact(x, X)
    frozen = y.copy()
    frozen.flags.writeable = False
    assert_exact(sc.conv2d(X, W, padding=1, residual=frozen), expected)
    with pytest.raises(ValueError, match=r"^out: got a read-only array"):
        sc.conv2d(X, W, padding=1, residual=frozen, out=frozen)


def test_unaligned_residuals_are_copied(isa):
    y = sc.conv2d(X, W, padding=1)
    raw = np.zeros(y.nbytes + 1, np.uint8)
    odd = np.ndarray(y.shape, np.float32, raw, 1)
    odd[...] = y
    assert_exact(sc.conv2d(X, W, padding=1, residual=odd), y + y)
    with pytest.raises(ValueError, match=r"^out: got an address"):
        sc.conv2d(X, W, padding=1, residual=odd, out=odd)


@pytest.mark.parametrize("name", LAYERS)
def test_plan(name):
    y = getattr(sc, name)(*LAYERS[name])
    with_residual = sc.plan(name, *LAYERS[name], residual=y)
    assert with_residual.kernel == sc.plan(name, *LAYERS[name]).kernel


@pytest.mark.parametrize("skip", SKIPS["forward"])
def test_prepared(isa, skip):
    """A residual is one more operand, which may be the result."""
    y = sc.conv2d(X, W, padding=1)
    prepared = sc.prepare("conv2d", X, W, padding=1, residual=y, activation="relu", skip=skip)
    assert prepared.operands == ("x", "weight", "residual")
    for seed in (1, 2):
        x, residual = sparse_ints(X.shape, 0.4, seed), 5 * sparse_ints(y.shape, 0.3, seed)
        expected = np.maximum(sc.conv2d(x, W, padding=1) + residual, 0)
        assert_exact(prepared(x, W, residual), expected)
        assert_exact(prepared(x, W, residual, out=residual), expected)
        room = np.concatenate([residual, residual])
        with pytest.raises(ValueError, match=r"^out: got an array that overlaps residual"):
            prepared(x, W, room[:2], out=room[1:3])
    with pytest.raises(TypeError, match=r"^residual: got none"):
        prepared(X, W)
