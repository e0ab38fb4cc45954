"""What peers say to each other about a register: proposers to acceptors, and members about their leader.

Frozen values as in `membership.messages`. The sender's node id comes from the connection. Requests name the
acceptor that is meant, so that one with another disk does not answer for it; answers name the one that
speaks.

===============  =================================================  ==========================================
message          answered with                                      purpose
===============  =================================================  ==========================================
`Prepare`        `Promise`, or `Nack`, `Unborn`, `Group`            who accepted what? And nothing below me
`Accept`         `Accepted`, or `Nack`, `Group`                     take this record, and promise me the next
`Birth`          `Born`, or `Group`                                 begin your life in this epoch with this
`Group`          nothing                                            that epoch is over: this is who keeps the
                                                                    key now (an answer, and news on its own)
`Heartbeat`      nothing                                            I lead this key
`AskHearing`     `Hearing`                                          I don't hear the leader: do you?
===============  =================================================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.register import AcceptorId, Ballot, Fence, Group, Place, Record
from membership.view import NodeId

__all__ = [
    "Accept",
    "Accepted",
    "Answer",
    "AskHearing",
    "Birth",
    "Born",
    "ElectionMessage",
    "Hearing",
    "Heartbeat",
    "Nack",
    "Prepare",
    "Promise",
    "RegisterMessage",
    "Request",
    "Unborn",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Promise me to accept nothing below my ballot, and tell me what you accepted last."""

    key: str
    place: Place
    ballot: Ballot
    to: AcceptorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """I accept nothing below `ballot` any more; at `accepted` I accepted `record`, and nothing since."""

    key: str
    place: Place
    ballot: Ballot
    acceptor: AcceptorId
    accepted: Ballot
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Accept `record` at `ballot`, and promise me `promise` with it (at least `ballot`)."""

    key: str
    ballot: Ballot
    promise: Ballot
    record: Record
    to: AcceptorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """I accepted the record of `ballot`, and promised what came with it."""

    key: str
    place: Place
    ballot: Ballot
    acceptor: AcceptorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """I promised `promised`, so I take nothing at `ballot`."""

    key: str
    place: Place
    ballot: Ballot
    acceptor: AcceptorId
    promised: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Begin to vote in this record's epoch, with this record.

    The record is the founder's, or the successor of a sealed record that is known to be chosen.
    """

    key: str
    record: Record
    to: AcceptorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """I hold a record of that place."""

    key: str
    place: Place
    acceptor: AcceptorId


@dataclass(frozen=True, slots=True, kw_only=True)
class Unborn:
    """I hold no record of that place: I am well, but have no vote there until somebody sends me its birth.

    `earlier` is the latest group that I know of, None if I know nothing of the key.
    """

    key: str
    place: Place
    acceptor: AcceptorId
    earlier: Group | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """I lead the key, with this fence, and my last round had a majority. Liveness only: it proves nothing."""

    key: str
    fence: Fence
    members: tuple[AcceptorId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskHearing:
    """I have not heard the leader of the key for a while: whom do you hear? `number` comes back."""

    key: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """The leader that I hear, and its fence; None where I hear nobody."""

    key: str
    number: int
    leader: NodeId | None
    fence: Fence | None


Request = Prepare | Accept | Birth | Group
"""What an acceptor takes."""

Answer = Promise | Accepted | Nack | Born | Unborn
"""What an acceptor says, besides the name of a later group."""

ElectionMessage = Heartbeat | AskHearing | Hearing
"""What members say about who leads."""

RegisterMessage = Request | Answer | ElectionMessage
"""Everything about registers."""
