"""Strangers, the confused and the broken, against real peers: refused, counted, without a trace afterwards.

While all this happens to one peer, the honest ones must not suspect each other.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from membership.view import NodeId
from p2p.key_source import KeySource
from p2p.keys import KeyPair, KeySet, generate
from p2p.process import raise_descriptor_limit
from p2p.protocol import KINDS, wire_format
from p2p.questions import AskMembers
from p2p.roles import Role
from p2p.swarm import LocalPeers, PeerProcess
from p2p.wire import MAX_CONTROL_BYTES, Envelope, WireFormat
from p2p.zmq_transport import new_key_pair
from tools.measure_membership import Watchtower

LIMIT_S = 15.0
WIRE = wire_format()


@pytest.fixture(scope="module")
def keys(local: LocalPeers, keys_directory: Path) -> KeySet:
    return KeySource(directory=keys_directory).load().keys


@pytest.fixture(scope="module")
def tower(local: LocalPeers, keys: KeySet) -> Iterator[Watchtower]:
    """Hears what the peers tell during all tests here, and checks at the end that it was nothing."""
    watching = Watchtower(keys, list(local.peers))
    try:
        watching.await_agreement(LIMIT_S)
        watching.watch_all()
        yield watching
        watching.look(2.0)  # five probe periods: a suspicion that is under way shows
        alarms = ("suspected", "died", "self_refuted")
        assert not [event for _, _, event in watching.events if event.event in alarms]
        watching.await_agreement(LIMIT_S)
    finally:
        watching.close()


@pytest.fixture
def target(tower: Watchtower) -> PeerProcess:
    return tower.peers[0]


@contextlib.contextmanager
def dealer(address: str, pair: KeyPair | None, ring: str) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket, as a hostile program would make it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    knocker = context.socket(zmq.DEALER)
    if pair is not None and pair.secret is not None:
        knocker.setsockopt(zmq.CURVE_SERVERKEY, ring.encode())
        knocker.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        knocker.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
    knocker.setsockopt(zmq.LINGER, 0)
    knocker.connect(f"tcp://{address}")
    try:
        yield knocker
    finally:
        context.destroy(linger=0)


def refused(tower: Watchtower) -> dict[str, int]:
    return dict(tower.views()[0].refused)


def counted(tower: Watchtower, kind: str, before: dict[str, int], times: int = 1) -> Callable[[], bool]:
    return lambda: refused(tower).get(kind, 0) >= before.get(kind, 0) + times


def frame(message: Any, wire: WireFormat = WIRE, cluster: str = "default") -> bytes:
    return wire.encode(
        Envelope(cluster=cluster, ring_digest=b"", sender=NodeId("x"), incarnation=0, message=message)
    )


def test_a_key_that_nobody_knows_is_refused_and_counted(
    tower: Watchtower, target: PeerProcess, keys: KeySet
) -> None:
    before = refused(tower)
    with dealer(target.address, new_key_pair(), keys.ring.public) as knocker:
        knocker.send(frame(AskMembers(number=1)))
        assert tower.look(LIMIT_S, counted(tower, "bad_key", before))
        assert not knocker.poll(0)


def test_a_connection_without_any_key_is_refused_and_counted(
    tower: Watchtower, target: PeerProcess, keys: KeySet
) -> None:
    # Both ends see that they do not speak the same mechanism; which of them hangs up first is a race, and
    # whoever is hung up on cannot tell why.
    def count() -> int:
        return sum(refused(tower).get(kind, 0) for kind in ("no_key", "unfinished"))

    before = count()
    with dealer(target.address, None, "") as knocker:
        knocker.send(frame(AskMembers(number=1)))
        assert tower.look(LIMIT_S, lambda: count() > before)
        assert not knocker.poll(0)


def test_a_peer_of_a_cluster_with_other_keys_is_refused_and_counted(
    tower: Watchtower, target: PeerProcess
) -> None:
    before = refused(tower)
    other = generate("default", new_key_pair)
    with dealer(target.address, other.roles[Role.PEER], other.ring.public) as knocker:
        knocker.send(frame(AskMembers(number=1)))
        assert tower.look(LIMIT_S, counted(tower, "other_ring", before))


@pytest.mark.parametrize("inbox", ["control", "bulk"])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        secrets.token_bytes(4_096),
        b"\xff" + b"\x00" * 8 + b"\x7f" + b"\x03" + b"\xff" * 60,
    ],
    ids=["http", "random", "half a greeting"],
)
def test_garbage_on_the_port_is_refused_and_counted(
    tower: Watchtower, target: PeerProcess, inbox: str, data: bytes
) -> None:
    before = refused(tower)
    host, _, port = target.address.rpartition(":")
    if inbox == "bulk":
        (me,) = (member for member in tower.views()[0].members if member.id == target.id)
        port = dict(me.meta)["bulk"]
    with socket.create_connection((host, int(port))) as stranger:
        with contextlib.suppress(OSError):  # it may have hung up already
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)

        def turned_away() -> bool:
            now = refused(tower)
            return any(now.get(kind, 0) > before.get(kind, 0) for kind in ("garbage", "unfinished", "no_key"))

        assert tower.look(LIMIT_S, turned_away)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("garbage", b"no frame"),
        (
            "malformed",
            WIRE.encode(
                Envelope(
                    cluster="default",
                    ring_digest=b"",
                    sender=NodeId("x"),
                    incarnation=0,
                    message=AskMembers(number=1),
                )
            )[:-1],
        ),
        ("wrong_version", frame(AskMembers(number=1), WireFormat(KINDS, version=200))),
        ("wrong_cluster", frame(AskMembers(number=1), cluster="elsewhere")),
        ("oversized", b"RR\x01\x00" + bytes(MAX_CONTROL_BYTES)),
    ],
)
def test_a_member_that_talks_nonsense_is_refused_and_counted(
    tower: Watchtower, target: PeerProcess, keys: KeySet, kind: str, data: bytes
) -> None:
    before = refused(tower)
    with dealer(target.address, keys.roles[Role.PEER], keys.ring.public) as knocker:
        for _ in range(20):
            knocker.send(data)
        assert tower.look(LIMIT_S, counted(tower, kind, before, times=20))


def test_a_frame_far_above_the_limit_costs_its_connection_and_no_memory(
    tower: Watchtower, target: PeerProcess, keys: KeySet
) -> None:
    resident_before = resident_mb(target.pid)
    ended_before = tower.views()[0].counters["connections_ended"]
    with dealer(target.address, keys.roles[Role.PEER], keys.ring.public) as knocker:
        knocker.send(bytes(64 * 1024 * 1024))
        assert tower.look(LIMIT_S, lambda: tower.views()[0].counters["connections_ended"] > ended_before)
        assert resident_mb(target.pid) < resident_before + 16
    assert resident_mb(target.pid) < resident_before + 16


def test_two_thousand_half_open_connections_leave_nothing_behind(
    tower: Watchtower, target: PeerProcess
) -> None:
    raise_descriptor_limit()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2_500:
        pytest.skip("this system does not allow that many descriptors")
    before = refused(tower)
    descriptors_before, resident_before = descriptors(target.pid), resident_mb(target.pid)
    host, _, port = target.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(2_000):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S))
        assert tower.look(LIMIT_S, lambda: descriptors(target.pid) > descriptors_before + 1_000)
        opened_at = time.monotonic()
        # The other side stays open: it is the peer that must hang up.
        assert tower.look(LIMIT_S, lambda: descriptors(target.pid) <= descriptors_before + 5)
        assert time.monotonic() - opened_at < 5.0
        assert tower.look(LIMIT_S, counted(tower, "unfinished", before, times=2_000))
    assert resident_mb(target.pid) < resident_before + 16


def test_honest_clients_that_come_and_go_are_not_counted(
    tower: Watchtower, target: PeerProcess, ringreduce: Callable[..., object]
) -> None:
    before = refused(tower)
    ended_before = tower.views()[0].counters["connections_ended"]
    for _ in range(2):
        ringreduce("members", "--peer", target.address)
    assert tower.look(LIMIT_S, lambda: tower.views()[0].counters["connections_ended"] >= ended_before + 2)
    assert refused(tower) == before


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no memory is told of")
