"""The record of a job: the one value that its group agrees on.

It lives, encoded, as the payload of the job's register (`membership.register`), and changes only in the ways
that `mapreduce.changes` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mapreduce.outcome import NOBODY, EventRecord, Failure, JobStatus, StageKind, Totals
from mapreduce.spec import PackedColumn
from membership.register import AcceptorId
from membership.view import NodeId

__all__ = [
    "NOBODY",
    "EventRecord",
    "Failure",
    "JobRecord",
    "JobStatus",
    "StageKind",
    "StageRecord",
    "Totals",
    "Winner",
    "born",
    "with_lock_members",
]

MAX_EVENTS = 512
MAX_EVENT_CHARS = 1_024
MAX_NODES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The one attempt of a task that counts.

    Attributes:
        attempt: its number, unique among all attempts of the job.
        worker: who ran it, as an index into `JobRecord.nodes`.
        digest: of a part's bytes; empty for map outputs, whose runs carry their own.
        size_bytes: of the output.
        records: pairs in the output.
        bad_records: records that were left out.
        is_empty: there is no output at all, and so nothing to hold or to read.
        cuts: of a part that a later step reads: where its splits begin and end, in bytes.
        places: of a part: who held a copy when it was committed, as indexes into `JobRecord.nodes`.
    """

    attempt: int
    worker: int
    digest: bytes = b""
    size_bytes: int = 0
    records: int = 0
    bad_records: int = 0
    is_empty: bool = False
    cuts: tuple[int, ...] = ()
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """A stage that was opened.

    Attributes:
        kind: what its tasks do.
        tasks: how many there are.
        partitions: reduce tasks of the step.
        places: rows of who shall hold the outputs, as indexes into `JobRecord.nodes`; see
            `mapreduce.placement` for which row an output belongs to.
        winners: by task; empty once `is_dropped`.
        again: tasks, ascending, whose counters were merged by an earlier winner that is lost.
        borders: between the partitions of a `TotalOrder`; None for every other partitioner.
        is_dropped: complete, and its outputs no longer needed.
    """

    kind: StageKind
    tasks: int
    partitions: int
    places: tuple[tuple[int, ...], ...] = ()
    winners: tuple[Winner | None, ...] = ()
    again: tuple[int, ...] = ()
    borders: PackedColumn | None = None
    is_dropped: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every task has had its winner and none was taken back."""
        return self.is_dropped or None not in self.winners

    @property
    def done(self) -> int:
        """How many tasks have their winner."""
        return self.tasks if self.is_dropped else self.tasks - self.winners.count(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """Everything that is agreed about a job.

    Attributes:
        job: its id.
        spec_digest: of the encoded `mapreduce.spec.JobSpec`.
        leader, token, ballot: who led last; the name of its leadership; its number, from 1.
        applied: number of the last proposal of that leadership.
        stage: index of the current stage in `mapreduce.stages.stages_of(plan)`.
        stages: those opened so far, by index.
        nodes: every node the record names; others refer to it by index.
        born_at_s, ended_at_s: wall clock; 0.0 while it has not ended.
        lock_epoch, lock_members: who keeps the job's lock register, as of which epoch of it; -1: nobody has
            asked for a lock yet.
    """

    job: str
    spec_digest: str
    status: JobStatus = JobStatus.RUNNING
    leader: NodeId = NOBODY
    token: str = ""
    ballot: int = 0
    applied: int = 0
    stage: int = -1
    stages: tuple[StageRecord, ...] = ()
    nodes: tuple[NodeId, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    failure: Failure | None = None
    events: tuple[EventRecord, ...] = ()
    born_at_s: float = 0.0
    ended_at_s: float = 0.0
    lock_epoch: int = -1
    lock_members: tuple[AcceptorId, ...] = ()

    def winner_places(self, stage: int, task: int) -> tuple[NodeId, ...]:
        """Who held a part when it was committed."""
        winner = self.stages[stage].winners[task]
        return () if winner is None else tuple(self.nodes[index] for index in winner.places)

    def places(self, stage: int) -> list[tuple[NodeId, ...]]:
        """A stage's places by name."""
        names = self.nodes
        return [tuple([names[index] for index in row]) for row in self.stages[stage].places]


def born(job: str, spec_digest: str, at_s: float) -> JobRecord:
    """Return the record that a submission writes first."""
    return JobRecord(job=job, spec_digest=spec_digest, born_at_s=at_s)


def with_lock_members(record: JobRecord, epoch: int, members: tuple[AcceptorId, ...]) -> JobRecord:
    """Return the record that names the group of the job's lock register, unless it names a later one.

    It is no part of a proposal, for it is no affair of the leadership: whoever founds the lock register
    writes it here before, so that all found the same (see what `membership.register` does not promise), and
    once more whenever another epoch of that register has begun, so that the next leader finds it.
    """
    if record.status.is_final or epoch <= record.lock_epoch:
        return record
    return replace(record, lock_epoch=epoch, lock_members=members)
