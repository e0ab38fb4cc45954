"""The consistent-hash ring: which peer owns a key, and what moves when peers come and go.

Theory
------
The ring is the circle of 64-bit integers. A peer of weight w stands on it at round(64 w) points, drawn from
blake2b of its id; a key stands at blake2b of its bytes; a key belongs to the first point clockwise at or
after it (Karger et al., *Consistent Hashing and Random Trees*, 1997, section 4). Point i of a peer depends on
its id and on i alone, so more weight adds points and never moves one.

**A value.** A ``Ring`` never changes; ``add`` and ``remove`` return another one. It is a function of the
*set* of peers: the order of insertion, the process and its hash seed leave no mark, so two peers with the
same view compute the same owners, and ``digest`` tells them when they have not the same view.

**Cheap change.** The points are two parallel arrays, positions (8 bytes) and slots (4 bytes), sorted by
position. Adding or removing a peer hashes its 64 points alone, finds their places by bisection, and
copies the runs between them in C: a few megabytes of memcpy for 10,000 peers, against 640,000 hashes and
their sorting. A slot is an index into a table of peers; a removed peer leaves its slot free, so no other
point has to be renumbered.

**Owners** are the next distinct peers clockwise. Where peers name zones, owners come in rounds: first the
next peer of each zone in clockwise order, then the second of each zone, and so on. ``owners(key, n)`` is
thus always the beginning of ``owners(key, n + 1)``, and a zone is used twice only when every other zone
that still has a peer has been used as often; the answer then names the repeated zones. A peer without a
zone counts as a zone of its own.

Many keys at once, with bounded loads: `membership.ring_loads`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from membership.errors import EmptyRing
from membership.ring_loads import DEFAULT_CAPACITY_FACTOR, assign
from membership.ring_types import (
    CIRCLE,
    DIGEST_BITS,
    MAX_WEIGHT,
    Assignment,
    Key,
    Movement,
    Owners,
    Placeable,
    RingPeer,
    key_position,
    owners_of,
    peer_hash,
    peer_positions,
    zone_of,
)
from membership.view import NodeId

__all__ = ["MAX_WEIGHT", "Assignment", "Movement", "Owners", "Placeable", "Ring", "RingPeer"]

MAX_SINGLE_CHANGES = (
    64  # a single change copies every point once; so many cost about as much as building anew
)


class Ring:
    """An immutable consistent-hash ring; build one with ``Ring.of`` and derive others with ``add`` and
    ``remove``.

    Two rings are equal when they hold the same peers with the same weights and zones, however they came
    about.
    """

    __slots__ = ("_digest", "_free", "_peers", "_positions", "_slot_of", "_slots", "_zone_sizes")

    def __init__(self) -> None:
        self._positions: array[int] = array("Q")  # sorted
        self._slots: array[int] = array("I")  # the peer of each position, as an index into _peers
        self._peers: list[RingPeer | None] = []
        self._free: tuple[int, ...] = ()
        self._slot_of: dict[NodeId, int] = {}
        self._zone_sizes: dict[str, int] = {}
        self._digest = 0

    @classmethod
    def of(cls, peers: Iterable[Placeable]) -> Ring:
        """The ring of ``peers``, in any order; those of weight 0 own nothing and are left out.

        Raises ``ValueError`` for a weight outside [0, MAX_WEIGHT] or an id given twice.
        """
        ring = cls()
        owned = sorted(
            (RingPeer(peer.id, peer.weight, peer.zone) for peer in peers if peer.weight),
            key=lambda peer: peer.id,
        )
        # One sort of plain integers orders by position, then by slot, and slots are in order of id here.
        points: list[int] = []
        for slot, peer in enumerate(owned):
            if peer.id in ring._slot_of:
                raise ValueError(f"peer {peer.id} was given twice")
            ring._enter(peer, slot)
            points += [position << 32 | slot for position in peer_positions(peer)]
        points.sort()
        ring._positions = array("Q", [point >> 32 for point in points])
        ring._slots = array("I", [point & 0xFFFF_FFFF for point in points])
        return ring

    def add(self, peer: Placeable) -> Ring:
        """This ring with ``peer``; one of the same id is replaced, and weight 0 takes it off the ring.

        Costs far less than ``Ring.of`` all peers. Raises ``ValueError`` for a weight outside [0, MAX_WEIGHT].
        """
        if not peer.weight:
            return self.remove(peer.id) if peer.id in self._slot_of else self
        entering = RingPeer(peer.id, peer.weight, peer.zone)
        if entering.id in self._slot_of:
            return self if self.peer(entering.id) == entering else self.remove(entering.id).add(entering)
        ring = self._copy_of_tables()
        slot = ring._free[-1] if ring._free else len(ring._peers)
        ring._free = ring._free[:-1]
        ring._enter(entering, slot)
        positions = sorted(peer_positions(entering))
        cuts = [self._cut(position, entering.id) for position in positions]
        ring._positions = _spliced(self._positions, cuts, positions)
        ring._slots = _spliced(self._slots, cuts, [slot] * len(cuts))
        return ring

    def remove(self, peer_id: NodeId) -> Ring:
        """This ring without ``peer_id``; raises ``KeyError`` where it is not on the ring."""
        slot = self._slot_of[peer_id]
        places = self._places(slot)
        ring = self._copy_of_tables()
        ring._leave(slot)
        ring._positions = _without(self._positions, places)
        ring._slots = _without(self._slots, places)
        return ring

    def changed_to(self, peers: Iterable[Placeable]) -> Ring:
        """The ring of exactly ``peers``, reached by the cheaper of single changes and building anew.

        What a peer calls when its view changed: most often one member came or went.
        """
        wanted = {peer.id: RingPeer(peer.id, peer.weight, peer.zone) for peer in peers if peer.weight}
        gone = [peer_id for peer_id in self._slot_of if peer_id not in wanted]
        new = [peer for peer in wanted.values() if peer.id not in self._slot_of or self.peer(peer.id) != peer]
        if len(gone) + len(new) > min(MAX_SINGLE_CHANGES, len(wanted)):
            return Ring.of(wanted.values())
        ring = self
        for peer_id in gone:
            ring = ring.remove(peer_id)
        for peer in new:
            ring = ring.add(peer)
        return ring

    def owners(self, key: str | bytes, n: int) -> Owners:
        """The ``n`` distinct peers that own ``key``, nearest first, in distinct zones as far as there are
        any.

        ``n`` ≥ 1. Fewer come back where the ring has fewer peers, and the answer says how many are
        missing. Raises ``ValueError`` for ``n`` < 1 and ``EmptyRing`` where there is nobody.
        """
        if not self._slot_of:
            raise EmptyRing(f"nobody owns {key!r}: the ring has no peers")
        chosen = [self._peer_at(slot) for slot in self._owner_slots(key_position(key), n)]
        return owners_of(chosen, n)

    def assign(
        self,
        keys: Iterable[Key],
        capacity_factor: float = DEFAULT_CAPACITY_FACTOR,
        *,
        replicas: int = 1,
    ) -> Assignment[Key]:
        """Place all ``keys`` at once, no peer above its bounded load; see ``ring_loads.assign``."""
        return assign(self, keys, capacity_factor, replicas)

    def preview_join(self, peer: Placeable) -> Movement:
        """What would move to ``peer`` if it joined, exactly, from the arcs of the circle; nothing is changed.

        Raises ``ValueError`` where the id is on the ring already.
        """
        if peer.id in self._slot_of:
            raise ValueError(f"peer {peer.id} is on the ring already")
        return _movement(peer.id, with_peer=self.add(peer), without=self)

    def preview_leave(self, peer_id: NodeId) -> Movement:
        """What would move from ``peer_id`` if it left, and to whom; raises ``KeyError`` where it is not
        here."""
        return _movement(peer_id, with_peer=self, without=self.remove(peer_id))

    def share(self, peer_id: NodeId) -> float:
        """The fraction of the key space that ``peer_id`` owns first; ``KeyError`` where it is not here."""
        return sum(length for _, length in self.arcs(peer_id)) / CIRCLE

    def arcs(self, peer_id: NodeId) -> Iterator[tuple[int, int]]:
        """The arcs of the circle that ``peer_id`` owns first, as (last position, length); they may touch.

        Raises ``KeyError`` where the peer is not on the ring.
        """
        for place in self._places(self._slot_of[peer_id]):
            end = self._positions[place]
            before = self._positions[place - 1]  # place 0 wraps to the last point by itself
            yield end, (end - before) % CIRCLE if len(self._positions) > 1 else CIRCLE

    def owner_at(self, position: int) -> NodeId:
        """The first owner of a position (0 ≤ position < 2**64); ``EmptyRing`` where there is nobody."""
        if not self._slot_of:
            raise EmptyRing("nobody owns any position: the ring has no peers")
        return self._peer_at(self._slots[self._successor(position)]).id

    def walk(self, position: int) -> Iterator[RingPeer]:
        """Every peer once, clockwise from ``position`` (0 ≤ position < 2**64)."""
        for _, slot in self._walk(self._successor(position)):
            yield self._peer_at(slot)

    def explain(self, key: str | bytes, n: int = 1) -> list[str]:
        """Why ``owners(key, n)`` is what it is, one readable step a line."""
        position = key_position(key)
        lines = [f"key {key!r} lies at {position:#018x}, {position / CIRCLE:.2%} of the way round"]
        if not self._slot_of:
            return [*lines, "the ring is empty: nobody owns it"]
        wanted = self._owner_slots(position, n)
        open_slots = set(wanted)
        rank_of = {slot: rank for rank, slot in enumerate(wanted, start=1)}
        for place, slot in self._walk(self._successor(position)):
            peer = self._peer_at(slot)
            zone = f" in zone {peer.zone}" if peer.zone else ""
            point = f"point {self._positions[place]:#018x} belongs to {peer.id}{zone}"
            if slot in open_slots:
                lines.append(f"{point}: owner {rank_of[slot]}")
                open_slots.discard(slot)
            else:
                lines.append(f"{point}: skipped, another owner lies in zone {peer.zone}")
            if not open_slots:
                break
        owners = owners_of([self._peer_at(slot) for slot in wanted], n)
        if owners.zones_repeated:
            lines.append(
                f"too few zones for {n} owners: {', '.join(owners.zones_repeated)} used more than once"
            )
        if owners.missing:
            lines.append(f"{n} owners were asked for, the ring has only {len(owners)}")
        return lines

    def peer(self, peer_id: NodeId) -> RingPeer:
        """The peer as the ring keeps it; ``KeyError`` where it is not on the ring."""
        return self._peer_at(self._slot_of[peer_id])

    def points(self) -> Iterator[tuple[int, NodeId]]:
        """All points clockwise from zero as (position, peer id)."""
        for position, slot in zip(self._positions, self._slots, strict=True):
            yield position, self._peer_at(slot).id

    @property
    def peers(self) -> tuple[RingPeer, ...]:
        """All peers, sorted by id."""
        return tuple(self.peer(peer_id) for peer_id in sorted(self._slot_of))

    @property
    def digest(self) -> bytes:
        """16 bytes that differ when the peers, a weight or a zone differ; cheap, not a defence against liars.

        It is the sum of a hash of each peer modulo 2**128 (Bellare and Micciancio, *A New Paradigm for
        Collision-Free Hashing*, 1997, AdHash), so a join or leave updates it in constant time.
        """
        return self._digest.to_bytes(DIGEST_BITS // 8, "big")

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._slot_of

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ring):
            return NotImplemented
        return self._digest == other._digest and self.peers == other.peers

    def __hash__(self) -> int:
        return self._digest & (CIRCLE - 1)

    def __repr__(self) -> str:
        return f"<Ring of {len(self)} peers, {len(self._positions)} points, digest {self.digest.hex()[:12]}>"

    # -- the walk ----------------------------------------------------------------------------------

    def _successor(self, position: int) -> int:
        """The place (index of a point) that owns ``position``; past the last point the circle begins
        again."""
        place = bisect_left(self._positions, position)
        return place if place < len(self._positions) else 0

    def _walk(self, start: int) -> Iterator[tuple[int, int]]:
        """Each peer once, clockwise from place ``start``, as (place of its first point met, slot)."""
        slots, count, peers = self._slots, len(self._slots), len(self._slot_of)
        seen: set[int] = set()
        for step in range(count):
            place = start + step
            if place >= count:
                place -= count
            slot = slots[place]
            if slot not in seen:
                seen.add(slot)
                yield place, slot
                if len(seen) == peers:
                    return

    def _owner_slots(self, position: int, n: int) -> list[int]:
        """The slots of the first ``n`` owners, round by round over the zones."""
        if n < 1:
            raise ValueError(f"{n} owners were asked for; it must be at least 1")
        n = min(n, len(self._slot_of))
        full_rounds = self._full_rounds(n)
        # Where zones suffice, and that is nearly always, nobody needs to look at each of them.
        sizes = self._zone_sizes.values() if full_rounds else ()
        due_in_full_rounds = sum(min(size, full_rounds) for size in sizes)
        rounds: list[list[int]] = [[] for _ in range(full_rounds + 1)]
        taken: dict[str, int] = {}
        complete = 0
        for _, slot in self._walk(self._successor(position)):
            zone = zone_of(self._peer_at(slot))
            turn = taken.get(zone, 0)
            taken[zone] = turn + 1
            if turn > full_rounds:
                continue
            rounds[turn].append(slot)
            complete += turn < full_rounds
            if complete == due_in_full_rounds and complete + len(rounds[full_rounds]) >= n:
                break
        return [slot for turn in rounds for slot in turn][:n]

    def _full_rounds(self, n: int) -> int:
        """How many rounds over the zones are used up wholly before the ``n``-th owner; 0 where zones
        suffice."""
        if n <= len(self._zone_sizes):
            return 0
        rounds = 0
        while sum(min(size, rounds + 1) for size in self._zone_sizes.values()) < n:
            rounds += 1
        return rounds

    # -- building ----------------------------------------------------------------------------------

    def _peer_at(self, slot: int) -> RingPeer:
        peer = self._peers[slot]
        assert peer is not None, "a point of a removed peer"
        return peer

    def _cut(self, position: int, peer_id: NodeId) -> int:
        """Where a point of ``peer_id`` at ``position`` belongs; equal positions are in order of id."""
        place = bisect_left(self._positions, position)
        while (
            place < len(self._positions)
            and self._positions[place] == position
            and self._peer_at(self._slots[place]).id < peer_id
        ):
            place += 1
        return place

    def _places(self, slot: int) -> list[int]:
        """The sorted indices of the points of the peer in ``slot``."""
        places = []
        for position in peer_positions(self._peer_at(slot)):
            place = bisect_left(self._positions, position)
            while self._slots[place] != slot:
                place += 1
            places.append(place)
        return sorted(places)

    def _copy_of_tables(self) -> Ring:
        ring = Ring()
        ring._peers = self._peers.copy()
        ring._free = self._free
        ring._slot_of = self._slot_of.copy()
        ring._zone_sizes = self._zone_sizes.copy()
        ring._digest = self._digest
        return ring

    def _enter(self, peer: RingPeer, slot: int) -> None:
        if slot == len(self._peers):
            self._peers.append(peer)
        else:
            self._peers[slot] = peer
        self._slot_of[peer.id] = slot
        zone = zone_of(peer)
        self._zone_sizes[zone] = self._zone_sizes.get(zone, 0) + 1
        self._digest = (self._digest + peer_hash(peer)) % (1 << DIGEST_BITS)

    def _leave(self, slot: int) -> None:
        peer = self._peer_at(slot)
        self._peers[slot] = None
        self._free = (*self._free, slot)
        del self._slot_of[peer.id]
        zone = zone_of(peer)
        self._zone_sizes[zone] -= 1
        if not self._zone_sizes[zone]:
            del self._zone_sizes[zone]
        self._digest = (self._digest - peer_hash(peer)) % (1 << DIGEST_BITS)


def _movement(peer_id: NodeId, *, with_peer: Ring, without: Ring) -> Movement:
    """Who owns the arcs of ``peer_id`` while it is not there."""
    total = 0
    by_other: dict[NodeId, int] = {}
    for end, length in with_peer.arcs(peer_id):
        total += length
        if without:
            other = without.owner_at(end)
            by_other[other] = by_other.get(other, 0) + length
    return Movement(peer_id, total / CIRCLE, {peer: by_other[peer] / CIRCLE for peer in sorted(by_other)})


def _spliced(old: array[int], cuts: Sequence[int], values: Sequence[int]) -> array[int]:
    """``old`` with ``values[i]`` put before index ``cuts[i]`` (ascending); runs between are copied in C."""
    runs, width = memoryview(old).cast("B"), old.itemsize
    new = array(old.typecode)
    begin = 0
    for cut, value in zip(cuts, values, strict=True):
        new.frombytes(runs[begin * width : cut * width])
        new.append(value)
        begin = cut
    new.frombytes(runs[begin * width :])
    return new


def _without(old: array[int], places: Sequence[int]) -> array[int]:
    """``old`` without the items at ``places`` (ascending)."""
    runs, width = memoryview(old).cast("B"), old.itemsize
    new = array(old.typecode)
    begin = 0
    for place in places:
        new.frombytes(runs[begin * width : place * width])
        begin = place + 1
    new.frombytes(runs[begin * width :])
    return new
