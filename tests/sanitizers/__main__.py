"""``python tests/sanitizers``: see sanitized_kernels.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from sanitized_kernels import main

sys.exit(main())
