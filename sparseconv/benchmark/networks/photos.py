"""The two photos that scikit-learn carries, china.jpg and flower.jpg, each 640 x 427 pixels, in colour."""

from __future__ import annotations

import numpy as np

from sparseconv.benchmark.networks.packages import library, package_file

__all__ = ["centre", "edges", "load", "resized"]

NAMES = ("china.jpg", "flower.jpg")
MOST_PIXELS = 1 << 24


def load() -> list[np.ndarray]:
    """The photos as (rows, columns, 3) arrays of uint8, red first.

    Raises
    ------
    ValueError
        If scikit-learn or Pillow is not installed, or a photo is damaged.
    """
    pillow, photos = library("PIL.Image"), []
    for name in NAMES:
        path = package_file("sklearn", f"datasets/images/{name}", "scikit-learn")
        try:
            with pillow.open(path, formats=("JPEG",)) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"got {image.width} x {image.height} pixels, expected at most {MOST_PIXELS}")
                photos.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise ValueError(f"network: got a photo that cannot be read: {error}, in {path}") from error
    return photos


def centre(photo: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The middle of a photo."""
    if photo.shape[0] < rows or photo.shape[1] < columns:
        raise ValueError(f"network: got a photo of {photo.shape[:2]}, expected at least {rows} x {columns}")
    top, left = (photo.shape[0] - rows) // 2, (photo.shape[1] - columns) // 2
    return photo[top : top + rows, left : left + columns]


def resized(photo: np.ndarray, rows: int, columns: int, method: str) -> np.ndarray:
    """A photo in another size; `method` is one of Pillow's, such as "BICUBIC"."""
    pillow = library("PIL.Image")
    return np.asarray(pillow.fromarray(photo).resize((columns, rows), getattr(pillow.Resampling, method)))


def edges(photo: np.ndarray, share: float) -> np.ndarray:
    """Where the brightness of a photo changes most: a bool array that is True in this share of it (Sobel's filter)."""
    grey = np.pad(photo @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    across = grey[:, 2:] - grey[:, :-2]
    down = grey[2:] - grey[:-2]
    size = np.hypot(across[:-2] + 2 * across[1:-1] + across[2:], down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:])
    return size > np.quantile(size, 1 - share)
