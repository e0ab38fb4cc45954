"""Swim as a process of a simulated node, and the real wire between such processes."""

from __future__ import annotations

from collections.abc import Callable

from membership.effects import Announce, ConflictingIdentity, Effect, Persist, Send
from membership.swim import Swim
from membership.view import NodeId
from p2p.protocol import wire_format
from p2p.wire import Envelope, WireFormat
from tools.simulation.node import Node

__all__ = ["SwimProcess", "WireCodec"]

_WIRE = wire_format()


class SwimProcess:
    """One life of a peer that does nothing but membership."""

    def __init__(self, node: Node, swim: Swim, conflict: Callable[[Node, ConflictingIdentity], None]) -> None:
        self.swim = swim
        self.leaving = False
        self.heard: tuple[object, str] | None = None  # the message of this step, and its sender
        self._node = node
        self._conflict = conflict

    def start(self, now: float) -> list[Effect]:
        """See ``Process``."""
        return self.swim.start(now)

    def receive(self, message: object, sender: str, now: float) -> list[Effect]:
        """See ``Process``."""
        self.heard = message, sender
        return self.swim.receive(message, NodeId(sender), now)  # type: ignore[arg-type]  # as decoded

    def tick(self, now: float) -> list[Effect]:
        """See ``Process``."""
        self.heard = None
        return self.swim.tick(now)

    def next_deadline(self) -> float:
        """See ``Process``."""
        return self.swim.next_deadline()

    def lagged(self, lag_s: float, now: float) -> None:
        """See ``Process``."""
        self.swim.observe_lag(lag_s, now)

    def perform(self, effect: object) -> None:
        """Send, write, or take notice."""
        match effect:
            case Send(to_address, _, message):
                self._node.send_to(to_address, message)
            case Persist(incarnation, session):
                # Lazily, as its contract allows: a crash may lose it.
                self._node.disk.write("identity", (incarnation, session))
            case Announce(ConflictingIdentity() as conflict):
                self._conflict(self._node, conflict)
            case Announce():
                pass
            case _:
                raise AssertionError(f"membership returned {effect!r}")


class WireCodec:
    """The real frames: what the wire cannot carry, or refuses, is found here."""

    def __init__(self, wire: WireFormat = _WIRE) -> None:
        self._wire = wire

    def encode(self, message: object, sender: Node) -> bytes:
        """The frame that a peer would send."""
        process = sender.process
        assert isinstance(process, SwimProcess)
        return self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=process.swim.view.digest,
                sender=NodeId(sender.name),
                incarnation=process.swim.me.incarnation,
                message=message,
            )
        )

    def decode(self, payload: object) -> tuple[object, str]:
        """The message, checked against its schema, and its sender."""
        assert isinstance(payload, bytes)
        envelope = self._wire.decode(payload)
        return envelope.message, envelope.sender

    def fingerprint(self, payload: object) -> bytes:
        """The frame itself."""
        assert isinstance(payload, bytes)
        return payload

    def describe(self, payload: object) -> str:
        """The message in the frame."""
        return repr(self.decode(payload)[0])
