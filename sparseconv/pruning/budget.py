"""Who gets how many of the weights that remain, and what that saves: SWAT's distributions and its accounting.

The source of all that is said here of SWAT: Raihan and Aamodt, Sparse Weight Activation Training, NeurIPS 2020, Tables
2 to 5, and the README of the code published with it (the source of WRN-16-8, DenseNet-121 and WRN-50-2).

What of their figures comes out, to the printed digit: SWAT-U in ResNet-50 at 50 to 90%, WRN-50-2 at 50 to 90%,
ResNet-18 at 60 and 70%, DenseNet-121 at 50, 60, 70 and 90%, WRN-16-8 at 90%; SWAT-ERK in VGG-16 at 95%. What
does not, in percent:

===================================  ==========  ============  ========================================================
row                                  printed     computed      remarks
===================================  ==========  ============  ========================================================
VGG-16 U 0.9, training               89.7        89.52         89.68 if backward_data of the first layer did not count,
                                                               but then ERK at 0.95 had 89.70 instead of 89.5
ResNet-18 U 0.5, training            49.8        49.86         cut off, not rounded; the README has 49.9
ResNet-50 U 0.9, activation memory   44.0        44.07         the same, but 39.2 at 0.8 is 39.17 rounded
WRN-16-8 ERK 0.95, training          91.4        91.29         ERK at 0.9505 has 91.38
DenseNet-121 ERK 0.9, training       89.7        89.64         ERK at 0.9005 has 89.69
ResNet-50 ERK 0.8, both              60.0, 58.9  60.23, 58.62
ResNet-50 ERK 0.9, both              79.0, 77.8  77.22, 75.82  ERK at 0.908 has 79.03, 77.73
===================================  ==========  ============  ========================================================

For ERK about a hundred variants were tried: sizes of the kernel in the sum or not, the first layer, the last one or
both left out, their weights in the budget or not, densities above 1 clipped or paid for by other layers or by nobody.
None gives either row of ResNet-50. Without the kernel's sizes, eps (C + K) / (C K R S), WRN-16-8 has 91.35 and
DenseNet-121 89.69, but VGG-16 89.76 instead of 89.5. The README's "activation sparsity" of ERK is that of its s_l in
VGG-16 at 95% (82%) and DenseNet-121 (88%), but not in WRN-16-8 (84%; 79% computed) and ResNet-50 (52 and 64%; 33 and
55%), so the authors' s_l seem to be others there. SWAT-M's rows depend on the momentum of their training runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal

from sparseconv._core import checks

from .networks import Layer

__all__ = ["sparsity_distribution", "training_flops"]

# SWAT-M calls a layer full when less than a hundredth of it would be pruned.
_FULL = 0.99


def sparsity_distribution(
    layers: Iterable[Layer],
    sparsity: float,
    method: Literal["uniform", "erk", "momentum"] = "uniform",
    momentum: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """One sparsity per layer, for weights and activations alike.

    With n_l weights in layer l and a budget of (1 - s) sum n_l weights that remain:

    - ``"uniform"`` (SWAT-U): s_l = s, but the first layer is dense, in addition to the budget.
    - ``"erk"`` (SWAT-ERK, the Erdos-Renyi-Kernel distribution of RigL: Evci et al., ICML 2020, section 3(1)): density
      d_l = eps * (sum of the weight's sizes) / (their product), such as eps (C + K + R + S) / (C K R S). A layer that
      would be denser than dense is dense, and eps is found anew for the others, so that the budget is met exactly.
    - ``"momentum"`` (SWAT-M, after Dettmers and Zettlemoyer, 2019): n_l (1 - s_l) = ceil(m_l (1 - s) sum n_l), m_l
      being the layer's share of all layers' momentum. A layer of which more than 99% would remain is dense, and what it
      cannot take is spread evenly over the others (again and again, as more of them fill up). No layer loses its last
      weight. The budget is exceeded by what that and rounding take: one weight per layer and per layer that fills up,
      and at most 1% of each layer that does.

    Takes O(L log L) for L layers, O(L^2) with momentum.

    Parameters
    ----------
    layers : iterable of Layer
    sparsity : float
        s, at least 0 and less than 1.
    method : {"uniform", "erk", "momentum"}
    momentum : mapping of str to float
        With method "momentum", and only then: for each layer's name, the mean magnitude of the optimiser's momentum
        over the weights that are not pruned (Adam: of exp_avg / (sqrt(exp_avg_sq) + 1e-8)).

    Returns
    -------
    dict of str to float
        Sparsity of each layer, at least 0 and less than 1, in the order of the layers.

    Raises
    ------
    TypeError, ValueError
        If there are no layers or two of one name, `sparsity` is not in [0, 1), or `momentum` is missing, there in vain,
        negative, not finite, zero everywhere, or has other keys than the layers' names.
    """
    layers = _layers(layers)
    sparsity = checks.sparsity("sparsity", sparsity)
    checks.word("method", method, ("uniform", "erk", "momentum"))
    if method != "momentum":
        if momentum is not None:
            raise ValueError(f"momentum: got {type(momentum).__name__}, expected None with method {method!r}")
        return _uniform(layers, sparsity) if method == "uniform" else _erk(layers, sparsity)
    shares = _by_name("momentum", momentum, layers, _magnitude)
    if not any(shares.values()):
        raise ValueError("momentum: got 0 for every layer, expected more for one of them at least")
    return _momentum(layers, sparsity, shares)


def _uniform(layers: list[Layer], sparsity: float) -> dict[str, float]:
    return {layer.name: sparsity if number else 0.0 for number, layer in enumerate(layers)}


def _erk(layers: list[Layer], sparsity: float) -> dict[str, float]:
    """Dense layers are found in falling order of d_l / eps: only the first of those left can be too dense.

    In density * weights = eps * (sum of sizes) the product is gone, so that eps = budget / (all sums of sizes).
    """
    budget = (1 - sparsity) * sum(layer.weights for layer in layers)
    sizes = sum(sum(layer.weight_shape) for layer in layers)
    found = {layer.name: 0.0 for layer in layers}
    for layer in sorted(layers, key=lambda one: sum(one.weight_shape) / one.weights, reverse=True):
        density = budget / sizes * sum(layer.weight_shape) / layer.weights
        found[layer.name] = max(0.0, 1 - density)
        if density >= 1:
            budget -= layer.weights
            sizes -= sum(layer.weight_shape)
    return found


def _momentum(layers: list[Layer], sparsity: float, momentum: dict[str, float]) -> dict[str, float]:
    weights = {layer.name: layer.weights for layer in layers}
    largest = max(momentum.values())  # divided by first, so that the sum of very large or small ones is a number
    shares = {name: one / largest for name, one in momentum.items()}
    budget, whole = (1 - sparsity) * sum(weights.values()), sum(shares.values())
    kept = {name: max(1, math.ceil(share / whole * budget)) for name, share in shares.items()}
    growing = set(weights)
    while growing:
        full = {name for name in growing if kept[name] > _FULL * weights[name]}
        excess = sum(kept[name] - weights[name] for name in full)
        kept.update((name, weights[name]) for name in full)
        growing -= full
        if excess <= 0:  # in particular if no layer has become full
            break
        for name in growing:
            kept[name] += math.ceil(excess / len(growing))
    return {name: 1 - kept[name] / weights[name] for name in weights}


def training_flops(layers: Iterable[Layer], sparsity: float | Mapping[str, float]) -> dict[str, float]:
    """What training and inference save, as fractions of the dense FLOPs and of the dense memory for activations.

    Pruned weights save forward and backward_data, pruned activations backward_weight, and both have the sparsity s_l in
    layer l. With F_l = C K R S H_out W_out and B_l = C K R S H_in W_in (`Layer.macs`), A_l elements in the map
    that layer l reads and N_l elements read by its batch normalisation:

    - training: 1 - sum (1 - s_l) (2 F_l + B_l) / sum (2 F_l + B_l)
    - inference: 1 - sum (1 - s_l) F_l / sum F_l
    - activation_memory: sum s_l A_l / (sum A_l + sum N_l), A_l being 0 for a linear layer behind a linear layer; what
      batch normalisation keeps for its own backward pass stays dense.

    These are the formulas that give the figures of SWAT (Raihan and Aamodt, NeurIPS 2020, Tables 2 to 5; the module's
    docstring lists which). backward_data of the first layer counts, although nobody needs it; normalisation, activation
    functions and Top-K cost nothing. Without the map that the first linear layer reads, VGG-16 at 0.9 would save 36.1
    instead of 36.2% of the activation memory. SWAT-U's activations count as sparse in all layers, the dense first one
    included, when `sparsity` is a float: activation_memory is a bit larger (0.006 for ResNet-50 at 0.9) than with the
    mapping of `sparsity_distribution`.

    Takes O(L) for L layers.

    Parameters
    ----------
    layers : iterable of Layer
        Convolutions without groups, and linear layers.
    sparsity : float or mapping of str to float
        A float s is SWAT-U's: the first layer is dense, the others have s. A mapping has one sparsity for each layer's
        name, such as `sparsity_distribution` gives. All at least 0 and less than 1.

    Returns
    -------
    dict
        "training", "inference" and "activation_memory", floats from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If there are no layers or two of one name, or a sparsity is not in [0, 1), missing or of no layer.
    """
    layers = _layers(layers)
    if isinstance(sparsity, Mapping):
        by_layer = maps = _by_name("sparsity", sparsity, layers, checks.sparsity)
    else:
        uniform = checks.sparsity("sparsity", sparsity)
        by_layer, maps = _uniform(layers, uniform), {layer.name: uniform for layer in layers}
    forward = {layer.name: layer.macs["forward"] for layer in layers}
    training = {layer.name: sum(layer.macs.values()) for layer in layers}
    behind_linear = {layer.name for before, layer in pairwise(layers) if before.kind == layer.kind == "linear"}
    read = {layer.name: layer.input_elements for layer in layers if layer.name not in behind_linear}
    return {
        "training": _saved(training, by_layer),
        "inference": _saved(forward, by_layer),
        "activation_memory": _saved(read, maps, dense=sum(layer.batch_norm for layer in layers)),
    }


def _saved(costs: dict[str, int], sparsity: dict[str, float], dense: int = 0) -> float:
    """The part of all costs that is saved; `dense`: costs that nothing is saved of."""
    return sum(sparsity[name] * cost for name, cost in costs.items()) / (sum(costs.values()) + dense)


def _layers(layers: Any) -> list[Layer]:
    """A list of at least one layer, of different names."""
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        hint = " (sparseconv.pruning.network has those of networks by name)" if isinstance(layers, str) else ""
        raise TypeError(f"layers: got {layers!r}, expected several layers{hint}")
    found = list(layers)
    for one in found:
        if not isinstance(one, Layer):
            raise TypeError(f"layers: got {one!r}, expected layers (sparseconv.pruning.Layer)")
    if not found:
        raise ValueError("layers: got none, expected at least one")
    name, count = Counter(layer.name for layer in found).most_common(1)[0]
    if count > 1:
        raise ValueError(f"layers: got {count} of the name {name!r}, expected a name for each")
    return found


def _magnitude(name: str, value: Any) -> float:
    number = checks.number(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: got {value!r}, expected a finite number of at least 0")
    return number


def _by_name(name: str, given: Any, layers: list[Layer], check: Callable[[str, Any], float]) -> dict[str, float]:
    """The checked value of each layer, in the order of the layers, from a mapping that has just their names."""
    if not isinstance(given, Mapping):
        error = ValueError if given is None else TypeError
        raise error(f"{name}: got {given!r}, expected a mapping from the layers' names to numbers")
    names = dict.fromkeys(layer.name for layer in layers)
    faults = [f"none for {one!r}" for one in names if one not in given]
    faults += [f"one for {one!r}, which is no layer" for one in given if one not in names]
    if faults:
        raise ValueError(f"{name}: got {faults[0]}, expected one for each layer and no other")
    return {one: check(f"{name}[{one!r}]", given[one]) for one in names}
