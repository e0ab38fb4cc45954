"""The store: what tells a segment from another one that lies in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2p.store import Store

JOB = "ab" * 16


def two_of_one_size(store: Store) -> list[str]:
    """Store two outputs that look alike but for what they hold; gives their paths."""
    for attempt, data in ((1, b"first"), (2, b"other")):
        store.put(JOB, 0, attempt - 1, attempt, data)
    return [found.path for attempt in (1, 2) if (found := store.find(JOB, 0, attempt))]


def swap(one: str, other: str) -> None:
    os.rename(one, one + ".moved")
    os.rename(other, one)
    os.rename(one + ".moved", other)


def test_a_segment_in_whose_place_another_lies_is_seen_without_reading_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    paths = two_of_one_size(store)
    assert all(map(store.is_own, paths))
    swap(*paths)
    assert not any(map(store.is_own, paths))
    os.unlink(paths[0])
    assert not store.is_own(paths[0])


def test_a_segment_that_is_whole_but_another_one_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    paths = two_of_one_size(store)
    assert store.verify(paths[0])
    swap(*paths)
    assert [store.verify(path) for path in paths] == [False, False]
    assert store.find(JOB, 0, 1) is None


def test_a_segment_that_is_dropped_before_its_check_begins_is_not_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    dropped, missing = two_of_one_size(store)
    check = store.verifying(dropped)
    store.remove_segment(dropped, is_damaged=False)
    assert not any(check)
    assert store.damaged == 0
    os.unlink(missing)
    assert not store.verify(missing)
    assert store.damaged == 1


def test_after_a_restart_segments_are_what_they_say_wherever_they_lie(tmp_path: Path) -> None:
    swap(*two_of_one_size(Store(str(tmp_path / "store"))))
    again = Store(str(tmp_path / "store"))
    assert [again.read(found) for attempt in (1, 2) if (found := again.find(JOB, 0, attempt))] == [
        b"first",
        b"other",
    ]


def test_a_segment_that_cannot_get_its_name_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    store = Store(str(tmp_path / "store"))
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.put(JOB, 0, 0, 1, b"data")
    assert list((tmp_path / "store" / JOB).iterdir()) == []
    assert store.find(JOB, 0, 1) is None


def test_what_came_before_a_restart_is_not_overwritten_by_what_comes_after_it(tmp_path: Path) -> None:
    """Where a peer is the first process of a container it has one process id in all its lives."""
    for attempt in (1, 2, 3):  # alike to the byte, but for whose output they are
        Store(str(tmp_path / "store")).put(JOB, 0, 0, attempt, b"the same")
    store = Store(str(tmp_path / "store"))
    assert [store.holds(JOB, 0, attempt) for attempt in (1, 2, 3)] == [True, True, True]
