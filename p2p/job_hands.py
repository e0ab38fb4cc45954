"""The hands of a peer's jobs: what leaders and the worker want done, and what became of it.

Theory
------
The worker says *run this, push that, bring me those*; children, transfers and the store do it, each in its
own time, and tell how it ended.  Both directions are here: an effect goes to what performs it, and an end
goes back to the machine that asked, by the tag that it gave along.

What fails on disk fails an attempt, a push or a fetch, which go elsewhere; an output whose bytes were damaged
is missing from then on, and its leader is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

from mapreduce import effects as e
from mapreduce.messages import HeldGroup
from membership.view import NodeId
from p2p import bulk as b
from p2p import task_runner as t
from p2p.segments import Covers

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobHands"]


class JobHands:
    """What does the work of one peer; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk

    def perform(self, effect: e.Effect, now: float) -> None:
        """Do what a leader or the worker wants."""
        desk = self._desk
        match effect:
            case e.Send(to=to, message=message):
                desk.say(to, message)
            case e.Propose(job=job, proposal=proposal):
                desk.leading.propose(job, proposal, now)
            case e.StepDown(job=job):
                desk.leading.step_down(job, now)
            case e.RunTask():
                desk.ring_inputs.run(effect, now)
            case e.CancelTask(job=job, attempt=attempt):
                desk.ring_inputs.cancel(job, attempt)
                desk.runner.cancel(job, attempt)
                desk.locks.attempt_ended(job, attempt, now)
            case e.Forget(job=job, attempts=attempts):
                desk.runner.release(job, attempts)
            case e.Push():
                self._push(effect, now)
            case e.CancelPush(job=job, number=number):
                desk.bulk.cancel(("push", job, number))
            case e.Fetch(job=job, attempt=attempt, piece=piece):
                desk.arrivals.fetch_piece(job, attempt, piece, now)
            case e.FetchPlan(job=job, sources=sources):
                desk.arrivals.fetch_plan(job, sources, now)
            case e.ReadInventory(job=job):
                desk.perform(desk.worker.on_inventory(job, self._inventory(job), now))
            case e.Drop(job=job, stages=stages):
                desk.runner.drop(job, stages)
                desk.store.drop(job, stages)
            case e.DropJob():
                desk.lives.drop(effect, now)
            case e.Announce(event=event):
                self._announce(event, now)
            case _:
                assert_never(effect)

    def tell_what_rotted(self, now: float) -> None:
        """Let the leaders know which outputs are not here any more, because their bytes were not right."""
        desk = self._desk
        gone: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for job, stage, task, attempt in desk.store.rotted:
            gone.setdefault((job, stage), []).append((task, attempt))
        desk.store.rotted.clear()
        for (job, stage), outputs in gone.items():
            tasks, attempts = [task for task, _ in outputs], [attempt for _, attempt in outputs]
            if stage >= 0:
                desk.perform(desk.worker.on_missing(job, stage, tasks, attempts, now))
        for job in sorted({job for job, stage in gone if stage >= 0}):
            desk.results.hurt(job)

    def _push(self, push: e.Push, now: float) -> None:
        desk = self._desk
        sources = desk.runner.sources(push.job, push.group)
        if sources is None:
            reason = "the output is not here any more"
            desk.perform(desk.worker.on_push_failed(push.job, push.number, reason, now))
            return
        group = push.group
        events = desk.bulk.send(
            push.job,
            group.stage,
            sources,
            push.to,
            ("push", push.job, push.number),
            now,
            covers=Covers(partitions=group.partitions, tasks=group.tasks, attempts=group.attempts),
            is_repair=push.is_repair,
        )
        self.bulk_ended(events, now)

    def bulk_ended(self, events: Iterable[b.BulkEvent], now: float) -> None:
        """Transfers have ended: tell whoever asked for them."""
        desk = self._desk
        for event in events:
            match event.tag:
                case ("push", str(job), int(number)):
                    if isinstance(event, b.Sent):
                        size = event.size_bytes
                        desk.perform(desk.worker.on_pushed(job, number, now, sent_bytes=size))
                    else:
                        desk.perform(desk.worker.on_push_failed(job, number, event.reason, now))
                case ("block", str(file), int(block), str(node)):
                    desk.ring_files.blocks.on_sent(file, block, NodeId(node), event, now)
                case ("kept", str(job), int(attempt), str(node)):
                    desk.results.on_sent(job, attempt, NodeId(node), event)
                case _:
                    pass  # who asked for it will ask again

    def _inventory(self, job: str) -> list[HeldGroup]:
        desk = self._desk
        return [
            HeldGroup(stage=stage, partitions=covers.partitions, tasks=covers.tasks, attempts=covers.attempts)
            for stage, covers in desk.store.held(job)
            if stage >= 0
        ]

    def child_said(self, event: t.RunnerEvent, now: float) -> None:
        """A child has news of its attempt, or of a job that it looked at."""
        desk = self._desk
        match event:
            case t.TaskFinished(job=job, attempt=attempt, output=output):
                desk.locks.attempt_ended(job, attempt, now)
                desk.perform(desk.worker.on_task_done(job, attempt, output, now))
            case t.TaskFailed(job=job, attempt=attempt, failure=failure, missing=missing):
                desk.locks.attempt_ended(job, attempt, now)
                desk.perform(desk.worker.on_task_failed(job, attempt, failure, now, missing=missing))
            case t.LockAsked():
                desk.locks.asked(event, now)
            case t.InputLacks(task=task, offset=offset):
                desk.ring_inputs.lacks(task, offset, now)
            case t.Status(job=job, text=text):
                desk.worker.on_task_status(job, text[:1024])
            case t.Checked(job=job, error=error):
                desk.vetting.checked(job, error)
            case _:
                assert_never(event)

    def _announce(self, event: e.Happened | e.Stalled | e.JobEnded, now: float) -> None:
        desk = self._desk
        match event:
            case e.Happened(job=job, event=record):
                if record.kind in ("leader", "lost", "again", "failed", "quorum", "healed"):
                    desk.log(f"job {job[:12]}: {record.node} {record.text}")
            case e.Stalled(job=job, text=text):
                desk.log(f"job {job[:12]}: {text or 'it moves again'}")
                desk.stalled[job] = text
                desk.answers.job_moved(job, now)
            case e.JobEnded(job=job, status=status):
                desk.log(f"job {job[:12]} has ended: {status}")
                desk.answers.job_moved(job, now)
            case _:
                assert_never(event)
