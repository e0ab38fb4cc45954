"""What a job survives: a worker, the peer it was handed to, its leader, one after another, everybody.

Real peers are killed with SIGKILL while a job runs; the answer is that of the embedded engine, and no map
task that was committed runs again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapreduce import Job
from mapreduce.examples import wordcount
from mapreduce.records import Pair
from p2p.handles import JobEvent, JobHandle
from p2p.local_swarm import LocalSwarm
from p2p.swarm_client import Swarm
from tests.p2p.jobs_inputs import words_in

LIMIT_S = 120.0
PARTITIONS = 5
SPLIT_BYTES = 20_000
MAP_TASKS = 50


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """About a megabyte of words."""
    return words_in(tmp_path_factory.mktemp("words") / "words.txt", lines=12_000)


@pytest.fixture(scope="module")
def expected(words: str) -> list[Pair]:
    """What the embedded engine makes of them."""
    return list(wordcount.job.run([words], split_bytes=SPLIT_BYTES, partitions=PARTITIONS))


def slowly(line: str) -> Iterator[Pair]:
    """The word count's mapper on a slow machine, so that a job lasts longer than several takeovers."""
    time.sleep(0.003)
    for word in line.split():
        yield word.lower(), 1


SLOW = Job(mapper=slowly, combiner=wordcount.reducer, reducer=wordcount.reducer)


def hand_in(swarm: Swarm, words: str, *, job: Job = wordcount.job, replicas: int = 2) -> JobHandle:
    return swarm.submit(job, [words], split_bytes=SPLIT_BYTES, partitions=PARTITIONS, replicas=replicas)


def until_maps(handle: JobHandle, count: int) -> Iterator[JobEvent]:
    """The events up to the one with so many map tasks committed."""
    for event in handle.events(LIMIT_S):
        yield event
        if event.view is not None and event.view.leader and event.view.stages[0].done >= count:
            return


@pytest.mark.parametrize("who", ["leader", "submission peer", "worker"])
def test_the_loss_of_any_peer_leaves_the_answer_and_the_maps_alone(
    words: str, expected: list[Pair], who: str
) -> None:
    with LocalSwarm(peers=5, slots=1) as swarm, closing(hand_in(swarm, words)) as handle:
        *_, last = until_maps(handle, MAP_TASKS // 5)
        assert last.view is not None
        leader, first = last.view.leader, swarm.local.peers[0]
        others = [peer.id for peer in swarm.local.peers if peer.id not in (leader, first.id)]
        victim = {"leader": leader, "submission peer": first.id, "worker": others[0]}[who]
        swarm.kill(victim)
        assert list(handle.result(LIMIT_S)) == expected
        report = handle.report()
    assert report["maps_run_again"] == 0
    # A leader that falls after its last commit need not be replaced; nobody else's loss replaces one.
    assert report["leader_changes"] == 0 or victim == leader


def test_three_of_five_one_after_another(words: str, expected: list[Pair]) -> None:
    with LocalSwarm(peers=5, slots=1) as swarm, closing(hand_in(swarm, words, job=SLOW)) as handle:
        alive = [peer.id for peer in swarm.local.peers]
        for lost in range(3):
            *_, last = until_maps(handle, 5 + 10 * lost)
            assert last.view is not None
            victim = last.view.leader if last.view.leader in alive else alive[0]
            swarm.kill(victim)
            alive.remove(victim)
            # The next one falls when the job's group has mended itself.
            for event in handle.events(LIMIT_S):
                view = event.view
                if view is not None and (view.state.is_final or set(view.members) <= set(alive)):
                    break
        assert list(handle.result(LIMIT_S)) == expected
        assert handle.report()["peers_lost"] == 3


def test_two_at_the_same_instant_with_three_replicas(words: str, expected: list[Pair]) -> None:
    with LocalSwarm(peers=7, slots=1) as swarm, closing(hand_in(swarm, words, replicas=3)) as handle:
        *_, last = until_maps(handle, MAP_TASKS // 4)
        assert last.view is not None
        leader = last.view.leader
        swarm.kill(leader)
        swarm.kill(next(peer.id for peer in swarm.local.peers if peer.id != leader))
        assert list(handle.result(LIMIT_S)) == expected
        assert handle.report()["maps_run_again"] == 0


def test_everybody_is_killed_and_comes_back(
    words: str, expected: list[Pair], tmp_path: Path, keys_directory: Path
) -> None:
    """All processes at once, as in a power cut; they are started again on their directories."""
    ports: list[str] = []
    peers: list[subprocess.Popen[str]] = []

    def start(number: int) -> None:
        where = ports[number] if number < len(ports) else "127.0.0.1:0"
        join = [argument for address in ports if address != where for argument in ("--join", address)]
        options = ["--data", str(tmp_path / str(number)), "--keys", str(keys_directory), "--slots", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "p2p.cli", "peer", "--listen", where, *join, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        peers.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        if number >= len(ports):
            ports.append(address)

    try:
        for number in range(3):
            start(number)
        with Swarm(ports, keys=keys_directory) as swarm:
            with closing(hand_in(swarm, words)) as handle:
                for _ in until_maps(handle, MAP_TASKS // 4):
                    pass
            end(peers)
            for number in range(3):
                start(number)
            with closing(swarm.job(handle.id)) as handle:
                assert list(handle.result(LIMIT_S)) == expected
                assert handle.report()["maps_run_again"] == 0
    finally:
        end(peers)


def end(peers: list[subprocess.Popen[str]]) -> None:
    """Kill processes, all before any is waited for."""
    for process in peers:
        process.kill()
    for process in peers:
        process.communicate()
    peers.clear()
