"""The tables of geometry.py say what the definition says: every product once, every result opened and closed once."""

import itertools
from collections import Counter

import numpy as np
import pytest
from cases import GEOMETRIES, TRANSPOSED, Case
from hypothesis import assume, given
from hypothesis import strategies as st

from sparseconv import cpu
from sparseconv._core import blocking, checks, geometry, gradient, rows
from sparseconv._core.problem import Problem

# The last fields of an sc_strand, behind those of geometry.Strand.
ENDS = ("opens", "closes", "new_columns", "window_shift", "window")


@st.composite
def problems(draw, most_dims=3):
    """Any geometry; the sizes of both sides need not be those that a convolution without output_padding leads to."""
    dims = draw(st.integers(1, most_dims))

    def per_dim(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, dilation, padding, after = (
        per_dim(1, 9), per_dim(1, 5), per_dim(1, 5), per_dim(0, 9), per_dim(0, 9)
    )  # fmt: skip
    in_size, out_size = [], []
    for dim in range(dims):
        reach = (kernel[dim] - 1) * dilation[dim] + 1
        least = max(1, reach - padding[dim] - after[dim])
        in_size.append(least + draw(st.integers(0, 20 if dims == 1 else 5)))
        most = (in_size[dim] + padding[dim] + after[dim] - reach) // stride[dim] + 1
        out_size.append(draw(st.integers(max(1, most - 2), most)))
    return Problem(1, 1, 1, 1, tuple(in_size), tuple(out_size), kernel, stride, padding, dilation)


def problem_of(case):
    """The Problem of a case of cases.py."""
    first, second = (case.out_c, case.in_c) if case.transposed else (case.in_c, case.out_c)
    in_size, out_size = case.in_size, None
    if case.transposed:
        in_size, out_size = case.out_shape[2:], case.in_size
    return checks.problem(case.ndim, 1, first, second, in_size, case.kernel, **case.options, out_size=out_size)


def column_triples(problem):
    """Definition: (output column, input column, tap) that meet in a row."""
    for out, tap in itertools.product(range(problem.out_size[-1]), range(problem.kernel[-1])):
        column = out * problem.stride[-1] + tap * problem.dilation[-1] - problem.padding[-1]
        if 0 <= column < problem.in_size[-1]:
            yield out, column, tap


def row_triples(problem):
    """Definition: (output row, input row, outer tap) that meet, each a flat index over all outer dimensions."""
    outs, ins, taps = problem.out_size[:-1], problem.in_size[:-1], problem.kernel[:-1]
    for out in np.ndindex(*outs):
        for tap in np.ndindex(*taps):
            rows = [
                o * s + t * d - p
                for o, t, s, d, p in zip(out, tap, problem.stride, problem.dilation, problem.padding, strict=False)
            ]
            if all(0 <= row < size for row, size in zip(rows, ins, strict=True)):
                yield flat(out, outs), flat(rows, ins), flat(tap, taps)


def flat(index, sizes):
    return int(np.ravel_multi_index(tuple(index), sizes)) if sizes else 0


def strands_of(problem, backward, dim=-1):
    """The strands along a dimension with their ends, as dicts."""
    strands = geometry.strands(problem, dim, backward)
    names = (*geometry.Strand._fields, *ENDS)
    return [dict(zip(names, row, strict=True)) for row in geometry._with_windows(strands)]


def gap_columns(problem, backward):
    """Output columns of the gaps between strands."""
    size = (problem.in_size if backward else problem.out_size)[-1]
    for gap in geometry._gaps(geometry.strands(problem, -1, backward), size):
        for start, column in itertools.product(range(gap.count), range(gap.width)):
            if gap.start + start * gap.step + column < size:
                yield gap.start + start * gap.step + column


def out_columns(one):
    return [one["out_start"] + m * one["out_step"] for m in range(one["out_count"])]


def expand(one):
    """(out column, in column, tap) of a pass, as kernels/common/problem.h defines it."""
    for m, j in itertools.product(range(one["out_count"]), range(one["taps"])):
        i = m + j - one["shift"]
        if 0 <= i < one["in_count"]:
            yield (
                one["out_start"] + m * one["out_step"],
                one["in_start"] + i * one["in_step"],
                one["first_tap"] + j * one["tap_step"],
            )


def check_columns(problem, backward):
    """All strands of a row together are the definition, no product twice."""
    sizes = (problem.in_size, problem.out_size) if backward else (problem.out_size, problem.in_size)
    wanted = Counter((i, o, t) if backward else (o, i, t) for o, i, t in column_triples(problem))
    strands = strands_of(problem, backward)
    assert Counter(itertools.chain.from_iterable(map(expand, strands))) == wanted
    for one in strands:
        assert 1 <= one["taps"] <= geometry.MAX_TAPS
        assert any(True for _ in expand(one)), "a pass that meets nothing"
        assert one["out_step"] >= 1 and one["in_step"] >= 1
        assert all(0 <= column < sizes[0][-1] for column in out_columns(one))
        assert one["in_count"] == 0 or 0 <= one["in_start"]
        assert one["in_start"] + (one["in_count"] - 1) * one["in_step"] < sizes[1][-1]


def check_ends(problem, backward):
    """Every output column is opened and closed once, around all that is added, or belongs to a gap."""
    size = (problem.in_size if backward else problem.out_size)[-1]
    opened, closed = [0] * size, [0] * size
    for one in strands_of(problem, backward):
        for column in out_columns(one):
            opened[column] += one["opens"]
            assert opened[column] == 1
            assert closed[column] == 0
            closed[column] += one["closes"]
    for column in gap_columns(problem, backward):
        opened[column] += 1
        closed[column] += 1
    assert opened == closed == [1] * size


def check_windows(problem, backward):
    """A window holds whatever columns any of the strands that share it reach; sharing strands are neighbours."""
    strands = strands_of(problem, backward)
    groups = []
    for one in strands:
        columns = [one[name] for name in geometry.Strand._fields[:6]]
        assert one["new_columns"] or columns == groups[-1][0]
        if one["new_columns"]:
            groups.append((columns, []))
        groups[-1][1].append(one)
    for (columns, together), (others, (one, *_)) in itertools.pairwise(groups):
        if columns == others:  # only where one window would have been too long
            ones = [*together, one]
            needed = max(one["shift"] for one in ones) + max(one["taps"] - 1 - one["shift"] for one in ones)
            assert needed > geometry.MAX_WINDOW
    for _, together in groups:
        shift, window = together[0]["window_shift"], together[0]["window"]
        for one in together:
            assert (one["window_shift"], one["window"]) == (shift, window)
            assert window >= 0
            if one["taps"]:  # columns m + j - shift of the pass lie in [-window_shift, count + window - window_shift)
                assert one["shift"] <= shift
                assert one["taps"] - 1 - one["shift"] + shift <= window


def check_weights(problem, backward):
    """Where a pass looks for the weight of a tap is where the tap has been put, and no two taps share a place."""
    places = geometry._tap_places(problem, backward)
    assert len(places) == problem.kernel[-1]
    for one in strands_of(problem, backward):
        for j in range(one["taps"]):
            assert places[one["first_tap"] + j * one["tap_step"]] == (one["taps_before"], one["taps"], j)
    used = sorted(before + index for before, _, index in places)
    assert used == list(range(problem.kernel[-1]))
    assert all(0 <= index < taps for _, taps, index in places)


def check_rows(problem, backward):
    table = geometry.row_table(problem, backward)
    outs = (problem.in_size if backward else problem.out_size)[:-1]
    assert table.dtype == np.int64
    assert table.shape == (np.prod(outs, dtype=int), np.prod(problem.kernel[:-1], dtype=int))
    wanted = np.full(table.shape, -1)
    for out, row, tap in row_triples(problem):
        target, source = (row, out) if backward else (out, row)
        wanted[target, tap] = source
    np.testing.assert_array_equal(table, wanted)


def check_outer_strands(problem, backward):
    """With one outer dimension, all outer strands together are the table of rows."""
    made = geometry.backward_map(problem) if backward else geometry.forward_map(problem)
    if problem.dims != 2:
        assert made.most_outer_taps == made.most_rows == 0
        return
    strands = strands_of(problem, backward, 0)
    table = np.full((made.shape[0], problem.kernel[0]), -1)
    for target, source, tap in itertools.chain.from_iterable(map(expand, strands)):
        assert table[target, tap] == -1
        table[target, tap] = source
    np.testing.assert_array_equal(table, geometry.row_table(problem, backward))
    assert made.most_outer_taps == max((one["taps"] for one in strands), default=0) <= geometry.MAX_TAPS
    assert made.most_rows == max((one["out_count"] for one in strands), default=0)


CHECKS = (check_columns, check_ends, check_windows, check_weights, check_rows, check_outer_strands)
DIRECTIONS = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])


