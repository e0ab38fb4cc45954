"""What may come in: the one place where a frame is judged, between a transport and the machines.

The transport has authenticated the connection already; its role is what counts.  A frame passes when it
is one of ours, of our version and our cluster, fits the schema, and its connection's role may say what it
says.  The order matters: nothing behind the header of another version is read, and nothing of another
cluster reaches a machine.
"""

from __future__ import annotations

from p2p.errors import NotAllowed, NotOurFrame, WireError, WrongCluster
from p2p.roles import Role
from p2p.wire import Envelope, WireFormat

__all__ = ["Gate", "worth_telling"]


class Gate:
    """Judges frames for one cluster.

    Args:
        wire: the format of our version.
        cluster: the name of our cluster.
    """

    def __init__(self, wire: WireFormat, cluster: str) -> None:
        self._wire = wire
        self._cluster = cluster

    def admit(self, frame: bytes, role: Role) -> Envelope:
        """The envelope of a frame that may come in.

        Args:
            frame: the bytes.
            role: of the connection it came over.

        Raises:
            WireError: it may not; the type says why.
        """
        envelope = self._wire.decode(frame)
        if envelope.cluster != self._cluster:
            raise WrongCluster(envelope.cluster, self._cluster)
        needed = self._wire.least_role(envelope.message)
        if role < needed:
            raise NotAllowed(type(envelope.message).__name__, role.label, needed.label)
        return envelope


def worth_telling(refusal: WireError) -> bool:
    """Whether the sender can make something of being told: it speaks our protocol, of whatever version."""
    return not isinstance(refusal, NotOurFrame)
