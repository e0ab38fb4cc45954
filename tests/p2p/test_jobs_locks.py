"""`task.lock` on real peers: one holder at a time, tokens that grow, no lock lost with its holder.

The tasks write what they do to a file that all peers see, one line a write, so the file is the history.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mapreduce import Job, task
from p2p.local_swarm import LocalSwarm
from p2p.swarm_client import Swarm

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the peers below keep what is theirs."""
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def swarm(data: Path) -> Iterator[LocalSwarm]:
    """Three peers; tests that kill one start their own."""
    with LocalSwarm(peers=3, slots=2, data=data) as local:
        yield local


def note(path: str, text: str) -> None:
    """Append a line in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def counting(line: str) -> Iterator[tuple[str, int]]:
    """Read, wait, and write a number that all tasks share, under a lock."""
    name, path = line.split()
    with task.lock(name) as token:
        note(path, f"in {token} {task.task_id}")
        time.sleep(0.01)
        note(path, f"out {token} {task.task_id}")
    yield name, token


def largest(name: str, tokens: Iterator[int]) -> Iterator[tuple[str, int]]:
    yield name, len(set(tokens))


COUNTING = Job(mapper=counting, reducer=largest)


def history(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def assert_excluded(lines: list[list[str]]) -> None:
    """Each holder left before the next came, and each had a higher token than all before it."""
    tokens = []
    for come, go in zip(lines[::2], lines[1::2], strict=True):
        assert (come[0], go[0]) == ("in", "out")
        assert come[1:] == go[1:]
        tokens.append(int(come[1]))
    assert tokens == sorted(set(tokens))


def hand_in(swarm: Swarm, tmp_path: Path, job: Job, lines: list[str]) -> list[tuple[object, object]]:
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in lines))
    width = len(lines[0]) + 1
    with closing(swarm.submit(job, [str(tmp_path / "in.txt")], split_bytes=width, partitions=1)) as handle:
        return list(handle.result(LIMIT_S))


def test_tasks_on_all_peers_exclude_each_other_and_each_has_a_higher_token(
    swarm: LocalSwarm, tmp_path: Path
) -> None:
    done = hand_in(swarm, tmp_path, COUNTING, [f"a {tmp_path}/a"] * 12)
    lines = history(tmp_path / "a")
    assert_excluded(lines)
    assert len({line[2] for line in lines}) == 12
    assert done == [("a", 12)]


def test_the_embedded_engine_runs_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(f"a {tmp_path}/a\n" * 4)
    assert list(COUNTING.run([str(tmp_path / "in.txt")], partitions=1)) == [("a", 4)]
    assert_excluded(history(tmp_path / "a"))


def appears(path: str) -> None:
    """Wait for a file, as user code may."""
    deadline = time.monotonic() + LIMIT_S
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def holding(line: str) -> Iterator[tuple[str, int]]:
    """The first holder keeps the lock until it is told to go; it is no task of the leader's peer."""
    name, directory = line.split()
    appears(f"{directory}/leader")
    if Path(directory, "leader").read_text() == str(os.getppid()):
        appears(f"{directory}/go")
    with task.lock(name) as token:
        note(f"{directory}/history", f"in {token} {task.task_id} {os.getppid()}")
        if token == 1:
            appears(f"{directory}/go")
        note(f"{directory}/history", f"out {token} {task.task_id} {os.getppid()}")
    yield name, token


HOLDING = Job(mapper=holding, reducer=largest)


def test_a_lock_outlives_the_leader_and_passes_on_when_its_holders_peer_is_killed(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(f"a {tmp_path}\n" * 6)
    width = len(f"a {tmp_path}\n")
    with (
        LocalSwarm(peers=5, slots=1) as swarm,
        closing(
            swarm.submit(HOLDING, [str(tmp_path / "in.txt")], split_bytes=width, partitions=1, replicas=3)
        ) as handle,
    ):
        by_pid = {str(peer.pid): peer.id for peer in swarm.local.peers}
        pid_of = {node: pid for pid, node in by_pid.items()}
        leader = next(e.view.leader for e in handle.events(LIMIT_S) if e.view is not None and e.view.leader)
        (tmp_path / "leader.new").write_text(pid_of[leader])
        (tmp_path / "leader.new").rename(tmp_path / "leader")
        appears(str(tmp_path / "history"))
        swarm.kill(leader)
        for event in handle.events(LIMIT_S):
            if event.view is not None and event.view.leader not in ("", leader):
                break
        (first,) = history(tmp_path / "history")
        swarm.kill(by_pid[first[3]])
        (tmp_path / "go").touch()
        assert list(handle.result(LIMIT_S)) == [("a", 6)]
    lines = history(tmp_path / "history")
    assert lines[0] == first
    assert_excluded(lines[1:])
    assert int(lines[1][1]) > int(first[1]) == 1


def test_locks_of_two_jobs_are_two_and_vanish_with_their_jobs(
    swarm: LocalSwarm, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "leader").write_text("nobody")
    (tmp_path / "held.txt").write_text(f"a {tmp_path}\n")
    with closing(swarm.submit(HOLDING, [str(tmp_path / "held.txt")], partitions=1)) as handle:
        appears(str(tmp_path / "history"))
        assert locks_kept(data)
        assert hand_in(swarm, tmp_path, COUNTING, [f"a {tmp_path}/other"] * 3) == [("a", 3)]
        (tmp_path / "go").touch()
        assert list(handle.result(LIMIT_S)) == [("a", 1)]
    deadline = time.monotonic() + LIMIT_S
    while locks_kept(data):
        assert time.monotonic() < deadline


def locks_kept(data: Path) -> list[str]:
    """The lock registers of which some peer has a vote on its disk."""
    found = []
    for path in data.glob("*/votes/*.vote"):
        with suppress(FileNotFoundError):
            key = path.read_bytes().partition(b"\n")[0].decode()
            found += [key] * key.startswith("locks/")
    return found
