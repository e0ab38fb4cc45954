"""A peer's hands: claims tasks of every job it hears of, runs them, pushes their outputs, reports.

Theory of operation
-------------------
A worker serves any number of leaders, each for one job (`mapreduce.worker_job`).  What all jobs have in
common is the peer's slots.  Whenever one is free, the next attempt is of the job that has the least of its
share, the shares being powers of two by priority; a job that has nothing to run leaves its share to the
others.  One that has just asked for tasks is waited for a moment (`asking_s`), so that it does not lose its
share by a round trip.  How much a job claims follows from its share and from the free slots, so the queues at
busy workers hide few tasks from idle ones, and those can be asked back.

A slot is given more than one attempt at a time where tasks are so short that it would wait for the next one
(`WorkerJob.depth`); a job's attempts count against its share by that measure.

Jobs beyond `jobs_most` wait in order of arrival: they are known, and nothing is claimed for them.

When nobody has led a job for a while the worker asks the job's members what became of it; what nobody knows
anything of for `forget_s` is forgotten.

Who calls what, and when
------------------------
One `Worker` lives as long as its peer.  The shell calls

* `receive` for every message of `mapreduce.messages.ToWorker`,
* `on_view` when membership's view changes, `drain` before the peer leaves,
* the `on_…` method that answers an effect (see `mapreduce.effects`),
* `on_missing` when the store finds that an output is damaged,
* `tick` at `next_deadline`.

`RunTask` is returned for no more attempts than there are slots, and a few more where tasks are short; so the
shell may hand each on as it comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from math import ceil, inf
from typing import assert_never

from mapreduce.config import JobsConfig
from mapreduce.effects import (
    Announce,
    Drop,
    DropJob,
    JobEnded,
    ReadInventory,
    Send,
    TaskOutput,
    WorkerEffect,
)
from mapreduce.failures import INPUT_GONE, NOT_BEGUN
from mapreduce.messages import (
    AskFate,
    AskInventory,
    Beat,
    CopyOrder,
    Dissolve,
    DropOutputs,
    Grant,
    HeldGroup,
    Missing,
    Offer,
    Revoke,
    Settled,
    ToWorker,
)
from mapreduce.record import Failure
from mapreduce.spec import JobPlan
from mapreduce.worker_job import WorkerJob
from membership.view import NodeId, View

__all__ = ["Worker"]

MAX_KNOWN_JOBS = 4_096
MAX_ENDED_JOBS = 4_096


class Worker:
    """Works for all jobs on this peer.

    Args:
        me: this peer.
        session: of this process; a later life of the peer has a higher one.
        slots: how many tasks run at a time.
        view: membership's.
        config: see there.
    """

    # What it is made of; the simulator replaces it to see that its mistakes are found.
    job_type = WorkerJob

    def __init__(self, *, me: NodeId, session: int, slots: int, view: View, config: JobsConfig) -> None:
        self._me = me
        self._session = session
        self._slots = slots
        self._view = view
        self._config = config
        self._jobs: dict[str, WorkerJob] = {}
        self._ended: OrderedDict[str, Dissolve] = OrderedDict()
        self._draining = False
        self._push_numbers = count(1)
        self._orphans_at = inf
        self._asked: dict[str, int] = {}
        self._fill_at = inf

    # -- messages ----------------------------------------------------------------------------------------

    def receive(self, message: ToWorker, sender: NodeId, now: float) -> list[WorkerEffect]:
        """Take a leader's message; those of a deposed leader are dropped."""
        if isinstance(message, Dissolve):
            return self._dissolve(message, now)
        if (over := self._ended.get(message.job)) is not None and message.ballot <= over.ballot:
            return []
        job = self._jobs.get(message.job) or self._begin(message.job, now)
        if job is None or not job.obeys(message.ballot, sender, now):
            return []
        match message:
            case Beat():
                job.take_beat(message, now)
            case Offer():
                job.take_offer(message, self._view, now)
                self._share_out()
            case Grant():
                job.take_grant(message)
            case Revoke():
                job.take_revoke(message)
            case Settled():
                job.take_settled(message.attempts)
            case CopyOrder():
                job.take_copy_order(message)
            case AskInventory():
                job.out.append(ReadInventory(job=job.job))
            case DropOutputs():
                job.out.append(Drop(job=job.job, stages=message.stages))
            case _:
                assert_never(message)
        return self._go_on(job, now)

    def _begin(self, name: str, now: float) -> WorkerJob | None:
        """A job we have not heard of."""
        if len(self._jobs) >= MAX_KNOWN_JOBS:
            return None  # its leader goes on without us
        job = self.job_type(
            me=self._me,
            session=self._session,
            job=name,
            slots=self._slots,
            config=self._config,
            push_numbers=self._push_numbers,
            now=now,
        )
        self._jobs[name] = job
        self._orphans_at = min(self._orphans_at, now + self._config.orphan_s)
        return job

    def _dissolve(self, message: Dissolve, now: float) -> list[WorkerEffect]:
        """A job is over; its leader says so until it has heard that everybody knows."""
        known = self._ended.get(message.job)
        self._ended[message.job] = message
        self._ended.move_to_end(message.job)
        if len(self._ended) > MAX_ENDED_JOBS:
            self._ended.popitem(last=False)
        out: list[WorkerEffect] = []
        job = self._jobs.pop(message.job, None)
        if job is not None:
            job.end()
            out += job.out
            self._share_out()
        self._asked.pop(message.job, None)
        out.append(DropJob(job=message.job, keep_stage=message.keep_stage, keep_s=message.keep_s))
        if known is None or known.status is not message.status:
            out.append(Announce(event=JobEnded(job=message.job, status=message.status)))
        return out + self._fill(now)

    def forget(self, job: str) -> None:
        """A job's time to live is over: nobody need be asked what became of it."""
        known = self._jobs.get(job)
        if known is not None and not known.leader:
            del self._jobs[job]
            self._asked.pop(job, None)

    # -- membership --------------------------------------------------------------------------------------

    def on_view(self, view: View, now: float) -> list[WorkerEffect]:
        """Members came or went: claim anew, and trust no acknowledgement of a process that is no more."""
        restarted = frozenset(
            member.id
            for member in self._view
            if member.status.in_ring
            and (
                (new := view.get(member.id)) is None
                or not new.status.in_ring
                or new.session != member.session
            )
        )
        self._view = view
        out: list[WorkerEffect] = []
        for job in list(self._jobs.values()):
            job.follow_view(view, restarted, now)
            out += self._go_on(job, now)
        return out

    def drain(self, now: float) -> list[WorkerEffect]:
        """Begin nothing new; what has not begun goes back."""
        self._draining = True
        self._share_out()
        for job in self._jobs.values():
            # Until its leader has heard of it and says otherwise; where none was heard, nobody would.
            job.is_needed = bool(job.leader)
        out: list[WorkerEffect] = []
        for job in list(self._jobs.values()):
            job.return_queued()
            out += self._go_on(job, now)
        return out

    # -- answers to effects ------------------------------------------------------------------------------

    def on_plan(self, job: str, plan: JobPlan, now: float) -> list[WorkerEffect]:
        """`FetchPlan` is done."""
        known = self._jobs.get(job)
        if known is None:
            return []
        known.take_plan(plan, self._view, now)
        self._share_out()
        return self._go_on(known, now)

    def on_plan_failed(self, job: str, now: float) -> list[WorkerEffect]:
        """`FetchPlan` failed; it is asked for again after a while."""
        known = self._jobs.get(job)
        if known is not None:
            known.plan_failed(now)
        return []

    def on_fetched(self, job: str, attempt: int, now: float) -> list[WorkerEffect]:
        """`Fetch` is done."""
        known = self._jobs.get(job)
        if known is None:
            return []
        known.hands.fetched(attempt)
        return self._go_on(known, now)

    def on_fetch_failed(self, job: str, attempt: int, reason: str, now: float) -> list[WorkerEffect]:
        """`Fetch` failed with every holder: the leader may know others by now."""
        failure = Failure(kind=INPUT_GONE, message=f"no holder gave its input: {reason}"[:1024])
        return self.on_task_failed(job, attempt, failure, now)

    def on_task_done(self, job: str, attempt: int, output: TaskOutput, now: float) -> list[WorkerEffect]:
        """`RunTask` succeeded; the output lies here and stays until it is forgotten or cancelled."""
        known = self._jobs.get(job)
        if known is None:
            return []
        known.task_done(attempt, output, now)
        return self._go_on(known, now)

    def on_task_failed(
        self, job: str, attempt: int, failure: Failure, now: float, *, missing: Sequence[int] = ()
    ) -> list[WorkerEffect]:
        """`RunTask` failed; nothing of it is left.

        Args:
            failure: what went wrong; of kind `failures.NOT_BEGUN` for an attempt that no child had begun,
                which then waits again, and of `failures.INPUT_GONE` where what it reads is not here.
            missing: of a reduce task: map tasks whose outputs were not here, or damaged.
        """
        known = self._jobs.get(job)
        if known is None:
            return []
        if failure.kind == NOT_BEGUN:
            known.hands.not_begun(attempt)
        else:
            known.task_failed(attempt, failure, missing, now)
        return self._go_on(known, now)

    def on_task_status(self, job: str, text: str) -> None:
        """User code says what it does (`task.status`); the leader hears of it with the next report."""
        known = self._jobs.get(job)
        if known is not None:
            known.note_status(text)

    def on_pushed(self, job: str, number: int, now: float, *, sent_bytes: int = 0) -> list[WorkerEffect]:
        """`Push` is acknowledged: the outputs lie there, whole and checked.

        Args:
            sent_bytes: what crossed the network for it; 0 for a local link.
        """
        known = self._jobs.get(job)
        if known is None:
            return []
        known.pushed(number, sent_bytes, now)
        return self._go_on(known, now)

    def on_push_failed(self, job: str, number: int, reason: str, now: float) -> list[WorkerEffect]:
        """`Push` failed; it is tried again while the place is one."""
        known = self._jobs.get(job)
        if known is None:
            return []
        known.push_failed(number, reason, now)
        return self._go_on(known, now)

    def on_inventory(self, job: str, groups: Sequence[HeldGroup], now: float) -> list[WorkerEffect]:
        """`ReadInventory`: what lies here of the job."""
        known = self._jobs.get(job)
        if known is None:
            return []
        known.say_inventory(groups)
        return self._go_on(known, now)

    def on_stored(self, job: str, now: float, *, source: NodeId | None = None) -> None:
        """Outputs of a job lie here: of one that we have not heard of, somebody else will know more.

        Args:
            source: who pushed them; None for what was found on the disk when the peer started.
        """
        if job not in self._jobs and job not in self._ended:
            begun = self._begin(job, now)
            if begun is None:
                return
            begun.is_needed = False  # nobody leads it as yet, who could say otherwise to a peer that drains
            if source is not None:
                begun.members = (source,)
                return
            # Whoever leads it beats soon. It may as well be over since long, and nobody will say so unasked.
            ask_at = now + 2 * self._config.beat_s
            begun.heard_at = ask_at - self._config.orphan_s
            self._orphans_at = min(self._orphans_at, ask_at)

    def on_missing(
        self, job: str, stage: int, tasks: Sequence[int], attempts: Sequence[int], now: float
    ) -> list[WorkerEffect]:
        """The store found outputs of the job damaged or gone."""
        known = self._jobs.get(job)
        if known is None or not known.leader:
            return []
        missing = Missing(
            job=job, ballot=known.ballot, stage=stage, tasks=tuple(tasks), attempts=tuple(attempts)
        )
        known.out.append(Send(to=known.leader, message=missing))
        return self._go_on(known, now)

    # -- time --------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[WorkerEffect]:
        """Do what is due."""
        out: list[WorkerEffect] = []
        for job in list(self._jobs.values()):
            if job.next_deadline <= now:
                out += self._go_on(job, now)
        if now >= self._fill_at:
            out += self._fill(now)
        if now >= self._orphans_at:
            out += self._look_after_orphans(now)
        return out

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min([job.next_deadline for job in self._jobs.values()] + [self._orphans_at, self._fill_at])

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs this worker knows."""
        return tuple(self._jobs)

    def fate_of(self, job: str) -> Dissolve | None:
        """What became of a job that is over, for whoever asks (`AskFate`) where nobody leads it any more."""
        return self._ended.get(job)

    @property
    def may_leave(self) -> bool:
        """Whether a draining peer has nothing left in hand, and nothing that must be copied first."""
        return self._draining and not any(
            job.is_needed or self.held_count(name) for name, job in self._jobs.items()
        )

    def accepts(self, job: str) -> bool:
        """Whether outputs of a job may be stored here: not of one that is over, whose pushes come late."""
        return job not in self._ended

    def held_count(self, job: str) -> int:
        """How many attempts of a job are in hand, in any phase."""
        known = self._jobs.get(job)
        return known.held_count if known is not None else 0

    # -- inside ------------------------------------------------------------------------------------------

    def _go_on(self, job: WorkerJob, now: float) -> list[WorkerEffect]:
        """Do what is due for a job and fill the slots; gives all that is to be done, in order."""
        out, job.out = job.out, []
        out += self._fill(now)  # first: what a job claims depends on which slots are left
        job.tick(now)
        out += job.out
        job.out = []
        return out

    def _fill(self, now: float) -> list[WorkerEffect]:
        """Give free slots to the jobs that have the least of their share."""
        out: list[WorkerEffect] = []
        load = sum(job.hands.running / job.claiming.depth for job in self._jobs.values())
        kept: dict[str, int] = {}
        self._fill_at = inf
        ready = [job for job in self._jobs.values() if job.hands.queue]
        asking = (
            [job for job in self._jobs.values() if not job.hands.queue and job.asks(now)] if ready else []
        )
        while ready and load < self._slots:
            job = min(
                ready + asking,
                key=lambda job: (
                    (job.hands.running + kept.get(job.job, 0)) / job.claiming.depth / _weight(job)
                ),
            )
            if job.hands.queue:
                load += job.run_next() / job.claiming.depth
            else:  # its task may come in a moment: keep the slot
                kept[job.job] = kept.get(job.job, 0) + 1
                load += 1 / job.claiming.depth
                self._fill_at = min(self._fill_at, job.claiming.ask_at_once(now))
            if not job.hands.queue and job in ready:
                ready.remove(job)
            out += job.out
            job.out = []
        load -= sum(count / self._jobs[name].claiming.depth for name, count in kept.items())
        idle = max(0, int(self._slots - load + 1e-9))
        for job in self._jobs.values():
            job.claiming.may_use(idle, now)
        return out

    def _share_out(self) -> None:
        """Say how many slots each job should claim for."""
        served = [job for job in self._jobs.values() if job.plan is not None][: self._config.jobs_most]
        total = sum(map(_weight, served))
        for job in self._jobs.values():
            job.claiming.may_claim = job in served and not self._draining
            if job in served:
                job.claiming.share = max(1, ceil(self._slots * _weight(job) / total))

    def _look_after_orphans(self, now: float) -> list[WorkerEffect]:
        """Ask what became of jobs that nobody leads; forget those of which nobody knows anything."""
        out: list[WorkerEffect] = []
        self._orphans_at = inf
        for name, job in list(self._jobs.items()):
            silent_s = now - job.heard_at
            if silent_s >= self._config.forget_s:
                job.end()
                out += job.out
                del self._jobs[name]
                self._asked.pop(name, None)
                if (
                    job.leader or job.members
                ):  # else it lay here at the start: the shell knows how long it stays
                    out.append(DropJob(job=name, keep_stage=-1, keep_s=0.0))
                self._share_out()
                continue
            ask_at = max(job.heard_at + self._config.orphan_s, job.ask_at)
            if now < ask_at:
                self._orphans_at = min(self._orphans_at, ask_at)
                continue
            here = [member.id for member in self._view.ring_members]
            known = [node for node in dict.fromkeys((*job.members, job.leader)) if node in here]
            # The group may have been healed since we heard of it, and all whom we know of it be gone.  Our
            # own peer may have joined it: it knows more than its worker.
            whom = known + [node for node in here if node not in known]
            asked = self._asked.get(name, 0)
            self._asked[name] = asked + 1
            if whom:
                out.append(Send(to=whom[asked % len(whom)], message=AskFate(job=name)))
            # Who does not know says nothing. All are asked in turn before we rest: a peer that comes back
            # after the end may know nobody of the group, and does not always live for long.
            is_round_over = not whom or (asked + 1) % len(whom) == 0
            rest_s = self._config.orphan_s if is_round_over else self._config.retry_s
            job.ask_at = now + rest_s
            self._orphans_at = min(self._orphans_at, job.ask_at)
        return out


def _weight(job: WorkerJob) -> float:
    """A job's share of the slots relative to others': each step of priority doubles it."""
    return 2.0 ** (job.plan.priority if job.plan is not None else 0)
