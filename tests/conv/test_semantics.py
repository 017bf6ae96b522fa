"""What zero, NaN, infinities, denormals and threads mean, in every kernel and on every instruction set."""

import itertools

import cases as shared
import numpy as np
import pytest
from cases import (
    FEW_CASES,
    LAYOUTS,
    PASSES,
    TRANSPOSED_CASES,
    Case,
    call,
    in_layout,
    operands,
    oracle,
    prepared,
    result_in_layout,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_same_bits

import sparseconv
from sparseconv import reference

# Zero weights, which are another operand's zeros, have their tests in test_weights.py.
SKIPS = {name: tuple(skip for skip in words if skip != "weight") for name, words in shared.SKIPS.items()}
SEMANTIC_CASES = (*FEW_CASES, *TRANSPOSED_CASES[:3])
EVERY_PASS = [(name, skip) for name in PASSES for skip in SKIPS[name]]
SKIPPED = [(name, skip) for name, skip in EVERY_PASS if skip not in ("auto", "none")]


def skipped_index(name, skip):
    """Which of the two operands of a pass the word in `skip` means."""
    return 1 if (name, skip) == ("backward_weight", "grad_output") else 0


@pytest.mark.parametrize("case", SEMANTIC_CASES, ids=str)
@pytest.mark.parametrize("name, skip", EVERY_PASS)
def test_negative_zero_is_zero(isa, case, name, skip):
    first, second, expected = prepared(case, name, 0.5)
    negative = [np.where(array == 0, np.float32(-0.0), array) for array in (first, second)]
    assert np.signbit(negative[0][first == 0]).all()
    assert_exact(call(sparseconv, case, name, *negative, skip=skip), expected)


@pytest.mark.parametrize("name, skip", SKIPPED)
def test_negative_zero_is_skipped(isa, name, skip):
    """Against infinity the sign of a skipped zero makes no difference either."""
    case = FEW_CASES[0]
    arrays = list(in_layout(case, name, *operands(case, name, 0.5)))
    index = skipped_index(name, skip)
    arrays[index] = np.full_like(arrays[index], -0.0)
    arrays[1 - index] = np.full_like(arrays[1 - index], np.inf)
    result = call(sparseconv, case, name, *arrays, skip=skip)
    assert not result.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("case", SEMANTIC_CASES, ids=str)
@pytest.mark.parametrize("name, skip", SKIPPED)
def test_zeros_are_skipped(isa, case, name, skip, bad):
    """A zero of the skipped operand contributes nothing, also against Inf and NaN."""
    arrays = [array.copy() for array in operands(case, name, 0.5)]
    index = skipped_index(name, skip)
    skipped, other = arrays[index], arrays[1 - index]
    if name == "backward_weight":  # an image is zero in one operand and poison in the other
        skipped[0] = 0
        poisoned = (0,)
    elif (name == "backward_data") != case.transposed:  # a channel is zero, and all of its weights are poison
        skipped[:, 0] = 0
        poisoned = (0,)
    else:  # the same where the weights count the channels of a group
        skipped[:, :: other.shape[1]] = 0
        poisoned = (slice(None), 0)
    other[poisoned] = 0
    expected = oracle(case, name, *arrays)
    other[poisoned] = bad
    assert_exact(call(sparseconv, case, name, *in_layout(case, name, *arrays), skip=skip), expected)


def check_nan(case, name, arrays, **more):
    """NaN reaches every result which it should, and otherwise at most those of the same image and channel.

    Whether NaN times padding is NaN is left open: the oracle has no padding to multiply, dense kernels may.
    """
    wanted = call(reference, case, name, *arrays, layout=LAYOUTS[case.ndim][0], **more)
    assert np.isnan(wanted).any()
    planes = np.isnan(wanted).any(axis=tuple(range(2, wanted.ndim)), keepdims=True)
    allowed = np.isnan(result_in_layout(case, name, np.where(planes, np.float32(np.nan), wanted)))
    wanted = result_in_layout(case, name, wanted)
    for skip in SKIPS[name]:
        actual = call(sparseconv, case, name, *in_layout(case, name, *arrays), skip=skip, **more)
        assert np.isnan(actual[np.isnan(wanted)]).all(), f"NaN was lost, skip={skip!r}"
        if case.padding:
            actual = np.where(np.isnan(actual) & allowed, wanted, actual)
        assert_exact(actual, wanted, f"skip={skip!r}")


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", SEMANTIC_CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_nan_propagates_from_either_operand(isa, case, name, index):
    """NaN is not zero: it is never skipped."""
    arrays = [array.copy() for array in operands(case, name, 0.0)]
    arrays[index][tuple(size // 2 for size in arrays[index].shape)] = np.nan
    check_nan(case, name, arrays)


@pytest.mark.parametrize("name, skip", EVERY_PASS)
def test_lonely_nan_and_infinity(isa, name, skip):
    """The only nonzero element of the sparse operand, in every lane and at the ends of 64 channels."""
    case = FEW_CASES[1]
    index = skipped_index(name, skip)
    for value in (np.nan, np.inf, -np.inf):
        arrays = list(operands(case, name, 0.0))
        for channel in (0, 7, 15):
            arrays[index] = np.zeros_like(arrays[index])
            arrays[index][0, channel, 1, 2] = value
            actual = call(sparseconv, case, name, *in_layout(case, name, *arrays), skip=skip)
            expected = oracle(case, name, *arrays)
            # 0 * weight is 0 here: the other operand is finite, so skipping cannot be seen
            assert_exact(actual, expected, f"{value} in channel {channel}")
            assert not np.isfinite(actual).all()


def test_infinite_input_leaves_pad_lanes_zero(isa):
    x = np.full((1, 1, 4, 5, 16), np.inf, np.float32)
    for skip in SKIPS["forward"]:
        y = sparseconv.conv2d(x, np.ones((17, 16, 3, 3), np.float32), layout="NCHW16c", skip=skip)
        assert (y[:, 0] == np.inf).all()
        assert (y[:, 1, ..., 0] == np.inf).all()
        assert not y[:, 1, ..., 1:].any()


def test_padding_is_skipped_like_zeros(isa):
    """With skipped inputs, padding contributes nothing even where the weights are infinite."""
    x, weight = np.zeros((1, 17, 3, 5), np.float32), np.full((18, 17, 3, 3), np.inf, np.float32)
    assert not sparseconv.conv2d(x, weight, padding=2, skip="input").any()
    x[0, 3, 1, 2] = 1
    y = sparseconv.conv2d(x, weight, padding=1, skip="input")
    assert not np.isnan(y).any()
    assert np.isinf(y[0, :, :, 1:4]).all()
    assert not y[0, :, :, 0].any()


def test_linear_semantics(isa):
    x, weight = sparse_ints((9, 40), 0.5, 1), sparse_ints((33, 40), 0.1, 2)
    x[:, 5] = 0
    clean = sparseconv.linear(x, weight)
    poisoned = weight.copy()
    poisoned[:, 5] = np.nan
    assert_exact(sparseconv.linear(x, poisoned, skip="input"), clean)
    x[3, 7] = np.nan
    for skip in SKIPS["forward"]:
        y = sparseconv.linear(x, weight, skip=skip)
        assert np.isnan(y[3]).all()
        assert np.isfinite(np.delete(y, 3, axis=0)).all()
    grads = sparse_ints((9, 33), 0.5, 3)
    grads[:, 2] = 0
    poisoned = weight.copy()
    poisoned[2] = np.inf
    clean = sparseconv.linear_backward_data(grads, weight)
    assert_exact(sparseconv.linear_backward_data(grads, poisoned, skip="grad_output"), clean)
    rows = sparse_ints((9, 40), 0, 4)
    rows[4] = 0
    grads[4] = np.nan
    assert np.isfinite(sparseconv.linear_backward_weight(rows, grads, skip="input")).all()
    rows[4], grads[4] = np.inf, 0
    assert np.isfinite(sparseconv.linear_backward_weight(rows, grads, skip="grad_output")).all()


@pytest.mark.parametrize("case", SEMANTIC_CASES, ids=str)
def test_relu_keeps_nan(isa, case):
    first, second = (array.copy() for array in operands(case, "forward", 0.0))
    first[0, 0] = np.nan
    second[-1, -1] = np.nan
    check_nan(case, "forward", [first, second], activation="relu")


# --- denormals and the state of the floating-point unit ---


def subnormals_survive():
    """Whether float32 arithmetic of NumPy on this thread still has gradual underflow."""
    tiny = np.full(64, 1e-40, np.float32)
    return bool((tiny + tiny > 0).all() and (tiny * np.float32(0.5) > 0).all() and np.float32(1e-40) * 2 > 0)


@pytest.mark.parametrize("case", SEMANTIC_CASES, ids=str)
@pytest.mark.parametrize("name, skip", EVERY_PASS)
def test_denormal_inputs_are_zeros(isa, case, name, skip):
    """Subnormal elements count as zeros, even times numbers so large that the product would matter."""
    given = operands(case, name, 0.0)
    for index, share in itertools.product((0, 1), (0.5, 1.0)):
        tiny = np.random.default_rng(index).random(given[index].shape) < share
        arrays, flushed = list(given), list(given)
        arrays[index] = np.where(tiny, np.sign(given[index]) * np.float32(1e-40), given[index])
        flushed[index] = np.where(tiny, np.float32(0), given[index])
        arrays[1 - index] = flushed[1 - index] = given[1 - index] * np.float32(2.0**100)
        expected = oracle(case, name, *flushed)
        actual = call(sparseconv, case, name, *in_layout(case, name, *arrays), skip=skip)
        assert_exact(actual, expected, f"operand {index}, share {share}")
    assert subnormals_survive()


@pytest.mark.parametrize("name, skip", EVERY_PASS)
def test_denormal_results_are_flushed(isa, name, skip):
    case = FEW_CASES[0]
    first, second = (array * np.float32(2.0**-72) for array in operands(case, name, 0.3))
    result = call(sparseconv, case, name, *in_layout(case, name, first, second), skip=skip)
    assert not result.any()


@pytest.mark.parametrize("padding", [1, (4, 0)])  # some results, or all, are reached by no input
def test_denormals_of_bias_and_residual_are_zeros(isa, padding):
    x, weight = np.zeros((1, 17, 1, 1), np.float32), np.ones((18, 17, 1, 1), np.float32)
    x = x[:, :, :0] if padding == (4, 0) else x
    bias = np.full(18, 1e-40, np.float32)
    y = sparseconv.conv2d(x, weight, bias, stride=(2, 1), padding=padding)
    assert y.size and not y.any()
    residual = np.full_like(y, 1e-40)
    residual[0, 0] = 2
    y = sparseconv.conv2d(x, weight, bias, stride=(2, 1), padding=padding, residual=residual)
    assert (y[0, 0] == 2).all() and not y[0, 1:].any()


@pytest.mark.parametrize("channels, out", [(2, 18), (16, 64)])
def test_denormals_of_the_bias_of_narrow_groups_are_zeros(isa, channels, out):
    """Their kernels write the bias itself where nothing is summed."""
    x, weight = np.zeros((2, 7, 7, channels), np.float32), np.ones((out, channels // 2, 1, 1), np.float32)
    bias = np.full(out, 1e-40, np.float32)
    bias[0] = 2
    y = sparseconv.conv2d(x, weight, bias, stride=2, padding=4, groups=2, layout="NHWC")
    assert (y[..., 0] == 2).all() and not y[..., 1:].any()


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_floating_point_state_is_restored(isa, num_threads):
    assert subnormals_survive()
    for case in SEMANTIC_CASES:
        for name, skip in EVERY_PASS:
            first, second, _ = prepared(case, name, 0.5)
            call(sparseconv, case, name, first, second, skip=skip, num_threads=num_threads)
            assert subnormals_survive(), f"{case} {name} skip={skip!r}"
    sparseconv.linear(np.ones((9, 40), np.float32), np.ones((5, 40), np.float32), num_threads=num_threads)
    sparseconv.grad_bias(np.ones((2, 3, 4, 5), np.float32), num_threads=num_threads)
    assert subnormals_survive()


def test_floating_point_state_is_restored_after_errors(isa):
    with pytest.raises(ValueError, match="stride"):
        sparseconv.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32), stride=0)
    assert subnormals_survive()


@pytest.mark.parametrize("scales", [(1e38, 1e38), (1e-30, 1e-30), (np.inf, 1.0)], ids=str)
@pytest.mark.parametrize("name, skip", EVERY_PASS)
def test_no_floating_point_warnings(isa, name, skip, scales):
    """Overflow, underflow and invalid operations inside a kernel are silent."""
    case = FEW_CASES[0]
    arrays = [
        np.where(array == 0, 0, np.copysign(np.float32(scale), array)).astype(np.float32)
        for array, scale in zip(operands(case, name, 0.3), scales, strict=True)
    ]
    with np.errstate(all="raise"):
        call(sparseconv, case, name, *in_layout(case, name, *arrays), skip=skip)


# --- threads ---

THREADED = (
    *FEW_CASES,
    *TRANSPOSED_CASES[:2],
    Case(130, 72, (17, 35), (3, 3), batch=3, padding=1),
    Case(64, 64, (14, 14), (3, 3), batch=5, padding=1, kind=1),
    Case(64, 130, (7, 7), (1, 1), batch=1, kind=2),
)


@pytest.mark.parametrize("case", THREADED, ids=str)
@pytest.mark.parametrize("sparsity", [0.5, 0.92])
@pytest.mark.parametrize("name", PASSES)
def test_same_bits_for_any_number_of_threads(isa, case, name, sparsity):
    first, second = in_layout(case, name, *operands(case, name, sparsity, make=sparse_floats))
    for skip in SKIPS[name]:
        serial = call(sparseconv, case, name, first, second, skip=skip, num_threads=1)
        for num_threads in (2, 3, 4, 7, None):
            actual = call(sparseconv, case, name, first, second, skip=skip, num_threads=num_threads)
            assert_same_bits(actual, serial, f"num_threads={num_threads} skip={skip!r}")


@pytest.mark.parametrize("kernel, padding", [(3, 1), (3, 2), (5, 2)])
def test_padding_is_never_multiplied(isa, kernel, padding):
    """An infinite weight at a tap that meets padding adds nothing there, however threads cut the row."""
    weight = np.ones((64, 64, kernel), np.float32)
    weight[::7, ::5, 0], weight[::5, ::7, -1] = np.inf, np.inf
    for width in (60, 193, 319):
        x = np.ones((1, 64, width), np.float32)
        results = [
            sparseconv.conv1d(x, weight, padding=padding, skip=skip, num_threads=threads)
            for skip, threads in itertools.product(("none", "input"), (1, 2, 3, 4))
        ]
        assert not np.isnan(results[0]).any() and np.isinf(results[0]).any()
        for one in results[1:]:
            np.testing.assert_array_equal(np.isinf(one), np.isinf(results[0]))
            assert not np.isnan(one).any()


def test_grad_bias_same_bits_for_any_number_of_threads(isa):
    grads = sparse_floats((5, 130, 17, 35), 0.5, 1)
    for layout in ("NCHW", "NHWC", "NCHW16c"):
        moved = to_layout(grads, layout)
        serial = sparseconv.grad_bias(moved, layout=layout, num_threads=1)
        for num_threads in (2, 3, 4, 7):
            assert_same_bits(sparseconv.grad_bias(moved, layout=layout, num_threads=num_threads), serial)


@pytest.mark.parametrize("name", PASSES)
def test_repeated_calls_give_the_same_bits(isa, name):
    case = THREADED[-2]
    first, second = in_layout(case, name, *operands(case, name, 0.5, make=sparse_floats))
    once = call(sparseconv, case, name, first, second)
    for _ in range(5):
        assert_same_bits(call(sparseconv, case, name, first, second), once)
