"""What everybody is told of a stage, and who should run which of its tasks.

A task should run where its data lies: a reduce task at a peer that holds its partition, a map task of a
later step where the part lies that it reads, and one whose output is a part at the first of the part's
places.  A task that reads the job's inputs should run where the ring says (`mapreduce.claims`), which every
peer finds by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mapreduce.claims import homes
from mapreduce.keeper import Keeper
from mapreduce.messages import Offer, Piece
from mapreduce.placement import can_work
from mapreduce.record import NOBODY, JobRecord, StageKind
from mapreduce.spec import InputSplit, JobPlan
from mapreduce.stages import Stage, TaskInput
from membership.ring import Ring
from membership.view import NodeId, View

__all__ = ["local_homes", "offer_of", "ring_homes", "workers_of"]


def workers_of(view: View) -> frozenset[NodeId]:
    """Return the peers that take tasks."""
    return frozenset(member.id for member in view if can_work(member))


def local_homes(
    plan: JobPlan,
    record: JobRecord,
    stage: Stage,
    inputs: Sequence[TaskInput],
    keeper: Keeper,
    workers: frozenset[NodeId],
) -> list[NodeId]:
    """Return the peers at which the data of tasks lies, by task: `NOBODY` where no worker has it.

    Args:
        record: in which the stage is open.
        inputs: of the stage's tasks.
        keeper: knows who holds what.
        workers: who takes tasks.

    Returns:
        Nothing for a stage that reads the job's inputs.
    """
    opened = record.stages[stage.index]
    lying: Sequence[Sequence[NodeId]]
    if stage.kind is StageKind.REDUCE:
        lying = [keeper.reducers(stage.index - 1, partition) for partition in range(opened.tasks)]
    elif plan.steps[stage.step].after:
        pieces = [piece for piece in inputs if isinstance(piece, Piece)]
        lying = [keeper.holders(piece.stage, piece.part) for piece in pieces]
    elif stage.is_parts:
        rows = keeper.rows(stage.index)
        lying = [rows.of(task) for task in range(opened.tasks)]
    else:
        return []
    return [next((node for node in nodes if node in workers), NOBODY) for nodes in lying]


def ring_homes(inputs: Sequence[TaskInput], view: View) -> list[NodeId]:
    """Return the peers to which the ring gives the tasks that read the job's inputs, by task."""
    ring = Ring.of(member for member in view if can_work(member))
    keys = [split.key for split in inputs if isinstance(split, InputSplit)]
    return homes(keys, ring) or [NOBODY] * len(keys)


def offer_of(
    record: JobRecord,
    stage: Stage,
    keeper: Keeper,
    local: Sequence[NodeId],
    members: tuple[NodeId, ...],
    session: Callable[[NodeId], int],
) -> Offer:
    """Return the offer of an open stage, as a new version of its places.

    Args:
        local: what `local_homes` gave.
        members: the job's group.
        session: gives the newest life of a node that is known, 0 of one that is not.
    """
    index, opened = stage.index, record.stages[stage.index]
    rows = keeper.rows(index).rows
    nodes = list(dict.fromkeys([*(node for row in rows for node in row), *local]))
    where = {node: number for number, node in enumerate(nodes)}
    reads: tuple[int, ...] = ()
    if stage.kind is StageKind.REDUCE:
        winners = record.stages[index - 1].winners
        reads = tuple([0 if winner is None or winner.is_empty else winner.attempt for winner in winners])
    return Offer(
        job=record.job,
        ballot=record.ballot,
        spec_digest=record.spec_digest,
        stage=index,
        version=keeper.new_version(index),
        kind=opened.kind,
        tasks=opened.tasks,
        partitions=opened.partitions,
        borders=opened.borders,
        nodes=tuple(nodes),
        sessions=tuple(map(session, nodes)),
        places=tuple([tuple([where[node] for node in row]) for row in rows]),
        homes=tuple([where[node] for node in local]),
        reads=reads,
        members=members,
    )
