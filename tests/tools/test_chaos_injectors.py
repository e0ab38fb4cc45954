"""What hurts peers in the chaos script: rounds, cuts, proxies, rot; each without a single peer."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mapreduce.failpoints import FAILPOINTS
from p2p.store import Store
from tools.chaos.chaos_peer import ChaosPeer
from tools.chaos.cluster import Cluster
from tools.chaos.disk import Rot, damage, segments_of
from tools.chaos.drills import DRILLS, run_drill
from tools.chaos.faults import KINDS, FaultUnavailable, Place, load_all
from tools.chaos.hostile_jobs import EXPECTED
from tools.chaos.jobs import hostile
from tools.chaos.journal import Journal
from tools.chaos.links import Links
from tools.chaos.moments import IN_CHILDREN, ON_DISK, combinations
from tools.chaos.network import Shape, Swizzle, links_of, pairs_of
from tools.chaos.proxies import Proxies, why_not
from tools.chaos.rots import MAP_OUTPUTS, PARTS, Decay

JOB = "ab" * 16


# ---- rounds --------------------------------------------------------------------------------------------


def test_every_moment_meets_every_fault_that_it_can() -> None:
    rounds = combinations()
    assert len(FAILPOINTS) >= 25
    assert len(set(rounds)) == len(rounds) >= 75
    assert {name for name, action in rounds if action == "kill"} == set(FAILPOINTS)
    assert {name for name, action in rounds if action == "stop"} == set(FAILPOINTS)
    assert {name for name, action in rounds if action == "cut"} == set(FAILPOINTS) - IN_CHILDREN
    assert {name for name, action in rounds if action == "eio"} == set(ON_DISK)


def test_rounds_are_chosen_by_beginnings_of_names() -> None:
    assert combinations(["push."], ["kill"]) == [
        (name, "kill") for name in FAILPOINTS if name.startswith("push.")
    ]


@pytest.mark.parametrize(("names", "actions"), [(["nowhere"], []), ([], ["sing"])])
def test_rounds_that_do_not_exist_are_refused(names: list[str], actions: list[str]) -> None:
    with pytest.raises(ValueError, match="there is no"):
        combinations(names, actions)


def test_every_hostile_way_has_an_expected_end() -> None:
    assert set(hostile.WAYS) == set(EXPECTED)


@pytest.mark.parametrize(
    ("drill", "arguments"),
    [("failpoints", ["--names", "nowhere"]), ("split", ["--shapes", "x"]), ("hostile", ["--ways", "x"])],
)
def test_a_drill_refuses_what_it_does_not_know(
    drill: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_drill(drill, arguments)
    assert ended.value.code == 2
    assert "there is no" in capsys.readouterr().err
    assert drill in DRILLS


# ---- cuts ----------------------------------------------------------------------------------------------


class Recorded(Links):
    """Links that only keep the books."""

    name = "recorded"

    def __init__(self) -> None:
        self.blocked: set[tuple[int, int]] = set()

    def place(self, number: int) -> Place:
        return Place()

    def client_prefix(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass

    def block(self, source: int, target: int) -> None:
        assert (source, target) not in self.blocked
        self.blocked.add((source, target))

    def unblock(self, source: int, target: int) -> None:
        self.blocked.remove((source, target))

    def slow(self, number: int, bytes_per_s: int) -> None:
        raise NotImplementedError


@pytest.fixture
def links() -> Recorded:
    return Recorded()


@pytest.fixture
def cluster(tmp_path: Path, links: Recorded) -> Iterator[Cluster]:
    """Five peers in the books only, of which two may be down."""
    made = Cluster(tmp_path / "cluster", Journal(), replicas=3, surroundings=links)
    with made:
        for number in range(5):
            peer = ChaosPeer(number=number, place=Place(), data=tmp_path / str(number), log=tmp_path / "log")
            peer.state = type(peer.state).UP
            made.peers.append(peer)
        yield made


def test_a_partition_cuts_both_ways_and_a_oneway_cut_one() -> None:
    both = {(0, 1), (0, 2), (1, 0), (2, 0)}
    rng = random.Random(1)
    assert set(pairs_of("partition", [0], [1, 2], rng)) == both
    directions = {frozenset(pairs_of("oneway", [0], [1, 2], rng)) for _ in range(50)}
    assert directions == {frozenset({(0, 1), (0, 2)}), frozenset({(1, 0), (2, 0)})}


def test_a_bridge_is_reached_from_both_sides() -> None:
    pairs = pairs_of("bridge", [0, 1], [2, 3, 4], random.Random(1))
    touched = {number for pair in pairs for number in pair}
    assert len(touched - {0, 1}) == 2
    assert len(pairs) == 2 * 2 * 2


@pytest.mark.parametrize("shape", ["partition", "oneway", "bridge"])
def test_who_is_cut_off_weighs_until_the_cut_heals(cluster: Cluster, links: Recorded, shape: str) -> None:
    fault = Shape(shape)
    assert fault.start(cluster, random.Random(3))
    assert links.blocked
    assert 1 <= len(cluster.weighing()) <= 2
    fault.stop()
    assert not links.blocked
    assert cluster.weighing()  # for a while more: those who are back have no copies yet


def test_nobody_is_cut_off_when_as_many_as_may_are_down(cluster: Cluster, links: Recorded) -> None:
    for peer in cluster.peers[:2]:
        cluster.burden(peer)
    assert not Shape("partition").start(cluster, random.Random(3))
    assert not links.blocked


def test_a_swizzle_cuts_one_after_the_other_and_leaves_nothing_cut(
    cluster: Cluster, links: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    fault = Swizzle()
    assert fault.start(cluster, random.Random(3))
    cut = [len(links.blocked)]
    while now[0] < 103:
        now[0] += 1
        fault.step()
        cut.append(len(links.blocked))
    assert cut[0] == 8
    assert cut[-1] == 14
    fault.stop()
    while fault.step():
        now[0] += 1
    assert not links.blocked


def test_loopback_itself_cannot_be_cut(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", Journal()) as plain, pytest.raises(FaultUnavailable, match="loopback"):
        links_of(plain)


def test_all_kinds_of_faults_are_registered() -> None:
    load_all()
    names = {"partition", "oneway", "bridge", "swizzle", "slow", "latency", "resets"}
    names |= {"flip", "truncate", "swap", "delete", "full"}
    assert names <= set(KINDS)


# ---- proxies -------------------------------------------------------------------------------------------


class Echo:
    """A server that says what it hears; it stands for a peer's inbox."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._server = socket.create_server(address)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        end, _ = self._server.accept()
        with end:
            try:
                while heard := end.recv(1_024):
                    end.sendall(heard)
            except ConnectionResetError:
                pass

    def close(self) -> None:
        self._thread.join()
        self._server.close()


