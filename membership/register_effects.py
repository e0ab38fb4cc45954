"""What the machines of a register want done, and what they report.

**The contract of the shell.** Effects are performed in the order in which they are returned.

* `Save` is done when the state would survive a loss of power: written *and* synced. Everything after it in
  the same list, or in a later one of the same machine, may be a promise that rests on it: a proposer counts
  its own acceptor's vote at once. Several lists may share one sync, as long as nothing behind a `Save`, in
  its list or in those after it, happens before that sync has returned.
* A `Save` that fails (no space, I/O error) ends the life of the whole machine: the shell performs none of the
  effects behind it, drops the machine, and lets the acceptor answer nothing more. It must not try the sync
  again: after a failed one the system may have forgotten which pages were dirty, and report success for
  nothing (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). A new life reads the disk,
  writes what it read to a new file, syncs that, and only then speaks. A state that cannot be read back is a
  lost disk: the acceptor comes back under a new disk id.
* `SendTo` is lost or late or doubled without harm. One to our own node must reach our own machine.
* `Report` is for the owner of the key; it is never lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.register import AcceptorId, Ballot, Fence, Group, Record
from membership.register_messages import RegisterMessage
from membership.view import NodeId

__all__ = [
    "Abandoned",
    "Committed",
    "Founded",
    "GroupChanged",
    "LeaderHeard",
    "Leads",
    "Outbid",
    "QuorumLost",
    "QuorumRegained",
    "Refused",
    "RegisterEffect",
    "RegisterEvent",
    "Report",
    "Save",
    "SendTo",
]


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send a message to a node, once, without waiting."""

    to: NodeId
    message: RegisterMessage


@dataclass(frozen=True, slots=True)
class Save:
    """Make an acceptor's state of a key durable before anything that comes after; None: remove it."""

    key: str
    state: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """The register exists: a majority holds the founder's record, or a later one; `group` is the handle."""

    group: Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A change is chosen. `record` is the register right after it (and before the next of the same batch).

    Where `record.terminal` was reached before it, the change had no effect.
    """

    key: str
    proposal: int
    record: Record
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A change had no effect and never will: its payload is too large."""

    key: str
    proposal: int
    payload_bytes: int
    payload_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """The proposer has given these changes up. Those in `uncertain` may have taken effect, or still may."""

    key: str
    proposals: tuple[int, ...]
    uncertain: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leads:
    """We are the distinguished proposer from here on, and have read the register."""

    key: str
    record: Record
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderHeard:
    """Another node leads the key, as far as we hear; told once for each leader of each group."""

    key: str
    leader: NodeId
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbid:
    """We lead the key no more, or have stopped trying to: somebody else took it over, or we resigned.

    `by` is the ballot that outbids us, None where we resigned, or heard of a later group only.
    """

    key: str
    by: Ballot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChanged:
    """A later epoch has begun: a record of it is chosen."""

    group: Group


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumLost:
    """A round gets no majority. It goes on trying; nothing is decided meanwhile.

    Attributes:
        key, group: which.
        missing: the members that do not answer.
        needed: how many must.
    """

    key: str
    group: Group
    missing: tuple[AcceptorId, ...]
    needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumRegained:
    """A majority has answered again."""

    key: str


RegisterEvent = (
    Founded
    | Committed
    | Refused
    | Abandoned
    | Leads
    | LeaderHeard
    | Outbid
    | GroupChanged
    | QuorumLost
    | QuorumRegained
)


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the owner of a key what happened."""

    event: RegisterEvent


RegisterEffect = SendTo | Save | Report
"""Everything the machines of a register return."""
