"""Every number that running a job on a swarm uses, and the relations between them.

The times are for detection and tidiness, never for safety: a clock that is wrong makes a job slower, or run
a task twice, and changes no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["JobsConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig:
    """Settings of leaders and workers; peers of one cluster should use the same.

    Attributes:
        beat_s: a leader beats, and a worker says what it has in hand, this often.
        lease_s: a granted attempt that its worker has not mentioned for so long is granted anew.
        commit_window_s: winners are gathered for so long, so that one write of the register has many.
        commit_window_task_s: and for so much longer for each task of the stage, as the record is as long.
        commit_batch: so many winners are committed at once at the most.
        report_window_s: a busy worker gathers its reports for so long.
        push_window_s: a busy worker gathers small outputs for one place for so long.
        push_batch: a push carries so many attempts at the most.
        push_pending: so many attempts may wait for acknowledgements; beyond that nothing new is begun.
        push_retry_s: a push that failed is tried again after this.
        queue_s: so much work lies queued at a worker beyond what runs, if it can be told.
        queue_most: but never more tasks for each slot than this.
        asking_s: a slot is kept so long for a job that has less than its share and has asked for a task.
        local_wait_s: tasks whose input lies at their home are given to nobody else before this.
        gather_s: a new leader waits so long for the inventories of those who are alive.
        lost_grace_s: outputs of which no copy is to be seen are held for lost after this.
        retry_s: what was asked and not answered is asked again after this.
        copies_in_flight: so many copy orders of a job are under way at once.
        copy_batch: tasks in one copy order.
        copy_timeout_s: a copy order that was not answered is given again, perhaps to another holder.
        slow_factor: an attempt that takes this many times the stage's median is slow.
        slow_least_s: but not before this.
        stall_s: a job in which nothing has moved for so long says why.
        finish_wait_s: a job that is done waits so long for the last copies of its result.
        linger_s: after the end a leader answers stragglers for so long.
        orphan_s: a worker that has heard no leader for so long asks the members what became of the job.
        forget_s: a worker forgets a job that nobody knows anything of after this.
        jobs_most: a worker works for so many jobs at once; later ones wait.
        lock_renew_s: a worker says this often what its tasks claim of a job's named locks.
        lock_lease_s: a claim that nobody has spoken of for so long is given up.
        lock_wait_s: a task that has waited so long for a lock fails.
    """

    beat_s: float = 1.0
    lease_s: float = 5.0
    commit_window_s: float = 0.025
    commit_window_task_s: float = 10e-6
    commit_batch: int = 2_000
    report_window_s: float = 0.010
    push_window_s: float = 0.010
    push_batch: int = 256
    push_pending: int = 1_024
    push_retry_s: float = 0.5
    queue_s: float = 0.1
    queue_most: int = 64
    asking_s: float = 0.05
    local_wait_s: float = 0.03
    gather_s: float = 1.0
    lost_grace_s: float = 5.0
    retry_s: float = 1.0
    copies_in_flight: int = 8
    copy_batch: int = 256
    copy_timeout_s: float = 30.0
    slow_factor: float = 1.5
    slow_least_s: float = 2.0
    stall_s: float = 10.0
    finish_wait_s: float = 5.0
    linger_s: float = 10.0
    orphan_s: float = 10.0
    forget_s: float = 24 * 3600.0
    jobs_most: int = 64
    lock_renew_s: float = 0.5
    lock_lease_s: float = 5.0
    lock_wait_s: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be positive, not {getattr(self, field.name)!r}")
        for holds, message in (
            (
                self.lease_s > 2 * self.beat_s,
                f"lease_s ({self.lease_s}) must outlast two beats (beat_s, {self.beat_s}): one may be lost",
            ),
            (
                self.orphan_s > 2 * self.beat_s,
                f"orphan_s ({self.orphan_s}) must outlast two beats (beat_s, {self.beat_s})",
            ),
            (
                self.lost_grace_s > self.gather_s,
                f"lost_grace_s ({self.lost_grace_s}) must outlast gather_s ({self.gather_s}): a new leader "
                "that has not asked must not think that outputs are gone",
            ),
            (
                self.linger_s > self.beat_s,
                f"linger_s ({self.linger_s}) must outlast a beat (beat_s, {self.beat_s})",
            ),
            (
                self.lock_lease_s > 2 * self.lock_renew_s,
                f"lock_lease_s ({self.lock_lease_s}) must outlast two renewals (lock_renew_s, "
                f"{self.lock_renew_s}): one may be lost",
            ),
            (
                self.slow_factor > 1.0,
                f"slow_factor ({self.slow_factor}) must be above 1: half of all attempts are below it",
            ),
        ):
            if not holds:
                raise ValueError(message)
