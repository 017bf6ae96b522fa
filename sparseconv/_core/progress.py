"""Progress on stderr: a bar if someone is watching, plain lines otherwise."""

import os
import sys

__all__ = ["Progress"]


class Progress:
    """Bar and messages on stderr.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    """

    width = 30

    def __init__(self, *, quiet=False):
        self.quiet = quiet
        self.bar = sys.stderr.isatty() and not quiet
        self.colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()

    def clear(self):
        """Remove the bar, so that whatever is printed next has a line of its own."""
        if self.bar:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def advance(self, done, text):
        """Redraw the bar: `done` is between 0 and 1."""
        if self.bar:
            filled = round(done * self.width)
            bar = "#" * filled + "-" * (self.width - filled)
            if self.colour:
                bar = f"\033[32m{bar}\033[0m"
            print(f"\r[{bar}] {done:4.0%} {text}\033[K", end="", file=sys.stderr, flush=True)

    def say(self, text):
        """Print a line, over the bar if there is one."""
        if not self.quiet:
            print(f"\r\033[K{text}" if self.bar else text, file=sys.stderr, flush=True)
