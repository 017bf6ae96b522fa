"""Transposable N:M masks: full rows and columns, the optimum, and how near to it the fast methods come."""

import itertools

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from children import run
from hypothesis import given
from hypothesis import strategies as st

from sparseconv import cpu
from sparseconv.pruning import nm_mask, transposable_nm_mask

METHODS = ("exact", "greedy", "entropy")
PATTERNS = (
    (1, 2),
    (1, 4),
    (2, 4),
    (3, 4),
    (2, 5),
    (3, 7),
    (2, 8),
    (4, 8),
    (6, 8),
    (11, 12),
    (8, 16),
    (16, 32),
    (1, 32),
)
NORMAL = {m: np.random.default_rng(m).standard_normal((16 * m, 20 * m)).astype(np.float32) for m in (4, 8, 16)}


def blocks(matrix, m):
    """(blocks, m, m)."""
    rows, columns = matrix.shape
    return matrix.reshape(rows // m, m, columns // m, m).swapaxes(1, 2).reshape(-1, m, m)


def kept(w, mask):
    return np.abs(w, dtype=np.float64)[mask].sum()


def check(w, n, m, method, **options):
    """Every row and column of every block is full; both the matrix and its transpose are N:M."""
    before = w.copy()
    mask = transposable_nm_mask(w, n, m, method, **options)
    assert mask.dtype == np.bool_
    assert mask.shape == w.shape
    assert mask.flags.c_contiguous
    assert set(np.unique(mask.view(np.uint8))) <= {0, 1}
    np.testing.assert_array_equal(w, before)
    parts = blocks(mask.reshape(len(w), -1), m)
    assert (parts.sum(axis=1) == n).all()
    assert (parts.sum(axis=2) == n).all()
    return mask


# --- the optimum ---


def assert_optimal(block, mask):
    """No cycle of exchanges gains, by Bellman and Ford on the residual graph: then the mask is a best one.

    A kept element may be given up (column to row, cost |w|), another one taken (row to column, cost -|w|).
    """
    m, w = len(block), np.abs(block, dtype=np.float64)
    takes, gives = np.where(mask, np.inf, -w), np.where(mask, w, np.inf)
    row, column = np.zeros(m), np.zeros(m)
    for _ in range(2 * m):
        column = np.minimum(column, (row[:, None] + takes).min(axis=0))
        row = np.minimum(row, (column[None, :] + gives).min(axis=1))
    slack = 1e-12 * w.max()
    assert (column <= (row[:, None] + takes).min(axis=0) + slack).all()
    assert (row <= (column[None, :] + gives).min(axis=1) + slack).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, m", PATTERNS)
def test_exact_is_optimal(isa, n, m, dtype):
    rng = np.random.default_rng((n, m))
    shape = (3 * m, 6 * m) if m < 32 else (m, 2 * m)
    for w in (rng.standard_normal(shape), rng.integers(-3, 4, shape), rng.standard_cauchy(shape), np.ones(shape)):
        w = w.astype(dtype)
        mask = check(w, n, m, "exact")
        for block, part in zip(blocks(w, m), blocks(mask, m), strict=True):
            assert_optimal(block, part)


def test_certificate_of_optimality():
    """The test above would notice a mask that is not the best."""
    w = np.array([[5.0, 1.0], [1.0, 5.0]])
    assert_optimal(w, np.eye(2, dtype=bool))
    with pytest.raises(AssertionError):
        assert_optimal(w, ~np.eye(2, dtype=bool))
    greedy = check(NORMAL[8], 4, 8, "greedy")
    with pytest.raises(AssertionError):
        for block, part in zip(blocks(NORMAL[8], 8), blocks(greedy, 8), strict=True):
            assert_optimal(block, part)


@pytest.mark.parametrize("n, m", [(1, 4), (2, 4), (3, 4), (1, 3), (2, 3)])
def test_exact_against_all_masks(n, m):
    rows = [row for row in itertools.product((0, 1), repeat=m) if sum(row) == n]
    every = np.array([rows for rows in itertools.product(rows, repeat=m) if (np.sum(rows, axis=0) == n).all()])
    assert len(every) == {(2, 4): 90, (1, 4): 24, (3, 4): 24}.get((n, m), 6)
    w = np.random.default_rng(m).standard_normal((8 * m, 12 * m))
    mask = check(w, n, m, "exact")
    best = np.einsum("brc,prc->bp", np.abs(blocks(w, m)), every).max(axis=1)
    np.testing.assert_allclose((np.abs(blocks(w, m)) * blocks(mask, m)).sum(axis=(1, 2)), best, rtol=1e-12)


@pytest.mark.parametrize("n, m", [(2, 4), (3, 5), (4, 8), (8, 16)])
def test_exact_against_linear_programming(n, m):
    """The relaxed problem, 0 <= S <= 1, has an integral optimum."""
    optimize = pytest.importorskip("scipy.optimize")
    w = np.random.default_rng(n).standard_normal((2 * m, 4 * m)).astype(np.float32)
    mask = check(w, n, m, "exact")
    sums = np.vstack([np.kron(np.eye(m), np.ones(m)), np.kron(np.ones(m), np.eye(m))])
    for block, part in zip(blocks(w, m), blocks(mask, m), strict=True):
        cost = -np.abs(block, dtype=np.float64).ravel()
        solved = optimize.linprog(cost, A_eq=sums, b_eq=np.full(2 * m, n), bounds=(0, 1), method="highs")
        assert solved.status == 0
        assert kept(block, part) == pytest.approx(-solved.fun, rel=1e-9)


def test_transposed_matrix_keeps_as_much():
    for n, m in ((2, 4), (4, 8), (8, 16)):
        w = NORMAL[m]
        there, back = check(w, n, m, "exact"), check(w.T, n, m, "exact")
        assert kept(w, there) == pytest.approx(kept(w.T, back), rel=1e-12)
        np.testing.assert_array_equal(there, back.T)  # one best mask: no two of these weights are equal


@pytest.mark.parametrize("scale", [1e-30, 1e-38, 1.0, 1e30, 3e37])
@pytest.mark.parametrize("method", METHODS)
def test_any_magnitude(isa, method, scale):
    """Neither over- nor underflow: weights 2^k times as large have the same mask."""
    w = np.random.default_rng(1).uniform(1, 2, (32, 64)).astype(np.float32)
    expected = check(w, 4, 8, method)
    scale = np.float32(2.0 ** np.round(np.log2(scale)))
    np.testing.assert_array_equal(check(w * scale, 4, 8, method), expected)
    np.testing.assert_array_equal(check(w.astype(np.float64) * float(scale) ** 7, 4, 8, method), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n, m", PATTERNS)
def test_every_method_fills_rows_and_columns(isa, n, m, method):
    """Whatever the weights: many equal ones, only zeros, a few that dwarf all others, one row or block of nothing."""
    rng = np.random.default_rng((n, m))
    shape = (2 * m, 3 * m)
    few = np.where(rng.random(shape) < 0.05, 1e6, 1e-6) * rng.standard_normal(shape)
    hole = rng.standard_normal(shape)
    hole[m - 1 : 2 * m] = 0
    many = (
        rng.integers(-1, 2, shape),
        np.zeros(shape),
        np.full(shape, -7.0),
        few,
        hole,
        rng.standard_cauchy(shape) ** 5,
    )
    for w in many:
        check(w.astype(np.float32), n, m, method)
    for w in (np.full(shape, 5e-324), np.full(shape, 1e-310)):
        check(w, n, m, method)


# --- how near the fast methods come ---


@pytest.mark.parametrize(
    "n, m, greedy, entropy", [(2, 4, 0.998, 0.9995), (4, 8, 0.997, 0.9993), (8, 16, 0.997, 0.999)]
)  # fmt: skip
def test_quality(isa, n, m, greedy, entropy):
    w = NORMAL[m]
    best = kept(w, transposable_nm_mask(w, n, m))
    assert greedy < kept(w, check(w, n, m, "greedy")) / best <= 1
    assert entropy < kept(w, check(w, n, m, "entropy")) / best <= 1


def keep_rule(w, n, m):
    """KEEP, heavy to light, if row and column have room: the greedy step of Hubara et al.'s code, and no more."""
    parts = np.abs(blocks(w, m))
    mask, all_blocks = np.zeros(parts.shape, bool), np.arange(len(parts))
    for place in np.argsort(-parts.reshape(len(parts), -1), axis=1, kind="stable").T:
        row, column = place // m, place % m
        mask[all_blocks, row, column] = (mask.sum(2)[all_blocks, row] < n) & (mask.sum(1)[all_blocks, column] < n)
    return parts, mask


@pytest.mark.parametrize(
    "n, m, keep, filled, one_sided",
    [(2, 4, 0.984, 0.980, 1.064), (4, 8, 0.988, 0.982, 1.035), (8, 16, 0.991, 0.989, 1.018)],
)
def test_known_ratios(n, m, keep, filled, one_sided):
    """Kept magnitude over the optimum on normal weights, mean of 320 blocks: the KEEP rule alone, and one-sided N:M."""
    w = NORMAL[m]
    parts, mask = keep_rule(w, n, m)
    best = (parts * blocks(transposable_nm_mask(w, n, m), m)).sum(axis=(1, 2))
    alone = ((parts * mask).sum(axis=(1, 2)) / best).mean()
    greedy = ((parts * blocks(transposable_nm_mask(w, n, m, "greedy"), m)).sum(axis=(1, 2)) / best).mean()
    assert alone == pytest.approx(keep, abs=0.003)
    assert mask.sum() / (len(mask) * n * m) == pytest.approx(filled, abs=0.004)
    assert alone < greedy
    assert kept(w, nm_mask(w, n, m)) / best.sum() == pytest.approx(one_sided, abs=0.004)


def test_greedy_leaves_no_exchange_of_two_rows():
    """Where row i keeps column a and not b, and row j keeps b and not a, exchanging them gains nothing."""
    w = np.abs(NORMAL[8])
    mask = check(w, 4, 8, "greedy")
    for block, part in zip(blocks(w, 8), blocks(mask, 8), strict=True):
        for i, j in itertools.combinations(range(8), 2):
            change = block[i] - block[j]
            assert change[part[i] & ~part[j]].min(initial=np.inf) >= change[part[j] & ~part[i]].max(initial=-np.inf)


# --- shapes ---


@pytest.mark.parametrize("method", METHODS)
def test_convolution_weights(method):
    """(K, C, R, S) is the matrix (K, C * R * S), in any memory order."""
    w = np.random.default_rng(4).standard_normal((16, 8, 3, 3)).astype(np.float32)
    expected = transposable_nm_mask(w.reshape(16, 72), 4, 8, method).reshape(w.shape)
    np.testing.assert_array_equal(check(w, 4, 8, method), expected)
    np.testing.assert_array_equal(transposable_nm_mask(np.asfortranarray(w), 4, 8, method), expected)
    np.testing.assert_array_equal(
        transposable_nm_mask(w[::-1, ::-1], 4, 8, method),
        transposable_nm_mask(w[::-1, ::-1].copy(), 4, 8, method),
    )


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), m=st.integers(1, 12), n=st.integers(1, 12),
    method=st.sampled_from(METHODS), seed=st.integers(0, 99),
)  # fmt: skip
def test_padded_blocks(rows, columns, m, n, method, seed):
    """Blocks at the edges are those of the matrix with zeros behind it, cut."""
    n = min(n, m)
    w = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    mask = transposable_nm_mask(w, n, m, method, pad=True)
    if n == m:
        assert mask.all()
        return
    padded = np.pad(w, ((0, -rows % m), (0, -columns % m)))
    np.testing.assert_array_equal(mask, check(padded, n, m, method)[:rows, :columns])


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("method", METHODS)
def test_guard_pages(isa, method, at_end):
    for shape in ((8, 8), (13, 21), (1, 3)):
        w = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(
            transposable_nm_mask(guarded(w, at_end), 2, 4, method, pad=True),
            transposable_nm_mask(w, 2, 4, method, pad=True),
        )


