"""What a child is told to do: a task of the leader's as an order on files that lie here.

Theory
------
A task names what it reads as the ring knows it: a split of a file, blocks of a file of the ring, a piece of
an earlier part, or a partition of which every map task has an output.  An order names files and ranges.  Here
the one is made of the other, by looking up where everything lies *now*; what is not here is told by
`CannotBegin`, with the tasks whose outputs are missing.

How a stage is to be run, a child's *load*, is the same for all its tasks and is made once.

⚙ This module reads and makes files, through the store and the job's directory.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Sequence

from mapreduce.columns import unpack_column
from mapreduce.effects import RunTask, StageSetup
from mapreduce.failures import INPUT_GONE, NOT_BEGUN
from mapreduce.loads import Load
from mapreduce.orders import AnyOrder, CheckOrder, MapOrder, Order, ReduceOrder, SampleOrder, StepSetup
from mapreduce.pieces import pieces_path
from mapreduce.plan import Split
from mapreduce.record import StageKind
from mapreduce.run_files import RunRange
from p2p.blocks import RingPath
from p2p.job_files import JobFiles, OpenedJob
from p2p.ring_inputs import pieces_here
from p2p.segments import HEAD_BYTES, Located
from p2p.store import Store

__all__ = ["CannotBegin", "TaskOrders", "position"]


class CannotBegin(Exception):
    """What a task needs is not here.

    Attributes:
        kind: the failure's (`mapreduce.failures`).
        missing: the map tasks whose outputs are not here.
    """

    def __init__(self, kind: str, message: str, missing: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.missing = missing


class TaskOrders:
    """Makes orders of tasks.

    Args:
        memory_bytes: what each attempt may use.
        files: the jobs' files.
        store: where the inputs of reduce tasks and of later steps lie.
    """

    def __init__(self, *, memory_bytes: int, files: JobFiles, store: Store) -> None:
        self._memory_bytes = memory_bytes
        self._files = files
        self._store = store
        self._loads: dict[tuple[str, int], tuple[StageSetup, Load]] = {}

    def make(self, effect: RunTask, more_blocks: Collection[int] = ()) -> tuple[Order, Load]:
        """Make the order of an attempt.

        Args:
            effect: the attempt.
            more_blocks: of a file of the ring, besides those in which the split lies and their neighbours.

        Raises:
            CannotBegin: the job's code, or something that the task reads, is not here.
            EnvironmentFailed, OSError: the job's files cannot be read or made.
        """
        opened = self._files.get(effect.setup.job)
        if opened is None:
            raise CannotBegin(NOT_BEGUN, "the job's code is not here")
        load = self._load(effect.setup, opened)
        return self._order(effect, load, more_blocks), load

    def forget(self, job: str, stages: Sequence[int]) -> None:
        """No task of these stages will be run again."""
        for stage in stages:
            self._loads.pop((job, stage), None)

    def forget_job(self, job: str) -> None:
        """No task of this job will be run again."""
        for key in [key for key in self._loads if key[0] == job]:
            del self._loads[key]

    def _load(self, setup: StageSetup, opened: OpenedJob) -> Load:
        known = self._loads.get((setup.job, setup.stage))
        if known is not None and known[0] == setup:
            return known[1]
        borders = None
        if setup.borders is not None:
            borders = tuple(unpack_column(setup.borders.form, setup.borders.data))
        work_dir = self._files.work_directory(setup.job, setup.stage)
        step = StepSetup(
            step=setup.step_name,
            partitions=setup.partitions,
            borders=borders,
            params=opened.params,
            side_files=opened.side_files,
            work_dir=work_dir,
            out_format=setup.out_format or None,
            split_bytes=opened.plan.split_bytes,
            memory_bytes=self._memory_bytes,
            asks_for_locks=True,
            head_bytes=HEAD_BYTES,
        )
        load = Load(opened.code, pickle.dumps(step), work_dir, opened.plan.task_timeout_s)
        self._loads[setup.job, setup.stage] = (setup, load)
        return load

    def _order(self, effect: RunTask, load: Load, more_blocks: Collection[int]) -> Order:
        task, attempt, number = effect.task, effect.attempt, effect.number
        out_path = os.path.join(load.work_dir, f"part-{task:05d}.{attempt}")
        if effect.setup.kind is StageKind.REDUCE:
            runs = self._runs(effect)
            return ReduceOrder(task=task, attempt=attempt, number=number, runs=runs, out_path=out_path)
        split = self._split(effect, more_blocks)
        if effect.setup.kind is StageKind.SAMPLE:
            return SampleOrder(
                task=task, attempt=attempt, number=number, split=split, keys=effect.sample_keys
            )
        return MapOrder(task=task, attempt=attempt, number=number, split=split, out_path=out_path)

    def _split(self, effect: RunTask, more_blocks: Collection[int]) -> Split:
        if effect.split is not None:
            given = effect.split
            path, ring_path = given.path, RingPath.parse(given.path)
            if ring_path is not None:
                pieces = pieces_here(self._store, ring_path, given.start, given.end, more_blocks)
                path = pieces_path(pieces, ring_path.size_bytes, ring_path.name)
            return Split(
                path=path,
                name=given.name,
                start=given.start,
                end=given.end,
                size_bytes=given.size_bytes,
            )
        piece = effect.piece
        assert piece is not None, "a map task reads a split or a piece"
        located = self._store.find_own(effect.setup.job, piece.stage, piece.attempt)
        if located is None:
            raise CannotBegin(INPUT_GONE, f"{piece.name} is not here")
        return Split(
            path=located.path,
            name=piece.name,
            start=located.offset + piece.start,
            end=located.offset + piece.end,
            size_bytes=piece.end - piece.start,
        )

    def _runs(self, effect: RunTask) -> tuple[RunRange, ...]:
        """The runs of a partition, in map task order."""
        job, stage, partition = effect.setup.job, effect.read_stage, effect.task
        runs: list[RunRange] = []
        missing: list[int] = []
        for task, attempt in enumerate(effect.reads):
            if not attempt:
                continue
            located = self._store.find_own(job, stage, attempt, partition)
            if located is not None:
                runs.append(_run_range(located))
            elif not self._store.holds(job, stage, attempt, partition):
                missing.append(task)
        if missing:
            text = f"{len(missing)} map outputs of partition {partition} are not here"
            raise CannotBegin(INPUT_GONE, text, tuple(missing))
        return tuple(runs)


def _run_range(located: Located) -> RunRange:
    entry = located.entry
    return RunRange(
        path=located.path,
        offset=located.offset,
        length=located.length,
        keys=entry.keys,
        values=entry.values,
        is_sorted=entry.is_sorted,
    )


def position(order: AnyOrder) -> str:
    """Say what an order reads, as the embedded engine does."""
    match order:
        case ReduceOrder():
            return f"partition {order.task}"
        case MapOrder() | SampleOrder():
            split = order.split
            return split.name if split.end < 0 else f"{split.name}, bytes {split.start:,} to {split.end:,}"
        case CheckOrder():
            return ""