@pytest.fixture
def through() -> Iterator[tuple[Proxies, socket.socket]]:
    """Proxies, and a connection from peer 0, which is this process, to peer 1 through one of them."""
    if why_not():
        pytest.skip(why_not())
    proxies = Proxies()
    place = proxies.place(1)
    host, _, port = place.listen.partition(":")
    echo = Echo((host, int(port)))
    proxies.meet(cast(Cluster, SimpleNamespace(peers=[SimpleNamespace(number=0, pid=os.getpid())])))
    outside = place.advertise.partition(":")
    end = socket.create_connection((outside[0], int(outside[2])), timeout=5.0)
    try:
        yield proxies, end
    finally:
        end.close()
        echo.close()
        proxies.close()


def said(end: socket.socket, text: bytes) -> bytes:
    end.sendall(text)
    return end.recv(1_024)


def test_what_a_blocked_direction_holds_back_comes_when_it_is_open_again(
    through: tuple[Proxies, socket.socket],
) -> None:
    proxies, end = through
    assert said(end, b"before") == b"before"
    proxies.block(0, 1)
    end.settimeout(0.15)
    with pytest.raises(TimeoutError):
        said(end, b"during")
    proxies.unblock(0, 1)
    end.settimeout(5.0)
    assert end.recv(1_024) == b"during"


