"""After a job's end: its last leader tells everybody, for a while, and then steps down.

A worker that hears `Dissolve` drops what it has of the job, but for the result.  The message may be lost, and
a worker may be cut off for longer than anybody repeats it: such a worker asks what became of the job
(`AskFate`), and whoever keeps its record answers the same.
"""

from __future__ import annotations

from math import inf

from mapreduce.config import JobsConfig
from mapreduce.effects import LeaderEffect, Send, StepDown
from mapreduce.messages import Dissolve
from mapreduce.record import JobRecord, JobStatus
from mapreduce.spec import JobPlan
from mapreduce.stages import StageGraph
from membership.view import View

__all__ = ["Ending", "dissolve_of"]


def dissolve_of(plan: JobPlan, record: JobRecord) -> Dissolve:
    """Return what is told of a job that has ended, by its last leader or by whoever keeps its record."""
    keep_stage = StageGraph(plan).result_stage if record.status is JobStatus.COMMITTED else -1
    return Dissolve(
        job=record.job,
        ballot=record.ballot,
        status=record.status,
        keep_stage=keep_stage,
        keep_s=plan.ttl_s,
    )


class Ending:
    """The last leader of a job that has ended.

    Args:
        plan: the job's.
        record: its last.
        config: see there.
        now: when it has ended, in seconds.
    """

    def __init__(self, plan: JobPlan, record: JobRecord, config: JobsConfig, now: float) -> None:
        self.fate = dissolve_of(plan, record)
        self._config = config
        self._tell_at = now
        self._step_down_at = now + config.linger_s

    @property
    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min(self._tell_at, self._step_down_at)

    def tick(self, view: View, now: float) -> list[LeaderEffect]:
        """Tell everybody what became of the job, or step down."""
        if now >= self._step_down_at:
            self._tell_at = self._step_down_at = inf
            return [StepDown(job=self.fate.job)]
        if now < self._tell_at:
            return []
        self._tell_at = now + self._config.beat_s
        return [Send(to=member.id, message=self.fate) for member in view.ring_members]
