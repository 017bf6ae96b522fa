"""The tile kernels of AMX-FP16, two fp16 parts for a float32, on emulated tile registers.

What they share with those of AMX-BF16 is tested in test_amx.py. No CPU with AMX-FP16 has run them: that TDPFP16PS does
what the emulation does is what the prototypes found on silicon.
"""

import dataclasses

import numpy as np
import pytest
from amx_emulated import emulation, needs_compiler
from cases import FEW_CASES, PASSES, TRANSPOSED_CASES, Case, call, in_layout, operands, oracle, prepared, sparse_floats
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from task_structs import forget_plans
from tile_cases import BIG_CASES, active, error_of_torch, floats, on_tiles, special

import sparseconv as sc
from sparseconv import cpu
from sparseconv._core import _cpu
from sparseconv._core import amx as amx_blocks

pytestmark = needs_compiler

# Sums of 64 terms and more in all passes.
ACCURATE_CASES = (BIG_CASES[0], BIG_CASES[2], Case(96, 80, (30, 31), (1, 1), batch=3, kind=1))


@pytest.fixture
def fp16(built):
    """The package as on AMX-FP16; afterwards, that tiles were really used."""
    products = built.counter("products")
    with active(built, fp16=True):
        yield built
    assert built.counter("products") > products


@pytest.fixture
def fp16_or_vectors(built):
    """The same where the tile kernels may leave all of the work to vectors."""
    with active(built, fp16=True):
        yield built


@pytest.fixture
def few_terms(monkeypatch):
    """Two fp16 parts however few terms a sum has."""
    monkeypatch.setattr(amx_blocks, "FP16_TERMS", 0)


def vectors_alone(case, name, arrays):
    """What the dense vector kernel gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cpu, "has_tiles", lambda: False)
        forget_plans()
        result = call(sc, case, name, *arrays, skip="none")
    forget_plans()
    return result


def relu(shape, sparsity, seed):
    return np.maximum(sparse_floats(shape, 0.0, seed), 0)


def log_normal(shape, sparsity, seed):
    """Over six decades."""
    rng = np.random.default_rng(seed)
    return (rng.choice((-1, 1), shape) * np.exp(1.5 * rng.standard_normal(shape))).astype(np.float32)


def heavy_tailed(shape, sparsity, seed):
    """Student's t with three degrees of freedom, whose fourth moment is infinite."""
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


def very_wide(shape, sparsity, seed):
    """Log-normal over 20 decades."""
    rng = np.random.default_rng(seed)
    return (rng.choice((-1, 1), shape) * np.exp(5 * rng.standard_normal(shape))).astype(np.float32)


# --- the emulation itself, and what is planned ---


def test_known_product(built):
    """What decides at run time whether the product is to be trusted; fp16 numbers that are denormal count."""
    with built.active(fp16=True):
        assert built.library.emulated_works() == 1
        built.set("fault", 1)
        try:
            assert built.library.emulated_works() == 0
        finally:
            built.set("fault", 0)


def test_plans_use_two_parts(fp16):
    case = BIG_CASES[0]
    first, second, _ = prepared(case, "forward", 0.0)
    call(sc, case, "forward", first, second, skip="none")
    for precision, parts, products in (("highest", 2, "3 fp16"), ("high", 2, "3 fp16"), ("medium", 1, "1 bf16")):
        plan = sc.plan("conv2d", first, second, padding=1, layout="NHWC", skip="none", precision=precision)
        assert (plan.isa, plan.kernel, plan.blocking["parts"]) == ("amx_fp16", "rows_tiles", parts)
        assert f"on tile registers, {products} product" in plan.reason
    few = sc.plan("conv2d", first[..., :6], second[:, :6], padding=1, layout="NHWC", skip="none")
    assert few.blocking["parts"] == 3, "sums of 54 terms show what fp16 parts leave out"


@pytest.mark.parametrize("name", PASSES)
def test_half_of_the_products(built, monkeypatch, name):
    """Three where bf16 parts need six, if the rows of tiles are the same."""
    monkeypatch.setattr(amx_blocks, "pieces", lambda *_: 0)
    case, counts = BIG_CASES[0], []
    first, second, _ = prepared(case, name, 0.3)
    for fp16 in (False, True):
        before = built.counter("products")
        with built.active(fp16=fp16):
            on_tiles(built, case, name, first, second)
        counts.append(built.counter("products") - before)
    assert counts[1] == counts[0] / 2