# --- the same everywhere ---


@pytest.mark.parametrize("method", ["exact", "greedy"])
def test_blocks_do_not_meet(isa, method):
    """Sixteen blocks are searched together; each has the mask that it has alone, however long the others take."""
    for n, m in ((4, 8), (8, 16)):
        w = NORMAL[m][: 5 * m]
        for block, part in zip(blocks(w, m), blocks(check(w, n, m, method), m), strict=True):
            np.testing.assert_array_equal(transposable_nm_mask(block, n, m, method), part)


@pytest.mark.parametrize("method", METHODS)
def test_number_of_threads(method):
    w = np.random.default_rng(1).standard_normal((248, 520)).astype(np.float32)
    expected = transposable_nm_mask(w, 4, 8, method, num_threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(transposable_nm_mask(w, 4, 8, method, num_threads=threads), expected)


@pytest.mark.parametrize("method", ["exact", "greedy"])
def test_instruction_sets(isa, method):
    """Bit for bit: nothing in them depends on how a multiply-add rounds."""
    for n, m in ((2, 4), (4, 8), (8, 16)):
        mask = transposable_nm_mask(NORMAL[m], n, m, method)
        with cpu.use_isa("scalar"):
            np.testing.assert_array_equal(mask, transposable_nm_mask(NORMAL[m], n, m, method))


def test_instruction_sets_of_entropy(isa):
    """How a multiply-add rounds decides between magnitudes that are almost as good, one in thousands."""
    for n, m in ((2, 4), (4, 8), (8, 16)):
        mask = transposable_nm_mask(NORMAL[m], n, m, "entropy")
        with cpu.use_isa("scalar"):
            scalar = transposable_nm_mask(NORMAL[m], n, m, "entropy")
        assert np.count_nonzero(mask != scalar) <= mask.size / 1000


def test_everything_kept():
    assert transposable_nm_mask(NORMAL[4], 4, 4).all()
    assert transposable_nm_mask(NORMAL[4][:3, :5], 1, 1, "greedy").all()


def test_interrupt():
    """Ctrl-C ends a long search soon, with the usual exception; the next call is right."""
    lines = run("""
        from sparseconv.pruning import transposable_nm_mask

        w = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
        expected = transposable_nm_mask(w, 16, 32)
        many = np.tile(w, (512, 16))  # about ten seconds
        print(interrupted(lambda: transposable_nm_mask(many, 16, 32)))
        assert np.array_equal(transposable_nm_mask(w, 16, 32), expected)
        """)
    assert float(lines[-1]) < 2


# --- errors ---

W = np.ones((8, 12), np.float32)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: transposable_nm_mask(W, 5, 4), ValueError, "n: got 5, expected at most m = 4"),
        (lambda: transposable_nm_mask(W, 0, 4), ValueError, "n: got 0"),
        (lambda: transposable_nm_mask(W, 2.0, 4), TypeError, "n: got 2.0"),
        (lambda: transposable_nm_mask(W, 2, 33), ValueError, "m: got 33, expected at most 32"),
        (lambda: transposable_nm_mask(W, 2, 6), ValueError, "m: got 6, expected a divisor of 8, the number of rows"),
        (lambda: transposable_nm_mask(W, 4, 8), ValueError, "m: got 8, expected a divisor of 12, the number of col"),
        (lambda: transposable_nm_mask(W, 8, 8), ValueError, "m: got 8, expected a divisor of 12"),
        (lambda: transposable_nm_mask(W, 2, 4, "best"), ValueError, "method: got 'best', expected one of 'exact'"),
        (lambda: transposable_nm_mask(W, 2, 4, None), ValueError, "method: got None"),
        (lambda: transposable_nm_mask(W[0], 2, 4), ValueError, r"w: got 1 dimensions \(shape \(12,\)\), expected a m"),
        (lambda: transposable_nm_mask(W * np.nan, 2, 4), ValueError, "w: got NaN"),
        (lambda: transposable_nm_mask(W * np.inf, 2, 4), ValueError, "w: got an infinity"),
        (lambda: transposable_nm_mask(W * -np.inf, 2, 4), ValueError, "w: got an infinity"),
        (lambda: transposable_nm_mask(W.astype(complex), 2, 4), TypeError, "w: got dtype complex128"),
        (lambda: transposable_nm_mask(None, 2, 4), TypeError, "w: got NoneType"),
        (lambda: transposable_nm_mask(W, 2, 4, num_threads=1.5), TypeError, "num_threads: got 1.5"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 12), (8, 0), (0, 0), (0, 4, 3, 3)])
def test_empty(shape, method):
    for dtype in (np.float32, np.float64):
        mask = transposable_nm_mask(np.empty(shape, dtype), 2, 4, method)
        assert mask.shape == shape and mask.dtype == np.bool_
