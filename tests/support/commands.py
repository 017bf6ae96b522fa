"""Commands, as tests run them."""

from sparseconv.__main__ import main


def bench(*arguments):
    """``sparseconv bench`` on few images, each side timed once; to be used with `unchanged_process`."""
    return main(["bench", "--seconds", "0", "--batch", "2", *arguments])