def test_auto_skips_later(built):
    """Dense kernels that are faster leave less to gain from zeros: from where on, depends on the CPU below."""
    w = np.random.default_rng(0).standard_normal((64, 64, 3, 3), np.float32)
    skipped = {}
    for fp16 in (False, True):
        with built.active(always=False, fp16=fp16):
            plans = {
                zeros: sc.plan("conv2d", sparse_floats((2, 64, 28, 28), zeros, 1), w, padding=1).kernel
                for zeros in (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.95)
            }
        assert plans[0.0] == "rows_tiles"
        assert plans[0.95] == "rows_skip"
        skipped[fp16] = min(zeros for zeros, kernel in plans.items() if kernel == "rows_skip")
    assert skipped[False] < skipped[True]


# --- exactness ---


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::5], *BIG_CASES], ids=str)
def test_exact(built, few_terms, case, name):
    """Small integers: the oracle's bits."""
    first, second, expected = prepared(case, name, 0.3)
    with built.active(fp16=True):
        actual = on_tiles(built, case, name, first, second)
    assert_exact(actual, expected)


@pytest.mark.parametrize(
    "vector_isa", [name for name in cpu.available_isas() if name not in ("amx", "amx_fp16", "scalar")]
)
def test_twenty_two_bits_are_exact(tmp_path, built, few_terms, vector_isa):
    """Two parts of 11 bits hold integers up to 2^22, with whatever instructions numbers are split."""
    used = built if vector_isa == built.vector_isa else emulation(tmp_path, vector_isa=vector_isa)
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**22), 2**22, (1, 48, 9, 31)).astype(np.float32)
    x.flat[:2] = 2**22 - 1, -(2**22) + 1
    x[:, :, 4] = rng.integers(-8, 8, (1, 48, 31))  # with denormal fp16 numbers: 2^-8 of the rest and less
    weight = np.eye(48, dtype=np.float32)[::-1, :, None, None] * np.float32(2.0**-9)
    with used.active(fp16=True):
        products = used.counter("products")
        assert_exact(sc.conv2d(x, weight, skip="none"), x[:, ::-1] * np.float32(2.0**-9))
        assert used.counter("products") > products
        grad = np.zeros((1, 48, 9, 31), np.float32)
        grad[:, :, 8, 30] = 2.0**-9
        gradient = sc.conv2d_backward_weight(x, grad, 1, skip="none")
    assert_exact(gradient[0, :, 0, 0], x[0, :, 8, 30] * np.float32(2.0**-9))


def test_bias_relu_residual_and_masks(fp16):
    """Scales are taken away before the bias is added, whatever the layout."""
    for case in (BIG_CASES[0], BIG_CASES[5]):
        first, second, expected = prepared(case, "forward", 0.3)
        bias = np.arange(case.out_c, dtype=np.float32) - 9
        biased = call(sc.reference, case, "forward", first, second, bias=bias)
        actual = call(sc, case, "forward", first, second, bias=bias, activation="relu", skip="none")
        assert_exact(actual, np.maximum(biased, 0))
        residual = np.sign(expected)  # zeros in lanes without a channel
        actual = call(sc, case, "forward", first, second, residual=residual, skip="none")
        assert_exact(actual, expected + residual)


# --- accuracy ---


