"""What attempts wrote, as sources of what is pushed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mapreduce.effects import RunTask, StageSetup
from mapreduce.messages import HeldGroup
from mapreduce.orders import TaskDone
from mapreduce.record import StageKind
from mapreduce.run_files import RunRange
from p2p.segments import HEAD_BYTES, Source
from p2p.store import Store
from p2p.task_outputs import TaskOutputs

JOB = "ab" * 16
SETUP = StageSetup(
    job=JOB,
    stage=0,
    step=0,
    step_name="main",
    kind=StageKind.MAP,
    partitions=2,
    borders=None,
    out_format="",
    map_only=False,
)
TASK = RunTask(setup=SETUP, task=4, attempt=9, number=1)


@pytest.fixture
def outputs(tmp_path: Path) -> TaskOutputs:
    return TaskOutputs(Store(str(tmp_path / "store")))


def sources(outputs: TaskOutputs, done: TaskDone, task: RunTask = TASK) -> list[Source]:
    outputs.take(task, done, took_s=0.0)
    group = HeldGroup(stage=task.setup.stage, partitions=(), tasks=(4,), attempts=(9,))
    found = outputs.sources(JOB, group)
    assert found is not None
    return found


def mapped(path: str) -> TaskDone:
    run = RunRange(path=path, offset=HEAD_BYTES, length=5, keys=1, values=1, is_sorted=True)
    return TaskDone(
        task=4, attempt=9, path=path, bytes_out=10, ranges=[(0, run), (1, replace(run, offset=33))]
    )


def test_the_file_of_one_map_attempt_may_become_a_segment(outputs: TaskOutputs) -> None:
    found = sources(outputs, mapped("/attempts/main.map-00004.9.run"))
    assert [(one.offset, one.is_alone) for one in found] == [(HEAD_BYTES, True), (33, True)]


def test_a_file_that_attempts_share_may_not(outputs: TaskOutputs) -> None:
    assert [one.is_alone for one in sources(outputs, mapped("/attempts/main.123.0.runs"))] == [False, False]


def test_a_part_begins_behind_the_room_that_is_left_in_its_file(outputs: TaskOutputs) -> None:
    task = replace(TASK, setup=replace(SETUP, kind=StageKind.REDUCE, out_format="text"))
    (part,) = sources(outputs, TaskDone(task=4, attempt=9, path="/attempts/part-00004.9", bytes_out=10), task)
    assert (part.offset, part.entry.length, part.is_alone) == (HEAD_BYTES, 10, True)
