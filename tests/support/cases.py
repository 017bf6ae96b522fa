"""Cases and their operands.

A `Case` describes one convolution. The three passes of a case are called alike, with operands that hold small integers:
every partial sum is exact in float32, so any order of summation and any amount of skipping must give the same bits.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from sparseconv import reference

SPARSITIES = (0.0, 0.3, 0.5, 0.9, 1.0)
SKIPS = {
    "forward": ("auto", "none", "input", "weight"),
    "backward_data": ("auto", "none", "grad_output", "weight"),
    "backward_weight": ("auto", "none", "input", "grad_output"),
}
PASSES = tuple(SKIPS)
LAYOUTS = {1: ("NCW", "NWC", "NCW16c"), 2: ("NCHW", "NHWC", "NCHW16c"), 3: ("NCDHW", "NDHWC", "NCDHW16c")}


def to_layout(array, layout, pad=0.0):
    """Copy (N, C, *spatial) to `layout`; `pad` fills the lanes of a blocked layout that hold no channel."""
    if layout.endswith("16c"):
        batch, channels, *spatial = array.shape
        result = np.full((batch, -(-channels // 16), *spatial, 16), pad, array.dtype)
        for channel in range(channels):
            result[:, channel // 16, ..., channel % 16] = array[:, channel]
        return result
    if layout.endswith("C") and layout != "NC":
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Case:
    """One convolution; sizes are per spatial dimension, the rest as in the public functions."""

    in_c: int
    out_c: int
    in_size: tuple
    kernel: tuple
    batch: int = 2
    stride: int | tuple = 1
    padding: int | tuple | str = 0
    dilation: int | tuple = 1
    groups: int = 1
    kind: int = 0  # 0 channels first, 1 channels last, 2 blocked
    transposed: bool = False
    output_padding: int | tuple = 0

    def __str__(self):
        def text(value):
            return "x".join(map(text, value)) if isinstance(value, tuple) else str(value)

        parts = [f"n{self.batch}c{self.in_c}h{text(self.in_size)}k{self.out_c}r{text(self.kernel)}"]
        parts += [f"s{text(self.stride)}"] if self.stride != 1 else []
        parts += [f"p{text(self.padding)}"] if self.padding != 0 else []
        parts += [f"d{text(self.dilation)}"] if self.dilation != 1 else []
        parts += [f"g{self.groups}"] if self.groups != 1 else []
        parts += [f"o{text(self.output_padding)}"] if self.output_padding != 0 else []
        return ("t" if self.transposed else "") + "".join(parts) + f"-{self.layout}"

    @property
    def ndim(self):
        return len(self.kernel)

    @property
    def layout(self):
        return LAYOUTS[self.ndim][self.kind]

    @property
    def options(self):
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def x_shape(self):
        return (self.batch, self.in_c, *self.in_size)

    @property
    def weight_shape(self):
        if self.transposed:
            return (self.in_c, self.out_c // self.groups, *self.kernel)
        return (self.out_c, self.in_c // self.groups, *self.kernel)

    @functools.cached_property
    def out_shape(self):
        empty = np.zeros((0, *self.x_shape[1:]))
        shape = call(reference, self, "forward", empty, np.zeros(self.weight_shape), layout=LAYOUTS[self.ndim][0]).shape
        return (self.batch, *shape[1:])

    def terms(self, name):
        """An upper bound for the number of products in one result."""
        channels = {"forward": self.in_c, "backward_data": self.out_c}
        if name in channels:
            return channels[name] // self.groups * math.prod(self.kernel)
        return self.batch * math.prod(self.in_size if self.transposed else self.out_shape[2:])


def call(module, case, name, first, second, layout=None, **more):
    """Call one pass of `case`; the operands are in `layout` (default: that of the case)."""
    layout = case.layout if layout is None else layout
    base = f"conv_transpose{case.ndim}d" if case.transposed else f"conv{case.ndim}d"
    function = getattr(module, base if name == "forward" else f"{base}_{name}")
    options = case.options | {"layout": layout} | more
    if name == "forward":
        if case.transposed:
            options["output_padding"] = case.output_padding
        return function(first, second, **options)
    if name == "backward_data":
        spatial = case.in_size
        batch, blocks = case.batch, -(-case.in_c // 16)
        shape = {
            LAYOUTS[case.ndim][0]: (batch, case.in_c, *spatial),
            LAYOUTS[case.ndim][1]: (batch, *spatial, case.in_c),
            LAYOUTS[case.ndim][2]: (batch, blocks, *spatial, 16),
        }[layout]
        return function(first, second, shape, **options)
    return function(first, second, case.weight_shape, **options)


def sparse_ints(shape, sparsity, seed):
    """float32 integers of -4..4: nonzero but for a share `sparsity` of zeros, independent of each other."""
    rng = np.random.default_rng(seed)
    magnitude = rng.integers(1, 5, shape) * rng.choice((-1, 1), shape)
    return np.where(rng.random(shape) < sparsity, 0, magnitude).astype(np.float32)


def sparse_floats(shape, sparsity, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < sparsity, 0, rng.standard_normal(shape)).astype(np.float32)


def operands(case, name, sparsity, seed=0, make=sparse_ints):
    """The two channels-first operands of a pass; those which may be skipped have the given sparsity."""
    x = make(case.x_shape, sparsity, (seed, 1))
    grad_output = make(case.out_shape, sparsity, (seed, 2))
    weight = make(case.weight_shape, 0.1, (seed, 3))
    return {"forward": (x, weight), "backward_data": (grad_output, weight), "backward_weight": (x, grad_output)}[name]


def in_layout(case, name, first, second):
    """The operands of a pass in the layout of the case; lanes without a channel hold NaN, which must not matter."""
    first = to_layout(first, case.layout, pad=np.nan)
    return first, to_layout(second, case.layout, pad=np.nan) if name == "backward_weight" else second


def result_in_layout(case, name, result):
    return result if name == "backward_weight" else to_layout(result, case.layout)


def oracle(case, name, first, second, **more):
    """The result of a pass in the layout of the case, from channels-first operands."""
    result = call(reference, case, name, first, second, layout=LAYOUTS[case.ndim][0], **more)
    return result_in_layout(case, name, result)


@functools.lru_cache(maxsize=512)
def prepared(case, name, sparsity, seed=0):
    """(first, second, expected) of a pass on integers, in the layout of the case; checked not to be vacuous."""
    first, second = operands(case, name, sparsity, seed)
    expected = oracle(case, name, first, second)
    if sparsity <= 0.3 and case.batch:
        reachable = np.count_nonzero(oracle(case, name, np.ones_like(first), np.ones_like(second)))
        assert_not_vacuous(expected, reachable)
    arrays = (*in_layout(case, name, first, second), expected)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def assert_not_vacuous(y, reachable=None):
    """At least 30 % of the results must be nonzero, of those at least which any product reaches."""
    reachable = y.size if reachable is None else reachable
    assert reachable > 0, "no product reaches any result"
    nonzero = np.count_nonzero(y)
    assert nonzero >= 0.3 * reachable, f"{nonzero} nonzero results of {reachable} prove nothing"


def _geometries():
    """Shapes that hug the 16 lanes, the tiles and every edge of the geometry, all in channels-first form."""
    yield from (  # channels: both sides of every multiple of 16
        Case(in_c, out_c, (4, 7), (3, 3), batch=1, padding=1)
        for in_c, out_c in (
            (1, 16), (3, 33), (15, 1), (16, 64), (17, 15), (24, 40), (33, 3), (40, 24), (48, 130), (64, 17), (72, 48),
            (130, 72),
        )
    )  # fmt: skip
    yield from (Case(in_c, out_c, (5, 5), (1, 1)) for in_c, out_c in ((1, 1), (64, 64), (130, 33), (17, 72), (16, 48)))
    yield from (Case(16, 33, (3, width), (3, 3), padding=1) for width in (1, 5, 7, 14, 17, 35, 70, 200))
    yield from (Case(17, 16, (2, width), (1, 1)) for width in (1, 14, 35, 200))
    # kernels
    yield Case(5, 17, (6, 7), (2, 2))
    yield Case(17, 16, (9, 7), (5, 5), padding=2)
    yield Case(16, 17, (9, 14), (7, 7), padding=3)
    yield Case(24, 16, (3, 17), (1, 7), padding=(0, 3))
    yield Case(16, 24, (17, 3), (7, 1), padding=(3, 0))
    yield Case(3, 64, (15, 35), (7, 7), stride=2, padding=3)  # the first layer of ResNet
    yield Case(33, 40, (14, 14), (3, 3), padding=1)
    # strides and dilations
    yield Case(16, 33, (9, 14), (3, 3), stride=2, padding=1)
    yield Case(33, 16, (8, 17), (1, 1), stride=2)
    yield Case(17, 24, (7, 14), (1, 1), stride=3)
    yield Case(17, 16, (9, 11), (2, 2), stride=3)
    yield Case(16, 17, (7, 14), (3, 3), stride=(2, 1), padding=1)
    yield Case(15, 17, (5, 70), (3, 3), stride=(1, 3), padding=1)
    yield Case(16, 17, (7, 14), (3, 3), dilation=2, padding=2)
    yield Case(17, 16, (9, 17), (3, 3), dilation=3, padding=3)
    yield Case(16, 24, (6, 15), (2, 3), dilation=(1, 2))
    yield Case(24, 16, (9, 17), (3, 3), stride=2, dilation=2, padding=2)
    yield Case(16, 33, (11, 14), (3, 3), stride=3, dilation=2, padding=1)
    yield Case(17, 16, (9, 16), (3, 3), stride=2, dilation=3, padding=3)
    yield Case(16, 16, (13, 14), (3, 2), stride=(3, 2), dilation=(2, 3), padding=(1, 2))
    # padding
    yield Case(17, 16, (3, 5), (1, 1), padding=2)
    yield Case(16, 17, (3, 5), (3, 3), padding=4)
    yield Case(16, 17, (5, 7), (3, 3), padding=((0, 1), (2, 0)))
    yield Case(3, 16, (5, 14), (3, 3), stride=2, padding=((0, 1), (0, 1)))
    yield Case(16, 15, (5, 7), (2, 2), padding="same")
    yield Case(17, 16, (6, 15), (3, 3), stride=2, padding="same")
    yield Case(16, 17, (6, 14), (4, 3), stride=(3, 2), dilation=2, padding="same")
    yield Case(16, 17, (5, 7), (3, 3), padding="valid")
    # groups
    yield Case(34, 32, (5, 7), (3, 3), groups=2, padding=1)
    yield Case(32, 34, (4, 14), (1, 1), groups=2)
    yield Case(80, 12, (4, 7), (3, 3), groups=4, padding=1)
    yield Case(17, 17, (5, 14), (3, 3), groups=17, padding=1)
    yield Case(33, 66, (5, 7), (3, 3), groups=33, padding=1, stride=2)
    yield Case(48, 48, (5, 17), (5, 5), groups=48, padding=4, dilation=2)
    # batch and degenerate sizes
    yield Case(17, 33, (4, 5), (3, 3), batch=0, padding=1)
    yield Case(33, 17, (4, 5), (3, 3), batch=3, padding=1)
    yield Case(16, 16, (1, 1), (1, 1), batch=17)
    yield Case(64, 16, (1, 1), (1, 1), batch=1)
    yield Case(16, 17, (3, 3), (3, 3), batch=3)
    yield Case(1, 1, (1, 1), (1, 1), batch=1)
    yield Case(130, 1, (2, 2), (2, 2), batch=1)
    # one and three dimensions
    yield Case(17, 33, (14,), (3,), padding=1)
    yield Case(16, 24, (200,), (7,), stride=2, padding=3)
    yield Case(33, 16, (35,), (2,), stride=3, dilation=3, padding=((1, 4),))
    yield Case(24, 24, (17,), (3,), groups=24, padding="same")
    yield Case(17, 16, (3, 4, 7), (3, 3, 3), padding=1)
    yield Case(16, 33, (4, 5, 9), (1, 3, 2), stride=(1, 2, 3), padding=(0, 1, 1))
    yield Case(6, 34, (5, 6, 5), (2, 3, 3), dilation=(2, 1, 2), groups=2, padding="same")


GEOMETRIES = tuple(_geometries())
# Every geometry with channels first; alternately with channels last or blocked as well.
CASES = GEOMETRIES + tuple(replace(case, kind=1 + index % 2) for index, case in enumerate(GEOMETRIES))
# A few that cover the main paths, for tests that multiply the cases with something else.
FEW_CASES = (
    Case(17, 33, (5, 14), (3, 3), padding=1),
    Case(48, 16, (4, 7), (1, 1), kind=1),
    Case(16, 40, (9, 7), (3, 3), stride=2, padding=1, kind=1),
    Case(33, 17, (6, 9), (3, 2), dilation=2, padding=((2, 1), (0, 3)), kind=2),
    Case(34, 20, (5, 17), (3, 3), stride=(1, 2), padding=1, groups=2),
    Case(24, 24, (7, 5), (3, 3), padding=1, groups=24, kind=1),
    Case(17, 16, (35,), (5,), padding=2, kind=1),
    Case(3, 17, (3, 5, 7), (2, 3, 3), padding=1),
)
TRANSPOSED = (
    Case(17, 33, (4, 7), (3, 3), padding=1, transposed=True),
    Case(16, 16, (5, 14), (2, 2), stride=2, transposed=True),
    Case(33, 16, (4, 7), (3, 3), stride=2, padding=1, output_padding=1, transposed=True),
    Case(16, 17, (3, 5), (4, 4), stride=2, padding=1, transposed=True),
    Case(24, 40, (3, 5), (1, 1), transposed=True),
    Case(17, 3, (3, 4), (2, 2), stride=3, output_padding=(2, 0), transposed=True),
    Case(16, 24, (4, 5), (3, 3), dilation=2, output_padding=(0, 1), transposed=True),
    Case(15, 17, (4, 5), (3, 2), stride=(2, 3), dilation=(3, 2), padding=(2, 1), output_padding=2, transposed=True),
    Case(34, 32, (4, 5), (3, 3), stride=2, padding=1, groups=2, transposed=True),
    Case(17, 34, (5, 7), (3, 3), stride=2, groups=17, transposed=True),
    Case(16, 17, (5, 7), (3, 3), padding=((0, 2), (1, 0)), transposed=True),
    Case(48, 72, (2, 3), (5, 5), padding=2, transposed=True),
    Case(17, 16, (4, 5), (3, 3), batch=0, transposed=True),
    Case(16, 33, (17,), (3,), stride=2, transposed=True),
    Case(17, 16, (2, 3, 4), (3, 2, 3), stride=(2, 1, 2), padding=(1, 0, 1), output_padding=(1, 0, 1), transposed=True),
    # without output_padding these had less than no columns
    Case(17, 18, (1, 5), (3, 1), stride=(3, 1), padding=(2, 0), output_padding=(2, 0), transposed=True),
    Case(16, 17, (1,), (3,), stride=3, padding=2, output_padding=2, transposed=True),
    Case(
        5, 33, (1, 4, 1), (3, 2, 1), stride=(4, 1, 3), padding=((2, 2), (0, 0), (0, 2)), output_padding=(3, 0, 2),
        transposed=True,
    ),
)
TRANSPOSED_CASES = TRANSPOSED + tuple(replace(case, kind=1 + index % 2) for index, case in enumerate(TRANSPOSED))


@st.composite
def cases(draw, transposed=False):
    """Any small convolution in any layout."""
    ndim = draw(st.sampled_from((1, 2, 2, 2, 3)))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    channels = st.sampled_from((1, 2, 3, 5, 8, 15, 16, 17, 24, 31, 33))

    def per_dim(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, stride, dilation = per_dim(1, 5 if ndim < 3 else 3), per_dim(1, 3), per_dim(1, 3)
    output_padding = tuple(
        draw(st.integers(0, max(step, dil) - 1)) if transposed else 0
        for step, dil in zip(stride, dilation, strict=True)
    )
    pairs = tuple(zip(per_dim(0, 4), per_dim(0, 4), strict=True))
    forms = [pairs, tuple(before for before, _ in pairs), "valid"] + ([] if transposed else ["same"])
    padding = draw(st.sampled_from(forms))
    sizes = []
    for axis in range(ndim):
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        before, after = {"same": (0, 0), "valid": (0, 0)}.get(padding) or (
            pairs[axis] if padding == pairs else (padding[axis], padding[axis])
        )
        if transposed:  # the smallest input which leaves an output, be it by output_padding alone
            least = max(-(-(before + after + 1 - extent - output_padding[axis]) // stride[axis]) + 1, 1)
        else:
            least = max(extent - before - after, 1) if padding != "same" else 1
        sizes.append(least + draw(st.integers(0, 8 if ndim < 3 else 3)))
    return Case(
        draw(channels) * groups,
        draw(channels) * groups,
        tuple(sizes),
        kernel,
        batch=draw(st.integers(0, 3)),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        kind=draw(st.integers(0, 2)),
        transposed=transposed,
        output_padding=output_padding if transposed else 0,
    )
