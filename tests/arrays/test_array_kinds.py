"""Real arrays of other libraries, where those are installed: the table is in tests/support/array_kinds.py."""

import functools

import array_kinds
import numpy as np
import pytest
from array_kinds import COPIED, GROUPS, LOST, SHARED, WRITTEN
from cases import assert_not_vacuous

TABLE = [(name, title) for name, group in GROUPS.items() for title in group.kinds]


@functools.cache
def answers(name):
    """What one process says of all kinds of a group."""
    if module := array_kinds.missing(GROUPS[name]):
        pytest.skip(f"{module} is not installed")
    return array_kinds.run(name)


def check(answer, expected, name):
    if expected in (SHARED, COPIED, WRITTEN, LOST):
        assert answer == expected
    else:
        assert answer.startswith(f"{name}: got ")
        assert expected in answer


@pytest.mark.parametrize("name, title", TABLE, ids=[f"{name}: {title}" for name, title in TABLE])
def test_kind(name, title):
    """As an operand it is shared, copied or refused with these words; as `out` it is written, or refused untouched."""
    operand, out = answers(name)[title]
    kind = GROUPS[name].kinds[title]
    check(operand, kind.operand, "x")
    check(out, kind.out, "out")


@pytest.mark.parametrize("shape", array_kinds.WEIGHTS)
def test_the_table_is_not_vacuous(shape):
    """Results are not mostly zero, and neither fill nor change is among the operands."""
    values = array_kinds.small(shape, 1), array_kinds.small(shape, 2)
    for operand in values:
        assert_not_vacuous(array_kinds.expected(operand))
        assert not np.isin(operand, (array_kinds.POKE, array_kinds.FILL)).any()
