"""Random calls of all other functions: what each must give comes from NumPy, or from a rule written anew."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import stochastic_oracle
from cases import LAYOUTS
from comparisons import UNIT
from fuzz_arrays import (
    chance,
    one_of,
    operand,
    packed_bits,
    placed,
    sparse,
)
from fuzz_results import FLOATS, Call, Out, Vacuous, close, same, shown

import sparseconv as sc
from sparseconv import masks, pruning


def any_shape(rng, most=4):
    return tuple(one_of(rng, (0, 1, 2, 3, 5, 8, 17, 33) if chance(rng, 0.1) else (1, 2, 3, 5, 8, 17, 33))
                 for _ in range(1 + rng.integers(most)))  # fmt: skip


def any_floats(rng, most=4, strange=True):
    """An array of any shape, with NaN, infinities and -0.0 in some."""
    shape, dtype = any_shape(rng, most), one_of(rng, FLOATS)
    if math.prod(shape) > 30_000:
        raise Vacuous
    plain = sparse(rng, shape, chance(rng, 0.5), dtype)
    if strange and chance(rng, 0.3):
        plain = np.where(rng.random(shape) < 0.1, rng.choice(dtype.type((np.nan, np.inf, -np.inf, -0.0)), shape), plain)
    return plain, placed(rng, plain)


def grad_bias(rng):
    ndim, kind = int(rng.integers(4)), int(rng.integers(3))
    layout = LAYOUTS[ndim][kind] if ndim else "NC"
    shape = tuple(one_of(rng, (0, 1, 2, 3) if chance(rng, 0.1) else (1, 2, 5, 9, 17)) for _ in range(ndim + 2))
    whole, dtype, batch = chance(rng, 0.6), FLOATS[int(chance(rng, 0.15))], shape[0]
    shape = (batch, one_of(rng, (1, 3, 16, 17, 33, 40)), *shape[2:])
    if math.prod(shape) > 150_000:
        raise Vacuous
    plain, given, _ = operand(rng, shape, layout if ndim else None, whole, dtype, 0)
    axes = (0, *range(2, ndim + 2))
    exact, magnitude = (one.astype(np.float64).sum(axis=axes) for one in (plain, np.abs(plain)))
    lanes = -len(exact) % 16 if layout.endswith("16c") else 0
    exact, magnitude = (np.concatenate([one, np.zeros(lanes)]) for one in (exact, magnitude))
    out, threads, count = Out(rng, exact.shape, dtype), int(rng.integers(1, 5)), math.prod(shape) // shape[1]
    options = {} if layout == "NCHW" and chance(rng, 0.5) else {"layout": layout}

    def check(result):
        out.check(result)
        if whole:
            same(result, exact.astype(dtype))
        else:
            close(result, exact, (UNIT if dtype == np.float32 else 2.0**-52) * (count + 1) * magnitude, dtype)

    return Call(
        "grad_bias", lambda more: sc.grad_bias(given, **options, num_threads=more or threads, **out.given()), check,
        [given], not exact.any(), f"{shown(given)}, {options}",
    )  # fmt: skip


def of_masks(rng):
    which = one_of(rng, ("nonzero_mask", "pack", "unpack", "relu", "density", "vector_density"))
    plain, given = any_floats(rng)
    live, options, details = plain != 0, {}, shown(given)
    if which == "pack":
        given = placed(rng, live)
    elif which == "unpack":
        given, options = placed(rng, packed_bits(live)), {"shape": live.shape}
    elif which == "vector_density":
        options = {"width": one_of(rng, (1, 2, 7, 16, 40, 10**6))} if chance(rng, 0.8) else {}

    def check(result):
        if which in ("nonzero_mask", "pack"):
            same(result, packed_bits(live))
        elif which == "unpack":
            same(result, live)
        elif which == "density":
            assert result == (live.mean() if live.size else 0)
        elif which == "vector_density":
            width = options.get("width", 16)
            vectors = [live.ravel()[at : at + width].any() for at in range(0, live.size, min(width, live.size or 1))]
            assert result == (sum(vectors) / len(vectors) if vectors else 0)
        else:
            y = np.maximum(plain, 0)
            same(result[0], y, "y")
            same(result[1], packed_bits(y != 0), "mask")
            if out.array is not None:
                out.check(result[0])

    out, in_place = None, False
    if which == "relu":
        out = Out(rng, plain.shape, plain.dtype, contiguous=True)
        if out.array is not None and chance(rng, 0.4):
            given, in_place = out.array, True

    def run(_):
        more = out.given() if out else {}
        if in_place:
            given[...] = plain
        return getattr(masks, which)(given, **options, **more)

    inputs = [] if in_place else [given]
    return Call(f"masks.{which}", run, check, inputs, not live.any(), f"{details}, {list(options)}")


def compress(rng):
    plain, given = any_floats(rng)
    if chance(rng, 0.3):
        tiny = np.finfo(plain.dtype).smallest_subnormal
        plain = np.where(rng.random(plain.shape) < 0.1, tiny * plain.dtype.type(5), plain)
        given = placed(rng, plain)
    out, threads = Out(rng, plain.shape, plain.dtype), int(rng.integers(1, 5))

    def run(more):
        made = sc.compress(given, num_threads=more or threads)
        assert made.shape == plain.shape and made.dtype == plain.dtype
        return sc.decompress(made, num_threads=more or threads, **out.given()), made.mask, made.values.copy(), made.bits

    def check(result):
        dense, mask, values, bits = result
        if out.array is not None:
            out.check(dense)
        unsigned = np.dtype(f"u{plain.itemsize}")
        kept = np.where(plain == 0, plain.dtype.type(0), plain)  # all but the sign of zeros
        same(np.ascontiguousarray(dense).view(unsigned), np.ascontiguousarray(kept).view(unsigned))
        same(mask, packed_bits(plain != 0), "mask")
        in_memory = plain.transpose(memory_order(given))
        same(bits, packed_bits(in_memory != 0), "bits")
        same(values.view(unsigned), in_memory[in_memory != 0].view(unsigned), "values")

    return Call("compress, decompress", run, check, [given], not plain.any(), shown(given))


def kept_count(sparsity, size):
    return size - math.floor(Fraction(str(sparsity)) * size)


def largest(magnitudes, count):
    """Which are the `count` largest; of equal ones the first."""
    mask = np.zeros(magnitudes.size, bool)
    mask[np.argsort(-magnitudes.ravel(), kind="stable")[:count]] = True
    return mask.reshape(magnitudes.shape)


def topk(rng):
    plain, given = any_floats(rng, strange=False)
    if chance(rng, 0.1) and plain.size:
        plain.reshape(-1)[0] = -np.inf
        given = placed(rng, plain)
    sparsity, threads = one_of(rng, (0.0, 0.1, 0.5, 0.58, 0.9, 0.99, 0.999)), int(rng.integers(1, 5))
    count = kept_count(sparsity, plain.size)
    mask = largest(np.abs(plain), count)
    which = one_of(rng, ("topk_mask", "topk_threshold", "TopK"))

    def run(more):
        more = {"num_threads": more or threads}
        if which != "TopK":
            return getattr(pruning, which)(given, sparsity, **more)
        top = pruning.TopK(sparsity, period=2)
        return top.mask(given, **more), top.mask(given, **more), np.array(top.threshold(given, **more))

    def check(result):
        top = np.sort(np.abs(plain), axis=None)[plain.size - count] if plain.size else plain.dtype.type(0)
        threshold = np.nextafter(top, plain.dtype.type(0))
        threshold = 0.0 if threshold < np.finfo(plain.dtype).tiny else threshold
        if which == "topk_mask":
            same(result, mask)
        elif which == "topk_threshold":
            assert result == threshold, (result, threshold)
        else:
            same(result[0], mask, "first step")
            same(result[1], np.abs(plain) > threshold, "second step")
            assert result[2] == threshold

    return Call(f"pruning.{which}", run, check, [given], not mask.any(), f"{shown(given)}, {sparsity}")


def channel_mask(rng):
    shape = any_shape(rng, 4)
    shape = shape if len(shape) > 1 else (*shape, 3)
    plain = sparse(rng, shape, True, one_of(rng, FLOATS))
    given, sparsity = placed(rng, plain), one_of(rng, (0.0, 0.1, 0.5, 0.9))
    norms = np.abs(plain.astype(np.float64)).sum(axis=tuple(range(2, len(shape))))
    mask = largest(norms, kept_count(sparsity, norms.size)).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return Call(
        "pruning.channel_mask", lambda _: pruning.channel_mask(given, sparsity),
        lambda result: same(result, np.broadcast_to(mask, shape)), [given], not mask.any(), shown(given),
    )  # fmt: skip


def nm_mask(rng):
    plain, given = any_floats(rng, strange=False)
    axis = int(rng.integers(plain.ndim))
    size, pad = plain.shape[axis], chance(rng, 0.5)
    m = one_of(rng, (1, 2, 4, 5, 8, 16)) if pad else one_of(rng, [m for m in range(1, 17) if size % m == 0])
    n, threads = int(rng.integers(1, m + 1)), int(rng.integers(1, 5))
    rows = np.abs(np.moveaxis(plain, axis, -1))
    mask = np.zeros(rows.shape, bool)
    for first in range(0, size, m):
        for at in np.ndindex(rows.shape[:-1]):
            mask[at][first : first + m] = largest(rows[at][first : first + m], n)
    expected = np.ascontiguousarray(np.moveaxis(mask, -1, axis))
    axis -= plain.ndim if chance(rng, 0.5) else 0
    return Call(
        "pruning.nm_mask", lambda more: pruning.nm_mask(given, n, m, axis, pad=pad, num_threads=more or threads),
        lambda result: same(result, expected), [given], not mask.any(), f"{shown(given)}, {n}, {m}, {axis}, pad={pad}",
    )  # fmt: skip


def transposable(rng):
    m = one_of(rng, (1, 2, 4, 5, 8))
    n, blocks, dtype = int(rng.integers(1, m + 1)), (1 + rng.integers(3), 1 + rng.integers(4)), one_of(rng, FLOATS)
    plain = sparse(rng, (int(blocks[0] * m), int(blocks[1] * m)), chance(rng, 0.5), dtype)
    given, threads = placed(rng, plain), int(rng.integers(1, 5))
    methods = ("exact", "greedy", "entropy")
    choice = one_of(rng, methods)

    def check(mask):
        assert mask.dtype == bool and mask.shape == plain.shape
        tiles = mask.reshape(blocks[0], m, blocks[1], m)
        assert (tiles.sum(axis=1) == n).all() and (tiles.sum(axis=3) == n).all(), "rows or columns with another number"
        best = (np.abs(plain) * pruning.transposable_nm_mask(given, n, m)).sum(dtype=np.float64)
        got = (np.abs(plain) * mask).sum(dtype=np.float64)
        assert got == best if choice == "exact" else 0.8 * best <= got <= best * (1 + 1e-12), (got, best)

    return Call(
        "pruning.transposable_nm_mask",
        lambda more: pruning.transposable_nm_mask(given, n, m, choice, num_threads=more or threads), check, [given],
        False, f"{shown(given)}, {n}, {m}, {choice}",
    )  # fmt: skip


def stochastic(rng):
    plain, given = any_floats(rng, strange=False)
    sparsity, seed, threads = one_of(rng, (0.0, 0.3, 0.9, 0.99)), int(rng.integers(1000)), int(rng.integers(1, 5))
    out, tau = Out(rng, plain.shape, plain.dtype), 0.0
    if plain.size:
        factor = math.sqrt(math.pi / 2) * NormalDist().inv_cdf((1 + sparsity) / 2)
        tau = factor * math.fsum(np.abs(plain).ravel().astype(np.float64)) / plain.size

    def run(more):
        pruned = pruning.stochastic_prune(given, sparsity, rng=seed, num_threads=more or threads, **out.given())
        return pruned.array, np.array(pruned.density), np.array(pruned.threshold)

    def check(result):
        array, density, threshold = result
        if out.array is not None:
            out.check(array)
        assert array.dtype == plain.dtype and array.shape == plain.shape
        assert abs(threshold - tau) <= 1e-6 * tau, (threshold, tau)
        assert density == (np.count_nonzero(array) / array.size if array.size else 0)
        if not threshold:
            same(array, plain)
            return
        axes = memory_order(given)
        in_memory = np.ascontiguousarray(given.transpose(axes))
        expected = stochastic_oracle.expected(in_memory.reshape(-1), threshold, stochastic_oracle.key_of(seed))
        same(array, expected.reshape(in_memory.shape).transpose(np.argsort(axes)))

    return Call(
        "pruning.stochastic_prune", run, check, [given], not plain.any(), f"{shown(given)}, {sparsity}, rng={seed}"
    )


def memory_order(array):
    """The axes in the order in which the package numbers elements: that of memory, or as they are if it has gaps."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return axes if array.transpose(axes).flags.c_contiguous and not array.flags.c_contiguous else range(array.ndim)
