"""What `plan` says: for every operation, about any array, and that the call does what the plan said."""

import dataclasses

import numpy as np
import pytest
from cases import FEW_CASES, LAYOUTS, PASSES, SKIPS, TRANSPOSED_CASES, call, prepared, sparse_floats, to_layout
from plans import Planner, dense_kernels

import sparseconv as sc
from sparseconv import cpu

# Some ten times the standard error of the samples, since what is fixed here is that they are fair.
DENSITY_ERROR = 0.05
PLAN_TEXT = ("kernel", "skip", "density", "expected", "blocking", "scratch")


def ones(*shape):
    return np.ones(shape, np.float32)


def operations():
    """(name, arguments, whether it is backward_weight) of every operation, all operands dense."""
    for dims in (1, 2, 3):
        size = {1: 66, 2: 18, 3: 10}[dims]
        x, g, w = ones(2, 40, *[size] * dims), ones(2, 48, *[size - 2] * dims), ones(48, 40, *[3] * dims)
        yield f"conv{dims}d", (x, w), False
        yield f"conv{dims}d_backward_data", (g, w, x.shape), False
        yield f"conv{dims}d_backward_weight", (x, g, 3), True
        yield f"conv_transpose{dims}d", (g, w), False
        yield f"conv_transpose{dims}d_backward_data", (x, w, g.shape), False
        yield f"conv_transpose{dims}d_backward_weight", (g, x, 3), True
    yield "linear", (ones(200, 40), ones(48, 40)), False
    yield "linear_backward_data", (ones(200, 48), ones(48, 40)), False
    yield "linear_backward_weight", (ones(200, 40), ones(200, 48)), True


OPERATIONS = tuple(operations())


@pytest.mark.parametrize("operation, arguments, is_gradient", OPERATIONS, ids=[one[0] for one in OPERATIONS])
def test_every_operation(isa, operation, arguments, is_gradient):
    plan = sc.plan(operation, *arguments)
    assert isinstance(plan, sc.Plan)
    assert plan.operation == operation
    assert plan.kernel in dense_kernels(isa, "gradient" if is_gradient else "rows")
    assert plan.skip == "none"
    assert plan.isa == isa
    assert plan.threads >= 1
    assert set(plan.density.values()) == {1.0}
    assert len(plan.density) == 1 + is_gradient
    assert plan.speedup == 1.0
    assert "dense" in plan.reason and any(name in plan.reason for name in plan.density)
    assert plan.blocking and all(type(value) is int for value in plan.blocking.values())
    assert plan.scratch_bytes > 0
    zeros = [np.zeros_like(one) if isinstance(one, np.ndarray) else one for one in arguments]
    plan = sc.plan(operation, zeros[0], *arguments[1:])
    assert plan.skip == ("grad_output" if operation.endswith("backward_data") else "input")
    skipping = "gradient_points" if operation == "linear_backward_weight" else "gradient_skip"
    assert plan.kernel == (skipping if is_gradient else "rows_skip")
    assert plan.density[plan.skip] == 0.0
    assert plan.speedup > 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.kernel = "other"


def test_no_operation_is_missing():
    """Every public function that computes a convolution has a plan."""
    public = {name for name in sc.__all__ if name.startswith(("conv", "linear"))}
    assert {one[0] for one in OPERATIONS} == public


@pytest.mark.parametrize(
    "operation", ["conv4d", "conv", "conv2d_backward", "conv2d ", "conv2d_forward", "grad_bias", "plan", "prepare", ""]
)
def test_unknown_operation(operation):
    with pytest.raises(ValueError, match=rf"^operation: got {operation!r}"):
        sc.plan(operation, ones(1, 1, 3, 3), ones(1, 1, 3, 3))


def test_arguments_are_checked():
    x, w = ones(1, 3, 8, 8), ones(4, 3, 3, 3)
    with pytest.raises(ValueError, match=r"^x: "):
        sc.plan("conv2d", x[0], w)
    with pytest.raises(TypeError, match=r"^weight: "):
        sc.plan("conv2d", x, w.astype(np.float16))
    with pytest.raises(ValueError, match=r"^skip: got 'weights'"):
        sc.plan("conv2d", x, w, skip="weights")
    with pytest.raises(ValueError, match=r"^num_threads: "):
        sc.plan("conv2d", x, w, num_threads=0)
    with pytest.raises(TypeError):
        sc.plan("conv2d", x)
    with pytest.raises(TypeError):
        sc.plan("conv2d", x, w, strides=2)


def test_nothing_is_computed():
    x, w, out = ones(1, 3, 8, 8), ones(4, 3, 3, 3), np.full((1, 4, 6, 6), -7, np.float32)
    sc.plan("conv2d", x, w, out=out)
    assert (out == -7).all()


