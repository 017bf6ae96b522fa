"""input_mask and grad_output_mask: known zeros of the operand that is skipped, in all passes."""

import re

import numpy as np
import pytest
from cases import CASES, FEW_CASES, PASSES, call, in_layout, operands, oracle, prepared, sparse_ints
from comparisons import assert_exact

import sparseconv

SCALARS = {"forward": ("input",), "backward_data": ("grad_output",), "backward_weight": ("input", "grad_output")}
KINDS = {
    "floats": lambda array: array,
    "bools": lambda array: array != 0,
    "bits": sparseconv.masks.nonzero_mask,
    "compressed": sparseconv.compress,
}


def of_scalar(name, scalar, first, second):
    return second if (name, scalar) == ("backward_weight", "grad_output") else first


def both(case, name, sparsity, seed=0):
    """Operands in the layout of the case, lanes without a channel being zero: no mask may know of them."""
    first, second = in_layout(case, name, *operands(case, name, sparsity, seed))
    return np.nan_to_num(first), np.nan_to_num(second)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_exact(isa, name, case):
    first, second = both(case, name, 0.6)
    expected = prepared(case, name, 0.6)[2]
    for scalar in SCALARS[name]:
        array = of_scalar(name, scalar, first, second)
        for kind, make in KINDS.items():
            for skip in (scalar, "auto", "none"):
                mask = {f"{scalar}_mask": make(array)}
                assert_exact(call(sparseconv, case, name, first, second, skip=skip, **mask), expected, f"{kind} {skip}")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_masks_are_what_is_looked_at(isa, name, case):
    """The skipping kernels read no element that the mask leaves out: with half of it gone, so is that half."""
    plain = operands(case, name, 0.3)
    for scalar in SCALARS[name]:
        place = 1 if (name, scalar) == ("backward_weight", "grad_output") else 0
        kept = np.random.default_rng(7).random(plain[place].shape) < 0.5
        masked = list(plain)
        masked[place] = np.where(kept, plain[place], 0)
        expected = oracle(case, name, *masked)
        assert np.count_nonzero(expected) > 0.3 * expected.size
        first, second = (np.nan_to_num(array) for array in in_layout(case, name, *plain))
        bools = np.nan_to_num(in_layout(case, name, *[np.where(kept, 1, 0).astype(np.float32)] * 2)[0]) != 0
        for mask in (bools, sparseconv.masks.pack(bools)):
            for threads in (1, 3):
                words = {f"{scalar}_mask": mask, "skip": scalar, "num_threads": threads}
                assert_exact(call(sparseconv, case, name, first, second, **words), expected)


@pytest.mark.parametrize("sparsity", [0.5, 0.95])
@pytest.mark.parametrize("size", [(7, 9), (3, 70)], ids=str)
def test_other_memory_orders(isa, sparsity, size):
    """A mask need not lie in memory as its operand does."""
    x, weight = sparse_ints((3, 72, *size), sparsity, 1), sparse_ints((40, 72, 3, 3), 0, 2)
    grads = sparse_ints((3, 40, *size), 0.2, 3)
    expected = sparseconv.conv2d(x, weight, padding=1, skip="none")
    gradient = sparseconv.conv2d_backward_weight(x, grads, 3, padding=1, skip="none")
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # the same with other strides
    for array in (x, pixels):
        for mask in (
            x,
            pixels,
            x != 0,
            pixels != 0,
            (x != 0)[:, ::1, :, ::-1][..., ::-1],
            sparseconv.masks.pack(x != 0),
        ):
            actual = sparseconv.conv2d(array, weight, padding=1, skip="input", input_mask=mask)
            assert_exact(actual, expected)
            actual = sparseconv.conv2d_backward_weight(array, grads, 3, padding=1, skip="input", input_mask=mask)
            assert_exact(actual, gradient)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [63, 127])
