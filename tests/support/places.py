"""Where things are in the source tree, and what setup.py says."""

import ast
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
KERNELS = ROOT / "sparseconv" / "kernels"


def setup_constants():
    """The constants of setup.py, without running it."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or not target.id.isupper():
            continue
        value = ast.literal_eval(node.value)
        found[target.id] = found[target.id] + value if isinstance(node, ast.AugAssign) else value
    return found
