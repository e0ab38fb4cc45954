"""What a store sends on: all of what is wanted, or nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from p2p.segments import Covers, Entry, Source, read_sources
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


@pytest.mark.parametrize("seed", range(20))
def test_sources_are_read_in_chunks_of_one_size_wherever_files_and_ranges_end(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    files = [rng.randbytes(rng.randrange(1, 300)) for _ in range(3)]
    sources: list[Source] = []
    body = b""
    for number, content in enumerate(files):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        for _ in range(rng.randrange(5)):
            begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
            entry = Entry(task=number, attempt=1, partition=0, offset=0, length=end - begin)
            sources.append(Source(entry=entry, path=str(path), offset=begin))
            body += content[begin:end]
    chunks = list(read_sources(sources, 64))
    assert b"".join(chunks) == body
    assert all(len(chunk) == 64 for chunk in chunks[:-1])
    assert all(chunks)


def test_a_source_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_bytes(b"0123456789")
    entry = Entry(task=TASK, attempt=ATTEMPT, partition=0, offset=0, length=11)
    with pytest.raises(OSError, match="shorter"):
        list(read_sources([Source(entry=entry, path=str(path), offset=0)], 4))


def test_a_store_knows_how_much_it_holds_whatever_came_and_went(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for attempt in range(3):
        store.put(JOB, attempt, 0, attempt, bytes(50 * attempt))
    store.drop(JOB, [0])
    located = store.find(JOB, 1, 1)
    assert located is not None
    os.truncate(located.path, located.offset)
    assert not store.verify(located.path)
    (tmp_path / "store" / JOB / "half.tmp").write_bytes(bytes(1_000))
    for held in (store, Store(str(tmp_path / "store"))):
        assert held.bytes_held == sum(os.path.getsize(path) for path in held.segments()) > 100
    store.drop_job(JOB)
    assert store.bytes_held == 0