@pytest.mark.parametrize("make", [sparse_floats, relu, log_normal, heavy_tailed], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", ACCURATE_CASES, ids=str)
def test_as_accurate_as_float32(fp16, case, name, make):
    """The errors are within float32's bound, and the largest one is beside that of PyTorch's float32 on the same data.

    With long sums of numbers of one size it was 0.28 to 0.69 of PyTorch's on one thread; where one product makes most
    of the largest sum, or sums are short, 0.15 to 1.4. On Zen 4 oneDNN sums gradients of 1x1 layers in other parts than
    on Intel's CPUs, and loses less: there it was 1.6 with the zeros of a ReLU, 2.5 with numbers of many sizes.
    """
    first, second, exact = floats(case, name, make)
    magnitude = floats_magnitude(case, name, first, second)
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    actual = actual if name == "backward_weight" else np.moveaxis(actual, -1, 1)
    assert_within_bound(np.ascontiguousarray(actual), exact, magnitude, case.terms(name))
    if name == "backward_weight":
        most = 3.0
    else:
        most = 1.0 if case.terms(name) > 500 and make in (sparse_floats, relu) else 1.6
    assert np.abs(actual - exact).max() / np.abs(exact).max() <= most * error_of_torch(case, name, make)


def floats_magnitude(case, name, first, second):
    """The sums of the absolute values of products, channels first."""
    plain = dataclasses.replace(case, kind=0)
    return oracle(plain, name, np.abs(first).astype(np.float64), np.abs(second).astype(np.float64))


@pytest.mark.parametrize("name", PASSES)
def test_order_of_sums_in_a_product(tmp_path, few_terms, name):
    """Hardware that adds the products of a tile one after the other: within float32's bound and what parts lose."""
    chained = emulation(tmp_path, "-DSC_CHAINED")
    for case in (*FEW_CASES, BIG_CASES[0]):
        first, second = operands(case, name, 0.3, 0, sparse_floats)
        wide = first.astype(np.float64), second.astype(np.float64)
        exact, magnitude = oracle(case, name, *wide), oracle(case, name, *map(np.abs, wide))
        with chained.active(fp16=True):
            actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
        assert_within_bound(actual, exact, magnitude, case.terms(name) + 8)
    assert chained.counter("products") > 100


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("name", PASSES)
def test_small_values_that_carry_weight(fp16_or_vectors, name, which):
    """Beside one value that is far larger all others would lose their bits: they are left to the vector kernel.

    The large one meets only zeros, so no error of float32 hides those of others.
    """
    case = BIG_CASES[0]
    pair = list(operands(case, name, 0.0, 3, sparse_floats))
    other = pair[1 - which]
    if name == "backward_weight":
        pair[which][0, 0, 4, 4] = 2.0**40
        other[0, :, 2:7, 2:7] = 0
    elif which == 0:
        pair[0][0, 0, 4, 4] = 2.0**40
        other[(slice(None), 0) if name == "forward" else 0] = 0
    else:
        pair[1][0, 0, 1, 1] = 2.0**40
        other[:, 0] = 0
    arrays = in_layout(case, name, *pair)
    actual = call(sc, case, name, *arrays, skip="none")
    exact = oracle(case, name, *(one.astype(np.float64) for one in pair))
    magnitude = oracle(case, name, *(np.abs(one).astype(np.float64) for one in pair))
    assert_within_bound(actual, exact, magnitude, case.terms(name))


@pytest.mark.parametrize("name", PASSES)
def test_very_wide_range(fp16_or_vectors, name):
    """Over 20 decades the vector kernels compute."""
    case = BIG_CASES[0]
    arrays = in_layout(case, name, *operands(case, name, 0.0, 3, very_wide))
    products = fp16_or_vectors.counter("products")
    actual = call(sc, case, name, *arrays, skip="none")
    if name == "backward_weight":  # which is repaired afterwards, in chunks of another size
        np.testing.assert_allclose(
            actual, vectors_alone(case, name, arrays), rtol=1e-3, atol=1e-6 * np.abs(actual).max()
        )
    else:
        assert fp16_or_vectors.counter("products") == products
        assert_same_bits(actual, vectors_alone(case, name, arrays))


@pytest.mark.parametrize("name", PASSES)
def test_dim_pixels(fp16_or_vectors, name):
    """Places where everything is small are as accurate as others."""
    case = BIG_CASES[0]
    first, second = operands(case, name, 0.0, 3, sparse_floats)
    first[:, :, :5] *= np.float32(2.0**-24)
    exact = oracle(case, name, first.astype(np.float64), second.astype(np.float64))
    magnitude = oracle(case, name, np.abs(first).astype(np.float64), np.abs(second).astype(np.float64))
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    assert_within_bound(actual, exact, magnitude, case.terms(name))


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**13, 2.0**-44, 2.0**50])
@pytest.mark.parametrize("name", PASSES)
def test_scales_change_nothing(fp16, name, scale):
    """Results are those of numbers near one, bit for bit, times a power of two."""
    case = BIG_CASES[0]
    first, second = operands(case, name, 0.3, 3, sparse_floats)
    plain = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    scale = np.float32(scale)
    scaled = call(sc, case, name, *in_layout(case, name, first * scale, second), skip="none")
    assert_same_bits(scaled, plain * scale)


