"""Peers that do not reach each other go on together, over one that reaches both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgpack
import pytest

from p2p.forwarding import FORWARD_ROOM, HELD_S, LINK_HELD_BYTES, Forward, Forwarding
from p2p.questions import Refused
from p2p.roles import Role
from p2p.service import Say
from p2p.transport import MAX_BULK_BYTES, BulkArrival
from p2p.wire import MAX_CONTROL_BYTES, Envelope
from tests.p2p.memory_swarm import KEYS, WIRE, MemorySwarm, Node
from tests.p2p.ring_puts import BLOCK, content, copies, put

HEAD = msgpack.packb(["a", 1, 1, 0])


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[MemorySwarm]:
    made = MemorySwarm(tmp_path)
    yield made
    made.close()


def bridge(swarm: MemorySwarm, one: str, other: str) -> None:
    """Cut all links between two groups of peers, and wait until every detour is found."""
    for a, b in product(one, other):
        for source, target in ((a, b), (b, a)):
            swarm.network.cut(swarm.nodes[source].end.address, swarm.nodes[target].end.address)
    pairs = [pair for a, b in product(one, other) for pair in ((a, b), (b, a))]
    assert swarm.run(10, lambda: all(swarm.nodes[a].peer.swim.detour(swarm.nodes[b].id) for a, b in pairs))


def counted(node: Node, name: str) -> int:
    return node.peer.counters().get(name, 0)


def test_copies_reach_peers_on_the_other_side_of_a_bridge_by_one_hop_over_it(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c", "d", "e")
    bridge(swarm, "ab", "cd")
    assert put(swarm, "books/one", content(5 * BLOCK), replicas=5).reason == ""
    assert copies(swarm, 5) == [5] * 5
    assert counted(swarm.nodes["e"], "bulk_forwarded") > 0
    assert counted(swarm.nodes["e"], "frames_forwarded") > 0
    assert all(not counted(swarm.nodes[one], "bulk_forwarded") for one in "abcd")


def test_what_comes_over_a_bridge_counts_as_its_senders_word_and_not_as_the_bridges(
    swarm: MemorySwarm,
) -> None:
    nodes = swarm.start("a", "b", "c", "d", "e")
    bridge(swarm, "ab", "cd")
    assert put(swarm, "books/one", content(4 * BLOCK), replicas=2).reason == ""
    said = {one.id: one.engine.ring_files.blocks.holdings.bits(one.id, "a" * 40) for one in nodes}
    assert len(set(said.values())) > 1  # they hold different blocks, so a mistaken name would show

    def all_know() -> bool:
        return all(
            one.engine.ring_files.blocks.holdings.bits(node, "a" * 40) == bits
            for one in nodes
            for node, bits in said.items()
        )

    assert swarm.run(10, all_know)


def test_a_healed_link_is_used_again_and_nothing_is_passed_on_any_more(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    bridge(swarm, "a", "b")
    swarm.network.mend()
    assert swarm.run(10, lambda: swarm.nodes["a"].peer.swim.detour(swarm.nodes["b"].id) is None)
    assert swarm.run(10, lambda: swarm.nodes["b"].peer.swim.detour(swarm.nodes["a"].id) is None)
    before = counted(swarm.nodes["c"], "frames_forwarded")
    assert put(swarm, "x", content(BLOCK), replicas=3).reason == ""
    assert copies(swarm, 1) == [3]
    assert counted(swarm.nodes["c"], "frames_forwarded") == before


def test_a_frame_that_would_not_fit_into_another_goes_the_direct_way(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = swarm.start("a", "b", "c")
    bridge(swarm, "a", "b")
    sent: list[str] = []
    monkeypatch.setattr(a.end, "send", lambda address, _frame: sent.append(address))
    for size, is_wrapped in ((MAX_CONTROL_BYTES - 2 * FORWARD_ROOM, True), (MAX_CONTROL_BYTES - 300, False)):
        a.peer._say(Say(b.id, b.end.address, Forward(to=c.id, frame=bytes(size))))
        assert sent.pop() == (c if is_wrapped else b).end.address


def test_a_relay_passes_on_over_its_own_links_alone(swarm: MemorySwarm) -> None:
    """Else a frame could travel in circles between two peers that are each other's detours."""
    a, b, c = swarm.start("a", "b", "c")
    bridge(swarm, "a", "b")
    stranger = swarm.network.open(KEYS, listen=False)
    stranger.send(a.end.address, forward(b, envelope_of(c, Refused(number=0, kind="", text=""))))
    before = counted(c, "frames_forwarded"), counted(a, "frames_forwarded")
    swarm.run(1)
    assert (counted(c, "frames_forwarded"), counted(a, "frames_forwarded")) == (before[0], before[1] + 1)


def envelope_of(sender: Node, message: object) -> bytes:
    return WIRE.encode(
        Envelope(cluster="home", ring_digest=b"", sender=sender.id, incarnation=1, message=message)
    )


def forward(to: Node, frame: bytes) -> bytes:
    return envelope_of(to, Forward(to=to.id, frame=frame))


