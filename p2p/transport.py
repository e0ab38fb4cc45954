"""What carries frames between processes: the interface, of which there are two ends.

Theory
------
A transport moves frames and says on whose authority each of them came.  Nothing above it sees a socket,
nothing below it sees a message.  `p2p.zmq_transport` does it over authenticated TCP, `p2p.memory_transport`
within one
process; one test suite (`tests/p2p/test_transport.py`) states what both promise:

* **Nothing blocks** but `wait`.  A frame that cannot go out now waits a moment or is dropped; `send` says
which. * **Nothing is promised.**  A frame arrives once or not at all.  Frames from one sender to one
receiver keep their   order. * **Every queue is bounded**; what does not fit is dropped and counted. * **A
frame comes with a role**, that of the key which authenticated its connection.  Frames of strangers never
come. * **An answer** (`reply`) goes back over the connection of its question, to one who may have no
inbox of its own.

Control frames and bulk frames have an inbox each, so that a question never waits behind megabytes of data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from p2p.errors import OversizedFrame
from p2p.roles import Role

__all__ = [
    "MAX_BULK_BYTES",
    "MAX_BULK_PARTS",
    "Arrival",
    "BulkArrival",
    "Connection",
    "LinkFailed",
    "Notice",
    "StrangerRefused",
    "Transport",
    "check_bulk",
]

MAX_BULK_BYTES = 4 * 1024 * 1024  # of all parts of a message
MAX_BULK_PARTS = 64


def check_bulk(parts: Sequence[bytes | memoryview]) -> None:
    """Refuse what no bulk inbox would take.

    Raises:
        OversizedFrame: too many parts, or too large together.
    """
    size = sum(len(part) for part in parts)
    if size > MAX_BULK_BYTES or not 0 < len(parts) <= MAX_BULK_PARTS:
        raise OversizedFrame(size, MAX_BULK_BYTES)


class Connection:
    """Where an answer goes; opaque to everybody but the transport that made it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One control frame.

    `connection` is where an answer to it goes; None when the frame itself is an answer.  `remote` is for the
    log.
    """

    frame: bytes
    role: Role
    connection: Connection | None
    remote: str


@dataclass(frozen=True, slots=True)
class BulkArrival:
    """The parts of one bulk message; buffers that live as long as they are referred to."""

    parts: tuple[memoryview, ...]
    role: Role
    remote: str


@dataclass(frozen=True, slots=True)
class StrangerRefused:
    """Somebody knocked and was not let in.  `kind` names the counter, `remote` who, as far as is known."""

    kind: str
    remote: str


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """Our own connection to `address` did not come about, and why."""

    address: str
    reason: str


Notice = StrangerRefused | LinkFailed


class Transport(Protocol):
    """One end.  Not thread-safe: everything is called from the loop that owns it."""

    @property
    def address(self) -> str:
        """Where others send control frames to, ``host:port``; empty without an inbox."""

    @property
    def bulk_address(self) -> str:
        """Where others send bulk frames to, ``host:port``; empty without an inbox."""

    def send(self, to: str, frame: bytes) -> bool:
        """Send a control frame to an address, connecting if need be.

        Returns:
            False if it was dropped at once.

        Raises:
            OversizedFrame: nobody would accept it.
        """

    def reply(self, connection: Connection, frame: bytes) -> bool:
        """Answer over the connection of a question; False if it has gone or takes no more.

        Raises:
            OversizedFrame: nobody would accept it.
        """

    def send_bulk(self, to: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Send parts as one message to a bulk address; the buffers must not change afterwards.

        Returns:
            False if the link takes no more now; nothing was sent, try again after `wait`.

        Raises:
            OversizedFrame: all together are larger than `MAX_BULK_BYTES`, or more than `MAX_BULK_PARTS`.
        """

    def receive(self, most: int) -> list[Arrival]:
        """Take what has arrived, at most `most` frames."""

    def receive_bulk(self, most: int) -> list[BulkArrival]:
        """Take the bulk messages that have arrived, at most `most`."""

    def take_notices(self) -> list[Notice]:
        """Take what has happened to connections since the last call; bounded, the oldest go first."""

    def wait(self, timeout_s: float) -> None:
        """Return when something has arrived, a watched descriptor is readable, or the time has passed."""

    def watch(self, descriptor: int) -> None:
        """Let `wait` also return when this file descriptor is readable."""

    def maintain(self, now: float) -> None:
        """Close idle links and drop what has waited too long; to be called about once a second."""

    def forget(self, address: str) -> None:
        """Close the link to a peer that is gone; a later `send` makes a fresh one."""

    def counters(self) -> Mapping[str, int]:
        """What was dropped, how many links there are; for `members --format json`."""

    def close(self) -> None:
        """Close everything; what is still queued is lost."""
