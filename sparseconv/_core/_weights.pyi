from collections.abc import Sequence
from typing import Any

import numpy as np

from ._conv import Epilogue, Map, Task, View

class Lists:
    def __init__(
        self,
        *,
        groups: int,
        filters: int,
        channels: int,
        taps: int,
        inner_taps: int,
        class_ends: Sequence[int],
        class_taps: Sequence[int],
        block_channels: int,
        group_stride: int,
        filter_stride: int,
        channel_stride: int,
        item_filters: int,
    ) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def finite(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    def fill(self, weight: np.ndarray, threads: int) -> None: ...

class Weights(Task):
    def __init__(
        self,
        map: Map,
        source: View,
        target: View,
        *,
        epilogue: Epilogue,
        columns: np.ndarray,
        column_places: np.ndarray,
        tap_places: np.ndarray,
        **numbers: int,
    ) -> None: ...

class User: ...

class Ticket: ...

class Guard:
    @property
    def writing(self) -> Writing: ...
    def __init__(self, name: str) -> None: ...
    def __enter__(self) -> Guard: ...
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...
    def after_fork(self) -> None: ...

class Writing:
    def __init__(self, guard: Guard) -> None: ...
    def __enter__(self) -> Writing: ...
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...
