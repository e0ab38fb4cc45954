"""An offer as a worker reads it: the stage's tasks, whose they are, and where their outputs shall lie.

An `Offer` is short, for it goes to every worker: nodes are named by index, and what the job's plan says is
not said again.  Here it is laid beside the plan once, so that what is asked for each attempt costs little:
the order that runs it, and the places of its output.
"""

from __future__ import annotations

from mapreduce.claims import homes
from mapreduce.effects import RunTask, StageSetup
from mapreduce.held import WHOLE, Held, Partitions
from mapreduce.messages import Offer
from mapreduce.placement import Rows, can_work, output_places
from mapreduce.record import StageKind
from mapreduce.spec import InputSplit, JobPlan
from mapreduce.stages import StageGraph
from membership.ring import Ring
from membership.view import NodeId, View

__all__ = ["StageOffer"]


class StageOffer:
    """What a worker knows of the stage that a job is in.

    Args:
        job: its id.
        offer: the leader's, of a stage of the graph.
        plan, graph: the job's.
        me: this worker.
        before: an earlier offer of the same stage with the same inputs, whose settings go on to hold.
    """

    def __init__(
        self,
        job: str,
        offer: Offer,
        plan: JobPlan,
        graph: StageGraph,
        me: NodeId,
        before: StageOffer | None = None,
    ) -> None:
        self.offer = offer
        self.index = offer.stage
        self.version = offer.version
        self.reads = offer.reads
        self._stage = stage = graph[offer.stage]
        self._step = step = plan.steps[stage.step]
        self._graph = graph
        self._me = me
        self._replicas = plan.replicas
        self.setup: StageSetup = (
            before.setup
            if before is not None
            else StageSetup(
                job=job,
                stage=offer.stage,
                step=stage.step,
                step_name=step.name,
                kind=stage.kind,
                partitions=offer.partitions,
                borders=offer.borders,
                out_format=plan.out_format if stage.index == graph.result_stage else "",
                map_only=step.map_only,
            )
        )
        names = offer.nodes
        self.rows = Rows(tuple([tuple([names[index] for index in row]) for row in offer.places]))
        self.has_shuffle = offer.kind is StageKind.MAP and not self.setup.map_only
        self._duties = {}
        if self.has_shuffle:
            self._duties = {node: self.rows.duty(node, offer.partitions) for node in self.rows.nodes}

    def continues(self, offer: Offer) -> bool:
        """Whether another offer is of the same stage with the same inputs.

        A reduce attempt belongs to the winners it reads; with others it would be another task.
        """
        return self.index == offer.stage and self.reads == offer.reads

    def homes(self, view: View) -> list[NodeId]:
        """Return whose each task is: where its data lies, or where the ring puts its key."""
        offer = self.offer
        if offer.homes:
            return [offer.nodes[index] for index in offer.homes]
        splits = self._step.samples if offer.kind is StageKind.SAMPLE else self._step.splits
        ring = Ring.of(member for member in view if can_work(member))
        return homes([split.key for split in splits[: offer.tasks]], ring)

    def order(self, held: Held) -> RunTask:
        """Return what runs an attempt."""
        stage = self._stage
        is_sample, is_reduce = stage.kind is StageKind.SAMPLE, stage.kind is StageKind.REDUCE
        split: InputSplit | None = None
        if held.piece is None and not is_reduce:
            split = (self._step.samples if is_sample else self._step.splits)[held.task]
        return RunTask(
            setup=self.setup,
            task=held.task,
            attempt=held.attempt,
            number=held.number,
            split=split,
            piece=held.piece,
            sample_keys=self._graph.sample_keys(stage, self.offer.tasks) if is_sample else 0,
            read_stage=stage.index - 1 if is_reduce else -1,
            reads=self.reads,
        )

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
