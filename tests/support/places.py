"""Where things are in the source tree."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
KERNELS = ROOT / "sparseconv" / "kernels"
