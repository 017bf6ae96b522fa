"""The operands of a call, by their public names, and what each operand whose zeros can be skipped is called."""

from __future__ import annotations

from typing import Any, NamedTuple

Operands = dict[str, Any]  # arrays and packed weights, by the names of the public function's arguments


class Operand(NamedTuple):
    """What an operand whose zeros can be skipped is called."""

    name: str  # its argument
    skip: str  # what `skip=` calls it
    known: str  # the argument that says where it is not zero


INPUT = Operand("x", "input", "input_mask")
SPIKES = Operand("x", "input", "x")  # zeros and ones: where they are not zero is all that there is
GRAD_OUTPUT = Operand("grad_output", "grad_output", "grad_output_mask")
OPERANDS = ("x", "grad_output", "weight", "bias", "residual", "output_mask", "input_mask", "grad_output_mask")
KNOWN = (INPUT.known, GRAD_OUTPUT.known)  # masks that say what is there anyway