@DIRECTIONS
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@given(problem=problems())
def test_any_geometry(check, backward, problem):
    check(problem, backward)


@DIRECTIONS
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_all_cases(check, backward):
    for case in (*GEOMETRIES, *TRANSPOSED):
        check(problem_of(case), backward)


def test_every_small_row():
    """One dimension, all small sizes, where mistakes at the edges show."""
    for kernel, stride, dilation, padding in itertools.product(range(1, 8), range(1, 5), range(1, 5), range(3)):
        for size in (1, 2, 5, 12):
            most = (size + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
            if most < 1:
                continue
            problem = Problem(1, 1, 1, 1, (size,), (most,), (kernel,), (stride,), (padding,), (dilation,))
            for backward in (False, True):
                check_columns(problem, backward)
                check_ends(problem, backward)


@DIRECTIONS
@given(problem=problems())
def test_both_directions_hold_the_same_products(backward, problem):
    """backward_data visits what forward visits, seen from the other side."""
    triples = [
        {(i, o, t) if backward else (o, i, t) for one in strands_of(problem, backward) for o, i, t in expand(one)}
        for backward in (False, True)
    ]
    assert triples[0] == {(o, i, t) for o, i, t in triples[1]}


@DIRECTIONS
@given(problem=problems())
def test_maps(backward, problem):
    """The C tables have the sizes of the problem."""
    made = geometry.backward_map(problem) if backward else geometry.forward_map(problem)
    outs, ins = (problem.in_size, problem.out_size) if backward else (problem.out_size, problem.in_size)
    assert made.shape == (np.prod(outs[:-1], dtype=int), outs[-1], np.prod(ins[:-1], dtype=int), ins[-1])
    assert made.all_taps == np.prod(problem.kernel)
    strands = strands_of(problem, backward)
    assert made.most_taps == max((one["taps"] for one in strands), default=0) <= geometry.MAX_TAPS
    assert made.most_columns == max((one["out_count"] for one in strands), default=0)
    assert made.most_window == max((one["window"] for one in strands), default=0)


@DIRECTIONS
@given(problem=problems(most_dims=1), data=st.data())
def test_segments_have_room(backward, problem, data):
    """`in_segment` is no less than the columns of `in` that a kernel packs for a segment of `out`."""
    strands = strands_of(problem, backward)
    size, in_size = (problem.in_size, problem.out_size) if backward else (problem.out_size, problem.in_size)
    segment = data.draw(st.integers(1, size[-1]))
    room = min(in_size[-1], blocking.in_columns(problem, segment, backward))
    for column in range(0, size[-1], segment):
        low, high = in_size[-1], 0
        for one in strands:
            meets = [source for target, source, _ in expand(one) if column <= target < min(column + segment, size[-1])]
            low, high = min([low, *meets]), max([high, *(source + 1 for source in meets)])
        assert high - low <= room


@DIRECTIONS
@pytest.mark.parametrize("kernel, sparse", [("skip", False), ("skip", True), ("dense", False)])
@given(
    problem=problems(), batch=st.integers(1, 40), channels=st.integers(1, 600), lanes=st.integers(1, 600),
    threads=st.sampled_from((1, 2, 3, 16)),
)  # fmt: skip
def test_blocking(isa, kernel, sparse, backward, problem, batch, channels, lanes, threads):
    """Tiles lie within what the kernels were compiled for, and within the problem."""
    assume(not problem.empty)
    dense = kernel == "dense"
    problem = Problem(
        batch, 1, channels, lanes, problem.in_size, problem.out_size, problem.kernel, problem.stride, problem.padding,
        problem.dilation,
    )  # fmt: skip
    made = geometry.backward_map(problem) if backward else geometry.forward_map(problem)
    _, columns, _, in_columns = made.shape
    accumulators, _, dense_vectors = cpu._cpu.registers()
    taps, vectors = max(1, made.most_taps), -(-lanes // 16)
    serial = rows.blocking(problem, made, channels, lanes, f"rows_{kernel}", sparse, backward, 1)
    sizes = rows.blocking(problem, made, channels, lanes, f"rows_{kernel}", sparse, backward, threads)
    assert 1 <= sizes["lane_vectors"] <= min(vectors, 8)
    assert sizes["lane_vectors"] <= dense_vectors if dense else sizes["lane_vectors"] * taps <= accumulators
    assert 1 <= sizes["channel_block"] <= (256 if dense else 64)
    assert 1 <= sizes["chunk_rows"]
    assert 1 <= sizes["segment"] <= columns
    assert sizes["segments"] == -(-columns // sizes["segment"])
    assert sizes["segments"] == 1 or sizes["chunk_rows"] == 1
    assert 1 <= sizes["in_segment"] <= in_columns
    assert 1 <= sizes["lane_groups"] <= -(-vectors // sizes["lane_vectors"])
    for name in ("lane_vectors", "channel_block"):  # what decides about the order of sums does not know of threads
        assert sizes[name] == serial[name]

    serial = gradient.blocking(problem, made, channels, lanes, f"gradient_{kernel}", sparse, 1)
    sizes = gradient.blocking(problem, made, channels, lanes, f"gradient_{kernel}", sparse, threads)
    assert 1 <= sizes["lane_vectors"] <= min(vectors, 8)
    together = taps * sizes["outer_group"]
    assert sizes["lane_vectors"] <= dense_vectors if dense else sizes["lane_vectors"] * together <= accumulators
    assert sizes["outer_group"] >= 1
    assert sizes["outer_group"] == 1 or (sizes["outer_group"] == made.most_outer_taps and not dense)
    assert 1 <= sizes["channel_block"] <= channels
    assert 1 <= sizes["lane_blocks"] <= -(-vectors // sizes["lane_vectors"])
    assert 1 <= sizes["chunk_rows"]
    assert sizes["segments"] == -(-made.most_columns // sizes["segment"])
    for name in ("outer_group", "lane_vectors", "chunk_rows", "segment"):
        assert sizes[name] == serial[name]

    if problem.one_tap and sparse:
        sizes = gradient.points_blocking(problem, made, channels, lanes, threads)
        assert 1 <= sizes["lane_vectors"] <= min(vectors, 8)
        assert sizes["channel_block"] == channels or sizes["channel_block"] % 64 == 0
        assert 1 <= sizes["lane_blocks"] <= -(-vectors // sizes["lane_vectors"])
        assert sizes["segments"] == -(-made.most_columns // sizes["segment"])
        assert sizes["segments"] == 1 or sizes["chunk_rows"] == 1


@pytest.mark.parametrize("image", [1, 7, 14, 28, 56, 113, 224])
@pytest.mark.parametrize("taps", [1, 3])
def test_even_chunks_fit(image, taps):
    """Chunks of whole images, of equal parts of them, or as many rows as there is room for."""
    case = Case(16, 16, (image, image), (taps, taps), padding=taps // 2)
    pairing = geometry.backward_map(problem_of(case))
    for positions in (64, 352, 704):
        segment, rows = gradient._even_chunk(pairing, positions, taps - 1)
        assert 1 <= segment <= image
        assert rows == 1 or (rows + taps - 1) * (segment + pairing.most_window) <= positions
        assert rows <= 2 or rows % image == 0 or image % rows == 0 or segment * rows > 0.3 * positions
