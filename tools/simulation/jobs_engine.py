"""Runs attempts for the simulated swarm: the real `mapreduce.attempt`, on real bytes, in this process.

What an attempt makes follows from the job and from the bytes it reads, so each distinct attempt is run once
a process and then remembered by the digest of its input.  A reduce that is given other runs, or the same
runs in another order, is another attempt, and shows what it makes of them.

⚙ Files: attempts read and write files; these live for one attempt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from mapreduce.attempt import Attempt
from mapreduce.columns import unpack_column
from mapreduce.effects import RunTask, StageSetup
from mapreduce.orders import MapOrder, Order, ReduceOrder, SampleOrder, StepSetup, TaskDone
from mapreduce.plan import Split
from mapreduce.record import StageKind
from mapreduce.run_files import RunRange
from mapreduce.spec import PackedColumn
from mapreduce.task_files import SharedRuns
from tools.simulation.jobs_workloads import SPLIT_BYTES, Workload, scratch

__all__ = ["Made", "Run", "make"]

MEMORY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """One partition's share of a map output, as bytes; or a whole part, with `keys` 0."""

    data: bytes
    keys: int = 0
    values: int = 0
    is_sorted: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What an attempt has made: runs by partition, or a part under partition 0."""

    runs: dict[int, Run]
    cuts: tuple[int, ...]
    counters: tuple[tuple[str, int], ...]
    records: int
    bad_records: int
    sample: PackedColumn | None

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(len(run.data) for run in self.runs.values())


@dataclass(slots=True)
class _Memory:
    """What was made before, by what it was made of."""

    made: dict[bytes, Made] = field(default_factory=dict)


_memory = _Memory()


def make(work: Workload, order: RunTask, inputs: Sequence[Run]) -> Made:
    """Run an attempt, or remember what it made.

    Args:
        work: whose job it is.
        order: the attempt.
        inputs: the runs that a reduce task reads, in the order of its `reads`; the range of a part that a
            map task reads; nothing for a split of a file.
    """
    setup = order.setup
    state = blake2b(digest_size=16)
    head = (work.name, setup.step_name, setup.kind, setup.partitions, setup.borders, setup.out_format)
    state.update(repr((head, order.task, order.sample_keys, order.split)).encode())
    if order.piece is not None:
        state.update(order.piece.name.encode())
    for run in inputs:
        state.update(blake2b(run.data, digest_size=16).digest())
    key = state.digest()
    made = _memory.made.get(key)
    if made is None:
        made = _memory.made[key] = _make(work, order, inputs)
    return made


def _make(work: Workload, order: RunTask, inputs: Sequence[Run]) -> Made:
    directory = scratch()
    setup = _setup(work, order.setup, directory)
    source = os.path.join(directory, "input")
    output = os.path.join(directory, "output")
    with open(source, "wb") as file:
        file.write(b"".join(run.data for run in inputs))
    shared = SharedRuns(directory, setup.step)
    try:
        done = Attempt(work.job, setup, _order(order, inputs, source, output), shared, lambda _: None).run()
        return _read(order.setup, done)
    finally:
        shared.close()
        for path in (source, output, shared.path):
            if os.path.exists(path):
                os.unlink(path)


def _setup(work: Workload, setup: StageSetup, directory: str) -> StepSetup:
    borders = None
    if setup.borders is not None:
        borders = tuple(unpack_column(setup.borders.form, setup.borders.data))
    return StepSetup(
        step=setup.step_name,
        partitions=setup.partitions,
        borders=borders,
        params=work.job.params,
        side_files={},
        work_dir=directory,
        out_format=setup.out_format or None,
        split_bytes=SPLIT_BYTES,
        memory_bytes=MEMORY_BYTES,
    )


def _order(order: RunTask, inputs: Sequence[Run], source: str, output: str) -> Order:
    if order.setup.kind is StageKind.REDUCE:
        runs, offset = [], 0
        for run in inputs:
            runs.append(
                RunRange(
                    path=source,
                    offset=offset,
                    length=len(run.data),
                    keys=run.keys,
                    values=run.values,
                    is_sorted=run.is_sorted,
                )
            )
            offset += len(run.data)
        return ReduceOrder(task=order.task, attempt=1, runs=tuple(runs), out_path=output)
    if order.piece is not None:
        size = len(inputs[0].data)
        split = Split(path=source, name=order.piece.name, start=0, end=size, size_bytes=size)
    else:
        given = order.split
        assert given is not None
        split = Split(path=scratch() + given.path, name=given.name, start=given.start, end=given.end)
    if order.setup.kind is StageKind.SAMPLE:
        return SampleOrder(task=order.task, attempt=1, split=split, keys=order.sample_keys)
    return MapOrder(task=order.task, attempt=1, split=split, out_path=output)


def _read(setup: StageSetup, done: TaskDone) -> Made:
    runs: dict[int, Run] = {}
    if setup.kind is StageKind.REDUCE or setup.map_only:
        with open(done.path, "rb") as file:
            runs[0] = Run(file.read())
    elif setup.kind is StageKind.MAP:
        with open(done.path, "rb") as file:
            for partition, run in done.ranges:
                file.seek(run.offset)
                runs[partition] = Run(file.read(run.length), run.keys, run.values, run.is_sorted)
    sample = None
    if setup.kind is StageKind.SAMPLE:
        sample = PackedColumn(form=done.sample[0], data=done.sample[1])
    return Made(
        runs=runs,
        cuts=tuple(done.cuts),
        counters=tuple(sorted(done.counters.items())),
        records=done.records_out,
        bad_records=done.bad_records,
        sample=sample,
    )
