import numpy as np

METHODS: dict[str, int]

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
