"""Records of jobs that are over, when a peer that keeps them leaves in good order.

Theory
------
While a job runs its leader heals its group.  A job that is over has no leader, so with each member that
leaves its record comes nearer to a minority that nobody can read; where R is 1 the group is one peer, who
would take it along.  So a member that leaves hands its place on first: it seals the group in favour of those
who stay and of the next owners of the job's key (`membership.register.next_group`).  The record is final, and
absorbs, so nobody is disturbed.  Its place is handed on when the next group is known to be born: until then
this peer alone may be able to give birth to it.

Whoever is born into such a group has a record that was chosen, and treats it as its former keeper did
(`p2p.job_lives`): it keeps it for its time to live, and looks after the result.

Where too few would stay for a group that survives a loss nothing is done: those who stay have the record, and
remember it as long as they live.

Bounds: `MAX_AT_A_TIME` records have their turn; after `AGAIN_S` without success a record goes behind those
that wait, and it has `MAX_TRIES` turns; in all as long as a peer may drain.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from membership.errors import UnknownRegister
from membership.register import next_group
from p2p.job_keys import JOB_KEY
from p2p.submissions import acceptors

if TYPE_CHECKING:
    from membership.register import AcceptorId, Record
    from p2p.job_service import JobService

__all__ = ["RecordHandover"]

MAX_AT_A_TIME = 16
AGAIN_S = 2.0
MAX_TRIES = 8


class RecordHandover:
    """What a peer that leaves does about records; `desk` is the service that it is a part of."""

    def __init__(self, desk: JobService) -> None:
        self._desk = desk
        self._waiting: deque[str] = deque()
        self._again_at: dict[str, float] = {}  # of those under way
        self._tries: dict[str, int] = {}  # of all that were ever to be handed on

    def begin(self, now: float) -> None:
        """This peer is about to leave."""
        votes = self._desk.registers.acceptor
        for key in votes:
            vote = votes.get(key)
            is_final = vote is not None and vote.record.terminal and key.startswith(JOB_KEY)
            if is_final and self._desk.lives.until(key.removeprefix(JOB_KEY)) > now:
                self._add(key)
        self.tick(now)

    def job_is_over(self, job: str, now: float) -> None:
        """A job has ended since this peer began to leave, or its record was handed to this peer."""
        vote = self._desk.registers.acceptor.get(JOB_KEY + job)
        if vote is not None and self._desk.registers.me in vote.record.members:
            self._add(JOB_KEY + job)
            self.tick(now)

    def _add(self, key: str) -> None:
        if key not in self._tries:
            self._tries[key] = 0
            self._waiting.append(key)

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
            if self._is_over(key):
                del self._again_at[key]
            elif again_at <= now:
                del self._again_at[key]
                self._waiting.append(key)  # what gets nowhere must not keep the others waiting
        while self._waiting and len(self._again_at) < MAX_AT_A_TIME:
            key = self._waiting.popleft()
            if not self._is_over(key) and self._tries[key] < MAX_TRIES:
                self._try(key, now)

    def _try(self, key: str, now: float) -> None:
        self._tries[key] += 1
        self._again_at[key] = now + AGAIN_S
        members = self._members_without_me(key)
        if members is None:  # sealed, and the next group is not born yet: a read in it gives birth to it
            self._desk.propose(key.removeprefix(JOB_KEY), _unchanged, now)
            return
        try:
            effects = self._desk.registers.seal(key, members, now)
        except UnknownRegister:  # its time to live has just ended
            del self._again_at[key]
            return
        self._desk.perform_register(effects)

    def _is_over(self, key: str) -> bool:
        """Whether nothing is to be done for a record, or not any more."""
        group = self._desk.registers.group(key)
        if group is None or self._desk.is_gone(key.removeprefix(JOB_KEY)):
            return True
        if self._desk.registers.me not in group.members:
            return group.settled
        return self._members_without_me(key) is None

    def _members_without_me(self, key: str) -> tuple[AcceptorId, ...] | None:
        """Who should keep a record instead of its present group; None if that need not, or cannot, change."""
        group, job = self._desk.registers.group(key), key.removeprefix(JOB_KEY)
        me = self._desk.registers.me
        if group is None or me not in group.members:
            return None
        plan = self._desk.plan(job)
        size = 2 * plan.replicas - 1 if plan is not None else len(group.members)
        here = [one for one in acceptors(job, self._desk.swim.view) if one.node != me.node]
        return next_group(group.members, here, size)


def _unchanged(record: Record) -> bytes:
    """A change that only reads."""
    return record.payload
