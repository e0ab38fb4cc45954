"""The loop over the in-memory transport, on a clock of its own: what is routed, refused, answered, told."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from membership.config import LOCAL
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from p2p.addresses import BULK_PORT_META
from p2p.errors import IdentityTaken
from p2p.keys import KeySet, generate
from p2p.memory_transport import MemoryNetwork, MemoryTransport
from p2p.peer import Peer
from p2p.protocol import KINDS, wire_format
from p2p.questions import AskMembers, MembersAre, Refused
from p2p.ring_questions import AskWhere, AskWhy, Happened, Watch, WhereIs, WhyIs
from p2p.roles import Role
from p2p.wire import MAX_CONTROL_BYTES, Envelope, WireFormat
from p2p.zmq_transport import new_key_pair

KEYS = generate("home", new_key_pair)
WIRE = wire_format()
STEP_S = 0.05


class World:
    """Peers on one in-memory network, driven turn by turn; a second takes no time."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.now = 100.0
        self.peers: list[Peer] = []
        self.ends: dict[NodeId, MemoryTransport] = {}
        self.logs: dict[NodeId, list[str]] = {}
        self.persisted: dict[NodeId, list[tuple[int, int]]] = {}
        self.paused: set[NodeId] = set()

    def add(
        self,
        name: str,
        *,
        join: tuple[str, ...] = (),
        session: int = 1,
        address: str = "",
        wire: WireFormat = WIRE,
        bulk_port: str = "",
    ) -> Peer:
        end = self.network.open(KEYS, address=address)
        node = NodeId(name)
        meta = ((BULK_PORT_META, bulk_port),) if bulk_port else ()
        me = Member(node, end.address, session=session, slots=2, pid=4711, meta=meta)
        self.logs[node] = []
        self.persisted[node] = []
        peer = Peer(
            cluster="home",
            swim=Swim(me=me, config=LOCAL, rng=random.Random(name), seeds=join),
            transport=end,
            wire=wire,
            persist=lambda incarnation, session: self.persisted[node].append((incarnation, session)),
            log=self.logs[node].append,
        )
        self.peers.append(peer)
        self.ends[node] = end
        peer.start(self.now)
        return peer

    def crash(self, peer: Peer) -> None:
        self.ends[peer.swim.me.id].close()
        self.peers.remove(peer)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        end = self.now + seconds
        while self.now < end and not until():
            self.now += STEP_S
            for peer in list(self.peers):
                if peer.swim.me.id not in self.paused:
                    peer.turn(self.now)
        return until()

    def agreed(self) -> bool:
        alive = {frozenset(member.id for member in peer.swim.view.ring_members) for peer in self.peers}
        return alive == {frozenset(peer.swim.me.id for peer in self.peers)}


class Asker:
    """A client with a key of some role."""

    def __init__(
        self, world: World, role: Role = Role.OBSERVE, wire: WireFormat = WIRE, cluster: str = "home"
    ) -> None:
        keys: KeySet = KEYS.restricted_to(role)
        self.world = world
        self.end = world.network.open(keys, listen=False)
        self.wire = wire
        self.cluster = cluster

    def say(self, peer: Peer, message: Any, sender: str = "client") -> None:
        envelope = Envelope(
            cluster=self.cluster, ring_digest=b"", sender=NodeId(sender), incarnation=0, message=message
        )
        self.end.send(peer.swim.me.address, self.wire.encode(envelope))

    def heard(self) -> list[Any]:
        return [self.wire.decode(arrival.frame).message for arrival in self.end.receive(100)]

    def ask(self, peer: Peer, message: Any) -> list[Any]:
        self.say(peer, message)
        self.world.run(STEP_S)
        return self.heard()


@pytest.fixture
def world() -> World:
    return World()


def three(world: World) -> list[Peer]:
    first = world.add("a")
    peers = [first, *(world.add(name, join=(first.swim.me.address,)) for name in ("b", "c"))]
    assert world.run(10, world.agreed)
    return peers


def test_peers_that_join_through_one_find_each_other(world: World) -> None:
    three(world)
    assert any("joined c" in line for line in world.logs[NodeId("b")])
    assert all(peer.counters()["frames_received"] > 0 for peer in world.peers)


def test_a_crashed_peer_is_dead_for_all_others_and_they_say_so(world: World) -> None:
    _, second, third = three(world)
    world.crash(third)
    assert world.run(30, world.agreed)
    assert any(line.startswith("died c") for line in world.logs[second.swim.me.id])


