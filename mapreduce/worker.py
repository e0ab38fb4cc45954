"""A peer's hands: claims tasks of every job it hears of, runs them, pushes their outputs, reports.

Who calls what, and when
------------------------
One `Worker` lives as long as its peer.  The shell calls

* `receive` for every message of `mapreduce.messages.ToWorker`,
* `on_view` when membership's view changes, `drain` before the peer leaves,
* the `on_…` method that answers an effect (see `mapreduce.effects`),
* `on_missing` when the store finds that an output is damaged,
* `tick` at `next_deadline`.

`RunTask` is returned for no more attempts than there are slots, and a few more where tasks are so short that
a child would wait for its next order; so the shell may hand each on as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapreduce.config import JobsConfig
from mapreduce.effects import TaskOutput, WorkerEffect
from mapreduce.messages import HeldGroup, ToWorker
from mapreduce.record import Failure
from mapreduce.spec import JobPlan
from membership.view import NodeId, View


class Worker:
    """Works for all jobs on this peer.

    Args:
        me: this peer.
        session: of this process; another life of the peer has another.
        slots: how many tasks run at a time.
        view: membership's.
        config: see there.
    """

    def __init__(self, *, me: NodeId, session: int, slots: int, view: View, config: JobsConfig) -> None:
        raise NotImplementedError

    def receive(self, message: ToWorker, sender: NodeId, now: float) -> list[WorkerEffect]:
        """Take a leader's message; those of a deposed leader are dropped."""
        raise NotImplementedError

    def on_view(self, view: View, now: float) -> list[WorkerEffect]:
        """Members came or went: claim anew."""
        raise NotImplementedError

    def drain(self, now: float) -> list[WorkerEffect]:
        """Begin nothing new; what has not begun goes back."""
        raise NotImplementedError

    def on_plan(self, job: str, plan: JobPlan, now: float) -> list[WorkerEffect]:
        """`FetchPlan` is done."""
        raise NotImplementedError

    def on_plan_failed(self, job: str, failure: Failure, now: float) -> list[WorkerEffect]:
        """`FetchPlan` failed; it is asked for again after a while, unless the failure fails the job."""
        raise NotImplementedError

    def on_fetched(self, job: str, attempt: int, now: float) -> list[WorkerEffect]:
        """`Fetch` is done."""
        raise NotImplementedError

    def on_fetch_failed(self, job: str, attempt: int, reason: str, now: float) -> list[WorkerEffect]:
        """`Fetch` failed with every holder."""
        raise NotImplementedError

    def on_task_done(self, job: str, attempt: int, output: TaskOutput, now: float) -> list[WorkerEffect]:
        """`RunTask` succeeded; the output lies here and stays until it is dropped."""
        raise NotImplementedError

    def on_task_failed(
        self, job: str, attempt: int, failure: Failure, now: float, *, missing: Sequence[int] = ()
    ) -> list[WorkerEffect]:
        """`RunTask` failed; nothing of it is left.

        Args:
            missing: of a reduce task: map tasks whose outputs were not here, or damaged.
        """
        raise NotImplementedError

    def on_task_status(self, job: str, text: str, now: float) -> list[WorkerEffect]:
        """User code says what it does (`task.status`)."""
        raise NotImplementedError

    def on_pushed(self, job: str, number: int, now: float) -> list[WorkerEffect]:
        """`Push` is acknowledged: the outputs lie there, whole and checked."""
        raise NotImplementedError

    def on_push_failed(self, job: str, number: int, reason: str, now: float) -> list[WorkerEffect]:
        """`Push` failed; it is tried again while the place is one."""
        raise NotImplementedError

    def on_inventory(self, job: str, groups: Sequence[HeldGroup], now: float) -> list[WorkerEffect]:
        """`ReadInventory`: what lies here of the job."""
        raise NotImplementedError

    def on_missing(
        self, job: str, stage: int, tasks: Sequence[int], attempts: Sequence[int], now: float
    ) -> list[WorkerEffect]:
        """The store found outputs of the job damaged or gone."""
        raise NotImplementedError

    def tick(self, now: float) -> list[WorkerEffect]:
        """Do what is due."""
        raise NotImplementedError

    def next_deadline(self) -> float:
        """When to be ticked again."""
        raise NotImplementedError

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs this worker knows."""
        raise NotImplementedError
