"""The tables by which the kernel of zero weights finds its columns."""

import itertools

import numpy as np
from cases import LAYOUTS, cases
from hypothesis import given

from sparseconv._core import lines, operations
from sparseconv._core.call import checked


@given(case=cases())
def test_lines(case):
    """Every tap of every phase meets the packed column that the definition says."""
    x = np.zeros((0, *case.x_shape[1:]), np.float32)
    problem = checked(
        operations.conv, case.ndim, {"x": x, "weight": np.ones(case.weight_shape, np.float32)},
        layout=LAYOUTS[case.ndim][0], **case.options,
    ).operation.problem  # fmt: skip
    stride, dilation, padding = problem.stride[-1], problem.dilation[-1], problem.padding[-1]
    for backward, tile in itertools.product((False, True), (1, 2, 5)):
        made = lines.lines(problem, backward, tile)
        columns = dict(zip(made.column_places.tolist(), made.columns.tolist(), strict=True))
        assert (np.diff(made.columns) > 0).all()
        assert sorted(columns) == list(range(made.width))
        taps = itertools.product(range(made.phases), range(problem.kernel[-1]))
        for (phase, tap), place in zip(taps, made.tap_places, strict=True):
            for m in range(tile):
                out = phase + m * made.phases
                if out >= (problem.in_size if backward else problem.out_size)[-1]:
                    continue
                if not backward:
                    assert columns[place + m] == out * stride + tap * dilation - padding
                elif place >= 0:
                    assert columns[place + m] * stride + tap * dilation - padding == out
                else:
                    assert (out + padding - tap * dilation) % stride
