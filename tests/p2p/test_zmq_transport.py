"""What only the real transport can get wrong: the doors, the links, the descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from p2p import zmq_transport
from p2p.addresses import HostPort
from p2p.errors import SelfTestFailed
from p2p.keys import generate
from p2p.roles import Role
from p2p.transport import LinkFailed
from p2p.zap import Verdict
from p2p.zmq_transport import IDLE_LIMIT_S, STUCK_LIMIT_S, WAITING_LIMIT_S, ZmqTransport, new_key_pair

KEYS = generate("test", new_key_pair)
LOOPBACK = HostPort("127.0.0.1", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def end(clock: Clock) -> Iterator[ZmqTransport]:
    made = ZmqTransport(KEYS, clock=clock)
    yield made
    made.close()


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """Somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_doorman_who_lets_everybody_in_keeps_the_transport_from_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kind_judge(request: list[bytes], _users: object) -> Verdict:
        return Verdict([request[0], request[1], b"200", b"OK", b"peer", b""], Role.PEER, "")

    monkeypatch.setattr(zmq_transport, "judge", kind_judge)
    with pytest.raises(SelfTestFailed, match="a random key was let in"):
        ZmqTransport(KEYS, listen=LOOPBACK)


def test_an_inbox_whose_domain_was_forgotten_keeps_the_transport_from_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_option = zmq.Socket.setsockopt

    def forgetful(self: zmq.Socket[bytes], option: int, *value: Any) -> None:
        if option != zmq.ZAP_DOMAIN:
            set_option(self, option, *value)

    monkeypatch.setattr(zmq.Socket, "setsockopt", forgetful)
    with pytest.raises(SelfTestFailed, match="a random key was let in"):
        ZmqTransport(KEYS, listen=LOOPBACK)


def test_a_doorman_who_does_not_answer_keeps_the_transport_from_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmq_transport, "judge", lambda _request, _users: None)
    monkeypatch.setattr(zmq_transport, "SELF_TEST_LIMIT_S", 0.2)
    with pytest.raises(SelfTestFailed, match="not clearly refused"):
        ZmqTransport(KEYS, listen=LOOPBACK)


def test_frames_that_wait_for_a_connection_grow_old_and_are_dropped(
    end: ZmqTransport, clock: Clock, deaf_address: str
) -> None:
    assert end.send(deaf_address, b"ping")
    clock.now += WAITING_LIMIT_S
    end.maintain(clock.now)
    assert end.counters()["frames_dropped"] == 1
    assert end.counters()["links"] == 1


def test_only_so_many_frames_wait_and_the_oldest_go_first(end: ZmqTransport, deaf_address: str) -> None:
    for number in range(zmq_transport.MAX_WAITING + 10):
        end.send(deaf_address, b"%d" % number)
    assert end.counters()["frames_dropped"] == 10


def test_a_link_that_cannot_send_is_closed_and_made_afresh_when_needed(
    end: ZmqTransport, clock: Clock, deaf_address: str
) -> None:
    end.send(deaf_address, b"ping")
    clock.now += STUCK_LIMIT_S
    end.maintain(clock.now)
    assert end.counters()["links"] == 0
    end.send(deaf_address, b"ping")
    assert end.counters()["links"] == 1


def test_an_idle_link_is_closed(clock: Clock, end: ZmqTransport) -> None:
    server = ZmqTransport(KEYS, listen=LOOPBACK)
    try:
        end.send(server.address, b"hello")
        while not server.receive(1):
            server.wait(0.005)
            end.wait(0.005)
        clock.now += IDLE_LIMIT_S - 1
        end.maintain(clock.now)
        assert end.counters()["links"] == 1
        clock.now += 1
        end.maintain(clock.now)
        assert end.counters()["links"] == 0
    finally:
        server.close()


def test_there_are_only_so_many_links_and_the_one_not_used_for_longest_goes_first(
    end: ZmqTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq_transport, "MAX_LINKS", 3)
    for port in (1, 2, 3, 1, 4):
        end.send(f"127.0.0.1:{port}", b"x")
    assert end.counters()["links"] == 3
    assert end.counters()["frames_dropped"] == 1  # that which waited for port 2
    end.forget("127.0.0.1:1")
    assert end.counters()["links"] == 2


@pytest.mark.parametrize("address", ["localhost:7700", "no-such-host.invalid:1", "nonsense:", "127.0.0.1:x"])
def test_an_address_that_would_ask_a_resolver_is_not_connected_to(end: ZmqTransport, address: str) -> None:
    assert not end.send(address, b"x")
    (notice,) = end.take_notices()
    assert isinstance(notice, LinkFailed)
    assert notice.address == address


def test_a_wait_ends_when_a_watched_descriptor_can_be_read(end: ZmqTransport) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end.watch(ours.fileno())
        theirs.send(b"!")
        end.wait(60.0)  # returns, or the test hangs


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_a_transport_leaves_no_descriptor_behind(deaf_address: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        made = ZmqTransport(KEYS, listen=LOOPBACK)
        made.send(made.address, b"to myself")
        made.send(deaf_address, b"to nobody")
        made.wait(0.01)
        made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_transport_that_is_dropped_open_closes_its_sockets(deaf_address: str) -> None:
    # Its handlers refer to it, so it goes with the garbage collector, which waited for the sockets for ever.
    code = f"""
import gc, os
from p2p.keys import generate
from p2p.zmq_transport import ZmqTransport, new_key_pair
keys = generate("test", new_key_pair)
def descriptors_after_one():
    transport = ZmqTransport(keys)
    transport.send("{deaf_address}", b"frame")
    del transport
    gc.collect()
    return len(os.listdir("/dev/fd"))
descriptors_after_one()
assert descriptors_after_one() == descriptors_after_one()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
