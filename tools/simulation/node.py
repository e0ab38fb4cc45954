"""One process on one simulated machine: its clock, its disk, its lives, and the seam to the code under test.

A ``Node`` is the machine; a ``Process`` is one life of the program on it, from boot to crash. The program
under test is any pure machine; ``Process`` is the thin host that a scenario writes for it, as
``p2p.peer`` is the host of the real ones: it says what a boot reads from disk and how each effect is
performed. Effects are performed in order, and a crash may come between two of them.

**Clock.** A process sees ``rate * world time + offset``. Every boot gets a new offset, as a monotonic
clock does on another machine; a skewed clock has a rate beside 1; a step moves the offset forward, as a
suspended laptop does. It never goes back: what the real shell hands to its machines is monotonic.

**Disk.** Named values. ``write`` is cached, ``sync`` makes everything written so far durable; a crash
keeps what was synced and, by chance, a prefix of the rest, the last of it perhaps torn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Protocol

__all__ = ["INBOX_MAX", "Clock", "Disk", "Node", "NodeState", "Process", "Program"]

INBOX_MAX = 1000  # what a paused process's socket holds; more is dropped, as a full socket buffer does


class Process(Protocol):
    """One life of a program; what the world calls. Times are those of the node's own clock, in seconds."""

    def start(self, now: float) -> Iterable[object]:
        """Begin; the effects of beginning."""

    def receive(self, message: object, sender: str, now: float) -> Iterable[object]:
        """Take a message; the effects of taking it."""

    def tick(self, now: float) -> Iterable[object]:
        """Do what is due; the effects of doing it."""

    def next_deadline(self) -> float:
        """When to be ticked again; infinity when never."""

    def lagged(self, lag_s: float, now: float) -> None:
        """The process was not running for ``lag_s`` although something was due or had arrived."""

    def perform(self, effect: object) -> None:
        """Perform one effect by the means of the node."""


Program = Callable[["Node", float], Process]
"""Makes a process: called with the node and its clock at every boot; what it knows of the past is on the
disk."""


class NodeState(StrEnum):
    """Whether a node's process runs."""

    RUNNING = "running"
    PAUSED = "paused"
    DOWN = "down"


@dataclass(slots=True)
class Clock:
    """A node's monotonic clock as a function of the world's time."""

    rate: float = 1.0
    offset_s: float = 0.0

    def read(self, world_now: float) -> float:
        """What the clock shows."""
        return self.rate * world_now + self.offset_s

    def when(self, reading: float) -> float:
        """The earliest world time at which the clock shows at least ``reading``."""
        at = (reading - self.offset_s) / self.rate
        while self.read(at) < reading:  # at most a few steps: rounding only
            at = math.nextafter(at, math.inf)
        return at

    def turn_to_rate(self, rate: float, world_now: float) -> None:
        """Go on at another rate from here, without a jump."""
        self.offset_s += (self.rate - rate) * world_now
        self.rate = rate


@dataclass(slots=True)
class Disk:
    """Named values that survive a crash as far as they were synced."""

    durable: dict[str, object] = field(default_factory=dict)
    tears: Callable[[object, Random], object] | None = None  # what a crash may make of a value half written
    _cached: list[tuple[str, object]] = field(default_factory=list)

    def write(self, name: str, value: object) -> None:
        """Write into the cache; lost in a crash unless synced, or lucky."""
        self._cached.append((name, value))

    def sync(self) -> None:
        """Make everything written so far durable, as fsync does."""
        self.durable.update(self._cached)
        self._cached.clear()

    def read(self, name: str) -> object | None:
        """The last value written under ``name``, or None."""
        for cached_name, value in reversed(self._cached):
            if cached_name == name:
                return value
        return self.durable.get(name)

    def crash(self, random: Random) -> None:
        """Lose what was not synced, but for a prefix that the operating system happened to write."""
        kept = self._cached[: random.randint(0, len(self._cached))]
        if kept and self.tears is not None:
            name, value = kept[-1]
            kept[-1] = name, self.tears(value, random)
        self.durable.update(kept)
        self._cached.clear()

    def wipe(self) -> None:
        """Lose everything."""
        self.durable.clear()
        self._cached.clear()


class Node:
    """A machine with one process; the world drives it, a process reaches the world through it."""

    __slots__ = (
        "address",
        "boots",
        "clock",
        "disk",
        "gone",
        "inbox",
        "index",
        "name",
        "overdue_ticks",
        "process",
        "program",
        "send",
        "state",
        "torn_after",
        "wake_at",
        "wake_due",
        "when_torn",
    )

    def __init__(
        self, index: int, name: str, address: str, program: Program, send: Callable[[Node, str, object], None]
    ) -> None:
        self.index = index
        self.name = name
        self.address = address
        self.program = program
        self.send = send
        self.state = NodeState.DOWN
        self.process: Process | None = None
        self.clock = Clock()
        self.disk = Disk()
        self.boots = 0
        self.gone = False  # down, and meant to stay down when the world heals
        self.inbox: deque[object] = deque()
        self.wake_at = math.inf  # world time of the one wake-up that is valid
        self.wake_due = math.inf  # the deadline it is for, by the node's own clock
        self.overdue_ticks = 0  # ticks in a row after which the deadline was still in the past
        self.torn_after: int | None = None  # crash after so many more effects
        self.when_torn: Callable[[], None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process and it gets the processor."""
        return self.state is NodeState.RUNNING

    def send_to(self, address: str, message: object) -> None:
        """Send a message from this node; for processes, while they perform an effect."""
        self.send(self, address, message)

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.state} boot {self.boots}>"
