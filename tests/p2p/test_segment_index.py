"""The index of segments: where outputs lie, what is spoken for, and what is left when a segment goes."""

from __future__ import annotations

import pytest

from p2p.segment_index import SegmentIndex
from p2p.segments import WHOLE, Covers, Entry, Header

JOB = "ab" * 16


def segment(name: str, partitions: tuple[int, ...], *, lengths: dict[int, int]) -> Header:
    """A segment of attempt 1 of task 0, with bytes for some partitions only."""
    entries = tuple(
        Entry(task=0, attempt=1, partition=partition, offset=0, length=length)
        for partition, length in lengths.items()
    )
    return Header(
        job=JOB,
        stage=0,
        size=sum(lengths.values()),
        digest=b"",
        entries=entries,
        covers=Covers(partitions=partitions, tasks=(0,), attempts=(1,)),
        checksum=name.encode(),
        bytes_before=40,
        file_bytes=40 + sum(lengths.values()),
    )


@pytest.fixture
def index() -> SegmentIndex:
    return SegmentIndex()


def test_a_partition_without_pairs_is_held_though_it_lies_nowhere(index: SegmentIndex) -> None:
    index.admit(segment("a", (0, 1), lengths={0: 5}), "a")
    assert index.holds(JOB, 0, 1, 1)
    assert index.find(JOB, 0, 1, 1) is None
    assert not index.holds(JOB, 0, 1, 2)
    assert index.sources(JOB, 0, (1,), (0, 2)) is None


def test_of_two_copies_the_first_is_read_and_the_second_when_it_has_gone(index: SegmentIndex) -> None:
    second = segment("b", (0,), lengths={0: 5})
    index.admit(segment("a", (0,), lengths={0: 5}), "a")
    index.admit(second, "b")
    located = index.find(JOB, 0, 1, 0)
    assert located is not None
    assert (located.path, located.offset) == ("a", 40)

    gone, others = index.remove("a")
    assert gone == [(JOB, 0, 0, 1)]
    assert others == ["b"]
    assert index.holds(JOB, 0, 1, 0)
    index.locate(second, "b")
    located = index.find(JOB, 0, 1, 0)
    assert located is not None
    assert located.path == "b"


def test_what_has_gone_is_held_no_more_and_its_place_knows_no_checksum(index: SegmentIndex) -> None:
    index.admit(segment("a", (), lengths={WHOLE: 5}), "a")
    assert index.holds(JOB, 0, 1)
    assert index.checksum("a") == b"a"
    index.remove("a")
    assert not index.holds(JOB, 0, 1)
    assert index.checksum("a") is None
    assert index.is_empty(JOB)


def test_a_stage_is_dropped_with_all_its_segments_and_no_other_one(index: SegmentIndex) -> None:
    for name in ("b", "a"):
        index.admit(segment(name, (0,), lengths={0: 5}), name)
    assert index.drop(JOB, 1) == []
    assert index.drop(JOB, 0) == ["a", "b"]
    assert index.paths() == []
