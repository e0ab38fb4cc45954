"""What the membership machine wants done, and the events it announces.

The shell performs effects in the order in which they are returned: a `Persist` comes before the `Send` that
tells others the persisted value.
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.messages import Message
from membership.view import Member, NodeId, Status

__all__ = [
    "Announce",
    "ConflictingIdentity",
    "Effect",
    "Event",
    "MemberDied",
    "MemberJoined",
    "MemberLeft",
    "MemberRefuted",
    "MemberReturned",
    "MemberSuspected",
    "MemberUpdated",
    "Persist",
    "SeedSilent",
    "SelfRefuted",
    "Send",
]


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A node never heard of before is here."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberReturned:
    """A node that was dead or had left is here again, as a higher incarnation."""

    member: Member
    was: Status


@dataclass(frozen=True, slots=True)
class MemberSuspected:
    """A member is accused of silence; it keeps its keys until it is known dead."""

    member: Member
    by: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class MemberRefuted:
    """A suspect outbid its accusers: it is alive."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberDied:
    """A member is dead: nobody refuted the suspicion in time."""

    member: Member
    by: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member left gracefully."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """A member changed its address, session, zone, weight, slots or meta."""

    member: Member
    before: Member


@dataclass(frozen=True, slots=True)
class SelfRefuted:
    """We were accused and have outbid the accusation with `incarnation`."""

    incarnation: int
    accusation: Status
    by: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class ConflictingIdentity:
    """Another live process has our id and keeps it: this machine has stopped, and its peer must.

    Attributes:
        mine: our own record.
        holder: the record of the process that keeps the id.
    """

    mine: Member
    holder: Member


@dataclass(frozen=True, slots=True)
class SeedSilent:
    """A seed does not answer. Announced once; the seed is retried for ever."""

    address: str


Event = (
    MemberJoined
    | MemberReturned
    | MemberSuspected
    | MemberRefuted
    | MemberDied
    | MemberLeft
    | MemberUpdated
    | SelfRefuted
    | ConflictingIdentity
    | SeedSilent
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message, once, without waiting; losing it is expected and harmless.

    Attributes:
        to_address: where to, "host:port".
        to: who is expected there, or None where only an address is known (a seed).
        message: what to say.
    """

    to_address: str
    to: NodeId | None
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """Remember our incarnation (and session) across restarts: the next start uses both + 1.

    May be written lazily: a peer that starts with too low an incarnation hears of the higher one and outbids
    it.
    """

    incarnation: int
    session: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the rest of the peer what happened."""

    event: Event


Effect = Send | Persist | Announce
"""Everything `membership.swim.Swim` returns."""
