"""Loop orders of the tile kernels of rows: what is chosen, results, and work, which is counted in place of times.

On emulated tile registers. What other tests of tiles ask is asked here of pieces of images side by side in a tile,
which small problems would not choose.
"""

import numpy as np
import pytest
from amx_emulated import needs_compiler
from cases import CASES, TRANSPOSED_CASES, Case, call, in_layout, operands, oracle, prepared, sparse_floats, sparse_ints
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from tile_cases import BIG_CASES, on_tiles

import sparseconv as sc
from sparseconv._core import amx

pytestmark = needs_compiler

FORMATS = pytest.mark.parametrize("fp16", [False, True], ids=["bf16", "fp16"])
ROWS = ("forward", "backward_data")
# Pieces of one image and of many, the last tile full or not, rows that meet different taps, gaps, columns in segments.
PIECE_CASES = (
    Case(40, 48, (7, 7), (3, 3), batch=16, padding=1, kind=1),
    Case(33, 20, (5, 6), (3, 3), batch=17, padding=1),
    Case(70, 33, (12, 9), (3, 3), batch=3, padding=1, kind=2),
    Case(48, 64, (14, 14), (3, 3), batch=2, stride=2, padding=1, kind=1),
    Case(34, 64, (9, 8), (2, 3), batch=2, stride=3, dilation=2, padding=(4, 3), groups=2, kind=1),
    Case(64, 17, (6, 7), (1, 1), batch=5, stride=2, kind=1),
    Case(33, 16, (35,), (5,), batch=18, padding=7, kind=1),
    Case(20, 33, (3, 4, 5), (2, 3, 3), batch=4, padding=1),
)


@pytest.fixture
def few_terms(monkeypatch):
    """Two fp16 parts however few terms a sum has."""
    monkeypatch.setattr(amx, "FP16_TERMS", 0)


@pytest.fixture(params=[1 << 21, 1 << 14], ids=["large chunks", "small chunks"])
def in_pieces(monkeypatch, request):
    """Pieces wherever the kernel can have them; small chunks have one row, or columns of it."""

    def most(problem, channels, lanes, parts, backward):
        if problem.pointwise:
            return 0
        size = problem.in_size if backward else problem.out_size
        counts = range(1, amx.MOST_PIECES + 1) if problem.dims <= 2 else [1]
        cuts = [count for count in counts if amx._cuts(problem, size, count, backward)]
        return max(cuts, key=lambda count: amx._fill(max(1, problem.batch) * count, amx.TILE))

    monkeypatch.setattr(amx, "pieces", most)
    for name in ("PIECES_BYTES", "HEAVY_PIECES_BYTES"):
        monkeypatch.setattr(amx, name, request.param)


# --- results of pieces ---


@FORMATS
@pytest.mark.parametrize("case", [*PIECE_CASES, *CASES[2::9], *TRANSPOSED_CASES[::4], BIG_CASES[2]], ids=str)
def test_exact(built, few_terms, in_pieces, case, fp16):
    """Small integers: the oracle's bits."""
    for name in ROWS:
        first, second, expected = prepared(case, name, 0.3)
        with built.active(fp16=fp16):
            assert_exact(on_tiles(built, case, name, first, second), expected, name)
        assert case not in PIECE_CASES or built.calls[-1][1]["pieces"]


@FORMATS
@pytest.mark.parametrize("case", [PIECE_CASES[0], PIECE_CASES[3], PIECE_CASES[6]], ids=str)
def test_last_store(built, few_terms, in_pieces, case, fp16):
    """Bias, residual, ReLU, both masks."""
    first, second, expected = prepared(case, "forward", 0.3)
    bias, residual = np.arange(case.out_c, dtype=np.float32) - 9, np.sign(expected)
    needed = sparse_ints(expected.shape, 0.5, 4)
    plain = oracle(case, "forward", *operands(case, "forward", 0.3), bias=bias)
    with built.active(fp16=fp16):
        y, mask = call(
            sc, case, "forward", first, second, skip="none", bias=bias, activation="relu", return_mask=True
        )  # fmt: skip
        assert_exact(y, np.maximum(plain, 0))
        assert_exact(mask, sc.masks.nonzero_mask(y))
        y = call(sc, case, "forward", first, second, skip="none", bias=bias, residual=residual, activation="relu")
        assert_exact(y, np.maximum(plain + residual, 0))
        for kind in (needed, needed != 0, np.packbits(needed != 0, bitorder="little")):
            y, mask = call(
                sc, case, "forward", first, second, skip="none", output_mask=kind, activation="relu", return_mask=True
            )  # fmt: skip
            assert_exact(y, np.maximum(expected, 0) * (needed != 0))
            assert_exact(mask, sc.masks.nonzero_mask(y))


