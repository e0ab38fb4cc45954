"""What a store sends on: all of what is wanted, or nothing."""

from __future__ import annotations

from pathlib import Path

from p2p.segments import Covers, Entry, Source
from p2p.store import Store

JOB = "ab" * 16
TASK, ATTEMPT = 3, 70


def holding(tmp_path: Path, *, covers: tuple[int, ...], pairs_in: int) -> Store:
    """A store that was sent these partitions of an attempt, of which one had pairs."""
    path = tmp_path / "output"
    path.write_bytes(b"run")
    store = Store(str(tmp_path / "store"))
    entry = Entry(task=TASK, attempt=ATTEMPT, partition=pairs_in, offset=0, length=3)
    source = Source(entry=entry, path=str(path), offset=0)
    store.take(JOB, 0, [source], Covers(partitions=covers, tasks=(TASK,), attempts=(ATTEMPT,)))
    return store


def test_a_partition_that_lies_elsewhere_is_not_sent_on_as_one_without_pairs(tmp_path: Path) -> None:
    """Whoever got it would reduce the partition without this map task's pairs."""
    store = holding(tmp_path, covers=(1, 2), pairs_in=1)
    assert store.sources(JOB, 0, (ATTEMPT,), (1, 4)) is None
    assert store.sources(JOB, 0, (ATTEMPT,), (4,)) is None


def test_some_partitions_are_not_sent_on_as_a_whole_output(tmp_path: Path) -> None:
    assert holding(tmp_path, covers=(1, 2), pairs_in=1).sources(JOB, 0, (ATTEMPT,), ()) is None


def test_a_partition_that_had_no_pairs_is_sent_on_as_such(tmp_path: Path) -> None:
    store = holding(tmp_path, covers=(1, 2), pairs_in=1)
    assert store.sources(JOB, 0, (ATTEMPT,), (2,)) == []
    found = store.sources(JOB, 0, (ATTEMPT,), (1, 2))
    assert found is not None
    assert [source.entry.partition for source in found] == [1]


def test_an_attempt_that_is_not_here_is_not_sent_on(tmp_path: Path) -> None:
    assert holding(tmp_path, covers=(1,), pairs_in=1).sources(JOB, 0, (ATTEMPT, 71), (1,)) is None
