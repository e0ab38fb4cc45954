"""What the runner makes of a reduce task that failed on damaged data: whose bytes they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
import xxhash

from mapreduce.effects import RunTask, StageSetup
from mapreduce.failures import INPUT_GONE
from mapreduce.loads import Load
from mapreduce.orders import ReduceOrder, TaskError
from mapreduce.record import StageKind
from mapreduce.run_files import RunRange
from mapreduce.runs import RunWriter
from membership.view import NodeId
from p2p.input_checks import CHECK_PAUSE_S, CHECK_STEPS, damaged_inputs
from p2p.job_files import JobFiles
from p2p.segments import Covers, DamagedSegment, pack_header
from p2p.store import Store
from p2p.task_runner import InputLacks, RunnerEvent, TaskFailed, TaskRunner, _Run

JOB = "ab" * 16
REDUCE = RunTask(
    setup=StageSetup(
        job=JOB,
        stage=1,
        step=0,
        step_name="main",
        kind=StageKind.REDUCE,
        partitions=1,
        borders=None,
        out_format="text",
        map_only=False,
    ),
    task=0,
    attempt=9,
    number=1,
    read_stage=0,
    reads=(1, 2),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def runner(tmp_path: Path, store: Store) -> Iterator[TaskRunner]:
    files = JobFiles(str(tmp_path / "jobs"))
    with closing(files):
        made = TaskRunner(me=NodeId("n0"), slots=1, memory_bytes=1 << 27, files=files, store=store)
        with closing(made):
            yield made


def a_run() -> bytes:
    file = BytesIO()
    writer = RunWriter(file)
    writer.write_pairs(["a", "b"], [1, 2])
    writer.finish()
    return file.getvalue()


def keep(store: Store, task: int, run: bytes) -> str:
    """Store a map output with one partition, in a segment whose own digest is right; gives its path."""
    attempt = task + 1
    rows = [(task, attempt, 0, 0, len(run), 0, 0, 0)]
    covers = Covers(partitions=(0,), tasks=(task,), attempts=(attempt,))
    incoming = store.receive(pack_header(JOB, 0, len(run), xxhash.xxh3_128_digest(run), rows, covers))
    incoming.write(run)
    incoming.finish()
    located = store.find(JOB, 0, attempt, 0)
    assert located is not None
    return located.path


def damaged(store: Store) -> tuple[int, ...]:
    """Check all that the reduce task reads, to the end."""
    steps = damaged_inputs(store, REDUCE)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_run_that_is_damaged_within_a_whole_segment_is_named_and_removed(store: Store) -> None:
    keep(store, 0, a_run())
    bad = keep(store, 1, a_run()[:-1] + b"!")
    assert store.verify(bad)
    assert store.rotted == []
    assert damaged(store) == (1,)
    assert store.find(JOB, 0, 1, 0) is not None
    assert store.find(JOB, 0, 2, 0) is None
    assert store.rotted == [(JOB, 0, 1, 2)]


def test_a_segment_that_is_damaged_is_named_and_removed(store: Store) -> None:
    keep(store, 0, a_run())
    path = Path(keep(store, 1, a_run()))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert damaged(store) == (1,)
    assert store.find(JOB, 0, 2, 0) is None


def test_what_is_whole_is_not_blamed(store: Store) -> None:
    for task in (0, 1):
        keep(store, task, a_run())
    assert damaged(store) == ()


def fail(runner: TaskRunner, store: Store) -> None:
    """Have the runner hear from a child that its inputs could not be read."""
    found = [located for attempt in (1, 2) if (located := store.find(JOB, 0, attempt, 0))]
    runs = tuple(
        RunRange(path=one.path, offset=one.offset, length=one.length, keys=0, values=0, is_sorted=False)
        for one in found
    )
    order = ReduceOrder(task=0, attempt=9, runs=runs, out_path="")
    error = TaskError(task=0, attempt=9, kind="EnvironmentFailed", message="it is damaged")
    runner._failed(_Run(JOB, order, Load(b""), REDUCE), error)


def keep_large_damaged(store: Store) -> None:
    path = Path(keep(store, 0, bytes(16 << 20)))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    keep(store, 1, a_run())


def test_what_a_failed_attempt_has_read_is_checked_a_little_a_turn(runner: TaskRunner, store: Store) -> None:
    keep_large_damaged(store)
    fail(runner, store)
    turns = 0
    while not (events := runner.pump()):
        assert runner.is_busy
        assert runner.until_deadline(1.0) <= CHECK_PAUSE_S
        turns += 1
        assert turns < 100
    assert turns >= 16 // CHECK_STEPS - 1
    (event,) = events
    assert isinstance(event, TaskFailed)
    assert (event.attempt, event.failure.kind, event.missing) == (9, INPUT_GONE, (0,))
    assert not runner.is_busy


def test_a_block_that_a_reader_found_damaged_is_checked_a_little_a_turn(
    runner: TaskRunner, store: Store
) -> None:
    path = Path(keep(store, 0, bytes(16 << 20)))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    error = TaskError(task=0, attempt=9, kind="BlockDamaged", message=str(path))
    runner._failed(_Run(JOB, ReduceOrder(task=0, attempt=9, runs=(), out_path=""), Load(b""), REDUCE), error)
    turns = 0
    while not (events := runner.pump()):
        turns += 1
        assert turns < 100
    assert turns >= 16 // CHECK_STEPS - 1
    assert events == [InputLacks(REDUCE, -1)]
    assert not store.holds_path(str(path))


def test_of_two_attempts_that_met_the_same_damage_neither_is_blamed(runner: TaskRunner, store: Store) -> None:
    keep_large_damaged(store)
    fail(runner, store)
    fail(runner, store)
    events: list[RunnerEvent] = []
    while runner.is_busy:
        events += runner.pump()
    told = [(one.failure.kind, one.missing) for one in events if isinstance(one, TaskFailed)]
    assert told == [(INPUT_GONE, (0,)), (INPUT_GONE, ())]
    assert store.damaged == 1


def test_nothing_is_told_of_a_failed_attempt_that_is_cancelled(runner: TaskRunner, store: Store) -> None:
    keep_large_damaged(store)
    fail(runner, store)
    assert runner.pump() == []
    runner.cancel(JOB, 9)
    assert not runner.is_busy
    assert runner.pump() == []


def test_a_segment_that_rotted_is_not_copied_and_its_loss_is_kept_to_be_told(store: Store) -> None:
    path = Path(keep(store, 0, a_run()))
    sources = store.sources(JOB, 0, (1,), (0,))
    assert sources is not None
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedSegment):
        list(store.offering(JOB, 0, sources))
    assert store.rotted == [(JOB, 0, 0, 1)]
    assert store.find(JOB, 0, 1, 0) is None
