"""Calls that are checked once and run many times: `prepare`.

An ordinary call looks its forms and options up among those that are kept (_core/call.py). A prepared one has its
operation at hand, and compares the forms of its arrays in C (`_prepared.Forms`). Arrays that differ there go the
ordinary way, which copies what kernels cannot read and finds the words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import packed, planning
from ._core import _conv, _cpu, _prepared, arrays, lines
from ._core.arrays import Form, form
from ._core.call import Call, run
from ._core.choice import Plan
from ._core.gradient import Gradient
from ._core.operands import Operand
from ._core.rows import Rows
from ._core.spiking import Spiking
from ._core.without_kernel import WithoutKernel
from .packed import PackedWeight

NATIVE = (np.ndarray, type(None))


class PreparedCall:
    """A call whose arguments were checked, to be run with arrays of the same forms. Made by `prepare`.

    Calling it costs a few microseconds less than the public function, and it can be handed to C. It holds no arrays but
    a `PackedWeight`. Any number of threads may use it at a time.

    Attributes
    ----------
    operation : str
        Name of the public function.
    operands : tuple of str
        The arrays that it takes, in this order.
    shape : tuple of int
        Shape of the result.
    """

    def __init__(self, operation: str, call: Call, check: Callable[..., Call], names: tuple[str, ...], fixed: bool):
        self.operation, self.operands, self.shape = operation, names, call.out.shape
        self._operation, self._threshold, self._return_mask = call.operation, call.threshold, call.return_mask
        self._threads = call.threads if fixed else 0
        self._check, self._taken = check, frozenset(call.operands)
        plain = {name: _dense(array) for name, array in call.operands.items()}
        self._dtype = call.out.dtype
        weight = call.operands.get("weight")
        self._packed = weight if isinstance(weight, PackedWeight) else None
        self._expected = {name: form(array) for name, array in (plain | {"out": call.out}).items()}
        # Each call has a copy of its weight, perhaps also where there is nothing to sum.
        cuts = call.threshold and getattr(call.operation, "skip", "weight") == "weight"
        self._forms = None if cuts else _prepared.Forms(plain, names, call.out)
        self._decided = call.decide()
        self._plan = call.plan(operation, self._decided)

    def __repr__(self) -> str:
        return f"PreparedCall({self.operation!r}: {', '.join(self.operands)}; {self._operation.problem})"

    def __call__(self, *operands: Any, out: Any = None, **named: Any) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Runs it.

        Parameters
        ----------
        *operands, **named : array
            As many as `operands` names, in that order or by name, with the shapes, strides and dtypes of those that the
            call was prepared with.
        out : array like the result, optional
            Written and returned. Must not overlap an operand, but may be the residual.

        Returns
        -------
        ndarray, or ndarray and mask
            As the public function.

        Raises
        ------
        TypeError, ValueError
            Arrays of another form; the message names the argument, what was got and what was expected.
        """
        if named or len(operands) != len(self.operands):
            operands = self._by_name(operands, named)
        guard, plain = None, operands
        if self._packed is not None:
            weight = operands[1]
            if type(weight) is not PackedWeight or weight.groups != self._packed.groups:
                return self._checked(operands, out).run()
            guard, plain = weight.guard, (operands[0], weight.dense, *operands[2:])
        given = None if self._forms is None else self._forms.fit(plain, out)
        if given is None or type(out) not in NATIVE:
            return self._checked(operands, out).run()
        if guard is not None:
            given["weight"] = operands[1]
        if out is None:
            out = arrays.empty(self.shape, self._dtype)
        threads = self._threads or _cpu.get_num_threads()
        return run(self._operation, given, out, threads, self._threshold, self._return_mask, guard)

    def plan(self, *operands: Any, **named: Any) -> Plan:
        """What a call would run, and why.

        Parameters
        ----------
        *operands, **named : array, optional
            Whose zeros are looked at; without any it is the arrays that the call was prepared with, as they were then.

        Returns
        -------
        Plan
            As `sparseconv.plan`.
        """
        if not operands and not named:
            return self._plan
        return self._checked(self._by_name(operands, named), None).plan(self.operation)

    def capsule(self) -> Any:
        """The call for C: a PyCapsule "sparseconv.call" of an ``sc_call``, which ``sc_api.run`` runs without the GIL.

        What is skipped is fixed: what the call decided for the arrays that it was prepared with, on the instruction set
        in use then. Where zero weights are skipped, the capsule has lists of those weights, too, and later changes of
        the weight do not count. The capsule must live as long as calls run.

        Returns
        -------
        PyCapsule

        Raises
        ------
        ValueError
            Where Python does a part of the call: float64, empty sums, zeros and ones as bools or bits, masks of results
            that the kernel does not know, as none does beside a residual,
            a returned mask that it cannot write (see `conv2d`), layouts of 16 channels with lanes that are padding,
            weight gradients with taps that never meet the input, and a bias of a transposed convolution whose
            kernel is what its result spans (from a map of one row or column).

        Notes
        -----
        ``include/sparseconv.h`` and ``docs/c_api.md`` describe the other side.
        """
        operation, kernel = self._operation, self._decided[1]
        if isinstance(operation, WithoutKernel):
            raise ValueError(f"capsule: got a call without a kernel ({operation.reason}), expected one of float32")
        if isinstance(operation, Spiking):
            raise ValueError("capsule: got an x of zeros and ones, expected float32")
        masked = "output_mask" in self._taken
        if masked and isinstance(operation, Rows) and operation.clears:
            raise ValueError("capsule: got output_mask with a residual, expected one of them: no kernel knows both")
        if masked and (isinstance(operation, Gradient) or not kernel.masks_result):
            raise ValueError(f"capsule: got output_mask with {kernel.kernel}, expected rows_output (skip='output')")
        if isinstance(operation, Gradient):
            if operation.reduced.cut:
                raise ValueError("capsule: got taps that never meet the input, expected a kernel that fits into it")
            scalar = operation.scalar(kernel)
            roles = {"source": scalar.name, "weight": operation.lanes(kernel).name, "known": self._known(scalar)}
            return _prepared.capsule(kernel.task, None, self._threshold, **roles)
        return _prepared.capsule(kernel.task, self._lists(operation), self._threshold, **self._roles(operation))

    def _roles(self, operation: Rows) -> dict[str, str]:
        """Which of the operands of a call of rows are what, for `_prepared.capsule`."""
        kernel = self._decided[1]
        if operation.pads:
            got = f"{operation.channels} channels of {operation.layout.name}"
            raise ValueError(f"capsule: got {got}, expected a multiple of 16")
        roles = {name: name for name in ("bias", "residual") if name in self._taken} | {"source": operation.source.name}
        if "bias" in roles and kernel.spread != (1, 1):
            raise ValueError("capsule: got bias with a map that the kernel covers, whose positions become channels, "
                             "expected none")  # fmt: skip
        if self._return_mask:
            if not operation.writes_mask(kernel):
                raise ValueError(f"capsule: got return_mask, which {kernel.kernel} does not write here, expected none")
            roles["bits"] = "bits"
        if not kernel.lists:
            roles["weight"] = "weight"
        if isinstance(kernel.task, _conv.Rows):
            needed = "output_mask" if "output_mask" in self._taken else ""
            roles |= {"known": self._known(operation.source), "needed": needed}
        return roles

    def _known(self, scalar: Operand) -> str:
        """The mask that says where this operand is not zero, or ""."""
        return scalar.known if scalar.known in self._taken else ""

    def _lists(self, operation: Rows) -> Any:
        """Lists of the nonzero weights that nobody changes, if the kernel needs them."""
        lists = self._decided[1].lists
        if lists is None or self._packed is None:
            return lists
        classes = lines.tap_classes(operation.problem, operation.backward)
        with self._packed.guard:
            return packed.nonzero_lists(self._packed.dense, operation.problem.groups, operation.backward, classes)

    def _by_name(self, operands: tuple, named: dict[str, Any]) -> tuple:
        """All operands in their order."""
        expected = f"expected {len(self.operands)}: {', '.join(self.operands)}"
        if len(operands) > len(self.operands):
            raise TypeError(f"operands: got {len(operands)}, {expected}")
        given = dict(zip(self.operands, operands, strict=False))
        for name, array in named.items():
            if name not in self.operands or name in given:
                raise TypeError(f"{name}: got it {'twice' if name in given else 'as an operand'}, {expected}")
            given[name] = array
        missing = [name for name in self.operands if name not in given]
        if missing:
            raise TypeError(f"{missing[0]}: got none, {expected}")
        return tuple(given[name] for name in self.operands)

    def _checked(self, operands: tuple, out: Any) -> Call:
        """The ordinary call with these arrays, whose forms must be those of the prepared one."""
        given = dict(zip(self.operands, operands, strict=True))
        as_array = self._forms is None or self._dtype == np.float64  # whatever the weight is, it is used as an array
        if not as_array and isinstance(given.get("weight"), PackedWeight) is (self._packed is None):
            expected = "an array" if self._packed is None else "a PackedWeight"
            got = type(given["weight"]).__name__
            raise TypeError(f"weight: got {got}, expected {expected}, as it was prepared with")
        for name, array in given.items():
            if isinstance(array, np.ndarray):  # the message of the ordinary call would speak of another argument
                _same(name, form(array), self._expected[name], alike=False)
        call = self._check(given, out)
        for name, array in {**call.operands, "out": call.out}.items():
            _same(name, form(_dense(array)), self._expected[name])
        shapes = [one.shape for one in (call.operation, self._operation) if isinstance(one, Spiking)]
        if shapes and shapes[0] != shapes[-1]:  # bits of other shapes can be as many
            raise ValueError(f"x: got shape {shapes[0]}, expected {shapes[1]}, as it was prepared with")
        return call._replace(operation=self._operation)