@FORMATS
def test_error_bound_and_threads(built, few_terms, in_pieces, fp16):
    """Floats, and with one NaN, which vectors compute: the same bits on any number of threads."""
    for case in (PIECE_CASES[0], PIECE_CASES[2], PIECE_CASES[3], PIECE_CASES[4]):
        for name in ROWS:
            first, second = operands(case, name, 0.3, 0, sparse_floats)
            for poison in (None, np.nan):
                if poison is not None:
                    first.flat[first.size // 3] = poison
                wide = first.astype(np.float64), second.astype(np.float64)
                exact, magnitude = oracle(case, name, *wide), oracle(case, name, *map(np.abs, wide))
                arrays = in_layout(case, name, first, second)
                with built.active(fp16=fp16):
                    results = [call(sc, case, name, *arrays, skip="none", num_threads=n) for n in (1, 3)]
                assert_same_bits(*results)
                assert_exact(np.isnan(results[0]), np.isnan(exact))
                finite = np.isfinite(exact)
                assert_within_bound(results[0][finite], exact[finite], magnitude[finite], case.terms(name) + 8)


# --- what is chosen ---


def blocks(built, fp16, batch, channels, size, kernel=3, lanes=None, **more):
    x, w = np.zeros((batch, size, size, channels), np.float32), np.zeros((lanes or channels, channels, kernel, kernel))
    with built.active(always=False, fp16=fp16):
        plan = sc.plan(
            "conv2d", x, w.astype(np.float32), padding=kernel // 2, layout="NHWC", skip="none", num_threads=1, **more
        )  # fmt: skip
    assert plan.kernel == "rows_tiles"
    return plan.blocking


def test_orders(built):
    """Weights of a sweep in L1 where a prototype won with them; images in tiles where positions of rows waste more."""
    orders = {
        (fp16, size): blocks(built, fp16, 16, channels, size)
        for fp16 in (False, True)
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
    }
    assert {key: (one["channel_block"], one["lane_vectors"], one["pieces"]) for key, one in orders.items()} == {
        (False, 56): (64, 4, 0), (False, 28): (128, 4, 0), (False, 14): (32, 2, 1), (False, 7): (32, 2, 1),
        (True, 56): (32, 2, 0), (True, 28): (32, 2, 1), (True, 14): (32, 2, 1), (True, 7): (32, 2, 1),
    }  # fmt: skip
    assert orders[True, 7]["chunk_rows"] == orders[False, 7]["chunk_rows"] == 7, "weights are split for each chunk"
    assert blocks(built, True, 8, 256, 14)["pieces"] == 2
    assert blocks(built, False, 1, 256, 14)["channel_block"] == 256, "positions of rows: not what the prototype did"
    one_tap = blocks(built, False, 16, 256, 14, 1, 1024)
    assert (one_tap["channel_block"], one_tap["lane_vectors"], one_tap["stream"]) == (256, 2, 1)


# --- work ---


def counted(built, case, fp16, **more):
    """(products, loads of operands, loads and stores of sums) of forward."""
    first, second, expected = prepared(case, "forward", 0.3)
    before = [built.counter(name) for name in ("products", "loads", "sums")]
    with built.active(fp16=fp16):
        assert_exact(on_tiles(built, case, "forward", first, second), expected)
    return [built.counter(name) - count for name, count in zip(("products", "loads", "sums"), before, strict=True)]


@FORMATS
def test_work_of_images(built, fp16):
    """Not a product is of padding or of nothing: 19 x 19 pairs of position and tap, where all would be 21 x 21."""
    case = Case(64, 32, (7, 7), (3, 3), batch=16, padding=1, kind=1)
    products, loads, sums = counted(built, case, fp16)
    kinds, tiles = 3 if fp16 else 6, 19 * 19 * 2 * 2  # of positions and taps, 32s of channels, vectors
    assert products == kinds * tiles
    # In pairs 8 loads for 12 products, or 16 for 24. 25 pairs of columns a row: 3 x 2 + 1 are whole, 2 taps of the
    # first and the last column meet padding alone. Never more than 6 for 6, or 12 for 12.
    assert 2 / 3 * products < loads < 0.8 * products
    sweeps = 2 if fp16 else 4
    assert sums == (2 * sweeps - 1) * 49 * 2  # the first of them begins with zeros


def test_work_of_positions(built, monkeypatch):
    """Sums move once a sweep, beside 9 taps of 3 products; with all channels in a sweep once, and weights from L2."""
    case = Case(64, 32, (16, 47), (3, 3), batch=1, padding=1, kind=1)
    monkeypatch.setattr(amx, "pieces", lambda *_: 0)
    tiles = 16 * 48 // 16  # of rows with a column of zeros each
    for short, moves in ((True, 3), (False, 1)):
        monkeypatch.setattr(amx, "short_sweeps", lambda *_, short=short: short)
        products, loads, sums = counted(built, case, True)
        assert products == tiles * 2 * 2 * 9 * 3
        assert loads == products * 8 / 12
        assert sums == tiles * 2 * moves


@FORMATS
def test_one_tap_moves_no_sums(built, fp16):
    """They are stored complete, however many channels there are."""
    case = Case(512, 32, (8, 8), (1, 1), batch=2, kind=1)
    products, loads, sums = counted(built, case, fp16)
    assert products == 8 * 16 * 2 * (3 if fp16 else 6)
    assert loads == products * 8 / 12
    assert sums == 8 * 2


@FORMATS
def test_scratch_memory(built, fp16):
    """Planes of a chunk, sums of two vectors, and what vectors need if tiles give up: a few MB per thread."""
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        x, w = np.zeros((16, size, size, channels), np.float32), np.zeros((channels, channels, 3, 3), np.float32)
        with built.active(always=False, fp16=fp16):
            plan = sc.plan("conv2d", x, w, padding=1, layout="NHWC", skip="none", num_threads=1)
        assert plan.kernel == "rows_tiles"
        assert plan.scratch_bytes < 4.5e6 + 0.15 * (2 * x.nbytes + w.nbytes), plan
