"""What follows from a record: the next stage, the end, what can be dropped.

Pure consequences, computed on the record as it will be once the winners that are ready are chosen, so that
they travel in the same proposal.  `mapreduce.changes.changed` refuses any of them that does not hold there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mapreduce.changes import Change, DropStages, Fail, Finish, OpenStage, changed
from mapreduce.columns import pack_column, unpack_column
from mapreduce.context import MAX_COUNTERS
from mapreduce.partitioner import borders_of
from mapreduce.placement import Rows, draw_rows, holders_ring
from mapreduce.record import Failure, JobRecord, StageKind
from mapreduce.spec import MAX_TASKS, JobPlan, PackedColumn
from mapreduce.stages import Stage, StageGraph
from membership.view import View

__all__ = ["changes_after", "warnings_of"]

MAX_BORDER_BYTES = 128 << 10


def changes_after(
    graph: StageGraph,
    record: JobRecord,
    *,
    view: View,
    rows: Callable[[int], Rows],
    samples: Mapping[int, PackedColumn],
    at_s: float,
) -> list[Change]:
    """Return the changes that follow from a record.

    Args:
        graph: the job's stages.
        record: with everything that is to be proposed now.
        view: membership's, to draw places for new stages.
        rows: the rows of an opened stage, as mended.
        samples: by task, of the sampling stage that is complete now, if it is.
        at_s: wall clock.
    """
    changes: list[Change] = []
    failure = _broken_promise(graph, record)
    while failure is None and not record.status.is_final:
        following = graph.first_incomplete(record)
        if following == record.stage:
            break
        change: Change
        if following == len(graph):
            change = Finish(stages=len(graph), at_s=at_s)
        elif following < len(record.stages):
            opened = record.stages[following]
            change = OpenStage(
                stage=following, kind=opened.kind, tasks=opened.tasks, partitions=opened.partitions
            )
        else:
            opening = _opening(graph, record, graph[following], view, rows, samples)
            if isinstance(opening, Failure):
                failure = opening
                break
            change = opening
        changes.append(change)
        before, record = record, changed(record, [change])
        if record is before:
            break  # refused: then nothing follows from it
    if failure is not None:
        return [Fail(failure=failure, at_s=at_s)]
    if not record.status.is_final and (droppable := graph.droppable(record)):
        changes.append(DropStages(stages=tuple(droppable)))
    return changes


def warnings_of(plan: JobPlan, peers: int) -> list[str]:
    """Return what a user should know before the job runs, one line each."""
    if peers >= plan.replicas:
        return []
    return [
        f"{plan.replicas} copies are wanted and {peers} peers are here: copies are missing until more join"
    ]


def _opening(
    graph: StageGraph,
    record: JobRecord,
    stage: Stage,
    view: View,
    rows: Callable[[int], Rows],
    samples: Mapping[int, PackedColumn],
) -> OpenStage | Failure:
    plan = graph.plan
    if stage.index == 0 and plan.strict_replicas and len(view.ring_members) < plan.replicas:
        return Failure(kind="EnvironmentFailed", message=warnings_of(plan, len(view.ring_members))[0])
    partitions = graph.partitions_of(record, stage.step)
    tasks = graph.task_count(record, stage)
    if tasks > MAX_TASKS:
        name = plan.steps[stage.step].name
        message = f"step {name!r} has {tasks:,} tasks, more than {MAX_TASKS:,}: choose larger splits"
        return Failure(kind="JobDefinitionError", message=message)
    places: tuple[tuple[Any, ...], ...] = ()
    if stage.kind is StageKind.REDUCE:
        places = rows(stage.index - 1).rows or tuple(record.places(stage.index - 1))
    elif stage.kind is StageKind.MAP:
        items = partitions if stage.has_shuffle else tasks
        places = draw_rows(record.job, stage.step, items, plan.replicas, holders_ring(view)).rows
    borders = None
    if stage.kind is StageKind.MAP and plan.steps[stage.step].sample_keys and partitions > 1:
        borders = _borders(samples, partitions)
        if len(borders.data) > MAX_BORDER_BYTES:
            message = f"step {plan.steps[stage.step].name!r}: the keys between its parts are too long"
            return Failure(kind="JobDefinitionError", message=message)
    return OpenStage(
        stage=stage.index,
        kind=stage.kind,
        tasks=tasks,
        partitions=partitions,
        places=places,
        borders=borders,
    )


def _borders(samples: Mapping[int, PackedColumn], partitions: int) -> PackedColumn:
    keys: list[Any] = []
    for _, sample in sorted(samples.items(), key=lambda item: item[0]):
        keys += unpack_column(sample.form, sample.data)
    form, data = pack_column(borders_of(keys, partitions))
    return PackedColumn(form=form, data=data)


def _broken_promise(graph: StageGraph, record: JobRecord) -> Failure | None:
    """What no single task could see: too many bad records of a step, too many counters of the job."""
    if len(record.counters) > MAX_COUNTERS:
        message = f"the job has {len(record.counters):,} counters, more than {MAX_COUNTERS:,}"
        return Failure(kind="JobDefinitionError", message=message)
    too_large = [name for name, count in record.counters.items() if not -(1 << 63) <= count < 1 << 63]
    if too_large:
        name = too_large[0]
        message = f"the job's counter {name!r} is {record.counters[name]:,}: counters have 64 bits"
        return Failure(kind="JobDefinitionError", message=message)
    if record.stage < 0:
        return None
    stage, opened = graph[record.stage], record.stages[record.stage]
    limit = graph.plan.steps[stage.step].skip_limit
    if stage.kind is not StageKind.MAP or not limit or not opened.is_complete:
        return None
    bad = sum(winner.bad_records for winner in opened.winners if winner is not None)
    if bad <= limit:
        return None
    name = graph.plan.steps[stage.step].name
    return Failure(kind="TooManyBadRecords", message=f"step {name!r}: more than {limit} bad records")