def _dense(array: Any) -> np.ndarray:
    return array.dense if isinstance(array, PackedWeight) else array


def _same(name: str, got: Form, expected: Form, alike: bool = True) -> None:
    """Whether an array has the form that was prepared; without `alike` its strides may differ."""
    if got.dtype != expected.dtype:
        raise TypeError(f"{name}: got dtype {got.dtype!s}, expected {expected.dtype!s}, as it was prepared with")
    if got.shape != expected.shape:
        raise ValueError(f"{name}: got shape {got.shape}, expected {expected.shape}, as it was prepared with")
    steps = zip(got.shape, got.strides, expected.strides, strict=True)
    if alike and any(length > 1 and step != wanted for length, step, wanted in steps):
        raise ValueError(f"{name}: got strides {got.strides}, expected {expected.strides}, as it was prepared with")


def prepare(operation: str | Callable[..., Any], *args: Any, **keywords: Any) -> PreparedCall:
    """Checks a call once, to run it many times with new arrays of the same forms.

    Parameters
    ----------
    operation : str or function
        A public function or its name, as of `plan`: "conv2d", "conv2d_backward_weight", "linear", ...
    *args, **keywords
        The arguments of that function. Of arrays only shapes, strides and dtypes count, and for `PreparedCall.plan` and
        `PreparedCall.capsule` what they contain. Everything else is part of the prepared call. An array `out` has the
        form of all results.

    Returns
    -------
    PreparedCall
        To be called with new arrays: ``prepared(x, weight, bias, out=out)``.

    Raises
    ------
    TypeError, ValueError
        If there is no such operation; and whatever the operation would raise.

    See Also
    --------
    plan

    Notes
    -----
    With ``skip="auto"`` each call decides by the densities of its own arrays. Where they are known not to change, a
    fixed `skip` saves that look. `num_threads`, if it is not given, is the default number at the time of each call, and
    `sparseconv.cpu.use_isa` counts from one call to the next.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x, w = np.zeros((1, 64, 8, 8), np.float32), np.ones((64, 64, 3, 3), np.float32)
    >>> conv = sc.prepare("conv2d", x, w, padding=1)
    >>> out = conv(x, w)
    >>> conv(x, w, out=out) is out
    True
    """
    name, call, check, names = planning.checked_call(operation, args, keywords)
    return PreparedCall(name, call, check, names, keywords.get("num_threads") is not None)
