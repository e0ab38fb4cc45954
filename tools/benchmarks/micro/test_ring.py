"""A key's owners, a stage's tasks, a ring that changes; sixteen peers, and a thousand."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mapreduce.claims import homes
from membership.ring import Ring
from membership.ring_types import RingPeer
from membership.view import NodeId

KEYS = [f"input-{number}" for number in range(1_000)]
REPLICAS = 3


def peer(number: int) -> RingPeer:
    return RingPeer(NodeId(f"node-{number}"), 1, "")


@pytest.fixture(params=[16, 1_000])
def ring(request: pytest.FixtureRequest) -> Ring:
    """A ring of that many peers."""
    return Ring.of(map(peer, range(request.param)))


def test_find_the_owners_of_a_key(benchmark: BenchmarkFixture, ring: Ring) -> None:
    assert len(benchmark(ring.owners, "some key", REPLICAS).peers) == REPLICAS


def test_tell_whose_each_of_a_thousand_tasks_is(benchmark: BenchmarkFixture, ring: Ring) -> None:
    assert len(benchmark(homes, KEYS, ring)) == len(KEYS)


def test_add_a_peer(benchmark: BenchmarkFixture, ring: Ring) -> None:
    assert len(benchmark(ring.add, peer(10_000))) == len(ring) + 1
