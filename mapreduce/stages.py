"""The stages of a job, and the tasks that each falls into.

A step becomes up to three stages, one after the other: sample (a `TotalOrder` looks for borders), map, and
reduce (not in a map-only step).  Steps follow each other in execution order.  The *parts stage* of a step
is the one whose outputs are the step's parts: its reduce stage, or the map stage of a map-only step.

Everything here is a function of the plan and the record, so that every leader, whenever it takes over,
finds the same tasks with the same numbers; and the same that `mapreduce.local` would give the job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mapreduce.changes import Change, Redo
from mapreduce.messages import Piece
from mapreduce.plan import SAMPLE_SPLITS, default_partitions
from mapreduce.record import JobRecord, StageKind
from mapreduce.spec import InputSplit, JobPlan

__all__ = ["Stage", "StageGraph", "TaskInput", "task_name"]

TaskInput = InputSplit | Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: its index among all stages, the index of its step, what its tasks do.

    `has_shuffle` is whether its outputs are cut into partitions, `is_parts` whether they are parts.
    """

    index: int
    step: int
    kind: StageKind
    has_shuffle: bool
    is_parts: bool


class StageGraph:
    """The stages of a plan, in order."""

    def __init__(self, plan: JobPlan) -> None:
        self.plan = plan
        self.stages = tuple(_stages(plan))
        self._parts_stage = {stage.step: stage.index for stage in self.stages if stage.is_parts}

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, index: int) -> Stage:
        return self.stages[index]

    def parts_stage(self, step: int) -> int:
        """Return the index of the stage whose outputs are the step's parts."""
        return self._parts_stage[step]

    @property
    def result_stage(self) -> int:
        """The index of the stage whose outputs are the job's result."""
        return self._parts_stage[self.plan.last_step]

    def inputs_of(self, record: JobRecord, stage: Stage) -> list[TaskInput]:
        """Return what the tasks of a map or sample stage read, by task.

        The stages it reads from must be complete and not dropped. The pieces name no holders: who holds a
        part changes, and the leader knows it.
        """
        step = self.plan.steps[stage.step]
        if stage.kind is StageKind.REDUCE:
            return []
        if not step.after:
            if stage.kind is StageKind.MAP:
                return list(step.splits)
            return list(step.samples) if self.partitions_of(record, stage.step) > 1 else []
        pieces = [piece for before in step.after for piece in self._pieces(record, before)]
        if stage.kind is StageKind.MAP:
            return list(pieces)
        if self.partitions_of(record, stage.step) == 1:
            return []
        count = min(len(pieces), SAMPLE_SPLITS)
        return [pieces[index * len(pieces) // count] for index in range(count)]

    def partitions_of(self, record: JobRecord, step: int) -> int:
        """Return the number of reduce tasks of a step; it follows from the size of what the step reads."""
        planned = self.plan.steps[step]
        if planned.map_only:
            return 1
        if planned.partitions:
            return planned.partitions
        if not planned.after:
            return default_partitions(sum(split.size_bytes for split in planned.splits))
        for stage in self.stages:
            if stage.step == step and stage.index < len(record.stages):
                return record.stages[stage.index].partitions  # what it read may be dropped by now
        pieces = (piece for before in planned.after for piece in self._pieces(record, before))
        return default_partitions(sum(piece.end - piece.start for piece in pieces))

    def task_count(self, record: JobRecord, stage: Stage) -> int:
        """Return how many tasks a stage has whose predecessors are complete."""
        if stage.kind is StageKind.REDUCE:
            return self.partitions_of(record, stage.step)
        return len(self.inputs_of(record, stage))

    def sample_keys(self, stage: Stage, tasks: int) -> int:
        """Return how many keys each of so many tasks of a sampling stage reports."""
        return -(-self.plan.steps[stage.step].sample_keys // max(1, tasks))

    def is_needed(self, record: JobRecord, stage: Stage) -> bool:
        """Whether somebody will, or may have to, read the outputs of a stage that was opened.

        Map outputs are needed until all parts of their step are committed. Parts are needed until every
        step that reads them is complete, not only its map stage: until then its maps may have to run again.
        """
        if stage.kind is StageKind.SAMPLE:
            return False
        if stage.has_shuffle:
            return not is_complete(record, stage.index + 1)
        if stage.step == self.plan.last_step:
            return True
        readers = (number for number, step in enumerate(self.plan.steps) if stage.step in step.after)
        return any(not is_complete(record, self._parts_stage[reader]) for reader in readers)

    def droppable(self, record: JobRecord) -> list[int]:
        """Return the stages whose outputs can be dropped now."""
        return [
            stage.index
            for stage in self.stages[: max(0, record.stage)]
            if is_complete(record, stage.index)
            and not record.stages[stage.index].is_dropped
            and not self.is_needed(record, stage)
        ]

    def revival(self, record: JobRecord, stage: int) -> list[Change]:
        """Return what must be taken back so that tasks of a stage can run again: its inputs, and theirs."""
        changes: list[Change] = []
        waiting = [stage]
        seen: set[int] = set()
        while waiting:  # ends: stages read earlier stages only
            for before in self._input_stages(self.stages[waiting.pop()]):
                if before not in seen and record.stages[before].is_dropped:
                    seen.add(before)
                    changes.append(Redo(stage=before))
                    waiting.append(before)
        return changes

    def first_incomplete(self, record: JobRecord) -> int:
        """Return the first stage that is not complete; the number of stages when all are."""
        return next((s.index for s in self.stages if not is_complete(record, s.index)), len(self.stages))

    def part_name(self, step: int, part: int) -> str:
        """Return what a part is called where it is an input."""
        return f"{self.plan.steps[step].name}/part-{part:05d}"

    def _input_stages(self, stage: Stage) -> list[int]:
        if stage.kind is StageKind.REDUCE:
            return [stage.index - 1]
        return [self._parts_stage[before] for before in self.plan.steps[stage.step].after]

    def _pieces(self, record: JobRecord, step: int) -> Iterator[Piece]:
        """A step's parts, cut at the places where their writer said they can be cut."""
        stage = self._parts_stage[step]
        for part, winner in enumerate(record.stages[stage].winners):
            assert winner is not None
            for start, end in zip(winner.cuts, winner.cuts[1:], strict=False):
                yield Piece(
                    stage=stage,
                    part=part,
                    attempt=winner.attempt,
                    start=start,
                    end=end,
                    name=self.part_name(step, part),
                    holders=(),
                )


def is_complete(record: JobRecord, stage: int) -> bool:
    """Whether a stage was opened and all its tasks have their winners."""
    return stage < len(record.stages) and record.stages[stage].is_complete


def task_name(kind: StageKind, task: int) -> str:
    """Return a task's name, such as "map-00012"; the same that the embedded engine uses."""
    return f"{kind}-{task:05d}"


def _stages(plan: JobPlan) -> Iterator[Stage]:
    index = 0
    for number, step in enumerate(plan.steps):
        kinds = [StageKind.MAP] if step.map_only else [StageKind.MAP, StageKind.REDUCE]
        if step.sample_keys and not step.map_only:
            kinds.insert(0, StageKind.SAMPLE)
        for kind in kinds:
            yield Stage(
                index=index,
                step=number,
                kind=kind,
                has_shuffle=kind is StageKind.MAP and not step.map_only,
                is_parts=kind is kinds[-1],
            )
            index += 1
