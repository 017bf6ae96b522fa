"""What is kept for later calls, bounded in bytes for all caches together, whatever shapes come.

Look-ups are those of `functools.lru_cache`, which is compiled: a hit costs what it costs there. What the caches hold is
C tables and structs, whose bytes are counted as they come and go (`_conv.held_bytes`). Where these are more than LIMIT
after a call has made new ones, all caches are emptied. That is a rare event: it takes LIMIT bytes of new tables to
come there again, whose making costs hundreds of times more than the emptying. Entries are bounded, too, for what is
not counted: keys, and operations that were looked at but never ran.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import _lru_cache_wrapper, lru_cache
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar, cast

from . import _conv

LIMIT = 40 << 20  # of tables; with what is not counted, all caches stay below 64 MB

Parameters = ParamSpec("Parameters")
Made = TypeVar("Made")

if TYPE_CHECKING:
    Result = TypeVar("Result", covariant=True)

    class Kept(Protocol[Parameters, Result]):
        """A function whose results are kept, and the function itself."""

        @property
        def __wrapped__(self) -> Callable[Parameters, Result]: ...

        def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result: ...

full = False  # whether the caches are to be emptied at the end of the call
_all: list[_lru_cache_wrapper] = []
_others: list[Callable[[], None]] = []


def kept(entries: int) -> Callable[[Callable[Parameters, Made]], Kept[Parameters, Made]]:
    """Decorates a function whose results are kept: at most so many, and within LIMIT."""

    def decorate(make: Callable[Parameters, Made]) -> Kept[Parameters, Made]:
        found = lru_cache(maxsize=entries)(make)
        _all.append(found)
        return cast("Kept[Parameters, Made]", found)  # typeshed's lru_cache forgets the parameters

    return decorate


def note() -> None:
    """To be called when something was made: looks whether it was too much."""
    global full
    full = _conv.held_bytes() > LIMIT


def empty() -> None:
    """Empties all caches: what runs keeps what it needs."""
    global full
    full = False
    for found in _all:
        found.cache_clear()
    for clear in _others:
        clear()


def empties(clear: Callable[[], None]) -> None:
    """What else is to be called when the caches are emptied: it lets go of what others keep of them."""
    _others.append(clear)
