"""Random convolutions, transposed ones and linear layers, and what each must give.

What is expected comes from the oracle (reference.py) with clean channels-first arrays; layouts, masks, thresholds and
activations are applied here, without the package.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cases import LAYOUTS, Case, to_layout
from cases import call as call_pass
from comparisons import UNIT
from fuzz_arrays import (
    alike,
    as_mask,
    chance,
    keep,
    numbers,
    one_of,
    operand,
    packed_bits,
    placed,
)
from fuzz_places import moved, weight_moved
from fuzz_results import FLOATS, Call, Out, Vacuous, close, same, shown
from fuzz_strange import beyond_numbers, flushed, readings, strange

import sparseconv as sc
from sparseconv import reference

SKIPS = {
    "forward": ("auto", "none", "input", "weight", "output"),
    "backward_data": ("auto", "none", "grad_output", "weight", "output"),
    "backward_weight": ("auto", "none", "input", "grad_output"),
}
NAMES = {
    "forward": ("input", "weight"), "backward_data": ("grad_output", "weight"),
    "backward_weight": ("input", "grad_output"),
}  # fmt: skip
EXTRA_OPERANDS = ("bias", "residual", "input_mask", "output_mask", "grad_output_mask")
LEAST_REACHED = 30  # results that products of nonzeros reach, from which on most must not be zero
WORK, LARGE_WORK = 1_000_000, 20_000_000  # multiply-adds of a case at most


def per_dim(rng, value):
    """Sizes as the caller may write them."""
    if len(set(value)) == 1 and chance(rng, 0.5):
        return one_of(rng, (int, np.int64))(value[0])
    return list(value) if chance(rng, 0.2) else value


def geometry(rng):
    """A convolution of few multiply-adds; sizes may be 0 or 1, and steps and padding larger than the image."""
    ndim, transposed, large = one_of(rng, (1, 2, 2, 2, 3)), chance(rng, 0.4), chance(rng, 0.3)
    groups = one_of(rng, (1, 1, 1, 1, 2, 3))
    few, many = (1, 2, 3, 4, 5, 8, 15, 16, 17), (24, 31, 32, 33, 48, 64, 65, 72, 130)
    in_c, out_c = (one_of(rng, many if large else one_of(rng, (few, few, many))) for _ in range(2))
    if chance(rng, 0.08):  # depthwise
        groups, in_c = one_of(rng, few + many), 1
        out_c = one_of(rng, (1, 1, 1, 2))
    taps = (1, 1, 2, 3, 3, 3, 4, 5, 7) if ndim < 3 else (1, 2, 3)
    kernel = tuple(one_of(rng, taps) for _ in range(ndim))
    stride = tuple(one_of(rng, (1, 1, 1, 2, 2, 3, 5, 40)) for _ in range(ndim))
    dilation = tuple(one_of(rng, (1, 1, 1, 1, 2, 3)) for _ in range(ndim))
    extra = tuple(
        int(rng.integers(max(pair))) if transposed and chance(rng, 0.5) else 0
        for pair in zip(stride, dilation, strict=True)
    )
    most = one_of(rng, (0, 1, 2, 2, 4, 12))
    pairs = tuple((int(rng.integers(most + 1)), int(rng.integers(most + 1))) for _ in range(ndim))
    form = one_of(rng, ("pairs", "numbers", "numbers", "valid", "pairs" if transposed else "same"))
    if form == "numbers":
        pairs = tuple((before, before) for before, _ in pairs)
    elif form in ("valid", "same"):
        pairs = ((0, 0),) * ndim
    sizes = []
    for axis, (taken, (before, after)) in enumerate(zip(kernel, pairs, strict=True)):
        extent, free = (taken - 1) * dilation[axis] + 1, before + after
        if transposed:
            least = max(-(-(free + 1 - extent - extra[axis]) // stride[axis]) + 1, 1)
        else:
            least = 1 if form == "same" else max(extent - free, 0 if chance(rng, 0.05) else 1)
        more = one_of(rng, (0, 1, 3, 6, 9)) if ndim < 3 else one_of(rng, (0, 1, 3))
        more += one_of(rng, (4, 8, 16)) if large and not transposed and ndim < 3 else 0
        sizes.append(least + more + (one_of(rng, (15, 50)) if axis == ndim - 1 and chance(rng, 0.1) else 0))
    if chance(rng, 0.02):
        sizes[rng.integers(ndim)] = 0
    padding = {"pairs": pairs, "numbers": tuple(before for before, _ in pairs)}.get(form, form)
    batch = one_of(rng, (2, 4, 9) if large else (0, 1, 1, 1, 2, 2, 3, 5))
    case = Case(
        in_c * groups, out_c * groups, tuple(sizes), kernel, batch=batch, stride=stride, padding=padding,
        dilation=dilation, groups=groups, kind=int(rng.integers(3)), transposed=transposed,
        output_padding=extra if transposed else 0,
    )  # fmt: skip
    inner = math.prod(case.in_size if transposed else case.out_shape[2:])
    work = max(case.batch, 1) * inner * math.prod(kernel) * in_c * out_c * groups
    if work > (LARGE_WORK if large else WORK) or math.prod(case.x_shape) + math.prod(case.out_shape) > 150_000:
        raise Vacuous
    return case


def small_to_zero(array, threshold):
    return np.where(np.abs(array) <= array.dtype.type(threshold), array.dtype.type(0), array)


def packed_weight(rng, plain, given, groups, inputs):
    """The weight as a PackedWeight, and what it then holds: made at once, or by an update of another one."""
    options, kept = {}, np.ones(plain.shape, bool)
    if chance(rng, 0.3):
        options["mask"], kept = as_mask(rng, rng.random(plain.shape) < 0.6, plain.dtype, (), compressed)
    plain = np.where(kept, plain, plain.dtype.type(0))
    if chance(rng, 0.2):
        options["threshold"] = one_of(rng, (0.5, 1, 2))
        plain = small_to_zero(plain, options["threshold"])
    if chance(rng, 0.5):
        packed = sc.pack_weight(placed(rng, numbers(rng, plain.shape, True, plain.dtype)), groups=groups)
        weight_moved(packed).update(given, **options)
    else:
        packed = weight_moved(sc.pack_weight(given, groups=groups, **options))
    same(packed.to_dense(), plain, "to_dense")
    counted = flushed(plain) if plain.dtype == np.float32 else plain
    assert packed.density == np.count_nonzero(counted) / plain.size
    inputs.append(given)
    return plain, packed


def as_spikes(rng, plain, given, inputs):
    """The ones of an x, and a form of zeros and ones. Lanes that hold no channel are ones."""
    bools = given != 0
    if chance(rng, 0.5):
        spikes = placed(rng, bools)
        inputs.append(spikes)
    else:
        bits = moved(packed_bits(bools))
        inputs.append(bits)
        spikes = sc.Spikes(bits, bools.shape)
    return (plain != 0).astype(np.float32), spikes


@dataclass
class Product:
    """One pass of a layer: shapes, layouts, and the oracle on clean arrays."""

    name: str  # public function
    pass_: str
    shapes: tuple  # channels first
    layouts: tuple  # of the operands; None for weights
    groups: int
    terms: int
    compute: Callable  # of clean operands
    to_result: Callable  # channels first to the layout of the result
    channel_axes: tuple  # of the operands and, in backward_data, of the result, in their layout
    weight_shape: tuple
    arguments: tuple = ()  # behind the operands
    options: dict = field(default_factory=dict)
    rows: bool = False  # linear


def convolution(rng):
    try:
        case = geometry(rng)
    except ValueError:  # no output
        raise Vacuous from None
    pass_ = one_of(rng, tuple(SKIPS))
    base, clean = f"conv_transpose{case.ndim}d" if case.transposed else f"conv{case.ndim}d", LAYOUTS[case.ndim][0]
    shapes = {
        "forward": (case.x_shape, case.weight_shape), "backward_data": (case.out_shape, case.weight_shape),
        "backward_weight": (case.x_shape, case.out_shape),
    }[pass_]  # fmt: skip
    options = {}
    for word in ("stride", "dilation"):
        if set(getattr(case, word)) != {1} or chance(rng, 0.3):
            options[word] = per_dim(rng, getattr(case, word))
    if isinstance(case.padding, str) or chance(rng, 0.3):
        options["padding"] = case.padding
    elif not isinstance(case.padding[0], tuple):
        options["padding"] = per_dim(rng, case.padding)
    elif any(map(any, case.padding)):
        options["padding"] = case.padding if chance(rng, 0.7) else [list(pair) for pair in case.padding]
    if case.groups > 1 or chance(rng, 0.2):
        options["groups"] = case.groups
    if case.kind or chance(rng, 0.5):
        options["layout"] = case.layout
    if pass_ == "forward" and case.transposed and any(case.output_padding):
        options["output_padding"] = per_dim(rng, case.output_padding)
    arguments = ()
    if pass_ == "backward_data":
        shape = to_layout(np.empty(case.x_shape, bool), case.layout).shape
        arguments = (list(shape) if chance(rng, 0.2) else shape,)
    elif pass_ == "backward_weight":
        short = case.kind < 2 or not (case.in_c % 16 or case.out_c % 16)
        arguments = (per_dim(rng, case.kernel) if short and chance(rng, 0.6) else case.weight_shape,)
    axes = {0: (1,), 1: (case.ndim + 1,), 2: (1, case.ndim + 2)}[case.kind]
    return judged(rng, Product(
        name=base if pass_ == "forward" else f"{base}_{pass_}", pass_=pass_, shapes=shapes,
        layouts=(case.layout, case.layout if pass_ == "backward_weight" else None), groups=case.groups,
        terms=case.terms(pass_), compute=lambda a, b: call_pass(reference, case, pass_, a, b, layout=clean),
        to_result=(lambda y: y) if pass_ == "backward_weight" else lambda y: to_layout(y, case.layout),
        channel_axes=axes, weight_shape=case.weight_shape, arguments=arguments, options=options,
    ))  # fmt: skip


def linear(rng):
    pass_ = one_of(rng, tuple(SKIPS))
    leading = tuple(int(rng.integers(6)) if chance(rng, 0.1) else one_of(rng, (1, 2, 3, 5, 9, 17)) for _ in range(4))
    leading = leading[: rng.integers(4)]
    in_c, out_c = (one_of(rng, (1, 2, 3, 8, 15, 16, 17, 33, 64, 65, 100, 130)) for _ in range(2))
    if math.prod(leading) * in_c * out_c > WORK:
        raise Vacuous
    x, weight, y = (*leading, in_c), (out_c, in_c), (*leading, out_c)
    function = reference.linear if pass_ == "forward" else getattr(reference, f"linear_{pass_}")
    terms = {"forward": in_c, "backward_data": out_c, "backward_weight": math.prod(leading)}[pass_]
    return judged(rng, Product(
        name=function.__name__, pass_=pass_,
        shapes={"forward": (x, weight), "backward_data": (y, weight), "backward_weight": (x, y)}[pass_],
        layouts=(None, None), groups=1, terms=terms, compute=function, to_result=lambda y: y,
        channel_axes=(len(leading),), weight_shape=weight, rows=True,
    ))  # fmt: skip


def judged(rng, product):
    """The call of a product with random operands, masks and words."""
    pass_, whole, dtype = product.pass_, chance(rng, 0.65), FLOATS[int(chance(rng, 0.12))]
    inputs, options, names = [], dict(product.options), list(NAMES[pass_])
    skip = one_of(rng, SKIPS[pass_])
    masked = [name for name in names if name != "weight" and chance(rng, 0.15)]
    odd = [strange if not masked and chance(rng, 0.06) else None for _ in range(4)]  # operands, bias, residual
    plain, given, repeated = [], [], False
    for name, shape, layout, altered in zip(names, product.shapes, product.layouts, odd[:2], strict=True):
        pad = 0 if name in masked else np.nan
        elements, array, same_again = operand(rng, shape, layout, whole, dtype, pad, altered)
        plain.append(elements)
        given.append(array)
        repeated |= same_again
    spikes = names[0] == "input" and dtype == np.float32 and not masked and odd[0] is None
    spikes = spikes and "transpose" not in product.name and chance(rng, 0.1)
    if spikes:
        plain[0], given[0] = as_spikes(rng, plain[0], given[0], inputs)
    # What is exploited, and how zeros are told.
    for name in masked:
        array = given[names.index(name)]
        live = (array != 0) | (rng.random(array.shape) < one_of(rng, (0, 0.2)))
        options[f"{name}_mask"] = as_mask(rng, live, dtype, product.channel_axes, compressed)[0]
    threshold = one_of(rng, (0.5, 1, 2, np.float32(0.7))) if chance(rng, 0.15) and not masked and not spikes else 0
    if threshold and skip in ("none", "output"):
        skip = "auto"
    if names[1] == "weight" and chance(rng, 0.25):
        plain[1], given[1] = packed_weight(rng, plain[1], given[1], product.groups, inputs)
    elif pass_ == "backward_weight":
        for place in (0, 1):
            if chance(rng, 0.1) and not (spikes and place == 0):
                inputs.append(given[place])
                given[place] = compressed(given[place])
    if threshold:
        options["threshold"] = threshold
        place = 0 if skip == "auto" else names.index(skip)
        plain[place] = small_to_zero(plain[place], threshold)
    bias = None
    if pass_ == "forward":
        if chance(rng, 0.5):
            bias, options["bias"], _ = operand(rng, (product.compute(*plain).shape[-1 if product.rows else 1],), None,
                                               whole, dtype, altered=odd[2])  # fmt: skip
        options |= {"activation": "relu"} if chance(rng, 0.5) else {"activation": None} if chance(rng, 0.1) else {}
        if options.get("activation") and chance(rng, 0.4):
            options["return_mask"] = True
    if dtype == np.float32:
        plain = [flushed(array) for array in plain]
        bias = None if bias is None else flushed(bias)
    finite = [np.where(np.isfinite(array), array, 0).astype(np.float64) for array in plain]
    sums, magnitude = product.compute(*finite), product.compute(*map(np.abs, finite))
    kinds = readings(plain, pass_, skip, threshold) if any(odd[:2]) else ()
    answers = [sums + beyond_numbers(product.compute, *plain, skipped) for skipped in kinds] or [sums]
    reached, live = magnitude > 0, answers[0] != 0
    if bias is not None:
        along = bias.astype(np.float64).reshape(-1 if product.rows else (-1, *[1] * (sums.ndim - 2)))
        with np.errstate(invalid="ignore"):
            answers, magnitude = [one + along for one in answers], magnitude + np.abs(along)
    if pass_ == "forward" and skip != "output" and chance(rng, 0.2):
        layout = product.layouts[0]
        added, options["residual"], _ = operand(rng, sums.shape, layout, whole, dtype, altered=odd[3])
        added = flushed(added) if dtype == np.float32 else added
        with np.errstate(invalid="ignore"):
            answers, magnitude = [one + added for one in answers], magnitude + np.abs(added)
    if options.get("activation"):
        answers = [np.maximum(one, 0) for one in answers]
    answers = [product.to_result(one) for one in answers]
    magnitude, reached, live = map(product.to_result, (magnitude, reached, live))
    if skip == "output" or chance(rng, 0.2):
        pixels = product.channel_axes if pass_ != "backward_weight" else ()
        options["output_mask"], needed = as_mask(rng, keep(rng, magnitude.shape), dtype, pixels, compressed)
        *answers, magnitude, reached = (np.where(needed, one, 0) for one in (*answers, magnitude, reached))
    exact = answers[0]
    if exact.size >= LEAST_REACHED and np.isfinite(exact).mean() < 0.2:
        raise Vacuous
    if reached.sum() >= LEAST_REACHED and not repeated and (live & reached).sum() < 0.3 * reached.sum():
        raise Vacuous
    if skip != "auto" or chance(rng, 0.3):
        options["skip"] = skip
    if chance(rng, 0.2):
        options["precision"] = one_of(rng, ("highest", "high")) if whole else "highest"
    threads = int(rng.integers(1, 5))
    out = Out(rng, exact.shape, dtype, product.rows)
    inputs += [one for one in (*given, *options.values()) if isinstance(one, np.ndarray)]
    function, planned = getattr(sc, product.name), chance(rng, 0.1)
    operands = {"x" if name == "input" else name: one for name, one in zip(names, given, strict=True)}
    operands |= {word: one for word, one in options.items() if word in EXTRA_OPERANDS}
    words = {word: value for word, value in options.items() if word not in EXTRA_OPERANDS}
    earlier = None
    if chance(rng, 0.12):  # a prepared call, which has run with other arrays of these forms
        earlier = {word: alike(rng, one) if isinstance(one, np.ndarray) else one for word, one in operands.items()}

    # The result may be written over the residual.
    over = earlier is None and out.array is not None and "residual" in options and chance(rng, 0.4)

    def run(more):
        if earlier is not None:
            (_, first), (_, second), *extra = earlier.items()
            call = sc.prepare(
                product.name, first, second, *product.arguments, **dict(extra), **words, num_threads=more or threads,
                **out.given(),
            )  # fmt: skip
            call(**earlier, **out.given())
            return call(*(operands[one] for one in call.operands), **out.given())
        if planned:
            plan = sc.plan(product.name, *given, *product.arguments, **options, num_threads=more or threads)
            assert plan.threads <= (more or threads) and plan.scratch_bytes >= 0
        target, own = out.given(), {}
        if over:
            out.array[...], own["residual"] = options["residual"], out.array
        return function(*given, *product.arguments, **options | own, num_threads=more or threads, **target)

    def check(result):
        if options.get("return_mask"):
            result, mask = result
            same(mask, packed_bits(result != 0), "mask")
        out.check(result)
        errors = []
        for answer in answers:
            try:
                return equal(result, answer)
            except AssertionError as error:
                errors.append(error)
        raise errors[0]

    def equal(result, exact):
        if whole:
            same(result, exact.astype(dtype))
            return
        unit = UNIT if dtype == np.float32 else 2.0**-52
        more = product.terms + 4  # with bias and residual
        close(result, exact, unit * more * magnitude + (1e-37 if dtype == np.float32 else 0), dtype)

    told = [shown(one) for one in (*given, *product.arguments)] + [f"{k}={shown(v)}" for k, v in options.items()]
    told += [] if out.array is None else [f"out={shown(out.array)}"]
    told += ["prepared"] if earlier else ["out is residual"] if over else []
    told += ["strange values"] if any(odd) else []
    return Call(product.name, run, check, inputs, not exact.any(), ", ".join(told))


def compressed(array):
    """The array compressed; the parts of it where arrays are to lie."""
    return moved(sc.compress(array))
