"""One turn of membership: a second of probes and rumours of one peer, and one rumour taken in."""

from __future__ import annotations

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from membership.config import LAN
from membership.effects import Send
from membership.messages import Ack, Gossip, Ping, Rumour
from membership.swim import Swim
from membership.view import Member, NodeId

START_S = 1_000.0
ME = Member(id=NodeId("node-0"), address="10.0.0.0:7000", session=1)


def other(number: int, incarnation: int = 1) -> Member:
    return Member(
        id=NodeId(f"node-{number}"),
        address=f"10.0.{number >> 8}.{number & 255}:7000",
        incarnation=incarnation,
    )


class Peer:
    """One machine among others of which each answers every probe at once, and a clock for it."""

    def __init__(self, nodes: int) -> None:
        members = [ME, *map(other, range(1, nodes))]
        self.now = START_S
        self.swim = Swim(me=ME, config=LAN, rng=random.Random(1), known=members)
        self.answers = 0
        self.swim.start(self.now)

    def live(self, for_s: float) -> None:
        """Turn the machine's clock on, and answer what it asks."""
        until_s = self.now + for_s
        while (due_s := self.swim.next_deadline()) <= until_s:
            self.now = max(self.now, due_s)
            for effect in self.swim.tick(self.now):
                match effect:
                    case Send(_, to, Ping(number=number)) if to is not None:
                        self.swim.receive(Ack(number=number), to, self.now)
                        self.answers += 1
                    case _:
                        pass
        self.now = until_s


@pytest.fixture(params=[16, 1_000])
def peer(request: pytest.FixtureRequest) -> Peer:
    """A peer among that many."""
    return Peer(request.param)


def test_a_second_of_a_calm_peer(benchmark: BenchmarkFixture, peer: Peer) -> None:
    benchmark(peer.live, 1.0)
    assert peer.answers >= int(peer.now - START_S) - 1
    assert all(member.status == "alive" for member in peer.swim.view.members)


def test_take_a_rumour_in_and_pass_it_on(benchmark: BenchmarkFixture, peer: Peer) -> None:
    told = 0

    def hear() -> None:
        nonlocal told
        told += 1
        rumour = Rumour(member=other(1, incarnation=1 + told))
        peer.swim.receive(Gossip(rumours=(rumour,)), NodeId("node-2"), peer.now)
        peer.live(LAN.gossip_period_s)

    benchmark(hear)
    member = peer.swim.get(NodeId("node-1"))
    assert member is not None
    assert member.incarnation == 1 + told