def test_links_to_a_peer_that_died_and_came_back_are_made_afresh(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = three(world)
    address = third.swim.me.address
    world.crash(third)
    assert world.run(30, world.agreed)
    forgotten: list[str] = []
    monkeypatch.setattr(MemoryTransport, "forget", lambda _, to: forgotten.append(to))
    world.add("c", address=address, session=2, join=(first.swim.me.address,))
    assert world.run(30, world.agreed)
    assert forgotten == [address, address]


def test_of_a_peer_that_died_the_link_for_data_is_closed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.add("a")
    second = world.add("b", join=(first.swim.me.address,), bulk_port="4711")
    assert world.run(10, world.agreed)
    address = second.swim.me.address
    forgotten: list[str] = []
    monkeypatch.setattr(MemoryTransport, "forget", lambda _, to: forgotten.append(to))
    world.crash(second)
    assert world.run(30, world.agreed)
    assert forgotten == [address, f"{address.rpartition(':')[0]}:4711"]


def test_a_leave_is_graceful_and_nobody_suspects_the_leaver(world: World) -> None:
    first, second, third = three(world)
    third.leave(world.now)
    assert world.run(LOCAL.leave_timeout_s + 1, lambda: third.has_left)
    world.crash(third)
    world.run(5)
    for peer in (first, second):
        member = peer.swim.get(NodeId("c"))
        assert member is not None
        assert member.status is Status.LEFT
    assert not any("suspected" in line for lines in world.logs.values() for line in lines)


def test_a_peer_that_slept_accuses_nobody_when_it_goes_on(world: World) -> None:
    first, _, third = three(world)
    world.paused.add(third.swim.me.id)
    world.run(10)
    member = first.swim.get(NodeId("c"))
    assert member is not None
    assert member.status is Status.DEAD
    world.paused.clear()
    assert world.run(10, world.agreed)
    told = world.logs[NodeId("c")]
    assert not any(word in line for line in told for word in ("suspected", "died"))
    assert (2, 1) in world.persisted[NodeId("c")]  # it came back as itself, one incarnation higher


def test_our_incarnation_is_remembered_before_anybody_hears_of_it(world: World) -> None:
    world.add("a")
    assert world.persisted[NodeId("a")] == [(1, 1)]


def test_a_silent_seed_is_said_once_and_tried_for_ever(world: World) -> None:
    lonely = world.add("a", join=("memory:99",))
    world.run(20)
    said = [line for line in world.logs[NodeId("a")] if "memory:99" in line]
    assert said == ["seed memory:99 is not reached: nobody answers there; it is tried again for ever"]
    world.add("late", address="memory:99")
    assert world.run(10, world.agreed)
    assert len(lonely.swim.view) == 2


def test_the_younger_of_two_processes_with_one_id_is_refused(world: World) -> None:
    first, *_ = three(world)
    world.add("b", join=(first.swim.me.address,), session=50)
    with pytest.raises(IdentityTaken, match=r"node id b belongs to a live peer at memory:2 .process 4711."):
        world.run(10)


def test_members_are_told_with_what_was_refused(world: World) -> None:
    first, *_ = three(world)
    observer = Asker(world)
    observer.end.send(first.swim.me.address, b"GET / HTTP/1.1")
    (answer,) = observer.ask(first, AskMembers(number=5))
    assert isinstance(answer, MembersAre)
    assert answer.number == 5
    assert answer.me == "a"
    assert [member.id for member in answer.members] == ["a", "b", "c"]
    assert answer.refused == {"garbage": 1}
    assert answer.ring_digest == first.swim.view.digest


def test_where_names_owners_that_all_peers_agree_on(world: World) -> None:
    peers = three(world)
    asker = Asker(world)
    answers = [asker.ask(peer, AskWhere(number=1, key="k", count=2))[0] for peer in peers]
    assert all(isinstance(answer, WhereIs) and len(answer.owners) == 2 for answer in answers)
    assert len({tuple(owner.id for owner in answer.owners) for answer in answers}) == 1
    assert len({answer.explanation for answer in answers}) == 1


def test_why_tells_the_story_of_a_dead_peer(world: World) -> None:
    first, _, third = three(world)
    world.crash(third)
    assert world.run(30, world.agreed)
    (answer,) = Asker(world).ask(first, AskWhy(number=1, node="c"))
    assert isinstance(answer, WhyIs)
    (story,) = answer.stories
    assert story.member.status is Status.DEAD
    assert story.steps[-1].status is Status.DEAD
    assert Status.SUSPECT in {step.status for step in story.steps}
    assert [step.age_s for step in story.steps] == sorted((step.age_s for step in story.steps), reverse=True)


def test_a_watcher_is_told_what_happens_until_its_lease_ends(world: World) -> None:
    first, _, third = three(world)
    asker = Asker(world)
    (confirmed,) = asker.ask(first, Watch(number=3, lease_s=10.0))
    assert (confirmed.event, confirmed.sequence, confirmed.number) == ("watching", 0, 3)
    world.crash(third)
    assert world.run(9, world.agreed)
    told = asker.heard()
    assert [(event.event, event.node) for event in told] == [("suspected", "c"), ("died", "c")]
    assert [event.sequence for event in told] == [1, 2]
    world.run(10)
    world.add("d", join=(first.swim.me.address,))
    assert world.run(10, world.agreed)
    assert asker.heard() == []


def test_a_lease_that_is_renewed_goes_on_counting(world: World) -> None:
    first, *_ = three(world)
    asker = Asker(world)
    asker.ask(first, Watch(number=3, lease_s=5.0))
    world.add("d", join=(first.swim.me.address,))
    assert world.run(10, world.agreed)
    told = [event for event in asker.heard() if isinstance(event, Happened)]
    (renewed,) = asker.ask(first, Watch(number=3, lease_s=5.0))
    assert renewed.sequence == told[-1].sequence


@pytest.mark.parametrize("role", [Role.OBSERVE, Role.SUBMIT])
def test_who_may_only_ask_cannot_gossip_whatever_it_calls_itself(world: World, role: Role) -> None:
    from membership.messages import Gossip, Rumour

    first, *_ = three(world)
    asker = Asker(world, role)
    dead = Member(NodeId("b"), "memory:2", incarnation=9, status=Status.DEAD)
    asker.say(first, Gossip(rumours=(Rumour(member=dead),)), sender="c")
    world.run(STEP_S)
    (answer,) = asker.heard()
    assert isinstance(answer, Refused)
    assert answer.kind == "not_allowed"
    member = first.swim.get(NodeId("b"))
    assert member is not None
    assert member.status is Status.ALIVE


def test_another_version_is_told_both_versions_in_one_line(world: World) -> None:
    first, *_ = three(world)
    newer = WireFormat(KINDS, version=2)
    asker = Asker(world, Role.PEER, wire=newer)
    asker.say(first, AskMembers(number=1))
    world.run(STEP_S)
    assert (
        "refused a frame of another version: from : it speaks protocol version 2, this peer speaks version 1"
        " [wrong_version 1 in all]"
    ) in world.logs[NodeId("a")]
    (answer,) = asker.end.receive(10)  # in the peer's own version: its header names it
    assert WIRE.decode(answer.frame).message.kind == "wrong_version"


def test_a_peer_of_another_version_says_what_it_was_told_and_stays_out(world: World) -> None:
    first = world.add("a")
    world.add("z", join=(first.swim.me.address,), wire=WireFormat(KINDS, version=2))
    world.run(5)
    assert len(first.swim.view) == 1
    assert any(
        "it speaks protocol version 1, this peer speaks version 2" in line for line in world.logs[NodeId("z")]
    )


def test_a_peer_of_another_cluster_stays_out(world: World) -> None:
    first, *_ = three(world)
    asker = Asker(world, Role.PEER, cluster="away")
    (answer,) = asker.ask(first, AskMembers(number=1))
    assert isinstance(answer, Refused)
    assert answer.text == "it belongs to cluster 'away', this peer to 'home'"


def test_a_frame_that_is_too_large_or_damaged_is_counted_and_changes_nothing(world: World) -> None:
    first, *_ = three(world)
    asker = Asker(world, Role.PEER)
    asker.end.send(first.swim.me.address, WIRE.encode(_ask())[:4] + b"\xc1" * (MAX_CONTROL_BYTES - 4))
    asker.end.send(first.swim.me.address, b"\x00" * 100)
    world.run(STEP_S)
    (answer,) = [m for m in asker.ask(first, AskMembers(number=2)) if isinstance(m, MembersAre)]
    assert answer.refused == {"garbage": 1, "malformed": 1}


def test_a_flood_of_refusals_writes_a_line_a_second(world: World) -> None:
    first, *_ = three(world)
    asker = Asker(world)
    before = len(world.logs[NodeId("a")])
    for _ in range(20):
        for _ in range(20):
            asker.end.send(first.swim.me.address, b"garbage")
        world.run(0.2)
    lines = world.logs[NodeId("a")][before:]
    assert 4 <= len(lines) <= 6
    assert "garbage 400 in all" in lines[-1] or "garbage 3" in lines[-1]


def _ask() -> Envelope:
    return Envelope(
        cluster="home", ring_digest=b"", sender=NodeId("x"), incarnation=0, message=AskMembers(number=1)
    )
