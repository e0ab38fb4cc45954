"""Bytes that rot on disk while a job runs: never consumed, read from another copy, or made again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapreduce import Job
from p2p.handles import JobHandle
from p2p.local_swarm import LocalSwarm

LIMIT_S = 60.0
WORDS = 400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the peers below keep what is theirs."""
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def swarm(data: Path) -> Iterator[LocalSwarm]:
    """Three peers."""
    with LocalSwarm(peers=3, slots=1, data=data) as local:
        yield local


def patient(line: str) -> Iterator[tuple[str, int]]:
    """Give words, or wait for the file that the line names."""
    if line.startswith("wait "):
        deadline = time.monotonic() + LIMIT_S
        while not os.path.exists(line[5:]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    else:
        for word in line.split():
            yield word, 1


PATIENT = Job(mapper=patient, reducer=lambda word, counts: [(word, sum(counts))])


def map_outputs(peer: Path, job: str) -> list[Path]:
    """The segments of a job's first stage on one peer's disk."""
    return sorted(path for path in (peer / "segments" / job).rglob("*") if path.name.startswith("0."))


def rot(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("copies", ["one copy", "all copies"])
def test_a_map_output_that_rots_is_read_from_another_copy_or_made_again(
    swarm: LocalSwarm, data: Path, tmp_path: Path, copies: str
) -> None:
    words = [f"word{number}" for number in range(WORDS)]
    (tmp_path / "a.txt").write_text(" ".join(words) + "\n")
    (tmp_path / "b.txt").write_text(f"wait {tmp_path}/go\n")
    inputs = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    with closing(swarm.submit(PATIENT, inputs, partitions=3)) as handle:
        until_one_map_is_committed(handle)
        holders = [peer for peer in sorted(data.iterdir()) if map_outputs(peer, handle.id)]
        assert len(holders) >= 2
        for peer in holders if copies == "all copies" else holders[:1]:
            for path in map_outputs(peer, handle.id):
                rot(path)
        (tmp_path / "go").touch()
        assert sorted(handle.result(LIMIT_S)) == sorted((word, 1) for word in words)
        report = handle.report()
    assert report["maps_run_again"] == (1 if copies == "all copies" else 0)
    if copies == "all copies":
        assert {"failed", "missing"}.intersection(event["kind"] for event in report["events"])


def until_one_map_is_committed(handle: JobHandle) -> None:
    for event in handle.events(LIMIT_S):
        if event.view is not None and event.view.stages[0].done == 1:
            return
