"""The only ways in which a job's record changes: proposals, and what each change in them does.

Theory of operation
-------------------
A leader never writes the record (`mapreduce.record`): it makes *proposals*, lists of changes that happen
together, and whoever proposes to the register computes `apply(record, proposal)` on the newest chosen record.
So a proposal may meet a record that the leader has not seen, and may be applied twice when its outcome was
not known.  `apply` is total and pure.

==============  =====================================================  =================================
a proposal      is applied                                             is the identity
==============  =====================================================  =================================
number 1        as a takeover: the leader and its token are named,     with the token that leads already
                and the leadership gets the next ballot
number n > 1    in the leadership that the record names                of another token; below or at the
                                                                       last number applied
any             while the job is RUNNING                               on COMMITTED, FAILED, CANCELLED
==============  =====================================================  =================================

==============  =====================================================  =================================
change          does                                                   does nothing
==============  =====================================================  =================================
OpenStage       makes a stage the current one                          unless it is the next one, and all
                                                                       before it are complete
CommitTasks     writes winners, merges their counters and totals       for a task that has its winner, or
                                                                       a stage that is not open
Lost            takes back winners whose every copy is gone            for another attempt than the winner
Redo            takes back a whole stage whose outputs were dropped    unless it was dropped
Place           moves a stage's places                                 if the stage is not open
DropStages      forgets winners that nobody reads any more             for stages not complete, or current
AddEvents       appends to the bounded event log                       -
                (when it is full the oldest go, routine lines first)
Finish          ends the job well                                      unless every stage is complete
Fail, Cancel    end the job; a bare one forgets how far it had come    -
==============  =====================================================  =================================

Why this is safe
----------------
*Ballots.*  A leadership's ballot is given by the record itself when its takeover is chosen.  So ballots are
unique and grow, across epochs and generations of the register too, and whoever holds a lower one is known to
be deposed: by workers, which drop its orders, and here, where a proposal of another token is the identity.
The register's own fence alone would do; this one costs a comparison and holds whatever the register does.

*One winner.*  `CommitTasks` writes a winner only where there is none, so of all attempts of a task, under
whatever leaders, one counts; the others' outputs are never named by the record and so never read.  A winner
is taken back only by its own attempt number (`Lost`): it cannot hit its successor.

*Exact counters.*  Counters and totals are merged where a winner is written and nowhere else.  A task that is
run again because all copies of its output are gone is marked in `again`; its next winner merges nothing,
because the first did, and a deterministic task counts the same each time.

*Nothing is reduced too early.*  `OpenStage` of a reduce stage does nothing unless every task of the stages
before it has its winner, whatever the leader that proposed it believed.

*One result.*  The register chooses one sequence of records; terminal records absorb; so there is at most one
result, one error, or one cancellation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from mapreduce.outcome import EventRecord, Failure, JobStatus, StageKind, Totals
from mapreduce.record import MAX_EVENTS, JobRecord, StageRecord, Winner
from mapreduce.spec import PackedColumn
from membership.view import NodeId

__all__ = [
    "AddEvents",
    "Cancel",
    "Change",
    "Commit",
    "CommitTasks",
    "DropStages",
    "Fail",
    "Finish",
    "Lost",
    "LostTask",
    "OpenStage",
    "Place",
    "Proposal",
    "Redo",
    "apply",
    "changed",
]

MAX_ROUTINE_EVENTS = 192
# The log must leave the record's room to the winners: without this, long errors would fill it.
MAX_LOG_CHARS = 96 << 10
# What is counted by the second, see `mapreduce.doings`: when the log is full, these make room first.
ROUTINE_KINDS = frozenset({"claimed", "granted", "pushed", "committed", "copied"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStage:
    """Make `stage` the current one, with its places; for one that was opened before, go on with it."""

    stage: int
    kind: StageKind
    tasks: int
    partitions: int
    places: tuple[tuple[NodeId, ...], ...] = ()
    borders: PackedColumn | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One attempt that is to win its task; the fields are those of `Winner`, names instead of indexes."""

    task: int
    attempt: int
    worker: NodeId
    digest: bytes = b""
    size_bytes: int = 0
    records: int = 0
    is_empty: bool = False
    cuts: tuple[int, ...] = ()
    places: tuple[NodeId, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    replica_bytes: int = 0
    spilled_bytes: int = 0
    bad_records: int = 0
    cpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitTasks:
    """Write winners.

    `attempts`, `failed_attempts`, `speculated` and `peers_lost` are what the leader counted since its last
    successful proposal.
    """

    stage: int
    commits: tuple[Commit, ...]
    is_result: bool = False
    attempts: int = 0
    failed_attempts: int = 0
    speculated: int = 0
    peers_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTask:
    """A winner to be taken back, by task and attempt."""

    task: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Every copy of these winners' outputs is gone: the stage becomes the current one again."""

    stage: int
    tasks: tuple[LostTask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """A dropped stage's outputs are needed once more: all its tasks run again."""

    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Move places of a stage: (row, its new places), for the rows that change."""

    stage: int
    rows: tuple[tuple[int, tuple[NodeId, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropStages:
    """Nobody reads the outputs of these stages any more."""

    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddEvents:
    """Append to the event log; the oldest go when it is full."""

    events: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """All stages are complete: COMMITTED. `stages` is how many the plan has."""

    stages: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The job cannot go on: FAILED.

    `is_bare` makes room for it in a record that is near its limit: stages, counters and log are forgotten.
    """

    failure: Failure
    at_s: float
    is_bare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Somebody who may asked for it: CANCELLED; `is_bare` as in `Fail`."""

    by: str
    at_s: float
    is_bare: bool = False


Change = OpenStage | CommitTasks | Lost | Redo | Place | DropStages | AddEvents | Finish | Fail | Cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Changes that happen together.

    Attributes:
        leader, token: whose; a token names one leadership and is never used again.
        number: counts the proposals of a leadership; the first is its takeover.
    """

    leader: NodeId
    token: str
    number: int
    changes: tuple[Change, ...]


def apply(record: JobRecord, proposal: Proposal) -> JobRecord:
    """Return the record after a proposal; see the tables at the top of this module."""
    if record.status.is_final:
        return record
    if proposal.number == 1:
        if proposal.token == record.token:
            return record
        record = _taken_over(record, proposal)
    elif proposal.token != record.token or proposal.number <= record.applied:
        return record
    return changed(replace(record, applied=proposal.number), proposal.changes)


def changed(record: JobRecord, changes: Iterable[Change]) -> JobRecord:
    """Return the record after some changes, in order; for planning ahead: only `apply` makes them count."""
    for change in changes:
        if record.status.is_final:
            return record
        record = _changed(record, change)
    return record


def _taken_over(record: JobRecord, proposal: Proposal) -> JobRecord:
    totals = record.totals
    if record.leader:
        totals = replace(totals, leader_changes=totals.leader_changes + 1)
    return replace(
        record, leader=proposal.leader, token=proposal.token, ballot=record.ballot + 1, totals=totals
    )


def _changed(record: JobRecord, change: Change) -> JobRecord:
    match change:
        case OpenStage():
            return _open(record, change)
        case CommitTasks():
            return _commit(record, change)
        case Lost():
            return _lose(record, change)
        case Redo():
            return _redo(record, change)
        case Place():
            return _place(record, change)
        case DropStages():
            return _drop(record, change)
        case AddEvents():
            return _log(record, change)
        case Finish():
            complete = len(record.stages) == change.stages and all(s.is_complete for s in record.stages)
            return replace(record, status=JobStatus.COMMITTED, ended_at_s=change.at_s) if complete else record
        case Fail():
            record = _bare(record) if change.is_bare else record
            return replace(record, status=JobStatus.FAILED, failure=change.failure, ended_at_s=change.at_s)
        case Cancel():
            record = _bare(record) if change.is_bare else record
            failure = Failure(kind="Cancelled", message=f"cancelled by {change.by}")
            return replace(record, status=JobStatus.CANCELLED, failure=failure, ended_at_s=change.at_s)
        case _:
            assert_never(change)


def _open(record: JobRecord, change: OpenStage) -> JobRecord:
    if change.stage <= record.stage or change.stage > len(record.stages):
        return record
    if not all(stage.is_complete for stage in record.stages[: change.stage]):
        return record
    if change.stage < len(record.stages):  # opened before a loss sent the job back
        return replace(record, stage=change.stage)
    nodes, index_of = _named(record.nodes, (node for row in change.places for node in row))
    opened = StageRecord(
        kind=change.kind,
        tasks=change.tasks,
        partitions=change.partitions,
        places=tuple([tuple([index_of[node] for node in row]) for row in change.places]),
        winners=(None,) * change.tasks,
        borders=change.borders,
    )
    return replace(record, stage=change.stage, stages=(*record.stages, opened), nodes=nodes)


def _commit(record: JobRecord, change: CommitTasks) -> JobRecord:
    totals = replace(
        record.totals,
        attempts=record.totals.attempts + change.attempts,
        failed_attempts=record.totals.failed_attempts + change.failed_attempts,
        speculated=record.totals.speculated + change.speculated,
        peers_lost=record.totals.peers_lost + change.peers_lost,
    )
    stage = record.stages[change.stage] if change.stage < len(record.stages) else None
    fresh = [] if stage is None or stage.is_dropped else _without_winner(stage, change.commits)
    if stage is None or not fresh:
        return replace(record, totals=totals)
    nodes, index_of = _named(record.nodes, (n for c in fresh for n in (c.worker, *c.places)))
    winners = list(stage.winners)
    for commit in fresh:
        winners[commit.task] = Winner(
            attempt=commit.attempt,
            worker=index_of[commit.worker],
            digest=commit.digest,
            size_bytes=commit.size_bytes,
            records=commit.records,
            bad_records=commit.bad_records,
            is_empty=commit.is_empty,
            cuts=commit.cuts,
            places=tuple([index_of[node] for node in commit.places]),
        )
    again = frozenset(stage.again)
    first = [commit for commit in fresh if commit.task not in again]
    return replace(
        record,
        nodes=nodes,
        stages=_with(record.stages, change.stage, replace(stage, winners=tuple(winners))),
        counters=_merged(record.counters, first),
        totals=_added(totals, stage.kind, first, is_result=change.is_result),
    )


def _without_winner(stage: StageRecord, commits: Sequence[Commit]) -> list[Commit]:
    """The commits that are the first of their task, in this change too."""
    fresh: dict[int, Commit] = {}
    for commit in commits:
        if 0 <= commit.task < stage.tasks and stage.winners[commit.task] is None:
            fresh.setdefault(commit.task, commit)
    return list(fresh.values())


def _merged(counters: Mapping[str, int], commits: Sequence[Commit]) -> Mapping[str, int]:
    if not any(commit.counters for commit in commits):
        return counters
    merged = dict(counters)
    for commit in commits:
        for name, count in commit.counters.items():
            merged[name] = merged.get(name, 0) + count
    return merged


def _added(totals: Totals, kind: StageKind, commits: Sequence[Commit], *, is_result: bool) -> Totals:
    size_bytes = sum(commit.size_bytes for commit in commits)
    return replace(
        totals,
        shuffle_bytes=totals.shuffle_bytes + (0 if kind is StageKind.REDUCE or is_result else size_bytes),
        output_bytes=totals.output_bytes + (size_bytes if is_result else 0),
        output_records=totals.output_records + (sum(c.records for c in commits) if is_result else 0),
        replica_bytes=totals.replica_bytes + sum(commit.replica_bytes for commit in commits),
        spilled_bytes=totals.spilled_bytes + sum(commit.spilled_bytes for commit in commits),
        bad_records=totals.bad_records + sum(commit.bad_records for commit in commits),
        cpu_ms=totals.cpu_ms + sum(commit.cpu_ms for commit in commits),
        map_tasks=totals.map_tasks + (len(commits) if kind is StageKind.MAP else 0),
        reduce_tasks=totals.reduce_tasks + (len(commits) if kind is StageKind.REDUCE else 0),
    )


def _lose(record: JobRecord, change: Lost) -> JobRecord:
    if change.stage >= len(record.stages) or record.stages[change.stage].is_dropped:
        return record
    stage = record.stages[change.stage]
    winners = list(stage.winners)
    gone = set()
    for lost in change.tasks:
        winner = winners[lost.task] if 0 <= lost.task < stage.tasks else None
        if winner is not None and winner.attempt == lost.attempt:
            winners[lost.task] = None
            gone.add(lost.task)
    if not gone:
        return record
    again = tuple(sorted(gone.union(stage.again)))
    return replace(
        record,
        stage=min(record.stage, change.stage),
        stages=_with(record.stages, change.stage, replace(stage, winners=tuple(winners), again=again)),
        totals=_run_again(record.totals, stage.kind, len(gone)),
    )


def _redo(record: JobRecord, change: Redo) -> JobRecord:
    if change.stage >= len(record.stages) or not record.stages[change.stage].is_dropped:
        return record
    stage = record.stages[change.stage]
    reopened = replace(
        stage, is_dropped=False, winners=(None,) * stage.tasks, again=tuple(range(stage.tasks))
    )
    return replace(
        record,
        stage=min(record.stage, change.stage),
        stages=_with(record.stages, change.stage, reopened),
        totals=_run_again(record.totals, stage.kind, stage.tasks),
    )


def _run_again(totals: Totals, kind: StageKind, count: int) -> Totals:
    if kind is StageKind.MAP:
        return replace(totals, maps_run_again=totals.maps_run_again + count)
    return replace(totals, parts_run_again=totals.parts_run_again + count)


def _place(record: JobRecord, change: Place) -> JobRecord:
    if change.stage >= len(record.stages):
        return record
    stage = record.stages[change.stage]
    nodes, index_of = _named(record.nodes, (node for _, row in change.rows for node in row))
    places = list(stage.places)
    for number, row in change.rows:
        if number < len(places):
            places[number] = tuple([index_of[node] for node in row])
    placed = replace(stage, places=tuple(places))
    return replace(record, nodes=nodes, stages=_with(record.stages, change.stage, placed))


def _drop(record: JobRecord, change: DropStages) -> JobRecord:
    stages = list(record.stages)
    for index in change.stages:
        # The current stage's own outputs, and those of a stage that is being repeated, are needed.
        if index < record.stage and stages[index].is_complete:
            stages[index] = replace(stages[index], is_dropped=True, winners=())
    return replace(record, stages=tuple(stages))


def _bare(record: JobRecord) -> JobRecord:
    """The record without all that can be large."""
    return replace(record, stage=-1, stages=(), nodes=(), counters={}, events=())


def _log(record: JobRecord, change: AddEvents) -> JobRecord:
    events = [*record.events, *change.events]
    excess = sum(event.kind in ROUTINE_KINDS for event in events) - MAX_ROUTINE_EVENTS
    if excess > 0:
        routine = [index for index, event in enumerate(events) if event.kind in ROUTINE_KINDS]
        gone = frozenset(routine[:excess])
        events = [event for index, event in enumerate(events) if index not in gone]
    events = events[-MAX_EVENTS:]
    excess_chars = sum(len(event.text) for event in events) - MAX_LOG_CHARS
    while excess_chars > 0:
        excess_chars -= len(events.pop(0).text)
    return replace(record, events=tuple(events))


def _named(
    nodes: tuple[NodeId, ...], wanted: Iterable[NodeId]
) -> tuple[tuple[NodeId, ...], dict[NodeId, int]]:
    """The table of nodes with the wanted ones in it, and where each stands."""
    index_of = {node: index for index, node in enumerate(nodes)}
    for node in wanted:
        index_of.setdefault(node, len(index_of))
    return tuple(index_of), index_of


def _with(stages: tuple[StageRecord, ...], index: int, stage: StageRecord) -> tuple[StageRecord, ...]:
    return (*stages[:index], stage, *stages[index + 1 :])