# --- densities ---


def layouts_of(array):
    """The same activations in every layout and many orders of memory: (array, name of the layout)."""
    last = to_layout(array, "NHWC")
    yield "NCHW", array
    yield "NHWC", last
    yield "NCHW16c", to_layout(array, "NCHW16c")
    yield "NCHW", last.transpose(0, 3, 1, 2)
    yield "NHWC", array.transpose(0, 2, 3, 1)
    yield "NCHW", np.asfortranarray(array)
    yield "NCHW", array[::-1, :, ::-1, ::-1]
    room = np.full([2 * size for size in array.shape], np.nan, np.float32)
    room[1::2, ::2, 1::2, ::2] = array
    yield "NCHW", room[1::2, ::2, 1::2, ::2]


@pytest.mark.parametrize("truth", [0.0, 0.05, 0.3, 0.5, 0.8, 1.0])
def test_density(truth):
    """Close to the truth for independent zeros, in every order of memory."""
    w = ones(16, 64, 3, 3)
    for seed in range(3):
        array = sparse_floats((4, 64, 28, 28), 1 - truth, (seed, round(100 * truth)))
        for layout, x in layouts_of(array):
            plan = sc.plan("conv2d", x, w, layout=layout)
            assert plan.density.keys() == {"input"}
            assert abs(plan.density["input"] - truth) <= (DENSITY_ERROR if 0 < truth < 1 else 0)


def test_density_of_both_operands():
    x, g = sparse_floats((4, 48, 20, 20), 0.4, 1), sparse_floats((4, 64, 20, 20), 0.8, 2)
    density = sc.plan("conv2d_backward_weight", x, g, 3, padding=1).density
    assert density.keys() == {"input", "grad_output"}
    assert abs(density["input"] - 0.6) <= DENSITY_ERROR
    assert abs(density["grad_output"] - 0.2) <= DENSITY_ERROR


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_density_of_zeros_that_cluster(axis):
    """Whole images, channels, rows or columns of zeros: the estimate is rougher, but no guess."""
    w = ones(16, 64, 3, 3)
    for kind in range(2):
        array = sparse_floats((16, 64, 28, 28), 0.0, 3)
        chosen = np.random.default_rng((axis, kind)).permutation(array.shape[axis])[: array.shape[axis] // 2]
        np.moveaxis(array, axis, 0)[chosen] = 0
        for layout, x in list(layouts_of(array))[:2]:
            assert 0.25 <= sc.plan("conv2d", x, w, layout=layout).density["input"] <= 0.75


def test_density_counts_like_the_kernels():
    """-0.0 is zero; NaN and infinities are not."""
    w = ones(16, 16, 1, 1)
    for value, density in ((-0.0, 0.0), (np.nan, 1.0), (-np.inf, 1.0)):
        for x in (np.full((2, 16, 30, 30), value, np.float32), np.full((2, 30, 30, 16), value, np.float32)):
            layout = "NCHW" if x.shape[1] == 16 else "NHWC"
            assert sc.plan("conv2d", x, w, layout=layout).density["input"] == density


def test_density_of_small_arrays():
    """Also of arrays shorter than a sample, and of one element."""
    for size in (1, 2, 5, 8):
        for value in (0.0, 2.0):
            x = np.full((1, 1, size, size), value, np.float32)
            assert sc.plan("conv2d", x, ones(1, 1, 1, 1)).density["input"] == (value != 0)


def test_density_is_repeatable():
    x, w = sparse_floats((2, 64, 28, 28), 0.5, 1), ones(16, 64, 3, 3)
    assert len({str(sc.plan("conv2d", x, w, num_threads=1)) for _ in range(3)}) == 1


# --- the choice ---


def test_auto_skips_what_is_sparse(isa):
    w = ones(64, 64, 3, 3)
    for sparsity, skip in ((0.0, "none"), (0.9, "input"), (1.0, "input")):
        x = sparse_floats((2, 64, 14, 14), sparsity, 1)
        plan = sc.plan("conv2d", x, w, padding=1)
        assert plan.skip == skip
        assert plan.kernel in (dense_kernels(isa) if skip == "none" else {"rows_skip"})
        plan = sc.plan("conv2d_backward_data", x, w, x.shape, padding=1)
        assert plan.skip == {"none": "none", "input": "grad_output"}[skip]


@pytest.mark.parametrize(
    "input_sparsity, grad_sparsity, skip",
    [(0.9, 0.0, "input"), (0.0, 0.9, "grad_output"), (0.6, 0.9, "grad_output"), (0.9, 0.6, "input"), (0, 0, "none")],
)
def test_the_sparser_operand_is_skipped(isa, input_sparsity, grad_sparsity, skip):
    x, g = sparse_floats((2, 64, 14, 14), input_sparsity, 1), sparse_floats((2, 64, 14, 14), grad_sparsity, 2)
    plan = sc.plan("conv2d_backward_weight", x, g, 3, padding=1)
    assert plan.skip == skip
    assert plan.kernel in (dense_kernels(isa, "gradient") if skip == "none" else {"gradient_skip"})
    # The operands of a transposed convolution keep their names, although they change places inside.
    plan = sc.plan("conv_transpose2d_backward_weight", x, g, 3, padding=1)
    assert plan.skip == skip
    if skip == "none":
        assert "dense" in plan.reason and ("input" in plan.reason or "grad_output" in plan.reason)
    else:
        assert skip in plan.reason
        assert f"{plan.density[skip]:.2f}" in plan.reason


def test_sparser_means_faster(isa):
    w, speedups = ones(64, 64, 3, 3), []
    for sparsity in (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0):
        plan = sc.plan("conv2d", sparse_floats((4, 64, 28, 28), sparsity, 1), w, padding=1)
        speedups.append(plan.speedup)
        assert (plan.speedup > 1) == (plan.skip == "input")
    assert speedups[0] == 1
    assert speedups == sorted(speedups)
    assert speedups[-1] > 2


@pytest.mark.parametrize("name, skip", [(name, skip) for name in PASSES for skip in SKIPS[name] if skip != "auto"])
def test_forced_skip(isa, name, skip):
    """Whatever the density, what is asked for is what runs."""
    for sparsity in (0.0, 1.0):
        x, w = sparse_floats((2, 32, 14, 14), sparsity, 1), ones(32, 32, 3, 3)
        arguments = {"forward": (x, w), "backward_data": (x, w, x.shape), "backward_weight": (x, x, 3)}[name]
        operation = "conv2d" if name == "forward" else f"conv2d_{name}"
        plan = sc.plan(operation, *arguments, padding=1, skip=skip)
        assert plan.skip == skip
        kind = "gradient" if name == "backward_weight" else "rows"
        assert plan.kernel in dense_kernels(isa, kind) if skip == "none" else plan.kernel.endswith("_skip")
        assert "asked" in plan.reason
        assert plan.density.keys() == (set() if skip == "none" else {skip})


@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::5]], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_plans_of_all_geometries(case, name):
    """The words of a plan for `auto` are accepted by the call, whose result does not depend on them."""
    first, second, expected = prepared(case, name, 0.9)
    plan = call(Planner(), case, name, first, second)
    assert plan.skip in SKIPS[name]
    np.testing.assert_array_equal(call(sc, case, name, first, second, skip=plan.skip), expected)


