"""What the peer's loop is made of: services, each a machine with the messages it speaks.

A service is pure in the sense of the design: time comes in as `now`, what must happen goes out as
effects, in order. The loop (`p2p.peer`) owns the sockets, routes each message to the service that handles
its type, tells every service of membership's events, ticks each when its deadline has come, and performs
the effects.  A new machine joins the peer by standing in its list of services, its messages by standing
in `p2p.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from membership.effects import Announce, Event, Persist, Send
from membership.view import NodeId
from p2p.roles import Role
from p2p.transport import BulkArrival, Connection

__all__ = ["Effect", "Engine", "Origin", "Reply", "Say", "Service"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from.

    `node` and `incarnation` are what the sender says of itself, the latter to tell its lives apart; `role` is
    what its key proves; `connection` is where an answer goes, None where the message itself is an answer.
    """

    node: NodeId
    incarnation: int
    role: Role
    connection: Connection | None


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer over the connection of a question; lost if the asker has gone."""

    connection: Connection
    message: Any


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message to a peer, once, without waiting; losing it is expected and harmless."""

    to: NodeId
    address: str
    message: Any


Effect = Send | Persist | Announce | Reply | Say
"""Everything the loop can do for a service."""


class Service(Protocol):
    """A machine in the loop."""

    @property
    def handles(self) -> frozenset[type]:
        """The message types that are routed here; no two services share one."""

    def start(self, now: float, /) -> Sequence[Effect]:
        """Begin."""

    def receive(self, message: Any, origin: Origin, now: float, /) -> Sequence[Effect]:
        """Take a message of a type in `handles`; it has passed the gate."""

    def hear(self, event: Event, now: float, /) -> Sequence[Effect]:
        """Take note of a membership event."""

    def tick(self, now: float, /) -> Sequence[Effect]:
        """Do what is due."""

    def next_deadline(self) -> float:
        """When to be ticked again; infinity when never."""


class Engine(Service, Protocol):
    """The one service that also has hands: child processes to look after, and the data plane."""

    def set_early(self, perform: Callable[[Sequence[Effect], float], None], /) -> None:
        """Be given what performs effects at once: what others shall do while this one waits for its disk."""

    def pump(self, arrivals: Sequence[BulkArrival], now: float, /) -> Sequence[Effect]:
        """Take what has arrived on the bulk inbox and what children have said; called in every turn."""

    def counters(self) -> Mapping[str, int]:
        """What it has counted."""

    def drain(self, now: float, /) -> Sequence[Effect]:
        """The peer is going to leave: begin nothing new, hand on what lies here."""

    def is_drained(self, now: float, /) -> bool:
        """Whether nothing would be missed if the peer left now."""

    def leave(self, now: float, /) -> Sequence[Effect]:
        """The peer is about to say goodbye."""
