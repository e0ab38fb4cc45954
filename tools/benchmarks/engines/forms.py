"""What the engines' scripts share: their command line, and when workers stood and the answer was done.

⚙ This module reads clocks and writes files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

DAMPING = 0.85
PAGERANK_ROUNDS = 5
WORKERS = os.cpu_count() or 1
# Of the combined log format: the client, the URL, the size that was sent.
CLIENT = r"^(\S+)"
URL = r'"\S+ (\S+) [^"]*"'
SENT_SIZE = r'" \d+ (\S+)'

Form = Callable[[list[str], Path], None]


class Clock:
    """Writes down when the engine was ready and when the answer was complete, for the benchmark to read."""

    def __init__(self) -> None:
        self._ready_s = time.monotonic()

    def ready(self) -> None:
        """The engine's workers stand."""
        self._ready_s = time.monotonic()
        self._write()

    def complete(self) -> None:
        """The whole answer is on disk."""
        self._write()

    def _write(self) -> None:
        marks = os.environ.get("RINGREDUCE_BENCH_MARKS")
        if marks:
            content = {"ready_s": self._ready_s, "complete_s": time.monotonic()}
            Path(marks).write_text(json.dumps(content))


def answer(forms: Mapping[str, Form], clock: Clock) -> None:
    """Answer the question on the command line."""
    asked, out, *inputs = sys.argv[1:]
    folder = Path(out)
    if asked not in forms:
        sys.exit(f"no form of {asked}")
    forms[asked](inputs, folder)
    clock.complete()
