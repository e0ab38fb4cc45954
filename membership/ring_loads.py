"""Placing many keys at once so that nobody gets too many: consistent hashing with bounded loads.

Plain hashing gives the busiest of ten peers about 1.2 times the mean, now and then 1.5. `assign` caps it:
no peer gets more than ``ceil(factor * keys * its share of the points)``, and a key whose peer is full goes
to the next one with room (Mirrokni, Thorup, Zadimoghaddam, *Consistent Hashing with Bounded Loads*, 2016,
section 2).

Who is displaced depends on the order in which keys are placed. To make the result a function of the *set*
of keys and the *set* of peers, keys are placed in the order of a second, independent hash of their own: a
fixed random priority, whatever the order in which the caller gave them. A join or leave moves the keys of
that peer and few others: measured with 10 peers and 4,000 keys, one key in a thousand (theorem 4 there:
O(1/ε²) for each key that must move).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from membership.errors import EmptyRing
from membership.ring_types import Assignment, Key, RingPeer, key_position, key_priority, owners_of, zone_of
from membership.view import NodeId

if TYPE_CHECKING:
    from membership.ring import Ring  # only the name: the ring itself imports us

__all__ = ["DEFAULT_CAPACITY_FACTOR", "assign"]

DEFAULT_CAPACITY_FACTOR = 1.25


def assign(
    ring: Ring, keys: Iterable[Key], capacity_factor: float = DEFAULT_CAPACITY_FACTOR, replicas: int = 1
) -> Assignment[Key]:
    """Give every key its owners, no peer above its bounded load.

    Args:
        ring: the peers.
        keys: what to place; a key given twice counts once.
        capacity_factor: at least 1; a peer owns first at most ceil(factor * keys * share) keys, its share
            being that of its points.
        replicas: so many distinct owners a key. The first is bounded strictly; the spares are in distinct
            zones first and bounded, rank by rank, as far as zones and distinctness allow.

    Raises:
        ValueError: the factor is below 1 or not finite, or replicas below 1.
        EmptyRing: there are keys and no peers.
    """
    if not capacity_factor >= 1.0 or math.isinf(capacity_factor):
        raise ValueError(f"capacity_factor is {capacity_factor}; below 1 not every key has room")
    if replicas < 1:
        raise ValueError(f"replicas is {replicas}; it must be at least 1")
    ordered = sorted(set(keys), key=key_priority)
    if ordered and not len(ring):
        raise EmptyRing(f"nobody can own the {len(ordered)} keys: the ring has no peers")
    peers = ring.peers
    capacities = _capacities(peers, len(ordered), capacity_factor)
    zone_count = len({zone_of(peer) for peer in peers})
    chosen: dict[Key, list[RingPeer]] = {key: [] for key in ordered}
    first_loads: dict[NodeId, int] = dict.fromkeys(capacities, 0)
    for rank in range(min(replicas, len(peers))):
        loads = dict.fromkeys(capacities, 0) if rank else first_loads
        for key in ordered:
            peer = _with_room(ring, key, chosen[key], zone_count, loads, capacities)
            loads[peer.id] += 1
            chosen[key].append(peer)
    return Assignment(
        owners={key: owners_of(owners, replicas) for key, owners in chosen.items()},
        loads=first_loads,
        capacities=capacities,
        displaced=sum(owners[0].id != ring.owner_at(key_position(key)) for key, owners in chosen.items()),
    )


def _with_room(
    ring: Ring,
    key: str | bytes,
    taken: list[RingPeer],
    zone_count: int,
    loads: Mapping[NodeId, int],
    capacities: Mapping[NodeId, int],
) -> RingPeer:
    """The next peer clockwise that does not own the key yet, in a new zone while there is one, and has room.

    Where room and zone do not go together the zone wins: a copy that shares its original's fate is no copy.
    """
    zones_taken = {zone_of(peer) for peer in taken}
    zone_matters = len(zones_taken) < zone_count
    without_room: RingPeer | None = None
    for peer in ring.walk(key_position(key)):
        if peer in taken or (zone_matters and zone_of(peer) in zones_taken):
            continue
        if loads[peer.id] < capacities[peer.id]:
            return peer
        without_room = without_room or peer
    assert without_room is not None, "fewer peers than ranks"
    return without_room


def _capacities(peers: Iterable[RingPeer], key_count: int, factor: float) -> dict[NodeId, int]:
    points = {peer.id: peer.points for peer in peers}
    # Exact rational arithmetic: a float's last bit must not decide between two capacities.
    per_point = Fraction(factor).limit_denominator(10_000) * key_count / max(1, sum(points.values()))
    return {peer_id: math.ceil(per_point * count) for peer_id, count in points.items()}
