"""Leaders, workers and records with one mistake each, to show that the simulator sees it.

Every plant makes one mistake that engines really make, by overriding as little as possible. Nothing in the
packages knows of them; ``python -m tools.simulate jobs --plant NAME`` and
``tests/mapreduce/test_swarm_simulated.py`` run them until they are caught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapreduce.changes import CommitTasks, OpenStage, Proposal, apply, changed
from mapreduce.effects import RunTask, WorkerEffect
from mapreduce.held import Held
from mapreduce.inventories import Inventories
from mapreduce.keeper import Keeper
from mapreduce.leader import Leader
from mapreduce.messages import AskInventory, CopyOrder, Finished
from mapreduce.pool import TaskState
from mapreduce.record import JobRecord, StageRecord
from mapreduce.stage_run import Letters, StageRun
from mapreduce.stages import Stage, StageGraph
from mapreduce.worker import Worker
from mapreduce.worker_job import WorkerJob
from membership.view import NodeId, View
from tools.simulation.jobs import Apply
from tools.simulation.jobs_attempts import Attempts
from tools.simulation.jobs_engine import Run
from tools.simulation.jobs_process import JobProcess
from tools.simulation.jobs_store import Segment, SegmentMissing, Store, segment_of
from tools.simulation.jobs_transfers import Transfers

__all__ = ["PLANTS", "Plant"]


@dataclass(frozen=True, slots=True)
class Plant:
    """One mistake: its name, what it is, what makes it, and from which seed on to look for it.

    Any range of a few hundred seeds shows each of them; a good start makes the tests short.
    """

    name: str
    mistake: str
    first_seed: int = 0
    leader: type[Leader] = Leader
    worker: type[Worker] = Worker
    process: type[JobProcess] = JobProcess
    apply: Apply = apply


PLANTS: dict[str, Plant] = {}


def _plant(name: str, mistake: str, **made_of: Any) -> None:
    PLANTS[name] = Plant(name, mistake, **made_of)


def _leader_with(**parts: type) -> type[Leader]:
    return type("PlantedLeader", (Leader,), parts)


def _worker_with(job_type: type[WorkerJob]) -> type[Worker]:
    return type("PlantedWorker", (Worker,), {"job_type": job_type})


def _process_with(**parts: type) -> type[JobProcess]:
    return type("PlantedProcess", (JobProcess,), parts)


# -- workers ---------------------------------------------------------------------------------------------


class _ObeysAnybody(WorkerJob):
    def obeys(self, ballot: int, sender: NodeId, now: float) -> bool:
        return super().obeys(max(ballot, self.ballot), sender, now)


class _ReportsBeforePushing(WorkerJob):
    def _owe(self, held: Held, now: float) -> None:
        super()._owe(held, now)
        if held.owed:
            self._finish(held, now)


class _ForgetsOnePlace(WorkerJob):
    def _owe(self, held: Held, now: float) -> None:
        super()._owe(held, now)
        if len(held.owed) > 1:
            held.owed.popitem()


class _RunsEverythingAtOnce(Worker):
    def _fill(self, now: float) -> list[WorkerEffect]:  # noqa: ARG002 - as the method it stands for
        out: list[WorkerEffect] = []
        for job in self._jobs.values():
            while job.run_next():
                out += job.out
                job.out = []
        return out


class _AsksNobody(Worker):
    def _look_after_orphans(self, now: float) -> list[WorkerEffect]:
        self._orphans_at = now + 1e9
        return []


_plant("no-fencing", "a worker obeys a deposed leader", first_seed=6, worker=_worker_with(_ObeysAnybody))
_plant(
    "commit-before-ack",
    "an attempt is reported before its output is acknowledged",
    worker=_worker_with(_ReportsBeforePushing),
)
_plant(
    "one-copy-less", "an attempt is reported when one place is missing", worker=_worker_with(_ForgetsOnePlace)
)
_plant("no-slots", "a worker runs whatever it is granted at once", worker=_RunsEverythingAtOnce)
_plant("orphans-forgotten", "a worker never asks what became of a job", first_seed=29, worker=_AsksNobody)


# -- leaders ---------------------------------------------------------------------------------------------


class _AsksNoInventory(Inventories):
    def has_gathered(self, _view: View, _now: float) -> bool:
        return True

    @property
    def knows_all(self) -> bool:
        return True

    def requests(self, _ballot: int, _now: float) -> list[tuple[NodeId, AskInventory]]:
        for seat in self._seats:
            seat.knows_inventory = True
        return []


class _TrustsTheDead(Keeper):
    def forget(self, _node: NodeId) -> None:
        self._changed()


class _MakesNoCopies(Keeper):
    def orders(self, _now: float) -> list[tuple[NodeId, CopyOrder]]:
        return []


class _DropsEarly(StageGraph):
    def is_needed(self, record: JobRecord, stage: Stage) -> bool:
        if stage.has_shuffle:
            return not record.stages[stage.index].is_complete
        return super().is_needed(record, stage)


class _TakesAnyWinner(StageRun):
    def finished(self, worker: NodeId, said: Finished, now: float) -> Letters:
        for item in said.items:
            if 0 <= item.task < self.pool.count and self.pool.states[item.task] is TaskState.COMMITTED:
                self.pool.states[item.task] = TaskState.GRANTED
                self.pool.committed_count -= 1
        return super().finished(worker, said, now)


_plant(
    "no-inventory",
    "a new leader holds for lost what nobody has told it of",
    first_seed=5,
    leader=_leader_with(inventories_type=_AsksNoInventory),
)
_plant(
    "dead-holders",
    "a leader counts on the copies of the dead",
    first_seed=540,
    leader=_leader_with(keeper_type=_TrustsTheDead),
)
_plant(
    "no-repair",
    "lost copies are never made again",
    first_seed=5,
    leader=_leader_with(keeper_type=_MakesNoCopies),
)
_plant(
    "early-drop",
    "map outputs are dropped when the maps are done",
    leader=_leader_with(graph_type=_DropsEarly),
)


# -- the record ------------------------------------------------------------------------------------------


def _last_writer_wins(record: JobRecord, proposal: Proposal) -> JobRecord:
    after = apply(record, proposal)
    for change in proposal.changes:
        if isinstance(change, CommitTasks) and change.stage < len(after.stages):
            stage = after.stages[change.stage]
            winners = list(stage.winners)
            for commit in change.commits:
                if commit.task < len(winners) and (winner := winners[commit.task]) is not None:
                    winners[commit.task] = replace(winner, attempt=commit.attempt)
            after = _with_stage(after, change.stage, replace(stage, winners=tuple(winners)))
    return after


def _counts_twice(record: JobRecord, proposal: Proposal) -> JobRecord:
    after = apply(record, proposal)
    if after is record and not record.status.is_final:  # applied before: its outcome was not known
        after = replace(after, counters=_with_commits(after.counters, proposal))
    return after


def _counts_again(record: JobRecord, proposal: Proposal) -> JobRecord:
    stages = tuple([replace(stage, again=()) for stage in record.stages])
    return apply(replace(record, stages=stages), proposal)


def _opens_early(record: JobRecord, proposal: Proposal) -> JobRecord:
    after = apply(record, proposal)
    for change in proposal.changes:
        if isinstance(change, OpenStage) and after.stage < change.stage == len(after.stages):
            stages = tuple([replace(stage, winners=(), is_dropped=True) for stage in after.stages])
            opened = changed(replace(after, stages=stages), [change])
            after = replace(opened, stages=(*after.stages, opened.stages[-1]))
    return after


class _HalfIsEnough(StageGraph):
    def first_incomplete(self, record: JobRecord) -> int:
        first = super().first_incomplete(record)
        if first == record.stage and first + 1 < len(self) and self[first].has_shuffle:
            stage = record.stages[first]
            return first + 1 if 2 * stage.done > stage.tasks else first
        return first


def _with_stage(record: JobRecord, index: int, stage: StageRecord) -> JobRecord:
    return replace(record, stages=(*record.stages[:index], stage, *record.stages[index + 1 :]))


def _with_commits(counters: Mapping[str, int], proposal: Proposal) -> dict[str, int]:
    added = dict(counters)
    for change in proposal.changes:
        for commit in change.commits if isinstance(change, CommitTasks) else ():
            for name, count in commit.counters.items():
                added[name] = added.get(name, 0) + count
    return added


_plant(
    "last-writer-wins",
    "a second attempt replaces a task's winner",
    first_seed=6,
    leader=_leader_with(run_type=_TakesAnyWinner),
    apply=_last_writer_wins,
)
_plant("counted-twice", "a proposal that is applied twice counts twice", first_seed=6, apply=_counts_twice)
_plant("counted-again", "a task that runs again counts again", first_seed=23, apply=_counts_again)
_plant(
    "early-reduce",
    "a reduce stage opens when most maps are done",
    leader=_leader_with(graph_type=_HalfIsEnough),
    apply=_opens_early,
)


# -- the peer --------------------------------------------------------------------------------------------


class _ArrivalOrder(Attempts):
    def _inputs(self, order: RunTask) -> list[Run]:
        arrived = tuple(sorted(order.reads))
        runs = []
        for attempt in arrived:
            run = attempt and self._store.read(
                order.setup.job, order.read_stage, order.reads.index(attempt), attempt, order.task
            )
            if run:
                runs.append(run)
        return runs or super()._inputs(order)


class _TrustingStore(Store):
    def read(self, job: str, stage: int, task: int, attempt: int, partition: int) -> Run | None:
        for segment in self._segments.get((job, stage, task, attempt), []):
            if segment.covers(partition):
                return segment.runs.get(partition)
        raise SegmentMissing(task, attempt, damaged=False)


class _BoastingStore(Store):
    def write(self, segment: Segment) -> None:
        if segment.partitions:
            wider = (*segment.partitions, max(segment.partitions) + 1)
            segment = segment_of(*segment.key, wider, segment.runs)
        super().write(segment)


class _KeepsLateOutputs(JobProcess):
    def _obey(self, *arguments: Any) -> Any:
        effects = super()._obey(*arguments)
        self.worker._ended.clear()
        return effects


class _StoresHalf(Transfers):
    def _segments(self, push: Any) -> Sequence[Segment]:
        return tuple(super()._segments(push))[1:]


_plant(
    "arrival-order",
    "runs are merged in the order in which their attempts were granted",
    process=_process_with(attempts_type=_ArrivalOrder),
)
_plant(
    "unchecked-reads",
    "what is read is not checked",
    first_seed=5,
    process=_process_with(store_type=_TrustingStore),
)
_plant("late-outputs", "outputs are stored for jobs that are over", first_seed=37, process=_KeepsLateOutputs)
_plant(
    "boasting-store",
    "a store claims a partition of each output that it lacks",
    first_seed=5,
    process=_process_with(store_type=_BoastingStore),
)
_plant(
    "half-a-push",
    "a push is acknowledged that lacks an output",
    process=_process_with(transfers_type=_StoresHalf),
)