# --- the ends of the range ---


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("values", [(np.inf,), (-np.inf, np.inf), (np.nan,), (3.4e38,), (2.0**100,)], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_infinity_nan_and_huge(fp16_or_vectors, few_terms, name, values, which):
    """What the dense vector kernels give, which is what IEEE says; all other results stay exact."""
    for case in (FEW_CASES[0], BIG_CASES[1]):
        pair = [one.copy() for one in operands(case, name, 0.0)]
        places = np.random.default_rng(1).choice(pair[which].size, len(values), replace=False)
        pair[which].flat[places] = values
        arrays = in_layout(case, name, *pair)
        assert_exact(call(sc, case, name, *arrays, skip="none"), vectors_alone(case, name, arrays))


@pytest.mark.parametrize(
    "scales",
    [(1e-33, 1.0), (1.0, 1e-36), (1e-20, 1e-14), (1e30, 1e-34), (4e-38, 2e4), (1e17, 1e17), (1e14, 1e14)],
    ids=str,
)
@pytest.mark.parametrize("name", PASSES)
def test_tiny_and_huge_operands(fp16_or_vectors, few_terms, name, scales):
    """As good as with operands of size one."""
    case = FEW_CASES[0]
    first, second = (np.abs(one) + 0.5 for one in operands(case, name, 0.0, 0, sparse_floats))
    first, second = (np.float32(one * scale) for one, scale in zip((first, second), scales, strict=True))
    exact = oracle(case, name, first.astype(np.float64), second.astype(np.float64))
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    np.testing.assert_allclose(actual, exact, rtol=3e-6, atol=0)


def test_few_tiny_values_stay_on_tiles(fp16):
    """A few among others cost nothing: no result is made of them alone."""
    case = BIG_CASES[0]
    first, second = special(case, "forward", (1e-38, -1e-35, 1e-30))
    products = fp16.counter("products")
    call(sc, case, "forward", *in_layout(case, "forward", first, second), skip="none")
    assert fp16.counter("products") > products + 1000


@pytest.mark.parametrize("name", PASSES)
def test_denormals_are_zeros(fp16, few_terms, name):
    case = FEW_CASES[0]
    first, second, expected = prepared(case, name, 0.3)
    denormal = np.where(first == 0, np.float32(1e-40), first)
    assert_exact(call(sc, case, name, denormal, second, skip="none"), expected)
    only = call(sc, case, name, np.full_like(first, 1e-40), second, skip="none")
    assert not only.any()


# --- threads, memory ---


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("value", [None, np.nan, 2.0**40], ids=["finite", "one NaN", "one large"])
def test_threads_do_not_change_a_bit(built, name, value):
    """Nor do scales and what is left to vectors, which follow from chunks and lane blocks."""
    for case in BIG_CASES[::2]:
        first, second = operands(case, name, 0.0, 5, sparse_floats)
        if value is not None:
            first.flat[first.size // 3] = value
        arrays, results = in_layout(case, name, first, second), []
        for threads in (1, 3, 7):
            with built.active(fp16=True):
                results.append(call(sc, case, name, *arrays, skip="none", num_threads=threads))
        for other in results[1:]:
            assert_same_bits(other, results[0], str(case))


def test_scratch_memory(built):
    """A few MB per thread."""
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7), (256, 56)):
        x, w = np.zeros((16, size, size, channels), np.float32), np.zeros((channels, channels, 3, 3), np.float32)
        with built.active(always=False, fp16=True):
            for plan in (
                sc.plan("conv2d", x, w, padding=1, layout="NHWC", skip="none", num_threads=1),
                sc.plan("conv2d_backward_weight", x, x, 3, padding=1, layout="NHWC", skip="none", num_threads=1),
            ):
                assert plan.kernel.endswith("_tiles")
                assert plan.scratch_bytes < 8e6 + 0.15 * (2 * x.nbytes + w.nbytes), plan
