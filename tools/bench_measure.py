"""Run a whole process and see what it took: wall time, processor time, memory.

*Processor time* and the *peak of a process* come from the kernel's own books (`wait4`): they cover the
process and every descendant that was waited for.  *Peak of the tree* is what all of them held at one
time. The kernel keeps no book of that, so a thread adds up the resident sizes of the whole tree twenty
times a second, from /proc; where there is no /proc it is not known.  Memory that several processes share
counts once for each, so it is an upper bound.

*Those beside it*: a system that stands before the command begins, and works for it, is counted with its
whole trees: their processor time before and after from /proc, their memory with the tree's.  A descendant
that nobody waited for, as daemons' workers are not, is in none of the kernel's books; so of each process
seen the last processor time is kept, and if the sum is more than the kernel's, it is taken.

⚙ This module starts processes and reads clocks.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_INTERVAL_S = 0.05
_PROC = Path("/proc")
_MAX_DESCENDANTS = 10_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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


class TookTooLong(CommandFailed):
    """A side was not done in time."""


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    limit_s: float = 3600,
    beside: Sequence[int] = (),
    meanwhile: Callable[[int], None] | None = None,
) -> Usage:
    """Run a command to its end.

    Args:
        command: program and arguments; its standard output and errors are kept for the error message.
        environment: variables set in addition to the present ones.
        directory: where it runs.
        limit_s: it is killed after so long, with all its descendants.
        beside: process ids of a standing system that works for it.
        meanwhile: called with the command's process id when it has begun; the command is not waited for until
            this returns.

    Raises:
        TookTooLong: it was not done in time.
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
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            _end_tree(process.pid)

        killer = threading.Timer(limit_s, end)
        killer.start()
        standing_s = sum(map(tree_cpu_s, beside))
        try:
            with _TreeWatch(process.pid, beside) as watch:
                if meanwhile is not None:
                    meanwhile(process.pid)
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # an interrupt, too, must not leave it behind
            killer.cancel()
            _end_tree(process.pid)
            process.wait()
            raise
        wall_s = time.perf_counter() - begin_s
        standing_s = max(0.0, sum(map(tree_cpu_s, beside)) - standing_s)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if is_late.is_set():
            raise TookTooLong(f"{' '.join(command)} was not done within {limit_s:g} s")
        if process.returncode:
            printed.seek(0)
            tail = printed.read()[-4000:].decode(errors="replace")
            raise CommandFailed(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return Usage(
        wall_s=wall_s,
        cpu_s=max(usage.ru_utime + usage.ru_stime, watch.cpu_s) + standing_s,
        peak_process_bytes=max(_resident_bytes(usage), watch.peak_process_bytes),
        peak_tree_bytes=watch.peak_bytes,
    )


def _resident_bytes(usage: resource.struct_rusage) -> int:
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024


def _end_tree(root: int) -> None:
    """Kill a process of ours, which has not been waited for, and all its descendants."""
    # Where there is no /proc the root alone is known.
    for pid in dict.fromkeys((root, *(process.pid for process in tree(root)))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class _TreeWatch:
    """Adds up the resident sizes of processes and all their descendants while it is entered."""

    def __init__(self, root: int, beside: Sequence[int] = ()) -> None:
        self.peak_bytes = 0
        self.peak_process_bytes = 0
        self._root = root
        self._beside = beside
        self._cpu_s: dict[tuple[int, int], float] = {}
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

    @property
    def cpu_s(self) -> float:
        """What the root and its descendants took, as far as it was seen."""
        return sum(self._cpu_s.values())

    def _watch(self) -> None:
        while True:
            seen = list(tree(self._root))
            for process in seen:
                self._cpu_s[process.pid, process.began] = process.own_cpu_s
            for root in self._beside:
                seen += tree(root)
            sizes = [process.resident_bytes for process in seen]
            self.peak_bytes = max(self.peak_bytes, sum(sizes))
            self.peak_process_bytes = max(self.peak_process_bytes, *sizes, 0)
            if self._over.wait(SAMPLE_INTERVAL_S):
                return


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc says of a process; `began` tells it from others that had its id."""

    pid: int
    began: int
    resident_bytes: int
    own_cpu_s: float
    waited_cpu_s: float  # of children that have ended


def tree(root: int) -> Iterator[Process]:
    """Yield a process and all its descendants, from /proc; nothing where there is none."""
    waiting = [root]
    for _ in range(_MAX_DESCENDANTS):
        if not waiting:
            return
        pid = waiting.pop()
        folder = _PROC / str(pid)
        try:
            # Behind the program's name, which may hold blanks and parentheses.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            for thread in os.listdir(folder / "task"):
                waiting += map(int, (folder / "task" / thread / "children").read_text().split())
        except OSError:
            continue  # it ended while we looked
        yield Process(
            pid=pid,
            began=int(fields[19]),
            resident_bytes=int(fields[21]) * _PAGE_BYTES,
            own_cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            waited_cpu_s=(int(fields[13]) + int(fields[14])) / _TICKS_PER_S,
        )


def tree_cpu_s(root: int) -> float:
    """Return the processor time of a process and all its descendants, those that ended among them."""
    return sum(process.own_cpu_s + process.waited_cpu_s for process in tree(root))
