"""Whose each task of a stage is: the first peer clockwise that has room for it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mapreduce.claims import CAPACITY_FACTOR, homes
from membership.ring import Ring
from membership.ring_types import RingPeer, key_position
from membership.view import NodeId

rings = st.dictionaries(st.integers(0, 99), st.sampled_from([0.25, 1.0, 3.0]), min_size=1, max_size=8).map(
    lambda weights: Ring.of([RingPeer(NodeId(f"peer-{n}"), weight) for n, weight in weights.items()])
)


def room_of(ring: Ring, keys: list[str]) -> dict[NodeId, int]:
    points = sum(peer.points for peer in ring.peers)
    return {peer.id: math.ceil(CAPACITY_FACTOR * len(keys) * peer.points / points) for peer in ring.peers}


@given(rings, st.lists(st.text(max_size=6), max_size=60))
def test_a_task_is_the_first_peers_clockwise_that_has_room_for_it(ring: Ring, keys: list[str]) -> None:
    room = room_of(ring, keys)
    for key, home in zip(keys, homes(keys, ring), strict=True):
        points = sorted(ring.points(), key=lambda point: (point[0] < key_position(key), point[0]))
        assert home == next(owner for _, owner in points if room[owner])
        room[home] -= 1


@given(rings, st.integers(0, 200))
def test_no_peer_has_more_than_its_share_and_a_quarter(ring: Ring, count: int) -> None:
    keys = [f"split {number}" for number in range(count)]
    found = homes(keys, ring)
    assert all(found.count(peer) <= most for peer, most in room_of(ring, keys).items())


def test_without_peers_nobody_is_named() -> None:
    assert homes(["a split"], Ring.of([])) == []
