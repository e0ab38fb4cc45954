"""What the system tells of processes: descriptors, children, who belongs to a run; nothing without /proc.

⚙ This module reads /proc.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["descendants", "descriptors", "resident_bytes", "with_variable"]


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open; 0 where that is not known."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def descendants(pid: int) -> list[int]:
    """Return the process ids of a process's children and their children."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text().split()
                found += map(int, children)
                waiting += map(int, children)
    return found


def resident_bytes(pid: int) -> int:
    """Return how much memory a process takes; 0 where that is not known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def with_variable(setting: str) -> list[int]:
    """Return the ids of the processes whose environment holds `NAME=value`."""
    found: list[int] = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError):
            if name.isdigit() and setting.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return sorted(found)