def test_words_with_one_bit_to_spare(isa, channels, kernel):
    """A word of a mask has 64 channels; the bit behind 63 of them is none, whatever the next pixel is."""
    x = sparse_ints((2, 4, 5, channels), 0.5, 1)
    weight, grads = sparse_ints((channels, channels, kernel, kernel), 0, 2), sparse_ints(x.shape, 0.5, 3)
    pixels = np.random.default_rng(4).random((2, 4, 5)) < 0.6
    words = {"padding": kernel // 2, "layout": "NHWC"}
    for operand, zeros in ((x, grads), (grads, x)):
        known = np.where(pixels[..., None], operand, 0)
        whole = sparseconv.conv2d_backward_data(zeros, weight, x.shape, skip="none", **words)
        for array, makes in ((operand, KINDS.values()), (known, (lambda _: pixels,))):
            expected = {
                "input": sparseconv.conv2d(array, weight, skip="none", **words),
                "grad_output": sparseconv.conv2d_backward_data(array, weight, x.shape, skip="none", **words),
                "output": np.where(array if array is operand else pixels[..., None], whole, 0),
            }
            for make in makes:
                mask = make(array)
                got = sparseconv.conv2d(array, weight, skip="input", input_mask=mask, **words)
                assert_exact(got, expected["input"])
                data = sparseconv.conv2d_backward_data
                got = data(array, weight, x.shape, skip="grad_output", grad_output_mask=mask, **words)
                assert_exact(got, expected["grad_output"])
                got = data(zeros, weight, x.shape, skip="output", output_mask=mask, **words)
                assert_exact(got, expected["output"])


@pytest.mark.parametrize("name", PASSES)
def test_linear(isa, name):
    x, weight = sparse_ints((4, 9, 70), 0.6, 1), sparse_ints((37, 70), 0.1, 2)
    grads = sparse_ints((4, 9, 37), 0.6, 3)
    function = {"forward": "linear"}.get(name, f"linear_{name}")
    first, second = {"forward": (x, weight), "backward_data": (grads, weight), "backward_weight": (x, grads)}[name]
    expected = getattr(sparseconv, function)(first, second, skip="none")
    for scalar in SCALARS[name]:
        array = of_scalar(name, scalar, first, second)
        for make in KINDS.values():
            actual = getattr(sparseconv, function)(first, second, skip=scalar, **{f"{scalar}_mask": make(array)})
            assert_exact(actual, expected)


def test_from_layer_to_layer(isa):
    """One mask serves the next forward, backward_data of this layer's input, and backward_weight."""
    x, first = sparse_ints((2, 14, 14, 32), 0.5, 1), sparse_ints((48, 32, 3, 3), 0, 2)
    second = sparse_ints((16, 48, 3, 3), 0, 3)
    words = {"padding": 1, "layout": "NHWC"}
    hidden, mask = sparseconv.conv2d(x, first, activation="relu", return_mask=True, **words)
    assert 0.2 < np.count_nonzero(hidden) / hidden.size < 0.8
    y = sparseconv.conv2d(hidden, second, skip="input", input_mask=mask, **words)
    assert_exact(y, sparseconv.conv2d(hidden, second, skip="none", **words))
    grads = sparse_ints(y.shape, 0, 4)
    hidden_grads = sparseconv.conv2d_backward_data(grads, second, hidden.shape, output_mask=mask, **words)
    plain = sparseconv.conv2d_backward_data(grads, second, hidden.shape, skip="none", **words)
    assert_exact(hidden_grads, np.where(hidden > 0, plain, 0))
    for skip in ("grad_output", "auto"):
        actual = sparseconv.conv2d_backward_weight(x, hidden_grads, 3, skip=skip, grad_output_mask=mask, **words)
        assert_exact(actual, sparseconv.conv2d_backward_weight(x, hidden_grads, 3, skip="none", **words))


def test_plan_looks_at_the_mask():
    x, weight = np.ones((2, 28, 28, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    mask = np.random.default_rng(0).random(x.shape) < 0.1
    for given in (mask, sparseconv.masks.pack(mask)):
        plan = sparseconv.plan("conv2d", x, weight, padding=1, layout="NHWC", input_mask=given)
        assert plan.skip == "input"
        assert plan.density["input"] == pytest.approx(0.1, abs=0.03)


def test_errors():
    x, weight = np.ones((2, 8, 8, 16), np.float32), np.ones((16, 16, 3, 3), np.float32)
    words = {"layout": "NHWC"}
    with pytest.raises(ValueError, match=r"input_mask: got shape \(2, 8, 8, 15\), expected \(2, 8, 8, 16\)"):
        sparseconv.conv2d(x, weight, input_mask=np.ones((2, 8, 8, 15), bool), **words)
    with pytest.raises(ValueError, match=r"input_mask: got shape \(255,\), expected a bit mask of shape \(256,\)"):
        sparseconv.conv2d(x, weight, input_mask=np.zeros(255, np.uint8), **words)
    with pytest.raises(TypeError, match="input_mask: got dtype int64"):
        sparseconv.conv2d(x, weight, input_mask=np.ones(x.shape, np.int64), **words)
    with pytest.raises(TypeError, match="input_mask: got dtype float64, expected float32"):
        sparseconv.conv2d(x, weight, input_mask=np.ones(x.shape), **words)
    with pytest.raises(TypeError, match="input_mask: got list"):
        sparseconv.conv2d(x, weight, input_mask=[1], **words)
    with pytest.raises(ValueError, match=r"threshold: got 0.5 with input_mask, expected 0"):
        sparseconv.conv2d(x, weight, input_mask=x, threshold=0.5, **words)
    with pytest.raises(ValueError, match="grad_output_mask: got shape"):
        sparseconv.conv2d_backward_weight(x, x[:, :6, :6], 3, grad_output_mask=x, **words)
    with pytest.raises(ValueError, match="out: got an array that overlaps input_mask"):
        mask = np.ones((2, 8, 8, 16), np.float32)
        sparseconv.conv2d(x, weight, input_mask=mask, out=mask[:, :6, :6], **words)


@pytest.mark.parametrize("make", [sparseconv.compress, sparseconv.pack_spikes])
def test_masks_that_know_another_shape(make):
    """As many bits, in another order: without a look at the shape they would be taken."""
    x, weight = sparse_ints((2, 3, 8), 0.5, 1), sparse_ints((5, 8), 0, 2)
    grad, needed = sparse_ints((2, 3, 5), 0.5, 3), sparse_ints((5, 8), 0.5, 4)
    np.testing.assert_array_equal(sparseconv.linear(x, weight, input_mask=make(x)), x @ weight.T)
    words = {"input_mask": make(x), "grad_output_mask": make(grad), "output_mask": make(needed)}
    expected = np.einsum("abi,abo->oi", x, grad) * (needed != 0)
    assert np.mean(expected != 0) > 0.2
    np.testing.assert_array_equal(sparseconv.linear_backward_weight(x, grad, **words), expected)
    for name, mask in words.items():
        turned = make(np.ascontiguousarray(mask.to_dense().swapaxes(0, 1)).astype(np.float32))
        message = re.escape(f"{name}: got shape {turned.shape}, expected {mask.shape}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            sparseconv.linear_backward_weight(x, grad, **words | {name: turned})


def test_float64():
    """NumPy computes it: what the mask says is there anyway."""
    x, weight = sparse_ints((2, 8, 8, 16), 0.5, 1).astype(np.float64), np.ones((16, 16, 3, 3))
    actual = sparseconv.conv2d(x, weight, layout="NHWC", input_mask=x != 0)
    assert_exact(actual, sparseconv.conv2d(x, weight, layout="NHWC"))
