"""How far a file has come, for people: one line that is written over on a terminal, else a line a second.

⚙ Writes to stderr, and looks at the clock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from mapreduce.progress import size_text

__all__ = ["FileProgress"]

LINE_EVERY_S = 1.0
REDRAW_EVERY_S = 0.1


class FileProgress:
    """Use it as a context manager, so that the line is taken down.

    Args:
        verb: what is being done.
        total_bytes: how much there is to do, as far as is known by now.
        quiet: show nothing at all.
        stream: where to write; default: stderr.
        clock: gives seconds.
    """

    def __init__(
        self,
        verb: str,
        total_bytes: int = 0,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verb = verb
        self._total = total_bytes
        self._done = 0
        self._quiet = quiet
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._began_at = clock()
        self._terminal = not quiet and self._stream.isatty()
        self._next_at = self._began_at + LINE_EVERY_S
        self._drawn = 0

    def __enter__(self) -> FileProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._take_down()

    def add(self, size_bytes: int, total_bytes: int | None = None) -> None:
        """So much more is done, of so much in all."""
        self._done += size_bytes
        self._total = self._total if total_bytes is None else total_bytes
        now = self._clock()
        if self._quiet or now < self._next_at:
            return
        done = size_text(self._done)
        known = self._total >= self._done
        text = f"{self._verb}: {done} of {size_text(self._total)}" if known else f"{self._verb}: {done}"
        text += f", {size_text(self._done / max(1e-9, now - self._began_at))}/s"
        if self._terminal:
            self._next_at = now + REDRAW_EVERY_S
            self._stream.write("\r" + text.ljust(self._drawn))
            self._drawn = len(text)
        else:
            self._next_at = now + LINE_EVERY_S
            self._stream.write(text + "\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        """Show a line of its own."""
        if self._quiet:
            return
        self._take_down()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _take_down(self) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
            self._drawn = 0
