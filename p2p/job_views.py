"""From a job's record to what people and programs are shown of it.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mapreduce.record import JobRecord, JobStatus
from mapreduce.spec import JobPlan
from mapreduce.stages import StageGraph
from membership.view import NodeId
from p2p.job_questions import ROWS_AT_A_TIME, JobRow, JobView, PartRow, StageView

__all__ = ["parts_of", "row_of", "view_of"]


def view_of(
    record: JobRecord,
    plan: JobPlan | None,
    *,
    members: Sequence[NodeId],
    epoch: int,
    waiting_for: str = "",
    is_fresh: bool = True,
) -> JobView:
    """Return what is shown of a job.

    Args:
        plan: the job's; None where the spec is not here: then its name and stages are not known.
    """
    counters = dict(record.counters)
    if record.totals.bad_records:
        counters["bad_records"] = record.totals.bad_records
    return JobView(
        job=record.job,
        name=plan.name if plan is not None else "",
        state=record.status,
        leader=record.leader,
        ballot=record.ballot,
        epoch=epoch,
        members=tuple(members),
        stages=_stages(record, plan),
        counters=dict(sorted(counters.items())),
        totals=record.totals,
        failure=record.failure,
        events=record.events,
        born_at_s=record.born_at_s,
        ended_at_s=record.ended_at_s,
        input_bytes=_input_bytes(plan) if plan is not None else 0,
        out_format=plan.out_format if plan is not None else "",
        waiting_for="" if record.status.is_final else waiting_for,
        is_fresh=is_fresh,
    )


def row_of(record: JobRecord, plan: JobPlan | None, members: Sequence[NodeId], *, is_fresh: bool) -> JobRow:
    """Return a job's line in a list; `total` is of the stage that runs, -1 before the first."""
    stage = record.stages[record.stage] if 0 <= record.stage < len(record.stages) else None
    return JobRow(
        job=record.job,
        name=plan.name if plan is not None else "",
        state=record.status,
        leader=record.leader,
        done=stage.done if stage is not None else 0,
        total=stage.tasks if stage is not None else -1,
        born_at_s=record.born_at_s,
        ended_at_s=record.ended_at_s,
        members=tuple(members),
        is_fresh=is_fresh,
    )


def parts_of(
    record: JobRecord,
    plan: JobPlan,
    first: int,
    addresses: Mapping[NodeId, str],
    holders: Callable[[int, Sequence[NodeId]], Sequence[NodeId]],
) -> tuple[int, tuple[PartRow, ...]]:
    """Return how many parts a job's result has, and some of them; (-1, ()) of one that has none.

    Args:
        first: the number of the first part wanted.
        addresses: of the members that are here.
        holders: says who may hold a part now, by its number and who held it when it was committed.
    """
    if record.status is not JobStatus.COMMITTED:
        return -1, ()
    stage = StageGraph(plan).result_stage
    winners = record.stages[stage].winners
    rows: list[PartRow] = []
    for part in range(first, min(len(winners), first + ROWS_AT_A_TIME)):
        winner = winners[part]
        assert winner is not None, "a committed job has all its parts"
        recorded = [record.nodes[index] for index in winner.places]
        rows.append(
            PartRow(
                part=part,
                stage=stage,
                attempt=0 if winner.is_empty else winner.attempt,
                digest=winner.digest,
                size_bytes=0 if winner.is_empty else winner.size_bytes,
                holders=tuple(addresses[node] for node in holders(part, recorded) if node in addresses),
            )
        )
    return len(winners), tuple(rows)


def _stages(record: JobRecord, plan: JobPlan | None) -> tuple[StageView, ...]:
    if plan is None:
        return ()
    views: list[StageView] = []
    for stage in StageGraph(plan).stages:
        step = plan.steps[stage.step]
        done, total = 0, -1
        if stage.index < len(record.stages):
            opened = record.stages[stage.index]
            done, total = opened.done, opened.tasks
        elif stage.index == 0 and not step.sample_keys:
            total = len(step.splits)
        views.append(StageView(name=f"{stage.kind} {step.name}", done=done, total=total))
    return tuple(views)


def _input_bytes(plan: JobPlan) -> int:
    return sum(split.size_bytes for step in plan.steps for split in step.splits)
