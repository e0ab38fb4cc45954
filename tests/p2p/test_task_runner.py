"""What the runner makes of a reduce task that failed on damaged data: whose bytes they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
import xxhash

from mapreduce.effects import RunTask, StageSetup
from mapreduce.record import StageKind
from mapreduce.runs import RunWriter
from membership.view import NodeId
from p2p.job_files import JobFiles
from p2p.store import Covers, DamagedSegment, Store, pack_header
from p2p.task_runner import TaskRunner

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


def test_a_run_that_is_damaged_within_a_whole_segment_is_named_and_removed(
    runner: TaskRunner, store: Store
) -> None:
    keep(store, 0, a_run())
    bad = keep(store, 1, a_run()[:-1] + b"!")
    assert store.verify(bad)
    assert store.rotted == []
    assert runner._damaged(REDUCE) == (1,)
    assert store.find(JOB, 0, 1, 0) is not None
    assert store.find(JOB, 0, 2, 0) is None
    assert store.rotted == [(JOB, 0, 1, 2)]


def test_a_segment_that_is_damaged_is_named_and_removed(runner: TaskRunner, store: Store) -> None:
    keep(store, 0, a_run())
    path = Path(keep(store, 1, a_run()))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert runner._damaged(REDUCE) == (1,)
    assert store.find(JOB, 0, 2, 0) is None


def test_what_is_whole_is_not_blamed(runner: TaskRunner, store: Store) -> None:
    for task in (0, 1):
        keep(store, task, a_run())
    assert runner._damaged(REDUCE) == ()


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
