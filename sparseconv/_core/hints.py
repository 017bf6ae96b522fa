"""What a word that does not fit was probably meant as: the end of an error message, "" without an idea."""

from __future__ import annotations

# What other libraries and the arguments themselves call the words of this one.
ALIASES = {
    "x": "input", "activation": "input", "activations": "input", "weights": "weight", "gradient": "grad_output",
    "grad": "grad_output", "mask": "output", "output_mask": "output", "dense": "none", "channels_last": "NHWC",
    "channels_first": "NCHW", "channels_last_3d": "NDHWC",
}  # fmt: skip


def word(value: object, known: tuple, *, similar: bool = True) -> str:
    """The known word that a wrong one is in other letters or another's name, or that is `similar`."""
    from difflib import get_close_matches  # 3 ms that calls without errors need not spend

    names = [name for name in known if isinstance(name, str)]
    if not isinstance(value, str):
        return ""
    by_case = {name.casefold(): name for name in names}
    alias, given = ALIASES.get(value.casefold()), value.casefold()
    near = alias if alias in names else by_case.get(given)
    if near is None and similar:
        near = by_case.get(next(iter(get_close_matches(given, by_case, 1, 0.75)), ""))
    return f"; did you mean {near!r}?" if near else ""


def sizes(name: str) -> str:
    """What stands for an array where numbers are expected."""
    return ": pass weight.shape" if name == "kernel_size" else " or a tuple of them"
