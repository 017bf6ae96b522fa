import numpy as np

METHODS: dict[str, int]
STOCHASTIC_ITEM: int

def nm_mask(
    weight: np.ndarray, mask: np.ndarray, length: int, inner: int, groups: int, n: int, m: int, threads: int
) -> None: ...
def transposable_mask(
    weight: np.ndarray,
    scale: float,
    mask: np.ndarray,
    n: int,
    m: int,
    method: str,
    iterations: int,
    sharpness: float,
    threads: int,
) -> None: ...
def topk(x: np.ndarray, count: int, k: int, mask: np.ndarray | None, threads: int) -> tuple[float, int]: ...
def above_mask(x: np.ndarray, count: int, threshold: float, mask: np.ndarray, threads: int) -> None: ...
def stochastic_prune(
    gradient: np.ndarray,
    out: np.ndarray | None,
    threshold: float,
    key: int,
    sums: np.ndarray,
    nonzeros: np.ndarray,
    threads: int,
) -> None: ...
