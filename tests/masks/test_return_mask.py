"""`return_mask=True`: the bit mask of ReLU's result, written in the last store or by a second look."""

from dataclasses import replace

import numpy as np
import pytest
from cases import FEW_CASES, TRANSPOSED_CASES, Case, call, operands, oracle, sparse_floats, sparse_ints, to_layout
from comparisons import assert_exact, assert_same_bits

import sparseconv as sc
from sparseconv import masks

# Pixels of whole vectors with channels last: kernels write the mask.
WRITTEN = (
    FEW_CASES[1],
    FEW_CASES[6],
    Case(17, 16, (5, 14), (3, 3), padding=1, kind=1),
    Case(48, 64, (4, 7), (1, 1), kind=1),
    Case(64, 144, (9, 7), (3, 3), stride=2, padding=1, kind=1),
    Case(33, 48, (6, 9), (3, 2), dilation=2, padding=((2, 1), (0, 3)), kind=1),
    Case(34, 64, (5, 17), (3, 3), stride=(1, 2), padding=1, groups=2, kind=1),
    Case(17, 160, (35,), (5,), padding=2, kind=1),
    Case(3, 32, (3, 5, 7), (2, 3, 3), padding=1, kind=1),
    Case(16, 16, (1, 1), (1, 1), batch=17),  # channels lie side by side under any name
    Case(16, 48, (1, 1), (1, 1), batch=3, kind=2),
    Case(16, 32, (5, 14), (2, 2), stride=2, kind=1, transposed=True),
    Case(33, 16, (4, 5), (2, 2), stride=3, output_padding=(2, 0), kind=1, transposed=True),  # columns without a tap
    Case(34, 96, (4, 5), (3, 3), stride=2, padding=1, groups=2, kind=1, transposed=True),
)
# Other orders of memory, partial vectors, groups that begin within a vector.
LOOKED_AT = (
    *(case for case in FEW_CASES if case not in WRITTEN),
    *TRANSPOSED_CASES[:3],
    Case(17, 32, (5, 14), (3, 3), padding=1),
    Case(17, 32, (5, 14), (3, 3), padding=1, kind=2),
    Case(16, 48, (5, 7), (3, 3), padding=1, groups=2, kind=1),
    Case(48, 40, (4, 7), (1, 1), kind=1),
    Case(17, 33, (4, 5), (3, 3), batch=0, kind=1),
)
SKIPS = ("auto", "none", "input")


@pytest.fixture
def second_looks(monkeypatch):
    """Counts how often a mask is made from a finished result."""
    looks = []

    def nonzero_mask(x):
        looks.append(x.shape)
        return original(x)

    original = masks.nonzero_mask
    monkeypatch.setattr(masks, "nonzero_mask", nonzero_mask)
    return looks


def layer(case, sparsity=0.5, make=sparse_ints):
    """x in the layout of the case, weight and bias."""
    x, weight = operands(case, "forward", sparsity, make=make)
    return to_layout(x, case.layout, pad=np.nan), weight, make((case.out_c,), 0.2, 9)


def mask_of(array):
    """Written without the package: one bit per element in C order, lowest first."""
    return np.packbits(np.ascontiguousarray(array) != 0, bitorder="little")


@pytest.mark.parametrize("case", WRITTEN + LOOKED_AT, ids=str)
def test_mask_of_the_result(isa, case, second_looks):
    """Where results do not leave as whole vectors it is found in a second look."""
    for sparsity in (0.0, 0.5, 0.95):
        x, weight, bias = layer(case, sparsity)
        for skip in SKIPS:
            expected = call(sc, case, "forward", x, weight, bias=bias, skip=skip, activation="relu")
            y, mask = call(sc, case, "forward", x, weight, bias=bias, skip=skip, activation="relu", return_mask=True)
            assert_exact(y, expected)
            assert_exact(mask, mask_of(expected), f"sparsity={sparsity} skip={skip!r}")
            if y.size:
                assert 0.02 < np.unpackbits(mask).mean() < 0.98
    assert len(second_looks) == (0 if case in WRITTEN else 3 * len(SKIPS))
    images, weight = operands(case, "forward", 0.95)
    assert_exact(y, oracle(case, "forward", images, weight, bias=bias, activation="relu"))