def test_the_way_back_is_a_direction_of_its_own(through: tuple[Proxies, socket.socket]) -> None:
    proxies, end = through
    proxies.block(1, 0)
    end.settimeout(0.15)
    with pytest.raises(TimeoutError):
        said(end, b"answer")
    proxies.unblock(1, 0)
    end.settimeout(5.0)
    assert end.recv(1_024) == b"answer"


def test_a_cut_between_others_leaves_a_connection_alone(through: tuple[Proxies, socket.socket]) -> None:
    proxies, end = through
    proxies.block(2, 1)
    assert said(end, b"text") == b"text"


def test_a_reset_breaks_connections_at_once(through: tuple[Proxies, socket.socket]) -> None:
    proxies, end = through
    assert said(end, b"text") == b"text"
    proxies.reset(1)
    with pytest.raises(ConnectionResetError):
        end.recv(1_024)


# ---- rot -----------------------------------------------------------------------------------------------


@pytest.fixture
def store(cluster: Cluster) -> Store:
    """The store of peer 0, with four outputs of one job."""
    made = Store(str(cluster.peers[0].segments))
    for attempt in range(1, 5):
        made.put(JOB, 0, attempt - 1, attempt, bytes([attempt]) * 100)
    return made


@pytest.mark.parametrize("how", ["flip", "truncate", "swap", "delete"])
def test_every_way_of_rot_is_seen_by_the_store(cluster: Cluster, store: Store, how: str) -> None:
    paths = segments_of(cluster.peers[0])
    assert len(paths) == 4
    hurt = damage(paths[:2], how, random.Random(5))
    assert hurt == paths[:2]
    assert [store.verify(str(path)) for path in paths] == [False, False, True, True]


def test_damage_counts_when_it_was_found_and_not_when_nobody_looked() -> None:
    def wrong(what: str, *, hurt: int = 5, found: int = 5, lying: int = 0) -> list[str]:
        decay = Decay(how="flip", what=what, hurt=hurt, found=found, lying=lying)
        decay.judge()
        return decay.wrong

    assert not wrong(PARTS)
    assert not wrong(MAP_OUTPUTS)
    assert wrong(MAP_OUTPUTS, found=4, lying=1) == ["1 damaged segments were never found"]
    assert not wrong(MAP_OUTPUTS, found=4)  # its stage's end has dropped it
    assert Decay(how="flip", what=MAP_OUTPUTS, hurt=5, found=4).dropped == 1
    assert wrong(PARTS, found=4) == ["1 damaged parts are neither found nor there"]
    assert wrong(PARTS, found=6) == ["1 sound segments were taken for damaged ones"]


def test_rot_weighs_on_its_peer_until_what_it_hurt_is_gone(cluster: Cluster, store: Store) -> None:
    fault = Rot("flip")
    for peer in cluster.peers[1:]:
        cluster.burden(peer)
        cluster.unburden(peer)
    assert fault.start(cluster, random.Random(1))
    assert cluster.weighing() == {0}
    assert fault.step()
    store.drop_job(JOB)
    fault.stop()
    assert not fault.step()


@pytest.mark.parametrize("how", ["flip", "truncate", "swap", "delete"])
def test_damage_is_unseen_until_the_store_looks(cluster: Cluster, store: Store, how: str) -> None:
    fault = Rot(how)
    assert fault.start(cluster, random.Random(1))
    hurt = cluster.unseen_damage(JOB)
    assert hurt
    assert {peer.number for peer in hurt.values()} == {0}
    assert cluster.unseen_damage("cd" * 16) == {}
    for path in hurt:
        assert not store.verify(str(path))
        path.unlink(missing_ok=True)
        path.write_bytes(b"made again")
    assert cluster.unseen_damage(JOB) == {}


def test_there_is_no_rot_where_nothing_lies(cluster: Cluster) -> None:
    fault: Any = Rot("flip")
    assert not fault.start(cluster, random.Random(1))
    assert not cluster.weighing()