# --- what else a plan says ---


def test_float64_and_empty_results():
    x, w = ones(2, 3, 8, 8), ones(4, 3, 3, 3)
    plan = sc.plan("conv2d", x.astype(np.float64), w.astype(np.float64))
    assert (plan.kernel, plan.skip, plan.threads, plan.scratch_bytes) == ("reference", "none", 1, 0)
    assert "float64" in plan.reason
    assert "reference" in str(plan)
    plan = sc.plan("conv2d", x[:0], w)
    assert (plan.kernel, plan.skip, plan.scratch_bytes) == ("none", "none", 0)
    assert "none" in str(plan)


def test_threads():
    x, w = ones(4, 64, 28, 28), ones(64, 64, 3, 3)
    assert sc.plan("conv2d", x, w).threads <= cpu.num_threads()
    for threads in (1, 2, 7):
        assert sc.plan("conv2d", x, w, num_threads=threads).threads == threads
        # Too little work to share.
        assert sc.plan("conv2d", ones(1, 4, 5, 5), ones(4, 4, 3, 3), num_threads=threads).threads == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_heavy_weights_are_packed_once(threads):
    """Threads share the lanes of a pointwise layer with large weights, and the positions of one with small weights."""
    x, heavy, light = (np.ones(shape, np.float32) for shape in ((2, 8, 8, 512), (1024, 512, 1, 1), (16, 512, 1, 1)))
    for weight in (heavy, light):
        blocks = sc.plan("conv2d", x, weight, layout="NHWC", skip="input", num_threads=threads).blocking
        if weight is heavy:
            assert (blocks["segments"], blocks["lane_groups"]) == (1, threads)
        else:
            assert blocks["segments"] == (1 if threads == 1 else min(threads, 2))  # of 64 positions and more


