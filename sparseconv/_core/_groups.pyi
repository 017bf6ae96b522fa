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
        phases: Sequence[int],
        phase_strands: Sequence[int],
        **numbers: int,
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
        bits: np.ndarray | None = None,
        needed: np.ndarray | None = None,
        known: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> None: ...

class GroupsGradient:
    def __init__(
        self,
        map: Map,
        a: View,
        b: View,
        gradient: WeightView,
        **numbers: int,
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
        needed: np.ndarray | None = None,
        needed_pairs: np.ndarray | None = None,
        known: np.ndarray | None = None,
    ) -> None: ...