@pytest.mark.parametrize("case", WRITTEN, ids=str)
def test_any_number_of_threads(isa, case):
    """No two of them write to one byte; and every byte is written, whatever was there before."""
    x, weight, bias = layer(replace(case, batch=40), 0.6, sparse_floats)
    options = {"bias": bias, "activation": "relu", "return_mask": True}
    for skip in SKIPS:
        y, mask = call(sc, case, "forward", x, weight, skip=skip, num_threads=1, **options)
        for threads in (2, 3, 7):
            again = call(sc, case, "forward", x, weight, skip=skip, num_threads=threads, **options)
            assert_same_bits(again[0], y)
            assert_exact(again[1], mask)
        assert_exact(mask, mask_of(y))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("skip", ["none", "input"])
def test_results_past_the_caches(isa, kernel, skip, second_looks):
    """They are streamed, by several threads; of several taps not by tile kernels."""
    x, weight = sparse_ints((2, 100, 100, 32), 0.8, 1), sparse_ints((192, 32, kernel, kernel), 0, 2)
    options = {"padding": kernel // 2, "layout": "NHWC", "activation": "relu", "skip": skip, "num_threads": 2}
    plan = sc.plan("conv2d", x, weight, **options)
    on_tiles = plan.kernel == "rows_tiles"
    assert plan.blocking["stream"] == (not on_tiles or kernel == 1)
    assert not on_tiles or isa.startswith("amx")
    y, mask = sc.conv2d(x, weight, return_mask=True, **options)
    assert_exact(y, sc.conv2d(x, weight, **options))
    assert_exact(mask, mask_of(y))
    assert not second_looks


@pytest.mark.parametrize("skip", SKIPS)
def test_nan_infinity_and_denormals(isa, skip):
    """NaN and Inf are no zeros; denormal biases give zeros, in the result as in its mask."""
    x, weight, bias = layer(WRITTEN[3], 0.5)
    x[0, 0, 0, 0], x[0, 1, 2, 3] = np.nan, np.inf
    x[1, 2] = 0
    bias[:] = -1
    bias[::3], bias[1::3] = 1e-40, -0.0
    y, mask = sc.conv2d(x, weight, bias, layout="NHWC", activation="relu", skip=skip, return_mask=True)
    assert np.isnan(y).any()
    assert np.isinf(y).any()
    assert not y[1, 2].any()
    assert_exact(mask, mask_of(y))


def test_given_results(isa, second_looks):
    """The mask has the C order of the shape, whatever the order of `out` is in memory."""
    x, weight, bias = layer(WRITTEN[2])
    options = {"padding": 1, "layout": "NHWC", "activation": "relu"}
    expected = sc.conv2d(x, weight, bias, **options)
    shape = expected.shape
    room = np.empty((shape[0], shape[1], shape[2], 3 * shape[3]), np.float32)
    outs = {
        "contiguous": (np.empty(shape, np.float32), 0),
        "channels with gaps": (room[..., ::3], 1),
        "pixels with gaps": (room[..., : shape[3]], 1),
        "transposed": (np.empty(shape[::-1], np.float32).T, 1),
    }
    for name, (out, looks) in outs.items():
        second_looks.clear()
        y, mask = sc.conv2d(x, weight, bias, out=out, return_mask=True, **options)
        assert y is out
        assert_exact(np.ascontiguousarray(y), expected, name)
        assert_exact(mask, mask_of(expected), name)
        assert len(second_looks) == looks, name
    out = np.empty(shape, np.float32).transpose(0, 3, 1, 2)  # NHWC memory under the name of NCHW
    y, mask = sc.conv2d(x.transpose(0, 3, 1, 2), weight, bias, padding=1, activation="relu", return_mask=True, out=out)
    assert_exact(np.ascontiguousarray(y), np.ascontiguousarray(expected.transpose(0, 3, 1, 2)))
    assert_exact(mask, mask_of(y))


@pytest.mark.parametrize("shape", [(70,), (9, 70), (3, 5, 70), (1, 1, 70), (0, 70)], ids=str)
@pytest.mark.parametrize("features", [33, 48])
def test_linear(isa, shape, features, second_looks):
    x, weight, bias = sparse_ints(shape, 0.5, 1), sparse_ints((features, 70), 0, 2), sparse_ints((features,), 0.2, 3)
    expected = sc.linear(x, weight, bias, activation="relu")
    y, mask = sc.linear(x, weight, bias, activation="relu", return_mask=True)
    assert_exact(y, expected)
    assert_exact(mask, mask_of(expected))
    assert len(second_looks) == (1 if features == 33 or not x.size else 0)


def test_float64():
    x, weight = sparse_ints((2, 8, 6, 16), 0.5, 1).astype(np.float64), sparse_ints((32, 16, 3, 3), 0, 2)
    y, mask = sc.conv2d(x, weight.astype(np.float64), layout="NHWC", activation="relu", return_mask=True)
    assert y.dtype == np.float64
    assert_exact(mask, mask_of(y))
    y, mask = sc.linear(x, np.eye(16), activation="relu", return_mask=True)
    assert_exact(mask, mask_of(x > 0))


def test_with_a_threshold(isa):
    x, weight, bias = layer(WRITTEN[3], 0.3)
    expected = sc.conv2d(np.where(np.abs(x) <= 2, np.float32(0), x), weight, bias, layout="NHWC", activation="relu")
    y, mask = sc.conv2d(x, weight, bias, layout="NHWC", activation="relu", threshold=2, return_mask=True)
    assert_exact(y, expected)
    assert_exact(mask, mask_of(expected))


# --- the argument ---

X, W, GRAD = sparse_ints((2, 16, 6, 6), 0.5, 1), sparse_ints((16, 16, 3, 3), 0, 2), sparse_ints((2, 16, 4, 4), 0.5, 3)
LAYERS = {"conv2d": (X, W), "conv_transpose2d": (GRAD, W), "linear": (X[0, 0], W[:5, :6, 0, 0])}


@pytest.mark.parametrize("name", LAYERS)
def test_no_mask_without_relu(name):
    out = np.full_like(getattr(sc, name)(*LAYERS[name]), -7777)
    for more in ({}, {"activation": None}):
        with pytest.raises(ValueError, match=r"^return_mask: got True without .*activation='relu'"):
            getattr(sc, name)(*LAYERS[name], return_mask=True, out=out, **more)
        with pytest.raises(ValueError, match=r"^return_mask: "):
            sc.plan(name, *LAYERS[name], return_mask=True, **more)
        assert isinstance(getattr(sc, name)(*LAYERS[name], return_mask=False, **more), np.ndarray)
    assert (out == -7777).all()


@pytest.mark.parametrize("bad", [None, 0, 1, 1.0, "yes", np.ones(1, bool), []], ids=repr)
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_no_flag(name, bad):
    for good in (True, False, np.True_, np.False_):
        result = getattr(sc, name)(*LAYERS[name], activation="relu", return_mask=good)
        assert isinstance(result, tuple) == bool(good)
        with pytest.raises(TypeError, match=r"^return_mask: got .*, expected True or False"):
            getattr(sc, name)(*LAYERS[name], activation="relu", return_mask=bad)


@pytest.mark.parametrize("name", LAYERS)
def test_plan(name):
    plan = sc.plan(name, *LAYERS[name], activation="relu", return_mask=True)
    assert plan == sc.plan(name, *LAYERS[name], activation="relu")


def test_gradients_have_no_mask():
    for name, arguments in (("conv2d_backward_data", (GRAD, W, X.shape)), ("conv2d_backward_weight", (X, GRAD, 3))):
        with pytest.raises(TypeError):
            getattr(sc, name)(*arguments, return_mask=True)
        with pytest.raises(TypeError):
            sc.plan(name, *arguments, return_mask=True)
