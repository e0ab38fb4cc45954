"""The stage that a job is in, as its record says: what its tasks read, who runs it, what is offered of it.

A stage is *entered* when the record names another one, or when winners of one that was complete are lost.
What its tasks read follows from the record's winners, so every leader finds the same tasks under the same
numbers.  From then on places may move and homes with them: each such change is a new version of the offer,
and the run itself (`mapreduce.stage_run`) goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapreduce.config import JobsConfig
from mapreduce.counts import Numbers
from mapreduce.keeper import Keeper
from mapreduce.messages import Offer
from mapreduce.offers import local_homes, offer_of, ring_homes, workers_of
from mapreduce.record import Failure, JobRecord
from mapreduce.seats import Seats
from mapreduce.spec import JobPlan
from mapreduce.stage_run import StageRun
from mapreduce.stages import Stage, StageGraph, TaskInput
from membership.view import NodeId, View

__all__ = ["CurrentStage"]


class CurrentStage:
    """The current stage of a job that is led.

    Args:
        plan, graph: the job's.
        seats: the workers.
        keeper: knows who holds what.
        numbers: what the leadership counts.
        config: see there.
        run_type: what runs a stage.

    Attributes:
        run: the stage while it runs; None before the first is entered and after the job's end.
        offer: what everybody was told of it last.
    """

    def __init__(
        self,
        plan: JobPlan,
        graph: StageGraph,
        seats: Seats,
        keeper: Keeper,
        numbers: Numbers,
        config: JobsConfig,
        run_type: type[StageRun],
    ) -> None:
        self.run: StageRun | None = None
        self.offer: Offer | None = None
        self._plan = plan
        self._graph = graph
        self._seats = seats
        self._keeper = keeper
        self._numbers = numbers
        self._config = config
        self._run_type = run_type
        self._inputs: Sequence[TaskInput] = ()

    def enter(self, record: JobRecord, view: View, now: float) -> Failure | None:
        """Begin the stage that the record says is the current one.

        Returns:
            Why the job has to fail, if the stage cannot be begun.
        """
        stage = self._graph[record.stage]
        opened = record.stages[stage.index]
        inputs = self._graph.inputs_of(record, stage)
        if inputs and len(inputs) != opened.tasks:
            name = self._plan.steps[stage.step].name
            message = f"step {name!r} gave other output when it was run again: the job is not deterministic"
            return Failure(kind="JobDefinitionError", message=message)
        self._inputs = inputs
        for seat in self._seats:
            seat.begin_stage()
        self.run = self._run_type(
            plan=self._plan,
            stage=stage,
            opened=opened,
            inputs=inputs,
            homes=self._local_homes(stage, record, view) or ring_homes(inputs, view),
            seats=self._seats,
            keeper=self._keeper,
            numbers=self._numbers,
            config=self._config,
            now=now,
        )
        self.run.workers = workers_of(view)
        return None

    def describe(self) -> str:
        """Return what stage it is, for people."""
        assert self.run is not None
        stage = self.run.stage
        return f"{stage.kind} of step {self._plan.steps[stage.step].name!r}: {self.run.pool.count} tasks"

    def begin(self, record: JobRecord, view: View, now: float) -> None:
        """Let tasks be granted; only now it is known where what they read lies."""
        if self.run is not None:
            self.run.begin(self._local_homes(self.run.stage, record, view), now)

    def follow_view(self, record: JobRecord, view: View, *, anyone_gone: bool) -> None:
        """Members came or went: others take tasks, and what lay at those who are gone has other homes."""
        if self.run is None:
            return
        self.run.workers = workers_of(view)
        self.run.places_gone()
        if anyone_gone and (local := self._local_homes(self.run.stage, record, view)):
            self.run.pool.rehome(local)

    def offer_anew(self, record: JobRecord, view: View, members: tuple[NodeId, ...]) -> Offer:
        """Return what everybody is to be told of the stage now, and where its outputs shall lie.

        Args:
            members: the job's group.
        """
        assert self.run is not None
        stage = self.run.stage
        local = self._local_homes(stage, record, view)
        self.offer = offer_of(
            record, stage, self._keeper, local, members, lambda node: self._session(node, view)
        )
        return self.offer

    def _session(self, node: NodeId, view: View) -> int:
        """The newest life of a node that is known, from itself or by membership."""
        seat, member = self._seats.get(node), view.get(node)
        return max(seat.session if seat is not None else 0, member.session if member is not None else 0)

    def end(self) -> None:
        """The job is over: nothing runs any more."""
        self.run = None

    def _local_homes(self, stage: Stage, record: JobRecord, view: View) -> list[NodeId]:
        return local_homes(self._plan, record, stage, self._inputs, self._keeper, workers_of(view))
