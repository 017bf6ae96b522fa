"""Every example runs, shortened, and is short enough to read."""

import subprocess
import sys

import pytest
from places import ROOT

FOLDER = ROOT / "examples"
MOST_LINES = 60
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# What each example needs, its arguments for a short run, and words that its output ends with.
RUNS = {
    "convert_resnet.py": (["torch"], ["2"], "of 500 images right"),
    "masked_pretraining.py": (["torch"], ["6"], "that of the mean image"),
    "prune_torch.py": (["torch"], ["4"], "ms for pruned converted"),
    "region_of_interest.py": ([], ["12"], "times faster"),
    "train_ddp.py": (["torch"], ["3", "16"], "step 2: loss"),
    "train_jax.py": (["jax"], ["2", "16"], "test accuracy"),
    "train_spiking.py": (["torch", "snntorch"], ["2"], "test accuracy"),
    "train_swat.py": (["torch"], ["3"], "test accuracy of the pruned model"),
    "video_deltas.py": ([], ["8"], "with the threshold"),
}

if not FOLDER.exists():
    pytest.skip("this source archive has no examples", allow_module_level=True)


def test_all_examples_are_here():
    assert {path.name for path in FOLDER.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("path", sorted((FOLDER / "pictures").glob("*.py")), ids=lambda path: path.stem)
def test_picture(path, tmp_path):
    pytest.importorskip("matplotlib")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    done = subprocess.run([sys.executable, path, tmp_path / "picture.svg"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.svg").stat().st_size > 5_000


@pytest.mark.parametrize("name", RUNS)
def test_example(name):
    needs, arguments, words = RUNS[name]
    for module in needs:
        pytest.importorskip(module)
    path = FOLDER / name
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    python = [sys.executable, *(TWO_PROCESSES if "ddp" in name else [])]
    done = subprocess.run([*python, path, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout.splitlines()[-1]