def test_words_follow_from_the_first_cache(isa, vendor):
    """64 channels where Intel's L1 holds their weights, and for few nonzeros everywhere."""
    weight = np.ones((64, 128, 3, 3), np.float32)
    words = {}
    for zeros in (0.5, 0.95):
        x = to_layout(sparse_floats((2, 128, 14, 14), zeros, 1), "NHWC")
        plan = sc.plan("conv2d", x, weight, padding=1, layout="NHWC", skip="input")
        assert plan.kernel == "rows_skip"
        words[zeros] = plan.blocking["word"]
    four_vectors = plan.blocking["lane_vectors"] == 4  # registers of AVX2 hold fewer, so their tiles are small
    assert words == {0.5: 32 if four_vectors and vendor != "intel" else 64, 0.95: 64}


def test_scratch_bytes():
    """Some memory, more for more threads, and not out of proportion to the operands."""
    for shape, kernel, layout in (
        ((8, 64, 56, 56), 3, "NCHW"), ((8, 56, 56, 64), 3, "NHWC"), ((8, 64, 56, 56), 1, "NCHW"),
        ((2, 512, 7, 7), 3, "NCHW"), ((1, 3, 224, 224), 7, "NCHW"),
    ):  # fmt: skip
        x = sparse_floats(shape, 0.5, 1)
        channels = shape[-1] if layout == "NHWC" else shape[1]
        w = ones(64, channels, kernel, kernel)
        y = sc.conv2d(x, w, padding=kernel // 2, layout=layout)
        for operation, arguments in (
            ("conv2d", (x, w)), ("conv2d_backward_data", (y, w, x.shape)), ("conv2d_backward_weight", (x, y, w.shape)),
        ):  # fmt: skip
            for skip in ("auto", "none"):
                sizes = [
                    sc.plan(
                        operation, *arguments, padding=kernel // 2, layout=layout, skip=skip, num_threads=threads
                    ).scratch_bytes
                    for threads in (1, 2, 4)
                ]
                assert 0 < sizes[0] <= sizes[1] * 1.5
                assert sizes[0] <= x.nbytes + w.nbytes + y.nbytes + 4 * 2**20
                assert sizes[2] <= 4 * (x.nbytes + w.nbytes + y.nbytes) + 16 * 2**20


def test_text():
    x, w = sparse_floats((2, 64, 14, 14), 0.75, 1), ones(96, 64, 3, 3)
    plan = sc.plan("conv2d", x, w, padding=1, num_threads=2)
    lines = str(plan).splitlines()
    assert lines[0] == "conv2d n2c64k96i14x14o14x14k3x3s1x1p1x1"
    assert tuple(line.split()[0] for line in lines[1:]) == PLAN_TEXT
    text = "\n".join(lines)
    assert f"{plan.kernel} on {plan.isa}, 2 thread(s)" in text
    assert f"{plan.skip}: {plan.reason}" in text
    assert f"input {plan.density['input']:.2f}" in text
    assert f"{plan.speedup:.2f} x" in text
    for name, value in plan.blocking.items():
        assert f"{name} {value}" in text
    assert f"{plan.scratch_bytes / 2**20:.2f} MB" in text
    assert "not measured" in str(sc.plan("conv2d", x, w, skip="none"))
    assert all(len(line) <= 280 for line in lines)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_problem_text(dims):
    """Sizes, geometry, and groups and dilation only where they are not 1."""
    x, w = ones(3, 8, *range(7, 7 + dims)), ones(12, 4, *[3] * dims)
    options = {"groups": 2, "dilation": 2, "stride": 2, "padding": 1}
    for layout in LAYOUTS[dims]:
        plan = sc.plan(f"conv{dims}d", to_layout(x, layout), w, layout=layout, **options)
        sizes = "x".join(map(str, range(7, 7 + dims)))
        assert plan.problem.startswith(f"n3g2c8k12i{sizes}o")
        assert plan.problem.endswith(f"d{'x'.join(['2'] * dims)}")
    assert "d" not in sc.plan(f"conv{dims}d", x, ones(12, 8, *[3] * dims)).problem


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_precision_is_for_tile_registers(isa, precision):
    """Everywhere else kernels compute in float32, whatever is asked for."""
    x, w = sparse_floats((2, 64, 28, 28), 0.0, 1), sparse_floats((64, 64, 3, 3), 0.0, 2)  # enough to fill tiles
    plan = sc.plan("conv2d", x, w, precision=precision)
    if isa.startswith("amx"):
        assert plan.kernel == "rows_tiles"
        highest = 2 if isa == "amx_fp16" else 3
        assert plan.blocking["parts"] == {"highest": highest, "high": 2, "medium": 1}[precision]
    else:
        assert plan == sc.plan("conv2d", x, w)
        assert plan.blocking["parts"] == 0
        np.testing.assert_array_equal(sc.conv2d(x, w, precision=precision), sc.conv2d(x, w))
