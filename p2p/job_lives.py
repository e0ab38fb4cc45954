"""How long what is known here of jobs is kept.

A job that is over stays for its time to live; one that was vetted and never born, or that an earlier life of
this peer left on its disk, for a while.  When its time is over nothing is left of a job but its name, so that
what others still say of it begins nothing anew.

*That nothing is heard of a job does not say that it is over*: its group may have been without a majority all
the while.  As long as this peer's own vote says that the job runs, its spec stays, and what an earlier life
left of it (what this life has made, until its worker gives the job up, see `JobsConfig.forget_s`).  A vote on
the job's locks stays until the job is known to be over, for a register that is born twice gives tokens twice.

*Who was away at a job's end*, and comes back when its time to live is over, has a vote that says that the job
runs; and the others have none.  They would take that vote for the register's birth, and the job would run
once more.  So the keepers of a record remember, on disk, that they have forgotten it (`p2p.votes`), and
answer whoever speaks of the job that its time is over.  One such answer is enough: nobody forgets so what has
not ended, nor before he knows how long it was to live.

*Who is born into the group of a job that is over* has no spec at first, so that the time to live is not
known.  It asks for the spec until it comes, and forgets nothing by itself before the longest time to live
that there can be.  Who keeps the record and the spec knows the end by himself, and better than those who tell
him of an earlier one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from mapreduce.effects import DropJob
from mapreduce.failpoints import failpoint
from mapreduce.record import JobRecord, JobStatus
from mapreduce.spec import MAX_TTL_S
from membership.register import NO_BALLOT
from p2p.blocks import is_file_id
from p2p.job_keys import JOB_KEY
from p2p.job_locks import LOCK_KEY
from p2p.segments import SPEC_STAGE

if TYPE_CHECKING:
    from membership.acceptor import Vote
    from p2p.job_service import JobService

__all__ = ["JobLives"]

ORPHAN_S = 3600.0
SPEC_AGAIN_S = 30.0
MAX_GONE = 8_192


class JobLives:
    """When each job's time is over on one peer; `desk` is the service that this is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._expiry: dict[str, float] = {}
        # {job whose record is kept here without its spec: when to ask for that again}
        self._unknown: dict[str, float] = {}
        # Jobs of which this peer was only told that they are over, by who looks after their results.
        self._over: set[str] = set()
        # Jobs whose time to live is over: what others still say of their registers begins nothing anew.
        self._gone: OrderedDict[str, None] = OrderedDict()

    def start(self, now: float) -> None:
        """Look at what an earlier life has left."""
        desk = self._desk
        for job in desk.store.jobs:
            if not is_file_id(job):
                self._expiry[job] = now + ORPHAN_S
                desk.worker.on_stored(job, now)  # it asks whether the job is over
        for key in list(desk.registers.acceptor):
            vote = desk.registers.acceptor.get(key)
            if vote is not None and vote.record.terminal and key.startswith(JOB_KEY):
                self._keep_final(desk.record_in(vote.record), now)
            elif key.startswith(JOB_KEY):
                desk.worker.on_stored(key.removeprefix(JOB_KEY), now)
            elif key.startswith(LOCK_KEY):
                self._expiry.setdefault(key.removeprefix(LOCK_KEY), now + ORPHAN_S)

    def _keep_final(self, record: JobRecord, now: float) -> None:
        """The record of a job that ended at some time is kept here: for its time to live."""
        job, end = record.job, self._end_of(record)
        if end is not None:
            self._unknown.pop(job, None)
            self._expiry[job] = end
        else:
            self._want_spec(record, now)
        if record.status is JobStatus.COMMITTED:
            self._desk.results.job_is_over(job, now, is_sure=False)
        self._desk.results.record_is_here(job, now)

    def _want_spec(self, record: JobRecord, now: float) -> None:
        """How long a job is to live is not known: nothing of it may go until its spec has said that."""
        job = record.job
        if job not in self._unknown and not self._was_told(job):
            longest = record.ended_at_s + MAX_TTL_S - self._desk.wall_offset_s
            self._expiry[job] = max(longest, now + ORPHAN_S)
        others = sorted(self._desk.here() - {self._desk.me})
        self._unknown[job] = now + SPEC_AGAIN_S if others else now
        if others:
            self._desk.arrivals.want_spec(job, others, ("kept", job), now)

    def spec_sought(self, job: str, reason: str, now: float) -> None:
        """The spec of a job whose record is kept here has come, or has not (`reason`): then ask again."""
        if job in self._unknown and reason:
            self._desk.log(f"job {job[:12]} is kept here without its spec: {reason}")
        elif job in self._unknown:
            self._look_again(job, now)

    def _look_again(self, job: str, now: float) -> None:
        vote = self._final_vote(job)
        if vote is None:
            del self._unknown[job]
        else:
            self._keep_final(self._desk.record_in(vote.record), now)

    def _final_vote(self, job: str) -> Vote | None:
        """This peer's own vote, if it is a member's and says that the job is over."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        if vote is None or not vote.record.terminal or self._desk.registers.me not in vote.record.members:
            return None
        return vote

    def _end_of(self, record: JobRecord) -> float | None:
        """When a job's time to live ends; None: without its spec nobody knows."""
        plan = self._desk.plan(record.job)
        return None if plan is None else record.ended_at_s + plan.ttl_s - self._desk.wall_offset_s

    def _own_end(self, job: str) -> float | None:
        """When a job's time to live ends by what this peer itself keeps of it; None: that says nothing."""
        vote = self._final_vote(job)
        return None if vote is None else self._end_of(self._desk.record_in(vote.record))

    def vote_saved(self, key: str, now: float) -> None:
        """A vote of this peer's is on disk: it may keep the record of a job that is over from now on.

        Of a later epoch the record with which it is born was chosen; one that is accepted may never be: what
        became of its job is asked for, should nobody say so.
        """
        job = key.removeprefix(JOB_KEY)
        vote = self._final_vote(job)
        if vote is None or self.is_gone(job):
            return
        is_born = vote.accepted == NO_BALLOT and vote.place.epoch > 0
        if is_born or (vote.place.epoch > 0 and job in self._over):
            self._keep_final(self._desk.record_in(vote.record), now)
        elif job not in self._expiry:
            self._desk.worker.on_stored(job, now)

    def were_forgotten(self, jobs: Iterable[str]) -> None:
        """Earlier lives of this peer have kept the records of these, until their time to live was over."""
        self._gone.update(dict.fromkeys(jobs))
        while len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def time_is_over(self, job: str, now: float) -> None:
        """Somebody who kept a job's record says that its time to live is over."""
        is_known = (
            job in self._desk.store.jobs or self._desk.registers.acceptor.get(JOB_KEY + job) is not None
        )
        end = self._own_end(job)
        if end is not None and end > now:
            self._expiry.setdefault(job, end)  # whoever says so did not know how long it was to live
        elif is_known and not self.is_gone(job):
            self._over.add(job)
            self._expiry[job] = now

    def expires(self, job: str, at: float) -> None:
        """Forget a job then, unless more is heard of it; never sooner than was decided before."""
        # Who submits again a job that is over must not shorten the life of its result.
        self._expiry[job] = max(at, self._expiry.get(job, at))

    def keep_result(self, job: str, at: float) -> None:
        """A job is over: keep what lies here of its result, or will be sent, until then.

        Who keeps the record, and knows the time to live, does not let others shorten it.
        """
        self._over.add(job)
        self._expiry[job] = max(at, self._own_end(job) or at)

    def goes_on(self, job: str) -> None:
        """Somebody leads the job, or it was just born."""
        # A leader that slept while its job ended leads it still, as far as it knows.
        if not self._was_told(job):
            self._expiry.pop(job, None)

    def until(self, job: str) -> float:
        """When what is known here of a job is forgotten; infinity if that is not decided."""
        end = self._own_end(job) if job in self._unknown else None
        return end if end is not None else self._expiry.get(job, inf)

    def is_gone(self, job: str) -> bool:
        """Whether a job was here, and its time to live is over."""
        return job in self._gone

    def is_over(self, job: str) -> bool:
        """Whether a job is known to have ended."""
        # A minority of the group may never have been asked to accept the end, but everybody was told of it.
        if self._was_told(job):
            return True
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        return vote is not None and vote.record.terminal

    def _was_told(self, job: str) -> bool:
        """Whether somebody has said that a job has ended, who knows."""
        return job in self._over or self._desk.worker.fate_of(job) is not None

    def tick(self, now: float) -> None:
        """Forget what is due."""
        for job in [job for job, at in self._unknown.items() if at <= now]:
            self._look_again(job, now)
        for job in [job for job, due in self._expiry.items() if due <= now]:
            if self._runs(job):
                self._expiry[job] = now + ORPHAN_S
                continue
            end = self._own_end(job)
            if end is not None and end > now and not self._was_told(job):
                self._expiry[job] = end  # it was a guess, from before this peer knew of the end
                continue
            del self._expiry[job]
            self._forget(job)

    def drop(self, effect: DropJob, now: float) -> None:
        """A job is over; its result and its record stay for their time to live."""
        job = effect.job
        failpoint("drop.begin")
        self._desk.ring_inputs.drop_job(job)
        self._desk.runner.drop_job(job)
        self._desk.locks.drop_job(job)
        if self.is_over(job):  # else its worker has given it up, having heard nothing for so long
            self._desk.locks.forget(job)
        self._desk.arrivals.drop_job(job)
        keep = {SPEC_STAGE, effect.keep_stage} if effect.keep_stage >= 0 else {SPEC_STAGE}
        self._desk.store.drop_job(job, keep)
        self._expiry[job] = now + effect.keep_s
        if effect.keep_stage >= 0:
            self._desk.results.job_is_over(job, now)
        self._desk.results.record_is_here(job, now)
        failpoint("drop.done")

    def _forget(self, job: str) -> None:
        """A job's time to live is over."""
        self._unknown.pop(job, None)
        self._desk.runner.drop_job(job)
        self._desk.locks.drop_job(job)
        self._desk.store.drop_job(job)
        self._desk.forget(job)
        self._desk.worker.forget(job)
        is_over = self.is_over(job)
        self._over.discard(job)
        self._desk.results.forget(job)
        if is_over:
            self._desk.locks.forget(job)
            self._desk.leading.forget(job)
            self._gone[job] = None
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
            self._desk.perform_register(self._desk.registers.forget(JOB_KEY + job))
        self._desk.answers.forget(job)
        self._desk.vetting.forget(job)

    def _runs(self, job: str) -> bool:
        """Whether this peer is one of those that keep a job's record, and has not heard of its end."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        is_member = vote is not None and self._desk.registers.me in vote.record.members
        return is_member and not self.is_over(job)
