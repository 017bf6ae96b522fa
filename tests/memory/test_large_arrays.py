"""Arrays of more than 2**31 elements: those calls of large_arrays.py that read few of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from children import LINUX

SCRIPT = Path(__file__).with_name("large_arrays.py")


@pytest.mark.skipif(not LINUX, reason="needs memory that is promised to nobody")
def test_indices_beyond_two_to_the_31():
    """In less than 2 GB, in one process."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", right\n") >= 15
