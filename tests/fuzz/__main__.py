"""``python tests/fuzz``: see fuzz_run.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_run import main

sys.exit(main())
