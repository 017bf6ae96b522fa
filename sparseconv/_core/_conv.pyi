from collections.abc import Sequence

import numpy as np

class Map:
    def __init__(
        self,
        *,
        out_rows: int,
        out_columns: int,
        in_rows: int,
        in_columns: int,
        outer_taps: int,
        inner_taps: int,
        row_table: np.ndarray,
        met_rows: np.ndarray,
        outer_strands: list[tuple[int, ...]],
        strands: Sequence[tuple[int, ...]],
        gaps: Sequence[tuple[int, ...]],
        taps: Sequence[tuple[int, int, int]],
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def most_outer_taps(self) -> int: ...
    @property
    def most_rows(self) -> int: ...
    @property
    def all_taps(self) -> int: ...
    @property
    def mean_taps(self) -> float: ...
    @property
    def most_taps(self) -> int: ...
    @property
    def out_starts(self) -> list[int]: ...
    @property
    def most_window(self) -> int: ...
    @property
    def most_columns(self) -> int: ...

class View:
    def __init__(self, image: int, rows: np.ndarray, column: int, channel: int, block: int) -> None: ...

class Mask:
    def __init__(self, view: View, kind: str) -> None: ...

class WeightView:
    def __init__(
        self, group: int, lane: int, channel: int, tap: int, outer_taps: Sequence[int], flat: bool
    ) -> None: ...

class Epilogue:
    def __init__(self, *, relu: bool, residual: View | None = None, stream: int = 0) -> None: ...

KERNELS: dict[str, int]

class Task:
    @property
    def scratch_bytes(self) -> tuple[int, int]: ...
    def needed(self, pairs: np.ndarray) -> float: ...
    def bind(self, call: int, threshold: float, lists: object) -> None: ...
    def run(
        self,
        source: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        target: np.ndarray,
        threads: int,
        threshold: float = 0.0,
        bits: np.ndarray | None = None,
        needed: np.ndarray | None = None,
        known: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        needed_pairs: np.ndarray | None = None,
        lists: object = None,
    ) -> None: ...

class Rows(Task):
    def __init__(
        self,
        kernel: str,
        map: Map,
        source: View,
        target: View,
        weight: WeightView,
        *,
        epilogue: Epilogue,
        needed: Mask | None = None,
        known: Mask | None = None,
        **numbers: int,
    ) -> None: ...

class Gradient(Task):
    def __init__(
        self,
        kernel: str,
        map: Map,
        a: View,
        b: View,
        gradient: WeightView,
        *,
        known: Mask | None = None,
        **numbers: int,
    ) -> None: ...
    def needed(self, pairs: np.ndarray) -> float: ...

class Groups(Task):
    def __init__(
        self,
        map: Map,
        source: View,
        target: View,
        weight: WeightView,
        *,
        epilogue: Epilogue,
        phases: Sequence[int],
        phase_strands: Sequence[int],
        **numbers: int,
    ) -> None: ...

class GroupsGradient(Task):
    def __init__(
        self,
        map: Map,
        a: View,
        b: View,
        gradient: WeightView,
        **numbers: int,
    ) -> None: ...

def bias_gradient(
    view: View,
    source: np.ndarray,
    target: np.ndarray,
    batch: int,
    rows: int,
    columns: int,
    channels: int,
    threads: int,
) -> None: ...

class Held:
    def __init__(self, bytes: int) -> None: ...

def held_bytes() -> int: ...
