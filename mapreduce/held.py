"""The attempts in a worker's hands, of the stage that a job is in.

phase      event                                        next phase
QUEUED     its input lies here, and a slot is free      RUNNING
QUEUED     asked back                                   (gone)
RUNNING    done                                         PUSHING
RUNNING    failed                                       (gone, and reported until that is settled)
RUNNING    not begun after all: its child died before   QUEUED
PUSHING    every place has acknowledged                 FINISHED, and reported until that is settled
FINISHED   another leader, who knows of other places    PUSHING
FINISHED   settled                                      (gone)
any        revoked by force, another stage, the end     (gone)

What a place has acknowledged is remembered by partition, so when places move only what is new is pushed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mapreduce.effects import StageSetup, TaskOutput
from mapreduce.messages import Offer, Phase, Piece
from mapreduce.placement import Rows, output_places
from mapreduce.record import StageKind
from membership.view import NodeId

__all__ = ["WHOLE", "Held", "StageOffer"]

Partitions = tuple[int, ...]
WHOLE: Partitions = ()


@dataclass(slots=True)
class Held:
    """One attempt.

    Attributes:
        number: how often its task was tried.
        is_here: what it reads lies here.
        acked: by place, what it has acknowledged.
        owed: by place, what it has yet to acknowledge; a push of it waits or is under way.
        version: of the places that have acknowledged it all, once it is FINISHED.
        reported_at: when it was last reported.
    """

    task: int
    attempt: int
    number: int
    piece: Piece | None
    is_here: bool = True
    phase: Phase = Phase.QUEUED
    output: TaskOutput | None = None
    acked: dict[NodeId, list[Partitions]] = field(default_factory=dict)
    owed: dict[NodeId, Partitions] = field(default_factory=dict)
    sent_bytes: int = 0
    version: int = 0
    reported_at: float = -1e18

    def acknowledge(self, node: NodeId, partitions: Partitions) -> None:
        """A place holds these partitions."""
        self.acked.setdefault(node, []).append(partitions)
        owed = self.owed.get(node)
        if owed is None:
            return
        left = self.lacks(node, owed)
        if left is None:
            del self.owed[node]
        else:
            self.owed[node] = left

    def lacks(self, node: NodeId, wanted: Partitions) -> Partitions | None:
        """What of the wanted partitions a place has not acknowledged; None: nothing."""
        acked = self.acked.get(node)
        if not acked:
            return wanted
        if WHOLE in acked or wanted in acked:
            return None
        if wanted == WHOLE:
            return WHOLE
        known = set().union(*acked)
        left = tuple([partition for partition in wanted if partition not in known])
        return left or None


class StageOffer:
    """What a worker knows of the stage that a job is in: the offer, read.

    Args:
        offer: the leader's.
        setup: for the attempts.
        me: this worker.
        replicas: of the plan.
    """

    def __init__(self, offer: Offer, setup: StageSetup, me: NodeId, replicas: int) -> None:
        self.offer = offer
        self.setup = setup
        self.index = offer.stage
        self.version = offer.version
        self.reads = offer.reads
        names = offer.nodes
        self.rows = Rows(tuple([tuple([names[index] for index in row]) for row in offer.places]))
        self.has_shuffle = offer.kind is StageKind.MAP and not setup.map_only
        self._me = me
        self._replicas = replicas
        self._duties = {}
        if self.has_shuffle:
            self._duties = {node: self.rows.duty(node, offer.partitions) for node in self.rows.nodes}

    def places_of(self, held: Held) -> dict[NodeId, Partitions] | None:
        """Where an output shall lie, and which partitions of it; None while there is no place at all."""
        assert held.output is not None
        if held.output.is_empty or self.setup.kind is StageKind.SAMPLE:
            return {}
        if self.has_shuffle:
            return self._duties or None
        row = self.rows.of(held.task)
        places = output_places(row, self._me, self._replicas, runner_holds=self._me in row or not row)
        return dict.fromkeys(places, WHOLE)
