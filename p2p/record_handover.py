"""Records of jobs that are over, when a peer that keeps them leaves in good order.

Theory
------
While a job runs its leader heals its group.  A job that is over has no leader, so with each member that
leaves its record comes nearer to a minority that nobody can read; where R is 1 the group is one peer, who
would take it along.  So a member that leaves hands its place on first: it seals the group in favour of those
who stay and of the next owners of the job's key (`membership.register.next_group`).  The record is final, and
absorbs, so nobody is disturbed.

Whoever is born into such a group has a record that was chosen, and treats it as its former keeper did
(`p2p.job_lives`): it keeps it for its time to live, and looks after the result.

Where too few would stay for a group that survives a loss nothing is done: those who stay have the record, and
remember it as long as they live.

Bounds: `MAX_AT_A_TIME` records; each is begun again every `AGAIN_S`; in all as long as a peer may drain.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from membership.errors import UnknownRegister
from membership.register import next_group
from p2p.job_keys import JOB_KEY
from p2p.submissions import acceptors

if TYPE_CHECKING:
    from membership.register import AcceptorId
    from p2p.job_service import JobService

__all__ = ["RecordHandover"]

MAX_AT_A_TIME = 16
AGAIN_S = 2.0


class RecordHandover:
    """What a peer that leaves does about records; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._waiting: list[str] = []
        self._again_at: dict[str, float] = {}  # of those under way

    def begin(self, now: float) -> None:
        """This peer is about to leave."""
        votes = self._desk.registers.acceptor
        for key in votes:
            vote = votes.get(key)
            is_final = vote is not None and vote.record.terminal and key.startswith(JOB_KEY)
            if is_final and self._desk.lives.until(key.removeprefix(JOB_KEY)) > now:
                self._waiting.append(key)
        self.tick(now)

    @property
    def is_done(self) -> bool:
        """Whether every record lies with others, as far as can be."""
        return not self._waiting and not self._again_at

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min(self._again_at.values(), default=inf)

    def tick(self, now: float) -> None:
        """See which records have been handed on, and go on with others."""
        for key, again_at in list(self._again_at.items()):
            members = self._members_without_me(key)
            if members is None:
                del self._again_at[key]
            elif again_at <= now:
                self._seal(key, members, now)
        while self._waiting and len(self._again_at) < MAX_AT_A_TIME:
            key = self._waiting.pop()
            members = self._members_without_me(key)
            if members is not None:
                self._seal(key, members, now)

    def _seal(self, key: str, members: tuple[AcceptorId, ...], now: float) -> None:
        try:
            effects = self._desk.registers.seal(key, members, now)
        except UnknownRegister:  # its time to live has just ended
            self._again_at.pop(key, None)
            return
        self._again_at[key] = now + AGAIN_S
        self._desk.perform_register(effects)

    def _members_without_me(self, key: str) -> tuple[AcceptorId, ...] | None:
        """Who should keep a record instead of its present group; None if there is nothing to be done."""
        group, job = self._desk.registers.group(key), key.removeprefix(JOB_KEY)
        me = self._desk.registers.me
        if group is None or me not in group.members or self._desk.is_gone(job):
            return None
        plan = self._desk.plan(job)
        size = 2 * plan.replicas - 1 if plan is not None else len(group.members)
        here = [one for one in acceptors(job, self._desk.swim.view) if one.node != me.node]
        return next_group(group.members, here, size)
