"""Run a whole process and see what it took: wall time, processor time, memory.

*Processor time* and the *peak of a process* come from the kernel's own books (`wait4`): they cover the
process and every descendant that was waited for.  *Peak of the tree* is what all of them held at one
time. The kernel keeps no book of that, so a thread adds up the resident sizes of the whole tree twenty
times a second, from /proc; where there is no /proc it is not known.  Memory that several processes share
counts once for each, so it is an upper bound.

⚙ This module starts processes and reads clocks.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_INTERVAL_S = 0.05
_PROC = Path("/proc")
_MAX_DESCENDANTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one run of a command took.

    Attributes:
        wall_s: from just before the start until it had ended.
        cpu_s: user and system time of it and its descendants.
        peak_process_bytes: the largest resident size that one of these processes had.
        peak_tree_bytes: the largest sum of their resident sizes; 0 where it is not known.
    """

    wall_s: float
    cpu_s: float
    peak_process_bytes: int
    peak_tree_bytes: int


class CommandFailed(Exception):
    """A side of the benchmark did not end well; what it printed is in the message."""


def measure(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, limit_s: float = 3600
) -> Usage:
    """Run a command to its end.

    Args:
        command: program and arguments; its standard output and errors are kept for the error message.
        environment: variables set in addition to the present ones.
        directory: where it runs.
        limit_s: it is killed after so long.

    Raises:
        CommandFailed: it returned anything but 0.
    """
    with tempfile.TemporaryFile() as printed:
        begin_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=directory,
        )
        killer = threading.Timer(limit_s, process.kill)
        killer.start()
        with _TreeWatch(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin_s
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            tail = printed.read()[-4000:].decode(errors="replace")
            raise CommandFailed(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return Usage(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_process_bytes=_resident_bytes(usage),
        peak_tree_bytes=watch.peak_bytes,
    )


def _resident_bytes(usage: resource.struct_rusage) -> int:
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024


class _TreeWatch:
    """Adds up the resident sizes of a process and all its descendants while it is entered."""

    def __init__(self, root: int) -> None:
        self.peak_bytes = 0
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _TreeWatch:
        if _PROC.is_dir():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._root))
            if self._over.wait(SAMPLE_INTERVAL_S):
                return


def tree_bytes(root: int) -> int:
    """Return the sum of the resident sizes of a process and all its descendants, from /proc."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total, waiting = 0, [root]
    for _ in range(_MAX_DESCENDANTS):
        if not waiting:
            break
        folder = _PROC / str(waiting.pop())
        try:
            total += int((folder / "statm").read_text().split()[1]) * page_bytes
            for thread in os.listdir(folder / "task"):
                waiting += map(int, (folder / "task" / thread / "children").read_text().split())
        except OSError:
            continue  # it ended while we looked
    return total
