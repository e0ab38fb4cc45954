"""A file that a task wrote becomes a segment where it lies: the same bytes, no copy, and nobody is hurt."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from p2p.segments import HEAD_BYTES, WHOLE, Covers, Entry, Source
from p2p.store import Store

JOB = "ab" * 16
TASK, ATTEMPT = 3, 70


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def written(tmp_path: Path, outputs: Mapping[int, bytes], name: str = "output") -> dict[int, Source]:
    """What an attempt has written into a file of its own, by partition."""
    path = tmp_path / name
    path.write_bytes(bytes(HEAD_BYTES) + b"".join(outputs.values()))
    sources: dict[int, Source] = {}
    offset = HEAD_BYTES
    for partition, data in outputs.items():
        entry = Entry(task=TASK, attempt=ATTEMPT, partition=partition, offset=0, length=len(data))
        sources[partition] = Source(entry=entry, path=str(path), offset=offset, is_alone=True)
        offset += len(data)
    return sources


def covers(*partitions: int) -> Covers:
    return Covers(partitions=partitions, tasks=(TASK,), attempts=(ATTEMPT,))


def read(store: Store, partition: int = WHOLE) -> bytes:
    located = store.find(JOB, 0, ATTEMPT, partition)
    assert located is not None
    return store.read(located)


def names(path: str) -> int:
    return os.stat(path).st_nlink


def test_a_part_lies_in_the_store_without_a_copy_and_stays_when_its_attempt_is_settled(
    tmp_path: Path, store: Store
) -> None:
    source = written(tmp_path, {WHOLE: b"a part" * 1000})[WHOLE]
    store.take(JOB, 0, [source])
    assert names(source.path) == 2
    os.unlink(source.path)
    assert read(store) == b"a part" * 1000
    (segment,) = store.segments()
    assert store.verify(segment)
    assert store.is_own(segment)
    assert store.bytes_held == os.path.getsize(segment)


def test_a_store_that_is_opened_again_holds_what_was_adopted(tmp_path: Path, store: Store) -> None:
    sources = written(tmp_path, {0: b"zero", 1: b"first", 2: b"second"})
    store.take(JOB, 0, [sources[0], sources[2]], covers(0, 2, 5))
    again = Store(store._directory)
    assert (read(again, 0), read(again, 2)) == (b"zero", b"second")
    assert again.holds(JOB, 0, ATTEMPT, 5)
    assert not again.holds(JOB, 0, ATTEMPT, 1), "its bytes are there, but nobody has said that they are all"
    assert again.bytes_held == store.bytes_held


def test_what_is_sent_on_of_an_adopted_file_is_what_was_wanted_of_it(tmp_path: Path, store: Store) -> None:
    sources = written(tmp_path, {0: b"zero", 1: b"first", 2: b"second"})
    store.take(JOB, 0, [sources[0], sources[2]], covers(0, 2))
    found = store.sources(JOB, 0, (ATTEMPT,), (0, 2))
    assert found is not None
    other = Store(str(tmp_path / "other"))
    other.take(JOB, 0, found, covers(0, 2))
    assert (read(other, 0), read(other, 2)) == (b"zero", b"second")
    (copy,), (segment,) = other.segments(), store.segments()
    assert not os.path.samefile(copy, segment)


def test_a_file_of_which_little_is_wanted_is_copied(tmp_path: Path, store: Store) -> None:
    sources = written(tmp_path, {0: b"few", 1: bytes(1000)})
    store.take(JOB, 0, [sources[0]], covers(0))
    assert names(sources[0].path) == 1
    assert read(store, 0) == b"few"
    assert store.bytes_held < 1000


def test_what_is_wanted_later_of_an_adopted_file_is_copied(tmp_path: Path, store: Store) -> None:
    sources = written(tmp_path, {0: b"zero" * 100, 1: b"first" * 100})
    store.take(JOB, 0, [sources[0]], covers(0))
    store.take(JOB, 0, [sources[1]], covers(1))
    assert names(sources[0].path) == 2
    assert (read(store, 0), read(store, 1)) == (b"zero" * 100, b"first" * 100)
    assert all(map(store.verify, store.segments()))


def test_of_two_that_take_a_file_at_once_one_adopts_it_and_one_copies(tmp_path: Path, store: Store) -> None:
    sources = written(tmp_path, {0: b"zero" * 100, 1: b"first" * 100})
    both = [store.taking(JOB, 0, [sources[number]], covers(number)) for number in (0, 1)]
    for steps in both:
        next(steps)
    for steps in both:
        assert list(steps) is not None
    assert names(sources[0].path) == 2
    assert (read(store, 0), read(store, 1)) == (b"zero" * 100, b"first" * 100)
    assert all(map(store.verify, store.segments()))


def test_taking_that_is_given_up_leaves_nothing(tmp_path: Path, store: Store) -> None:
    source = written(tmp_path, {WHOLE: b"a part"})[WHOLE]
    steps = store.taking(JOB, 0, [source])
    next(steps)
    steps.close()
    assert names(source.path) == 1
    assert store.segments() == []
    assert not list((tmp_path / "store").glob("*/*"))


def test_where_there_are_no_links_outputs_are_copied(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("this file system knows no links")

    source = written(tmp_path, {WHOLE: b"a part"})[WHOLE]
    monkeypatch.setattr(os, "link", refuse)
    store.take(JOB, 0, [source])
    assert names(source.path) == 1
    assert read(store) == b"a part"


def test_a_file_that_several_attempts_share_is_copied(tmp_path: Path, store: Store) -> None:
    source = replace(written(tmp_path, {0: b"zero"})[0], is_alone=False)
    store.take(JOB, 0, [source], covers(0))
    assert names(source.path) == 1
    assert read(store, 0) == b"zero"


@pytest.mark.parametrize("at", [0, 4, 12, HEAD_BYTES, HEAD_BYTES + 400, -1])
def test_damage_anywhere_in_an_adopted_file_is_found(tmp_path: Path, store: Store, at: int) -> None:
    sources = written(tmp_path, {0: b"zero" * 100, 1: b"first"})
    store.take(JOB, 0, [sources[0]], covers(0))
    (segment,) = store.segments()
    content = bytearray(Path(segment).read_bytes())
    content[at] ^= 1
    Path(segment).write_bytes(content)
    assert not store.verify(segment)
    assert store.find(JOB, 0, ATTEMPT, 0) is None
    assert store.rotted == [(JOB, 0, TASK, ATTEMPT)]


@pytest.mark.parametrize("left", [0, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 3, 300])
def test_an_adopted_file_that_was_cut_off_is_not_taken_for_whole(
    tmp_path: Path, store: Store, left: int
) -> None:
    source = written(tmp_path, {WHOLE: bytes(range(256))})[WHOLE]
    store.take(JOB, 0, [source])
    (segment,) = store.segments()
    os.truncate(segment, left)
    again = Store(store._directory)
    assert again.damaged == 1
    assert again.segments() == []


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_links_adoption_is_tried_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tried: list[object] = []

    def refuse(*names: object) -> None:
        tried.append(names)
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", refuse)
    sources = [written(tmp_path, {WHOLE: b"a part"}, name)[WHOLE] for name in ("one", "other")]
    for source in sources:
        store.take(JOB, 0, [source])
    assert len(tried) == 1
    assert os.path.getsize(sources[1].path) == HEAD_BYTES + len(b"a part")


def test_a_file_that_was_to_be_adopted_before_is_copied(tmp_path: Path, store: Store) -> None:
    source = written(tmp_path, {WHOLE: b"a part"})[WHOLE]
    with open(source.path, "r+b") as file:
        file.write(b"RSEG")
    size = os.path.getsize(source.path)
    store.take(JOB, 0, [source])
    assert names(source.path) == 1
    assert os.path.getsize(source.path) == size
    assert read(store) == b"a part"


def test_a_file_that_went_while_it_was_to_be_adopted_leaves_no_directory(
    tmp_path: Path, store: Store
) -> None:
    source = written(tmp_path, {WHOLE: b"a part"})[WHOLE]
    steps = store.taking(JOB, 0, [source])
    next(steps)
    os.unlink(source.path)
    with pytest.raises(FileNotFoundError):
        list(steps)
    assert not list((tmp_path / "store").iterdir())
