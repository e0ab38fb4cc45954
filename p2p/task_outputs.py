"""What attempts wrote here, kept until it need not be pushed any more.

Theory
------
What an attempt wrote is an *output*: files in the job's work directory and where in them each partition
lies.  A file of its own begins with room for a segment's head (`p2p.adoption`).  It is the source of pushes
until the leader has settled the attempt (`release`); then a file of its own is removed, and what lies in a
file that several attempts share goes with the stage.

An attempt that ran elsewhere, or in an earlier life of this peer, has no output here; what the store holds of
it serves as well.

⚙ This module removes files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapreduce.effects import RunTask, TaskOutput
from mapreduce.messages import HeldGroup
from mapreduce.orders import TaskDone
from mapreduce.record import StageKind
from mapreduce.spec import PackedColumn
from p2p.segments import HEAD_BYTES, WHOLE, Entry, Source
from p2p.store import Store

__all__ = ["TaskOutputs"]


@dataclass(slots=True)
class _Output:
    """What an attempt wrote; `path` is a file of its own, or ""."""

    stage: int
    sources: dict[int, Source]
    path: str = ""


class TaskOutputs:
    """The outputs of this peer's attempts.

    Args:
        store: where outputs of other attempts lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._outputs: dict[str, dict[int, _Output]] = {}

    def take(self, effect: RunTask, done: TaskDone, took_s: float) -> TaskOutput:
        """Take note of what an attempt has written; return what its leader is told of it.

        Args:
            effect: the attempt.
            done: the child's report.
            took_s: how long it took, in seconds.
        """
        setup = effect.setup
        is_part = setup.kind is StageKind.REDUCE or setup.map_only
        is_empty = not done.ranges
        if setup.kind is not StageKind.SAMPLE:
            if is_part:
                is_empty = not (done.bytes_out if setup.out_format else done.records_out)
            self._keep(effect, done, is_part=is_part)
        sample = PackedColumn(form=done.sample[0], data=done.sample[1])
        return TaskOutput(
            partitions=tuple([partition for partition, _ in done.ranges]),
            is_empty=is_empty,
            digest=done.digest,
            size_bytes=done.bytes_out,
            records=done.records_out,
            cuts=tuple(done.cuts),
            counters=tuple(sorted(done.counters.items())),
            sample=sample if setup.kind is StageKind.SAMPLE else None,
            spilled_bytes=done.spilled_bytes,
            bad_records=done.bad_records,
            took_s=took_s,
            cpu_s=done.cpu_s,
        )

    def _keep(self, effect: RunTask, done: TaskDone, *, is_part: bool) -> None:
        sources: dict[int, Source] = {}
        own = "" if done.path.endswith(".runs") else done.path
        if is_part:
            entry = Entry(
                task=effect.task, attempt=effect.attempt, partition=WHOLE, offset=0, length=done.bytes_out
            )
            sources[WHOLE] = Source(entry=entry, path=done.path, offset=HEAD_BYTES, is_alone=True)
        for partition, found in done.ranges:
            entry = Entry(
                task=effect.task,
                attempt=effect.attempt,
                partition=partition,
                offset=0,
                length=found.length,
                keys=found.keys,
                values=found.values,
                is_sorted=found.is_sorted,
            )
            sources[partition] = Source(
                entry=entry, path=found.path, offset=found.offset, is_alone=found.path == own
            )
        outputs = self._outputs.setdefault(effect.setup.job, {})
        outputs[effect.attempt] = _Output(effect.setup.stage, sources, own)

    def sources(self, job: str, group: HeldGroup) -> list[Source] | None:
        """Return where outputs lie that are to be pushed; None if one of the attempts is not here."""
        found: list[Source] = []
        for attempt in group.attempts:
            output = self._outputs.get(job, {}).get(attempt)
            if output is not None:
                wanted = group.partitions or sorted(output.sources)
                found += [output.sources[p] for p in wanted if p in output.sources]
                continue
            stored = self._store.sources(job, group.stage, (attempt,), group.partitions)
            if stored is None:
                return None
            found += stored
        return found

    def release(self, job: str, attempts: Iterable[int]) -> None:
        """These attempts need not be pushed any more."""
        outputs = self._outputs.get(job, {})
        for attempt in attempts:
            output = outputs.pop(attempt, None)
            if output is not None and output.path:
                _remove(output.path)

    def drop(self, job: str, stages: Sequence[int]) -> None:
        """Forget what attempts of some stages have written; their files go with the job's directory."""
        outputs = self._outputs.get(job, {})
        for attempt in [a for a, output in outputs.items() if output.stage in stages]:
            del outputs[attempt]

    def drop_job(self, job: str) -> None:
        """Forget all that attempts of a job have written."""
        self._outputs.pop(job, None)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # its stage was dropped
        os.unlink(path)
