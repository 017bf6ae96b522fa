"""What has to be known of a CPU beside the fitted constants, and how the library is asked what it would do there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

from sparseconv._core import _cpu

LINE = 64  # bytes


class Processor(NamedTuple):
    """A CPU with AVX-512."""

    name: str
    folder: str  # of bench/results/
    family: int  # the library asks for AMD's number
    hertz: float
    madds: float  # vectors of 16 floats that can be multiplied and added in a cycle
    l1: float  # bytes
    l2: float
    l3: tuple[float, float]  # up to so much is read again from L3 in the next call, and nothing from so much on
    cores_of_l3: int
    memory: float  # bytes/s of a socket: ASSUMED

    def not_in_l3(self, size: float, threads: int) -> float:
        """Share of the bytes that a call reads which the L3 caches of its cores do not keep from call to call."""
        caches = max(1, threads / self.cores_of_l3)
        low, high = (caches * limit for limit in self.l3)
        return min(1.0, max(0.0, (size - low) / (high - low)))

    @contextmanager
    def simulated(self) -> Iterator[None]:
        """The library decides as it would on this CPU."""
        answers = {
            "vendor": "amd",
            "family": self.family,
            "current": "avx512",
            "registers": (28, 6, 4),
            "slope": 1.16,
            "point_vectors": 6,
            "has_tiles": False,
        }
        with patch.multiple(_cpu, **{name: lambda value=value: value for name, value in answers.items()}):
            yield


# Zen 4's clock is that of rows/skip.h; Zen 5's was measured with a chain of additions. The machines that were timed
# share their L3 with others, so its limits are where times turn, not what is printed on the CPU. Twelve channels of
# DDR5-4800 and DDR5-6000 move 461 and 576 GB/s at most; three quarters of that are assumed.
ZEN4 = Processor("Zen 4", "zen4", 25, 3.7e9, 1, 32 << 10, 1 << 20, (14e6, 24e6), 8, 345e9)
ZEN5 = Processor("Zen 5", "zen5", 26, 4.3e9, 2, 48 << 10, 1 << 20, (12e6, 20e6), 8, 430e9)
PROCESSORS = (ZEN4, ZEN5)


def beyond(size: float, cache: float) -> float:
    """Share of so many bytes, read again and again, for which a cache has no room."""
    return max(0.0, 1 - cache / size) if size else 0.0
