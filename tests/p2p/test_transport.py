"""What both transports promise; each test runs over ZeroMQ and in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from p2p.addresses import HostPort
from p2p.errors import AddressInUse, KeysUnusable, OversizedFrame
from p2p.keys import KeySet, generate
from p2p.memory_transport import MemoryNetwork, MemoryTransport
from p2p.roles import Role
from p2p.transport import (
    MAX_BULK_BYTES,
    MAX_BULK_PARTS,
    Arrival,
    BulkArrival,
    LinkFailed,
    Notice,
    StrangerRefused,
    Transport,
)
from p2p.wire import MAX_CONTROL_BYTES
from p2p.zmq_transport import ZmqTransport, new_key_pair

DEADLINE_S = 10.0
KEYS = generate("test", new_key_pair)
# Keeps the ring's public key, and comes with a role key that nobody knows.
STRANGER = KeySet("test", KEYS.ring.without_secret(), {Role.PEER: new_key_pair()})
OTHER_RING = generate("test", new_key_pair)


class Opener(Protocol):
    def __call__(self, keys: KeySet = KEYS, *, listen: bool = True) -> Transport: ...


@pytest.fixture(params=["zmq", "memory"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opener]:
    ends: list[Transport] = []
    network = MemoryNetwork()

    def open_zmq(keys: KeySet = KEYS, *, listen: bool = True) -> Transport:
        ends.append(ZmqTransport(keys, listen=HostPort("127.0.0.1", 0) if listen else None))
        return ends[-1]

    def open_memory(keys: KeySet = KEYS, *, listen: bool = True) -> Transport:
        ends.append(network.open(keys, listen=listen))
        return ends[-1]

    yield open_zmq if request.param == "zmq" else open_memory
    for end in ends:
        end.close()


def pump(ends: list[Transport], done: Callable[[], bool]) -> None:
    """Let all ends do their work until the condition holds; waits for events, not for time to pass."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, "what was awaited did not happen"
        for end in ends:
            end.wait(0.005)


class Mail:
    """Everything that an end has received."""

    def __init__(self, end: Transport) -> None:
        self.end = end
        self.arrivals: list[Arrival] = []
        self.bulk: list[BulkArrival] = []
        self.notices: list[Notice] = []

    def collect(self) -> Mail:
        self.arrivals += self.end.receive(100)
        self.bulk += self.end.receive_bulk(100)
        self.notices += self.end.take_notices()
        return self

    @property
    def frames(self) -> list[bytes]:
        return [arrival.frame for arrival in self.arrivals]


def test_a_frame_arrives_with_the_role_of_its_sender(opened: Opener) -> None:
    server = Mail(opened())
    senders = {
        role: opened(replace(KEYS, roles={**KEYS.roles}).restricted_to(role), listen=False) for role in Role
    }
    for role, sender in senders.items():
        assert sender.send(server.end.address, role.label.encode())
    pump([server.end, *senders.values()], lambda: len(server.collect().arrivals) == 3)
    assert {arrival.frame.decode(): arrival.role for arrival in server.arrivals} == {
        "peer": Role.PEER,
        "submit": Role.SUBMIT,
        "observe": Role.OBSERVE,
    }


def test_frames_of_one_sender_keep_their_order(opened: Opener) -> None:
    server, sender = Mail(opened()), opened()
    sent = [b"%d" % number for number in range(50)]
    for frame in sent:
        assert sender.send(server.end.address, frame)
    pump([server.end, sender], lambda: len(server.collect().arrivals) == len(sent))
    assert server.frames == sent


def test_an_answer_goes_back_to_one_who_has_no_inbox(opened: Opener) -> None:
    server, client = Mail(opened()), Mail(opened(listen=False))
    client.end.send(server.end.address, b"question")
    pump([server.end, client.end], lambda: bool(server.collect().arrivals))
    connection = server.arrivals[0].connection
    assert connection is not None
    assert server.end.reply(connection, b"answer")
    pump([server.end, client.end], lambda: bool(client.collect().arrivals))
    assert [(a.frame, a.role, a.connection) for a in client.arrivals] == [(b"answer", Role.PEER, None)]


def test_an_answer_to_one_who_has_gone_is_dropped(opened: Opener) -> None:
    server, client = Mail(opened()), opened(listen=False)
    client.send(server.end.address, b"question")
    pump([server.end, client], lambda: bool(server.collect().arrivals))
    connection = server.arrivals[0].connection
    assert connection is not None
    client.close()
    pump([server.end], lambda: not server.end.reply(connection, b"answer"))


def test_a_stranger_is_refused_and_counted_and_told(opened: Opener) -> None:
    server, stranger, friend = Mail(opened()), Mail(opened(STRANGER, listen=False)), opened()
    stranger.end.send(server.end.address, b"let me in")
    ends = [server.end, stranger.end, friend]
    pump(ends, lambda: bool(server.collect().notices) and bool(stranger.collect().notices))
    friend.send(server.end.address, b"it is me")
    pump(ends, lambda: bool(server.collect().arrivals))
    assert server.frames == [b"it is me"]
    assert {notice.kind for notice in server.notices if isinstance(notice, StrangerRefused)} == {"bad_key"}
    assert stranger.notices[0] == LinkFailed(server.end.address, "it does not know our key")


