from typing import Any

import numpy as np

from ._conv import Task
from ._weights import Lists

PLACES: dict[str, int]

class Form:
    def __init__(self, array: np.ndarray) -> None: ...

class Forms:
    def __init__(self, operands: dict[str, np.ndarray], names: tuple[str, ...], result: np.ndarray) -> None: ...
    def fit(self, arrays: tuple[Any, ...], out: Any) -> dict[str, np.ndarray] | None: ...

def capsule(
    task: Task,
    lists: Lists | None,
    threshold: float,
    *,
    source: str,
    weight: str = "",
    bias: str = "",
    residual: str = "",
    known: str = "",
    needed: str = "",
    bits: str = "",
) -> Any: ...
