"""The wire of the simulated swarm: what leaders and workers say as real frames, the rest as objects.

Their messages pass the codec and the schemas of `p2p`, so what it refuses on real peers it refuses here. What
the stand-in of the data plane says (`jobs_transfers`) exists in this world only, and travels as it is.
"""

from __future__ import annotations

from membership.view import NodeId
from p2p.job_protocol import JOB_KINDS
from p2p.wire import Envelope, WireFormat
from tools.simulation.jobs_transfers import SimFetch, SimFetched, SimPush, SimPushed
from tools.simulation.node import Node

__all__ = ["JobsCodec"]


class JobsCodec:
    """Job messages as real frames; what the stand-ins say to each other as objects."""

    def __init__(self) -> None:
        self._wire = WireFormat(JOB_KINDS)
        self._kinds = frozenset(kind.message for kind in JOB_KINDS)

    def encode(self, message: object, sender: Node) -> object:
        """The frame, or the object beside its sender's name."""
        if type(message) not in self._kinds:
            return message, sender.name
        return self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=b"",
                sender=NodeId(sender.name),
                incarnation=1,
                message=message,
            )
        )

    def decode(self, payload: object) -> tuple[object, str]:
        """The message, checked against its schema, and its sender."""
        if isinstance(payload, bytes):
            envelope = self._wire.decode(payload)
            return envelope.message, envelope.sender
        assert isinstance(payload, tuple)
        return payload[0], payload[1]

    def fingerprint(self, payload: object) -> bytes:
        """The frame itself; of objects their numbers."""
        if isinstance(payload, bytes):
            return payload
        return self.describe(payload).encode()

    def describe(self, payload: object) -> str:
        """A line for a reader."""
        message = self.decode(payload)[0]
        match message:
            case SimPush(number, _, segments):
                held = [f"{s.stage}/{s.task}/{s.attempt:#x}{list(s.partitions)}" for s in segments]
                return f"SimPush {number}: {' '.join(held)}"
            case SimPushed(number, _, reason):
                return f"SimPushed {number} {reason}"
            case SimFetch(_, attempt, piece):
                return f"SimFetch {attempt:#x} {piece.name}"
            case SimFetched(_, attempt, data):
                return f"SimFetched {attempt:#x} {'nothing' if data is None else len(data)}"
            case _:
                return repr(message)