def test_one_who_looks_for_another_cluster_is_refused_and_counted(opened: Opener) -> None:
    server, lost = Mail(opened()), Mail(opened(OTHER_RING, listen=False))
    lost.end.send(server.end.address, b"hello")
    pump([server.end, lost.end], lambda: bool(server.collect().notices) and bool(lost.collect().notices))
    assert isinstance(server.notices[0], StrangerRefused)
    assert server.notices[0].kind == "other_ring"
    assert isinstance(lost.notices[0], LinkFailed)
    assert "another cluster" in lost.notices[0].reason
    assert server.arrivals == []


def test_a_frame_to_nobody_is_dropped_and_the_reason_told(opened: Opener) -> None:
    gone = opened()
    address = gone.address
    gone.close()
    sender = Mail(opened())
    sender.end.send(address, b"hello?")
    pump([sender.end], lambda: bool(sender.collect().notices))
    assert sender.notices[0] == LinkFailed(address, "nobody answers there")


def test_a_frame_above_the_limit_is_refused_where_it_is_sent(opened: Opener) -> None:
    server, sender = opened(), opened()
    with pytest.raises(OversizedFrame):
        sender.send(server.address, bytes(MAX_CONTROL_BYTES + 1))
    with pytest.raises(OversizedFrame):
        sender.send_bulk(server.bulk_address, [bytes(MAX_BULK_BYTES // 2), bytes(MAX_BULK_BYTES // 2), b"x"])
    with pytest.raises(OversizedFrame):
        sender.send_bulk(server.bulk_address, [b""] * (MAX_BULK_PARTS + 1))


def test_a_frame_of_the_largest_size_arrives(opened: Opener) -> None:
    server, sender = Mail(opened()), opened()
    sender.send(server.end.address, b"x" * MAX_CONTROL_BYTES)
    pump([server.end, sender], lambda: bool(server.collect().arrivals))
    assert len(server.frames[0]) == MAX_CONTROL_BYTES


def test_bulk_messages_arrive_whole_and_beside_the_control_frames(opened: Opener) -> None:
    server, sender = Mail(opened()), opened()
    parts = [b"header", bytes(range(256)) * 4096, b""]
    pump([server.end, sender], lambda: sender.send_bulk(server.end.bulk_address, parts))
    sender.send(server.end.address, b"control")
    pump([server.end, sender], lambda: bool(server.collect().bulk) and bool(server.arrivals))
    assert [bytes(part) for part in server.bulk[0].parts] == parts
    assert server.bulk[0].role is Role.PEER
    assert server.frames == [b"control"]


def test_a_receiver_that_does_not_read_costs_the_sender_a_bounded_number_of_frames(opened: Opener) -> None:
    server, sender = opened(), opened()
    frame = bytes(64 * 1024)
    pump([server, sender], lambda: sender.send(server.address, b"first") and bool(server.receive(1)))
    for _ in range(10_000):
        sender.send(server.address, frame)
    assert sender.counters()["frames_dropped"] > 1_000
    # and nothing is broken: once the receiver reads, the sender's next frames come through
    seen: list[bytes] = []

    def read_and_retry() -> bool:
        seen.extend(arrival.frame for arrival in server.receive(1_000))
        if b"last" not in seen:
            sender.send(server.address, b"last")
        return b"last" in seen

    pump([server, sender], read_and_retry)


def test_bulk_waits_for_a_receiver_that_does_not_read_and_goes_on_when_it_does(opened: Opener) -> None:
    server, sender = opened(), opened()
    part = bytes(MAX_BULK_BYTES)
    sent = 0

    def blocked() -> bool:
        nonlocal sent
        while sender.send_bulk(server.bulk_address, [b"%d" % sent, part[:-8]]):
            sent += 1
            assert sent < 100, "nothing holds the sender back"
        return sent > 0

    pump([server, sender], blocked)
    got: list[bytes] = []

    def all_arrived() -> bool:
        got.extend(bytes(arrival.parts[0]) for arrival in server.receive_bulk(2))
        return len(got) == sent

    pump([server, sender], all_arrived)
    assert got == [b"%d" % number for number in range(sent)]
    pump([server, sender], lambda: sender.send_bulk(server.bulk_address, [b"more"]))


def test_only_as_much_is_received_as_was_asked_for(opened: Opener) -> None:
    server, sender = opened(), opened()
    for number in range(10):
        sender.send(server.address, b"%d" % number)
    got: list[bytes] = []

    def receive_three() -> bool:
        arrivals = server.receive(3)
        assert len(arrivals) <= 3
        got.extend(arrival.frame for arrival in arrivals)
        return len(got) == 10

    pump([server, sender], receive_three)


def test_a_link_that_was_forgotten_is_made_afresh(opened: Opener) -> None:
    server, sender = Mail(opened()), opened()
    for number in (1, 2):
        sender.send(server.end.address, b"%d" % number)
        pump([server.end, sender], lambda n=number: len(server.collect().arrivals) == n)  # type: ignore[misc]
        sender.forget(server.end.address)
    assert server.frames == [b"1", b"2"]


def test_who_may_not_serve_cannot_listen(opened: Opener) -> None:
    with pytest.raises(KeysUnusable, match="peer's token"):
        opened(KEYS.restricted_to(Role.SUBMIT))


def test_an_address_in_use_is_refused() -> None:
    network = MemoryNetwork()
    first: MemoryTransport = network.open(KEYS)
    with pytest.raises(AddressInUse):
        network.open(KEYS, address=first.address)
    server = ZmqTransport(KEYS, listen=HostPort("127.0.0.1", 0))
    try:
        with pytest.raises(AddressInUse, match="in use by another process"):
            ZmqTransport(KEYS, listen=HostPort("127.0.0.1", int(server.address.rpartition(":")[2])))
    finally:
        server.close()
