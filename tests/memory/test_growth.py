"""Memory over many calls: the short form of growth.py, and that it sees what is lost."""

import subprocess
import sys
from pathlib import Path

import pytest
from children import LINUX

SCRIPT = Path(__file__).with_name("growth.py")


@pytest.mark.skipif(not LINUX, reason="memory is read in /proc")
@pytest.mark.parametrize("lose", [0, 400])
def test_growth(lose):
    words = ["--calls", "7200", "--settle", "3600", "--lose", str(lose)]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == (1 if lose else 0), done.stdout + done.stderr
