"""What one peer knows of jobs by itself, without asking anybody.

=====================  ==================================================================================
who is asked           knows
=====================  ==================================================================================
the leader             its record: the truth
a member, job running  its own vote, which may be old or never chosen (`is_fresh` is False)
a member, job over     the record, once it is known to be chosen (`p2p.job_finals`)
who has the spec       that there is such a job, and that nobody who keeps its record answers
anybody else           nothing
=====================  ==================================================================================
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mapreduce.record import JobRecord
from membership.register import majority
from p2p import job_questions as q
from p2p.job_finals import JobFinals
from p2p.job_keys import JOB_KEY
from p2p.job_views import parts_of, row_of, view_of

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["JobKnowledge"]

MAX_ROWS = 1_000


class JobKnowledge:
    """What is known here; `desk` is the service that it is a part of.

    Args:
        finals: records of jobs that are over.
    """

    def __init__(self, desk: JobService, finals: JobFinals) -> None:
        self._desk = desk
        self._finals = finals

    def view(self, job: str) -> q.JobView | None:
        """A job as this peer knows it."""
        desk = self._desk
        group = desk.registers.group(JOB_KEY + job)
        members = tuple(member.node for member in group.members) if group is not None else ()
        epoch = group.place.epoch if group is not None else 0
        leader = desk.leader(job)
        if leader is not None:
            # A job that cannot be written is one that waits, however long it has not been a stall.
            waiting = leader.waiting_for if leader.lacks_quorum else ""
            waiting = waiting or self._quorum_unheard(job) or desk.stalled.get(job, "")
            return view_of(leader.record, desk.plan(job), members=members, epoch=epoch, waiting_for=waiting)
        final = self._finals.get(job)
        if final is not None:
            return view_of(final, desk.plan(job), members=members, epoch=epoch)
        vote = desk.registers.acceptor.get(JOB_KEY + job)
        if vote is None or not any(member.node == desk.me for member in vote.record.members):
            return None
        record, waiting = desk.record_in(vote.record), self._quorum_unheard(job)
        return view_of(
            record, desk.plan(job), members=members, epoch=epoch, waiting_for=waiting, is_fresh=False
        )

    def _quorum_unheard(self, job: str) -> str:
        """Say who of a job's group is not heard, when those who are heard are too few to write its record.

        Who is alone takes long to be sure that the others are dead, and a leader with nothing to write does
        not notice that it could not; that nobody is heard is news enough for those who follow the job.
        """
        group = self._desk.registers.group(JOB_KEY + job)
        if group is None:
            return ""
        heard = {member.id for member in self._desk.swim.view.alive}
        missing = sorted(member.node for member in group.members if member.node not in heard)
        if len(group.members) - len(missing) >= majority(group.members):
            return ""
        return f"waiting for a quorum: {{{', '.join(missing)}}} do not answer"

    def hearsay(self, job: str) -> q.JobView | None:
        """A job of which this peer has the spec alone: whoever keeps its record is not here now.

        That may be a single peer, where few were here when the job was born.
        """
        desk = self._desk
        if desk.is_gone(job) or desk.plan(job) is None:
            return None
        waiting = "waiting for the peers that keep its record: none of them answers"
        unread = JobRecord(job=job, spec_digest="", born_at_s=0.0)
        return view_of(unread, desk.plan(job), members=(), epoch=0, waiting_for=waiting, is_fresh=False)

    def rows(self, prefix: str) -> list[q.JobRow]:
        """Return the jobs whose record this peer keeps, `MAX_ROWS` at most; their ids begin with `prefix`."""
        desk = self._desk
        rows: list[q.JobRow] = []
        for key in desk.registers.acceptor:
            job = key.removeprefix(JOB_KEY)
            if key == job or not job.startswith(prefix) or len(rows) >= MAX_ROWS:
                continue
            leader = desk.leader(job)
            record = leader.record if leader is not None else self._finals.get(job)
            is_fresh = record is not None
            if record is None:
                vote = desk.registers.acceptor.get(key)
                if vote is None or not vote.record.payload:
                    continue
                record = desk.record_in(vote.record)
            group = desk.registers.group(key)
            members = [member.node for member in group.members] if group is not None else []
            rows.append(row_of(record, desk.plan(job), members, is_fresh=is_fresh))
        return rows

    def parts(self, job: str, first: int) -> tuple[int, tuple[q.PartRow, ...]]:
        """Say where parts of a job's result lie.

        Args:
            job: its id.
            first: the first part that is asked for.

        Returns:
            How many parts there are, -1 if that is not known here, and rows for some of them, in order.
        """
        leader, plan = self._desk.leader(job), self._desk.plan(job)
        record = leader.record if leader is not None else self._finals.get(job)
        if record is None or plan is None:
            return -1, ()
        addresses = {member.id: member.address for member in self._desk.swim.view.ring_members}
        return parts_of(record, plan, first, addresses, partial(self._desk.results.holders, job))
