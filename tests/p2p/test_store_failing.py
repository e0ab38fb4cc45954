"""The store: when a disk counts as one that takes nothing, and when as sound again."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import p2p.disk
from mapreduce.effects import RunTask
from p2p.client import Client
from p2p.disk import REFUSALS
from p2p.errors import NoPeerReached
from p2p.input_checks import damaged_inputs
from p2p.job_answers import JobAnswers
from p2p.job_keys import SPEC_ATTEMPT
from p2p.job_questions import ReadPart
from p2p.job_records import JobRecords
from p2p.job_service import JobService
from p2p.ring_questions import ScrubIs
from p2p.scrub_client import STALLED_S, scrub_all
from p2p.scrubbing import Scrubber
from p2p.segments import SPEC_STAGE, WHOLE, DamagedSegment, Source
from p2p.store import Store

JOB = "ab" * 16
Write = Callable[[object, bytes], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def taking_at_most(size: int) -> Write:
    """A write as on a disk with room for files of this many bytes; a header counts as nothing."""

    def write(_: object, data: bytes) -> None:
        if len(data) > size and not bytes(data).startswith(b"RSEG"):
            raise OSError(errno.EFBIG, "File too large")

    return write


def fail(store: Store, size: int = 1000) -> None:
    with pytest.raises(OSError, match="File too large"):
        store.put(JOB, 0, 0, 1, bytes(size))


def test_a_disk_that_refuses_some_segments_in_a_row_is_failing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p2p.disk, "write_all", taking_at_most(0))
    for _ in range(REFUSALS):
        assert store.failing == ""
        fail(store)
    assert store.failing == "File too large"


def test_a_small_segment_does_not_make_up_for_large_ones_that_were_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p2p.disk, "write_all", taking_at_most(500))
    for number in range(REFUSALS):
        fail(store)
        store.put(JOB, 0, number, 2, bytes(10))
    assert store.failing


def test_a_segment_as_large_as_those_refused_makes_up_for_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(REFUSALS):
        with monkeypatch.context() as broken:
            broken.setattr(p2p.disk, "write_all", taking_at_most(500))
            fail(store)
        store.put(JOB, 0, 0, 1, bytes(1000))
    assert store.failing == ""


def test_a_header_that_cannot_be_written_counts_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(p2p.disk, "write_all", write)
    for number in range(REFUSALS):
        with pytest.raises(OSError, match="Input/output error"):
            store.put(JOB, 0, number, 1, b"")
    assert store.failing == "Input/output error"


def test_a_probe_writes_as_much_as_was_refused_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(p2p.disk, "write_all", taking_at_most(500))
        for _ in range(REFUSALS):
            fail(store)
        store.probe()
        assert store.failing
    store.probe()
    assert store.failing == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_segment_that_cannot_be_removed_is_told_of_and_ends_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(JOB, 0, 0, 1, b"data")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr("p2p.store.os.unlink", refuse)
        store.drop_job(JOB)
    assert store.unremoved.endswith(".seg: Read-only file system")
    assert not store.holds(JOB, 0, 1)


def test_with_its_last_segment_a_job_leaves_nothing(store: Store, tmp_path: Path) -> None:
    for attempt in (1, 2):
        store.put(JOB, 0, attempt, attempt, b"data")
    for attempt, left in ((1, [JOB]), (2, [])):
        located = store.find(JOB, 0, attempt)
        assert located is not None
        store.remove_segment(located.path, is_damaged=False)
        assert [path.name for path in (tmp_path / "store").iterdir()] == left
    store.put(JOB, 0, 1, 1, b"data")
    assert store.holds(JOB, 0, 1)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Nothing can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def checked(store: Store) -> tuple[int, ...]:
    """The tasks whose outputs are found damaged when a reduce task has failed on them."""
    effect = SimpleNamespace(setup=SimpleNamespace(job=JOB), piece=None, reads=(1,), read_stage=0, task=WHOLE)
    steps = damaged_inputs(store, cast(RunTask, effect))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found: tuple[int, ...] = end.value
        return found


def test_what_cannot_be_opened_for_want_of_descriptors_is_not_removed_as_damaged(store: Store) -> None:
    store.put(JOB, 0, 0, 1, b"sound")
    store.put(JOB, SPEC_STAGE, 0, SPEC_ATTEMPT, b"a spec, for all that is known now")
    located = store.find(JOB, 0, 1)
    assert located is not None
    with no_more_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            store.verify(located.path)
        with pytest.raises(OSError, match="Too many open files"):
            store.is_own(located.path)
        with pytest.raises(OSError, match="Too many open files"):
            store.find_own(JOB, 0, 1)
        answers = cast(JobAnswers, SimpleNamespace(_desk=SimpleNamespace(store=store)))
        read = ReadPart(number=7, job=JOB, stage=0, attempt=1, offset=0)
        assert not JobAnswers._read_part(answers, read).is_here
        assert checked(store) == ()
        assert JobRecords(store).plan(JOB) is None
        with pytest.raises(OSError, match="Too many open files"):
            store.read(located)
    assert store.damaged == 0
    assert store.read(located) == b"sound"
    assert store.holds(JOB, SPEC_STAGE, SPEC_ATTEMPT)


def test_for_want_of_descriptors_nothing_unchecked_passes_for_checked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The want may be over a moment later: damaged bytes would be read, or get a digest that fits them."""
    store.put(JOB, 0, 0, 1, b"damaged")
    located = store.find(JOB, 0, 1)
    assert located is not None
    content = bytearray(Path(located.path).read_bytes())
    content[-1] ^= 1
    Path(located.path).write_bytes(content)

    def lack(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    source = Source(entry=located.entry, path=located.path, offset=located.offset)
    with monkeypatch.context() as lacking:
        lacking.setattr("p2p.store.read_header", lack)
        with pytest.raises(OSError, match="Too many open files"):
            store.read(located)
        with pytest.raises(OSError, match="Too many open files"):
            list(store.offering(JOB, 0, [source]))
    assert store.damaged == 0
    with pytest.raises(DamagedSegment):
        store.read(located)


def test_scrubbing_does_not_count_what_it_could_not_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(JOB, 0, 0, 1, b"sound")
    desk = SimpleNamespace(store=store, bulk=SimpleNamespace(take_repair_budget=lambda *_: True))
    scrubber = Scrubber(cast(JobService, desk), 0.0)
    scrubber.begin(0.0)
    with no_more_descriptors():
        scrubber.tick(0.0)
    assert (scrubber.checked, scrubber.waiting) == (0, 1)
    scrubber.tick(scrubber.due_at)
    assert (scrubber.checked, scrubber.waiting, scrubber.damaged) == (1, 0, 0)


def test_of_two_copies_the_second_is_found_when_the_first_goes_for_all_want_of_descriptors(
    store: Store,
) -> None:
    store.put(JOB, 0, 0, 1, b"two copies")
    store.put(JOB, 0, 0, 1, b"two copies")
    first = store.find(JOB, 0, 1)
    assert first is not None
    with no_more_descriptors():
        store.remove_segment(first.path)
    second = store.find(JOB, 0, 1)
    assert second is not None
    assert store.read(second) == b"two copies"
    assert store.damaged == 1


def test_who_asks_for_a_pass_that_is_under_way_joins_it_and_its_counts_stay(store: Store) -> None:
    for attempt in (1, 2):
        store.put(JOB, 0, attempt, attempt, b"sound")
    budget = iter([True, False, True, True])
    bulk = SimpleNamespace(take_repair_budget=lambda *_: next(budget))
    scrubber = Scrubber(cast(JobService, SimpleNamespace(store=store, bulk=bulk)), 0.0)
    scrubber.begin(0.0)
    scrubber.tick(0.0)
    scrubber.begin(0.1)
    assert (scrubber.checked, scrubber.waiting) == (1, 1)
    scrubber.tick(scrubber.due_at)
    assert (scrubber.checked, scrubber.waiting) == (2, 0)


def test_a_peer_that_begins_anew_while_it_is_scrubbed_has_not_read_all() -> None:
    told = iter([(0, 2), (1, 1), (0, 0)])

    def ask(*_: object) -> ScrubIs:
        checked, waiting = next(told)
        return ScrubIs(number=0, checked=checked, damaged=0, waiting=waiting)

    with pytest.raises(NoPeerReached, match="began anew"):
        scrub_all(cast(Client, SimpleNamespace(ask=ask)), pause=lambda _: None)


def test_who_waits_for_a_scrub_gives_up_where_nothing_is_read_any_more() -> None:
    now = 0.0

    def pause(_: float) -> None:
        nonlocal now
        now += STALLED_S / 10

    told = iter([*[(0, 2)] * 10, *[(1, 1)] * 12])  # one was read in time, the other never

    def ask(*_: object) -> ScrubIs:
        checked, waiting = next(told)
        return ScrubIs(number=0, checked=checked, damaged=0, waiting=waiting)

    with pytest.raises(NoPeerReached, match="has read nothing"):
        scrub_all(cast(Client, SimpleNamespace(ask=ask)), lambda: now, pause)
    assert list(told) == []


def test_a_store_that_cannot_look_for_want_of_descriptors_does_not_begin_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(str(tmp_path / "segments")).put(JOB, 0, 0, 1, b"sound")

    def lack(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as lacking:
        lacking.setattr("p2p.store.read_header", lack)
        with pytest.raises(OSError, match="Too many open files"):
            Store(str(tmp_path / "segments"))
    again = Store(str(tmp_path / "segments"))
    assert again.holds(JOB, 0, 1)
    assert again.damaged == 0
