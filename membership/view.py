"""Who is here: node ids, member records, the precedence of rumours, and the view others compute with.

Theory of operation
-------------------
Everything a peer believes about another peer is one immutable `Member` record. Records travel through the
network in any order, late, twice, and from peers that disagree. What makes all peers agree in the end is that
any two records of the same node are comparable: `merge` keeps the higher one, and as "the higher of two" is
commutative, associative and idempotent, the order of arrival does not matter (a join semilattice; SWIM,
section 4.2, calls it the order of overriding).

The order is lexicographic: the incarnation, which only its owner raises, then the gravity of the status, then
(only where two processes claim one id at the same incarnation) the session and the remaining fields.
`supersedes` shows it as a table.

A `View` is the frozen, versioned, sorted picture that the rest of the program works with: the ring is built
from it, and its `digest` lets two peers notice that they work with different pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import NewType

__all__ = ["MAX_WEIGHT", "Member", "NodeId", "Status", "View", "merge", "supersedes"]

NodeId = NewType("NodeId", str)
"""The lasting name of a peer. It outlives restarts and changes of address."""

MAX_WEIGHT = 1000.0  # 64,000 points: beyond it one weight would be every other peer's memory


class Status(StrEnum):
    """What is believed about a member; see `in_ring` for who owns keys."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"

    @property
    def in_ring(self) -> bool:
        """Whether a member with this status owns keys: a suspect keeps its keys until it is known dead."""
        return self is Status.ALIVE or self is Status.SUSPECT


# A graver status outbids a milder one of the same incarnation. LEFT outranks DEAD: a peer that said goodbye
# is not turned into a dead one by somebody who found it silent afterwards.
_GRAVITY = {Status.ALIVE: 0, Status.SUSPECT: 1, Status.DEAD: 2, Status.LEFT: 3}


@dataclass(frozen=True, slots=True)
class Member:
    """One belief about one peer.

    Attributes:
        id: the peer's lasting name.
        address: where its inbox is, "host:port".
        incarnation: raised only by the peer itself, to outbid rumours about it. A peer persists it and starts
            with the persisted value + 1.
        status: what is believed.
        zone: failure domain (rack, host, data centre); empty where zones are not used.
        weight: its share of the ring relative to others (>= 0; 0 owns nothing).
        slots: how many tasks it runs at a time.
        pid: its process id on its host, for humans and for tools that kill.
        session: stamp of the process's start; of two processes with one id, the greater session is the
            younger. The shell supplies max(persisted session + 1, wall clock in ms), see `membership.door`.
        meta: small flags for later uses, such as (("draining", "1"),), sorted by key.
    """

    id: NodeId
    address: str
    incarnation: int = 1
    status: Status = Status.ALIVE
    zone: str = ""
    weight: int = 1
    slots: int = 1
    pid: int = 0
    session: int = 0
    meta: tuple[tuple[str, str], ...] = ()

    @property
    def description(self) -> tuple[int, str, str, int, int, int, tuple[tuple[str, str], ...]]:
        """What the member says of itself: everything but its id, incarnation and status."""
        return (self.session, self.address, self.zone, self.weight, self.slots, self.pid, self.meta)


def supersedes(new: Member, old: Member | None) -> bool:
    """Return whether the belief `new` outbids the belief `old` about the same node (None: never heard of it).

    With i the incarnation of `new` and j that of `old`:

    ==============  =====  =========  ===========  ========  ========
    new \\ old       none   Alive@j    Suspect@j    Dead@j    Left@j
    ==============  =====  =========  ===========  ========  ========
    Alive@i         yes    i > j (*)  i > j        i > j     i > j
    Suspect@i       yes    i >= j     i > j (*)    i > j     i > j
    Dead@i          yes    i >= j     i >= j       i > j (*) i > j
    Left@i          yes    i >= j     i >= j       i >= j    i > j (*)
    ==============  =====  =========  ===========  ========  ========

    (*) Also at i = j where the records differ otherwise, which only two processes with one id bring about:
    then the greater (session, address, zone, weight, slots, pid, meta) wins, the same one at all peers.

    Two consequences. A higher accusation always counts, against the dead too: after Dead@1 and Dead@10,
    Alive@2 is old news and resurrects nobody. And nobody but the owner ends an accusation, by an incarnation
    above it.

    Source: SWIM (Das, Gupta, Motivala, 2002), section 4.2; but there "confirm" overrides every incarnation
    for ever, while here, as in memberlist, the dead return with a higher incarnation.
    """
    if old is None:
        return True
    if new.incarnation != old.incarnation:
        return new.incarnation > old.incarnation
    if new.status is not old.status:
        return _GRAVITY[new.status] > _GRAVITY[old.status]
    return new is not old and new.description > old.description


def merge(old: Member | None, new: Member) -> Member:
    """Return the one of two beliefs about the same node that stands; see `supersedes` for which."""
    return new if old is None or supersedes(new, old) else old


@dataclass(frozen=True)
class View:
    """An immutable picture of all members, sorted by id.

    Attributes:
        version: grows with every change of the picture at this peer (not comparable between peers; `digest`
            is).
        members: everyone known, the dead and the departed included, in order of id.
    """

    version: int
    members: tuple[Member, ...]

    @classmethod
    def of(cls, members: Iterable[Member], version: int = 0) -> View:
        """Build a view of members in any order."""
        return cls(version, tuple(sorted(members, key=lambda member: member.id)))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def get(self, node: NodeId) -> Member | None:
        """Return what is believed about a node, or None if it was never heard of."""
        return self._by_id.get(node)

    @cached_property
    def _by_id(self) -> dict[NodeId, Member]:
        return {member.id: member for member in self.members}

    @cached_property
    def ring_members(self) -> tuple[Member, ...]:
        """Those who own keys: alive or suspect, in order of id."""
        return tuple(member for member in self.members if member.status.in_ring)

    @cached_property
    def alive(self) -> tuple[Member, ...]:
        """Those whom nobody accuses, in order of id."""
        return tuple(member for member in self.members if member.status is Status.ALIVE)

    @cached_property
    def digest(self) -> bytes:
        """Sixteen bytes that are equal at two peers exactly when they would build the same ring.

        Covers (id, incarnation, address, weight, zone) of the ring's members in order of id.
        """
        state = blake2b(digest_size=16)
        for member in self.ring_members:
            fields = (member.id, str(member.incarnation), member.address, str(member.weight), member.zone)
            for text in fields:
                data = text.encode()
                # Length first: without it ("ab", "c") and ("a", "bc") would be the same bytes.
                state.update(len(data).to_bytes(4, "big") + data)
        return state.digest()
