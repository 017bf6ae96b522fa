from collections.abc import Sequence

import numpy as np

from ._conv import Epilogue, Map, View, WeightView

class Groups:
    def __init__(
        self,
        map: Map,
        source: View,
        target: View,
        weight: WeightView,
        *,
        epilogue: Epilogue,
        batch: int,
        groups: int,
        channels: int,
        lanes: int,
        spread: int,
        overlap: int,
        in_place: int,
        out_place: int,
        phases: Sequence[int],
        phase_passes: Sequence[int],
        most_passes: int,
        chunk_rows: int,
        segment: int,
        segments: int,
        in_segment: int,
        shares: int,
        ahead: int,
    ) -> None: ...
    @property
    def scratch_bytes(self) -> tuple[int, int]: ...
    def bind(self, call: int, threshold: float, lists: None) -> None: ...
    def run(
        self,
        source: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        target: np.ndarray,
        threads: int,
        threshold: float = 0.0,
        mask: np.ndarray | None = None,
        needed: np.ndarray | None = None,
        live: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> None: ...

class GroupsGradient:
    def __init__(
        self,
        map: Map,
        a: View,
        b: View,
        gradient: WeightView,
        *,
        batch: int,
        groups: int,
        channels: int,
        lanes: int,
        spread: int,
        overlap: int,
        a_place: int,
        b_place: int,
        a_ahead: int,
        b_ahead: int,
        chunk_rows: int,
        segment: int,
        segments: int,
        in_segment: int,
        parts: int,
        shares: int,
    ) -> None: ...
    @property
    def scratch_bytes(self) -> tuple[int, int]: ...
    def needed(self, pairs: np.ndarray) -> float: ...
    def bind(self, call: int, threshold: float, lists: None) -> None: ...
    def run(
        self,
        a: np.ndarray,
        b: np.ndarray,
        gradient: np.ndarray,
        threads: int,
        threshold: float = 0.0,
        mask: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
        live: np.ndarray | None = None,
    ) -> None: ...