def test_a_relay_refuses_what_its_receiver_would_refuse(swarm: MemorySwarm) -> None:
    """The receiver would count it against the relay, whose connection it comes over."""
    a, b = swarm.start("a", "b")
    stranger = swarm.network.open(KEYS, listen=False)
    sound = envelope_of(b, Refused(number=0, kind="", text=""))
    for number, frame in enumerate((b"garbage", sound[:-1], forward(b, sound)), start=1):
        stranger.send(a.end.address, forward(b, frame))
        swarm.run(0.5)
        assert not counted(a, "frames_forwarded")
        assert sum(a.peer._refusals.counts.values()) == number
    assert not b.peer._refusals.counts
    stranger.send(a.end.address, forward(b, sound))
    swarm.run(0.5)
    assert counted(a, "frames_forwarded") == 1


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.PEER])
def test_nothing_is_passed_on_for_clients(swarm: MemorySwarm, role: Role) -> None:
    a, b = swarm.start("a", "b")
    client = swarm.network.open(KEYS.restricted_to(role), listen=False)
    asked = Envelope(
        cluster="home", ring_digest=b"", sender=b.id, incarnation=1, message=Forward(to=b.id, frame=b"RR")
    )
    client.send(a.end.address, WIRE.encode(asked))
    client.send_bulk(a.end.bulk_address, (b.id.encode(), HEAD, b"", b"data"))
    swarm.run(0.5)
    assert not counted(a, "frames_forwarded")
    assert not counted(a, "bulk_forwarded")


def arrival(to: bytes, size_bytes: int = 0) -> BulkArrival:
    return BulkArrival(tuple(map(memoryview, (to, HEAD, b"", bytes(size_bytes)))), Role.PEER, "b")


def test_what_a_link_does_not_take_is_held_for_a_while_and_no_more_than_so_much(swarm: MemorySwarm) -> None:
    a, b = swarm.start("a", "b")
    swarm.network.cut(a.end.address, b.end.address)
    counters: Counter[str] = Counter()
    forwarding = Forwarding(a.peer.swim, a.end, counters)
    chunk = LINK_HELD_BYTES // 8
    for _ in range(20):
        assert forwarding.take_bulk(arrival(b.id.encode(), chunk), now=0.0)
        forwarding.flush(0.0)
    assert counters == {"bulk_not_forwarded": 13}  # the heads leave no room for an eighth
    assert forwarding.next_deadline(0.0) < HELD_S
    forwarding.flush(HELD_S)
    assert counters == {"bulk_not_forwarded": 20}
    assert forwarding.next_deadline(HELD_S) == float("inf")
    swarm.network.mend()
    assert forwarding.take_bulk(arrival(b.id.encode(), chunk), now=20.0)
    forwarding.flush(20.0)
    assert counters["bulk_forwarded"] == 1


def test_a_link_that_takes_nothing_leaves_room_for_what_is_for_others(swarm: MemorySwarm) -> None:
    a, b, c = swarm.start("a", "b", "c")
    swarm.network.cut(a.end.address, b.end.address)
    counters: Counter[str] = Counter()
    forwarding = Forwarding(a.peer.swim, a.end, counters)
    chunk = LINK_HELD_BYTES // 2
    for _ in range(20):
        assert forwarding.take_bulk(arrival(b.id.encode(), chunk), now=0.0)
    forwarding.flush(0.0)
    assert not counters["bulk_forwarded"]
    assert forwarding.take_bulk(arrival(c.id.encode(), chunk), now=1.0)
    forwarding.flush(1.0)
    assert counters["bulk_forwarded"] == 1


def test_all_links_together_are_held_no_more_than_so_much(swarm: MemorySwarm) -> None:
    (a,) = swarm.start("a")
    counters: Counter[str] = Counter()
    forwarding = Forwarding(a.peer.swim, a.end, counters)
    chunk = LINK_HELD_BYTES // 2
    for number in range(10):
        assert forwarding.take_bulk(arrival(b"%d" % number, chunk), now=0.0)
    assert counters == {"bulk_not_forwarded": 3}


@pytest.mark.parametrize("to", [b"nobody", b"\xff\xfe", b""])
def test_what_is_for_nobody_here_is_dropped(swarm: MemorySwarm, to: bytes) -> None:
    (a,) = swarm.start("a")
    counters: Counter[str] = Counter()
    forwarding = Forwarding(a.peer.swim, a.end, counters)
    assert forwarding.take_bulk(arrival(to), now=0.0)
    forwarding.flush(0.0)
    assert not counters["bulk_forwarded"]
    assert forwarding.next_deadline(0.0) == float("inf")


def test_what_is_too_large_for_a_link_is_dropped(swarm: MemorySwarm) -> None:
    a, b = swarm.start("a", "b")
    counters: Counter[str] = Counter()
    forwarding = Forwarding(a.peer.swim, a.end, counters)
    assert forwarding.take_bulk(arrival(b.id.encode(), MAX_BULK_BYTES), now=0.0)
    forwarding.flush(0.0)
    assert counters == {"bulk_not_forwarded": 1}
