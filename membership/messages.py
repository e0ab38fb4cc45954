"""What peers say to each other about membership.

Frozen values with nothing in them but ints, strings, bools, tuples and each other, so that the wire can
derive a schema from the annotations alone. The machine that speaks them is `membership.swim`.

The sender's node id is not a field: it comes from the connection, which authenticated it. Its address is one
(`reply_to`), because a peer may well be pinged by somebody it has never heard of, or knows elsewhere.

=============  ============================  =========================================================
message        answered with                 purpose (source)
=============  ============================  =========================================================
`Ping`         `Ack`                         are you there? (SWIM 3.1)
`PingRequest`  `Ack` or `Nack`               ping somebody for me (SWIM 3.1; nack: Lifeguard IV-A)
`Gossip`       nothing                       news between probes (memberlist)
`SyncRequest`  `SyncState`s or `Conflict`    join, anti-entropy: my digests; what do you know?
`SyncState`    `SyncState`s if it wants any  the records where our digests differ
`Conflict`     nothing                       your id belongs to another live process
=============  ============================  =========================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.view import Member, NodeId

__all__ = [
    "Ack",
    "Conflict",
    "Gossip",
    "Message",
    "Nack",
    "Ping",
    "PingRequest",
    "Rumour",
    "SyncRequest",
    "SyncState",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rumour:
    """A belief on its way, and on whose word.

    Attributes:
        member: the whole record, its status included.
        accusers: for a suspicion, those who found the member silent, each by a probe of its own; for a death,
            who declared it; otherwise empty. Bounded by `SwimConfig.suspicion_confirmations` + 1.
    """

    member: Member
    accusers: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Are you there? Answered with an `Ack` that bears the same number.

    Attributes:
        number: chosen by the sender, unique while the answer may still come.
        target: who is meant. A peer with another id that now has this address does not answer.
        reply_to: the address for the answer, "host:port".
        rumours: piggy-backed news.
    """

    number: int
    target: NodeId
    reply_to: str
    rumours: tuple[Rumour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """I am (or, from a relay: the one you asked me to ping is) there.

    Attributes:
        number: that of the `Ping` or `PingRequest`.
        rumours: piggy-backed news; what the answering peer believes of the asking one comes first, if it is
            bad.
    """

    number: int
    rumours: tuple[Rumour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """I am well, but the one you asked me to ping does not answer me in time (Lifeguard, LHA-Probe)."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """Please ping `target` for me, and pass its `Ack` on; send a `Nack` if it stays silent.

    Attributes:
        number: of the requester's probe; the answer bears it.
        target: whom to ping.
        target_address: where, "host:port"; the relay may never have heard of the target.
        reply_to: the requester's address, "host:port".
        rumours: piggy-backed news.
    """

    number: int
    target: NodeId
    target_address: str
    reply_to: str
    rumours: tuple[Rumour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """News, between probes and without an answer."""

    rumours: tuple[Rumour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """Compare what we know; also how a peer joins.

    Attributes:
        number: the answer bears it.
        me: the sender's own record.
        digests: one unsigned 64-bit digest for each of the fixed buckets that members fall into by their id.
    """

    number: int
    me: Member
    digests: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """The records in the buckets where two peers differ. A large state comes in several of these.

    Attributes:
        number: that of the `SyncRequest`.
        me: the sender's own record (its address is where a wanted reply goes).
        buckets: bit b is set when `members` holds all the sender knows of bucket b.
        members: the records.
        reply_wanted: whether the receiver should send back what it knows better in these buckets.
    """

    number: int
    me: Member
    buckets: int
    members: tuple[Member, ...]
    reply_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Your id belongs to another process, which is alive: stop.

    Attributes:
        session: the session that is refused; anyone else with this id ignores the message.
        holder: the record of the process that keeps the id.
    """

    session: int
    holder: Member


Message = Ping | Ack | Nack | PingRequest | Gossip | SyncRequest | SyncState | Conflict
"""Everything `membership.swim.Swim` sends and receives."""
