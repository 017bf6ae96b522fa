"""backward_weight from lists of nonzeros, which Intel's CPUs take in the place of words of bits."""

import numpy as np
import pytest
from cases import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    SPARSITIES,
    Case,
    call,
    in_layout,
    operands,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_same_bits, check_exact
from task_structs import forget_plans

import sparseconv as sc
from sparseconv import reference
from sparseconv._core import _cpu, gradient, processor

SIDES = ("input", "grad_output")
# Chunks of several images, of parts of one, with a rest, of one row in segments; more than one block of channels.
SHAPES = (
    Case(40, 70, (7, 7), (3, 3), batch=9, padding=1, kind=1),
    Case(300, 33, (14, 14), (3, 3), batch=3, padding=1, kind=1),
    Case(20, 40, (56, 30), (3, 3), batch=2, padding=1, kind=1),
    Case(20, 40, (9, 230), (3, 3), batch=2, padding=1, kind=1),
    Case(33, 40, (15, 17), (3, 3), batch=2, padding=1, stride=2, kind=1),
    Case(33, 150, (1, 700), (1, 1), batch=2, kind=1),
    Case(17, 20, (19, 18), (5, 5), batch=2, padding=2, kind=1),
)


@pytest.fixture
def lists(monkeypatch):
    """Kernels read lists, whatever the CPU is."""
    monkeypatch.setattr(processor, "prefers_lists", lambda: True)
    forget_plans()
    yield
    forget_plans()


@pytest.mark.parametrize("case", [*CASES, *SHAPES], ids=str)
def test_exact(isa, lists, case):
    check_exact(sc, case, "backward_weight")


@pytest.mark.parametrize("odd", [0.5, np.inf, np.nan])
@pytest.mark.parametrize("case", [*FEW_CASES, *SHAPES], ids=str)
def test_bits_of_words(isa, monkeypatch, case, odd):
    """Sums end where they do without lists, if blocks are the same; what is not finite is summed once more."""
    blocking, results = gradient.blocking, []
    for listed in (0, 1):
        monkeypatch.setattr(gradient, "blocking", lambda *use, listed=listed: {**blocking(*use), "listed": listed})
        forget_plans()
        for sparsity in SPARSITIES:
            first, second = operands(case, "backward_weight", sparsity, 3, sparse_floats)
            first[0, 0], second[-1, -1] = odd, odd
            first, second = in_layout(case, "backward_weight", first, second)
            results += [call(sc, case, "backward_weight", first, second, skip=skip) for skip in SIDES]
    forget_plans()
    half = len(results) // 2
    for words, listed in zip(results[:half], results[half:], strict=True):
        assert_same_bits(listed, words)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_threads_change_no_bit(isa, lists, case):
    first, second = operands(case, "backward_weight", 0.7, 3, sparse_floats)
    first, second = in_layout(case, "backward_weight", first, second)
    for skip in SIDES:
        one, two = [
            call(sc, case, "backward_weight", first, second, skip=skip, num_threads=threads) for threads in (1, 3)
        ]
        assert_same_bits(two, one)


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_known_nonzeros_and_thresholds(isa, lists, layout, kernel):
    """Masks say which elements count, zeros among them; magnitudes up to a threshold do not."""
    x = to_layout(sparse_ints((3, 35, 9, 13), 0.6, 1), layout)
    grad_output = to_layout(sparse_ints((3, 45, 9, 13), 0.6, 2), layout)
    options = {"padding": kernel // 2, "layout": layout}
    shape = (45, 35, kernel, kernel)
    expected = reference.conv2d_backward_weight(x, grad_output, shape, **options)
    masks = {"input": {"input_mask": x != 0}, "grad_output": {"grad_output_mask": grad_output != 0}}
    for skip, mask in masks.items():
        actual = sc.conv2d_backward_weight(x, grad_output, shape, skip=skip, **options, **mask)
        assert_exact(actual, expected, f"{skip=}")
    kept = np.where(np.abs(x) > 1, x, 0)
    expected = reference.conv2d_backward_weight(kept, grad_output, shape, **options)
    actual = sc.conv2d_backward_weight(x, grad_output, shape, skip="input", threshold=1.0, **options)
    assert_exact(actual, expected)


def test_intel_takes_lists(isa, vendor):
    """The lists' blocks, too, follow from the vendor: elsewhere nothing has changed."""
    lists = vendor == "intel" and isa in ("avx512", "amx", "amx_fp16")
    x, grad_output = np.ones((2, 16, 14, 14, 64), np.float32)
    x[..., ::2] = 0
    plan = sc.plan("conv2d_backward_weight", x, grad_output, 3, padding=1, layout="NHWC", skip="input")
    assert plan.kernel == "gradient_skip"
    assert plan.blocking["listed"] == lists
    if _cpu.registers()[0] == 28:
        assert plan.blocking["lane_vectors"] == 2
        assert plan.blocking["chunk_rows"] == (14 if lists else 10)  # an image
