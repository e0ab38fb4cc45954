"""User code that does the worst in one task, as the parameter `how` says; the other tasks count words.

Each attempt of the bad task leaves a line with its peer's process id in the file `log`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mapreduce import Job, task

FORKS = 40
GIGABYTE = 1 << 30
LINE = b"x" * 1_023 + b"\n"


def segfault() -> None:
    """Read address 0."""
    ctypes.string_at(0)


def exits_at_once() -> None:
    """End the process past all handlers."""
    os._exit(3)


def loops() -> None:
    """Never come back."""
    while True:
        pass


def recurses() -> None:
    """Go down until the interpreter says no."""
    recurses()


def forks() -> None:
    """Leave a crowd of processes, ours among them, that do nothing for a long time."""
    for _ in range(FORKS):
        if os.fork() == 0:
            break
    time.sleep(600)


def prints() -> None:
    """A gigabyte to stdout."""
    block = LINE * 1_024
    for _ in range(GIGABYTE // len(block)):
        os.write(1, block)


def exits() -> None:
    """Ask the interpreter to end."""
    sys.exit(5)


def interrupts() -> None:
    """Do as if Ctrl-C had been pressed."""
    raise KeyboardInterrupt


def swallows() -> None:
    """Go on whatever is raised, and whatever signal may be ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            continue


def leaves_a_thread() -> None:
    """Come back at once, but for a thread that never ends."""

    def stay() -> None:
        while True:
            time.sleep(0.05)

    threading.Thread(target=stay, daemon=False).start()


class Unpicklable(Exception):
    """An exception that can neither be told nor sent."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError("no text for this")

    def __reduce__(self) -> Any:
        """Fail."""
        raise TypeError("not to be pickled")


def raises_unpicklable() -> None:
    """Raise what cannot be sent."""
    raise Unpicklable(lambda: None)


def closes_everything() -> None:
    """Close all descriptors, those by which the peer is spoken to among them."""
    os.closerange(0, 1_024)


WAYS: dict[str, Callable[[], None]] = {
    "segfault": segfault,
    "os-exit": exits_at_once,
    "endless-loop": loops,
    "recursion": recurses,
    "fork-bomb": forks,
    "gigabyte": prints,
    "sys-exit": exits,
    "keyboard-interrupt": interrupts,
    "swallowed-interrupt": swallows,
    "thread": leaves_a_thread,
    "unpicklable-exception": raises_unpicklable,
    "closed-descriptors": closes_everything,
    "unpicklable-result": lambda: None,
    "exit-in-repr": lambda: None,
}


class Rude:
    """A result that nobody can encode, and whose description ends the process."""

    def __repr__(self) -> str:
        """Fail as badly as possible."""
        raise SystemExit("asked for a description")


def mapper(line: str) -> Iterator[tuple[Any, Any]]:
    """Count words; where the word `hostile` stands, do the worst."""
    if line == "hostile":
        with open(task.params["log"], "a") as file:
            file.write(f"{os.getppid()}\n")
        how = task.params["how"]
        WAYS[how]()
        if how == "unpicklable-result":
            yield "result", threading.Lock()
        if how == "exit-in-repr":
            yield "result", Rude()
    for word in line.split():
        yield word, 1


def reducer(word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
    """Add up."""
    yield word, sum(counts)


job = Job(
    mapper=mapper,
    reducer=reducer,
    params={"how": "segfault", "log": "/dev/null"},
    task_timeout_s=3.0,
)
