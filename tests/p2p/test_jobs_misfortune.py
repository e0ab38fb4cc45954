"""Too few peers, lost majorities, one job handed in twice: what is said, and how it ends, on real processes.

The tests share three peers that may be killed and started again on their directories.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapreduce import Job, finding
from mapreduce.bundling import bundle
from mapreduce.inputs import expand
from mapreduce.spec import job_id_of
from mapreduce.submission import spec_of
from p2p.job_client import JobClient
from p2p.key_source import KeySource
from p2p.local_swarm import LocalSwarm
from p2p.spec_packing import pack_spec, spec_digest
from tests.p2p.jobs_inputs import words_in

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LIMIT_S = 60.0


class Peers:
    """Peers on directories and addresses of their own."""

    def __init__(self, directory: Path, keys: Path) -> None:
        self._directory = directory
        self._keys = keys
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self._processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, number: int) -> None:
        where = self.addresses[number] if number < len(self.addresses) else "127.0.0.1:0"
        join = [argument for other in self.addresses if other != where for argument in ("--join", other)]
        options = ["--data", str(self._directory / str(number)), "--keys", str(self._keys), "--slots", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "p2p.cli", "peer", "--listen", where, *join, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes[number] = process
        assert process.stdout is not None
        _, address, node = process.stdout.readline().split()
        if number >= len(self.addresses):
            self.addresses.append(address)
            self.ids.append(node)

    def kill(self, *numbers: int) -> None:
        """All of them before any is waited for."""
        ended = [self._processes.pop(number) for number in numbers if number in self._processes]
        for process in ended:
            process.kill()
        for process in ended:
            process.communicate()

    def close(self) -> None:
        self.kill(*list(self._processes))


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory, keys_directory: Path) -> Iterator[Peers]:
    peers = Peers(tmp_path_factory.mktemp("peers"), keys_directory)
    try:
        for number in range(3):
            peers.start(number)
        yield peers
    finally:
        peers.close()


def client_of(peers: Peers, number: int, keys: Path) -> JobClient:
    return JobClient(KeySource(directory=keys).load().keys, [peers.addresses[number]])


def wordcount(path: str) -> bytes:
    job, code, _ = finding.load("wordcount", {})
    return pack_spec(spec_of(job, bundle(code), expand([path]), split_bytes=20_000, partitions=2))


WAITING = """
import os, time

def mapper(line):
    while not os.path.exists({go!r}):
        time.sleep(0.02)
    yield line, 1

def reducer(key, values):
    yield key, sum(values)
"""


@pytest.mark.parametrize("survivor", ["the leader", "another"])
def test_without_a_majority_a_job_says_who_is_missing_and_goes_on_when_they_are_back(
    ringreduce: Run, peers: Peers, tmp_path: Path, survivor: str
) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.format(go=str(tmp_path / "go")))
    (tmp_path / "in.txt").write_text("a\nb\n")
    job = str(tmp_path / "waiting.py")
    handed_in = ringreduce("submit", job, str(tmp_path / "in.txt"), "--detach", "--peer", peers.addresses[0])
    assert handed_in.returncode == 0, handed_in.stderr
    job = handed_in.stdout.strip()
    leader = ""
    deadline = time.monotonic() + LIMIT_S
    while not leader:
        status = ringreduce("status", job, "--format", "json", "--peer", peers.addresses[0])
        leader = json.loads(status.stdout)["leader"]
        assert time.monotonic() < deadline
    left = peers.ids.index(leader) if survivor == "the leader" else (peers.ids.index(leader) + 1) % 3
    lost = [number for number in range(3) if number != left]
    here = peers.addresses[left]
    peers.kill(*lost)
    try:
        blocked = ringreduce("attach", job, "--peer", here, "--timeout", "6")
        assert blocked.returncode == 3, blocked.stderr
        assert blocked.stdout == ""
        said = blocked.stderr.splitlines()[-1]
        assert "QUORUM_LOST" in said
        assert all(peers.ids[number] in said for number in lost)
        assert peers.ids[left] not in said
        status = json.loads(ringreduce("status", job, "--format", "json", "--peer", here).stdout)
        assert (status["state"], status["condition"]) == ("RUNNING", "QUORUM_LOST")
    finally:  # the other tests need them
        for number in lost:
            peers.start(number)
    (tmp_path / "go").touch()
    done = ringreduce("attach", job, "--peer", here)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["a\t1", "b\t1"]), done.stderr


def test_one_nonce_handed_to_two_peers_at_once_is_one_job(
    peers: Peers, keys_directory: Path, tmp_path: Path
) -> None:
    packed = wordcount(words_in(tmp_path / "words.txt"))
    answers: list[tuple[str, frozenset[str]]] = []

    def hand_in(number: int) -> None:
        with client_of(peers, number, keys_directory) as client:
            answer = client.submit(packed, "ef" * 16)
            answers.append((answer.job, frozenset(answer.members)))

    threads = [threading.Thread(target=hand_in, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(answers) == 3
    assert set(answers) == {(job_id_of(spec_digest(packed), "ef" * 16), answers[0][1])}


def test_a_beginning_that_several_jobs_share_names_none_of_them(
    ringreduce: Run, peers: Peers, keys_directory: Path, tmp_path: Path
) -> None:
    packed = wordcount(words_in(tmp_path / "words.txt"))
    digest = spec_digest(packed)
    nonces: dict[str, str] = {}
    for number in range(1 << 20):
        nonce = f"{number:032x}"
        prefix = job_id_of(digest, nonce)[:4]
        if prefix in nonces:
            break
        nonces[prefix] = nonce
    with client_of(peers, 0, keys_directory) as client:
        jobs = [client.submit(packed, one).job for one in (nonces[prefix], nonce)]
    for command in ("status", "result", "attach", "cancel", "logs"):
        done = ringreduce(command, prefix, "--peer", peers.addresses[1])
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert all(job[:12] in done.stderr for job in jobs)


def waiting_words(line: str) -> Iterator[tuple[str, int]]:
    """Wait for the file that the line names."""
    deadline = time.monotonic() + LIMIT_S
    while not os.path.exists(line):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield line, 1


def test_with_fewer_peers_than_copies_a_job_runs_and_the_copies_are_made_as_peers_join(
    tmp_path: Path,
) -> None:
    (tmp_path / "in.txt").write_text(f"{tmp_path}/go\n")
    job = Job(mapper=waiting_words, reducer=lambda key, values: [(key, sum(values))])
    with (
        LocalSwarm(peers=1, slots=1) as swarm,
        closing(swarm.submit(job, [str(tmp_path / "in.txt")], partitions=1, replicas=2)) as handle,
    ):
        assert [w for w in handle.warnings if "2 copies are wanted and 1 peer" in w] == list(handle.warnings)
        assert len(handle.warnings) == 1
        (joined,) = swarm.add()
        came = (event for event in handle.events(LIMIT_S) if event.kind == "came" and event.node == joined.id)
        next(came)
        (tmp_path / "go").touch()
        assert list(handle.result(LIMIT_S)) == [(f"{tmp_path}/go", 1)]
        (part,) = handle.client.parts(handle.id)
        assert sorted(part.holders) == sorted(peer.address for peer in swarm.local.peers)
