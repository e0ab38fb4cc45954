"""Named locks of jobs on this peer: claims of its tasks, keepers of the jobs that it leads, registers.

Theory
------
A job's locks lie in a register of their own, "locks/ID", which most jobs never need, so it is founded when
the first task asks for a lock. Two leaders might found it at the same time, and must choose the same group
for it:

=========  ============================================================================  ==================
phase      what happens                                                                  then
=========  ============================================================================  ==================
NAMING     the group that keeps the job's record is written into that record, once, as   FOUNDING
           the one that keeps its locks
FOUNDING   whoever leads founds the register with what the record says (doing that       KEEPING
           again is harmless)
KEEPING    a `LockKeeper` amends the table. When a member dies, its epoch is sealed as
           a job's is, and the next group's name is written into the job's record
=========  ============================================================================  ==================

The register has no election: the job's leader alone proposes to it, as long as it is the only one to think
that it leads. The keeper goes with the leadership; a later leader finds the group's name in the record.

*The end.* When a job is over its votes on locks are forgotten, and never before (`p2p.job_lives`). A deposed
leader, cut off from the end of its job, may then found the register anew, with low tokens: for tasks of a job
that is over, fenced out by whatever has seen a token of its locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, assert_never

from mapreduce.config import JobsConfig
from mapreduce.lock_claims import ClaimsEffect, LockClaims
from mapreduce.lock_keeper import KeeperEffect, LockKeeper
from mapreduce.locking import (
    AmendLocks,
    HasLocks,
    LockDenied,
    LockGranted,
    LockLost,
    SayLocks,
    TellLocks,
    WantLocks,
)
from mapreduce.orders import LockAnswer
from mapreduce.record import JobRecord, with_lock_members
from membership import register_effects as reg
from membership.errors import TooManyProposals, UnknownRegister
from membership.locks import amend, locks_in
from membership.register import AcceptorId, Group, Place, Record, next_group
from membership.view import NodeId
from p2p import task_runner as t
from p2p.job_protocol import pack_record
from p2p.submissions import acceptors

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["LOCK_KEY", "JobLocks"]

LOCK_KEY = "locks/"
HEAL_PAUSE_S = 2.0
NOTHING = -1


@dataclass(slots=True)
class _Keeping:
    """The locks of a job that this peer leads.

    Attributes:
        keeper: None until its register is founded.
        naming: number of the proposal to the job's register that names the group, or NOTHING.
        named: the epoch of the group that the job's record names, as far as is known here; NOTHING: none.
        amending: number of the proposal to the lock register that is under way, or NOTHING.
    """

    keeper: LockKeeper | None = None
    naming: int = NOTHING
    named: int = NOTHING
    amending: int = NOTHING
    healed_at: float = -inf


class JobLocks:
    """The locks of one peer; `desk` is the service that it is a part of.

    Args:
        session: of this peer's process.
        config: settings of locks.
    """

    def __init__(self, desk: JobService, *, session: int, config: JobsConfig) -> None:
        self._desk = desk
        self._config = config
        self._claims = LockClaims(session=session, config=config)
        self._keepings: dict[str, _Keeping] = {}

    # ---- tasks of this peer --------------------------------------------------------------------------------

    def asked(self, event: t.LockAsked, now: float) -> None:
        """A task here wants a lock, or lets go of one."""
        if event.is_wanted:
            self._perform(self._claims.want(event.job, event.attempt, event.ticket, event.name, now))
        else:
            self._perform(self._claims.release(event.job, event.attempt, event.ticket, now))

    def attempt_ended(self, job: str, attempt: int, now: float) -> None:
        """A task here is over, in whatever way."""
        self._perform(self._claims.attempt_ended(job, attempt, now))

    def _perform(self, effects: list[ClaimsEffect]) -> None:
        for effect in effects:
            match effect:
                case SayLocks(message=message):
                    heard = self._desk.heard.get(message.job)
                    if heard is not None:
                        self._desk.say(heard.leader, message)
                case LockGranted(job=job, attempt=attempt, ticket=ticket, token=token):
                    self._desk.runner.answer_lock(job, attempt, LockAnswer(ticket=ticket, token=token))
                case LockDenied(job=job, attempt=attempt, ticket=ticket, reason=reason):
                    self._desk.runner.answer_lock(job, attempt, LockAnswer(ticket=ticket, reason=reason))
                case LockLost(job=job, attempt=attempt, reason=reason):
                    self._desk.runner.end(job, attempt, reason)
                case _:
                    assert_never(effect)

    # ---- what peers say ------------------------------------------------------------------------------------

    def hear(self, message: WantLocks | HasLocks, sender: NodeId, now: float) -> None:
        """Take a message about locks."""
        if isinstance(message, HasLocks):
            self._perform(self._claims.receive(message))
            return
        leader = self._desk.leader(message.job)
        if leader is None or leader.has_ended:
            return  # it will be said again, to whoever leads then
        keeping = self._keepings.get(message.job)
        if keeping is None:
            self.lead(message.job, leader.record, now, is_wanted=True)
        elif keeping.keeper is not None:
            self._keep(message.job, keeping.keeper.receive(message, sender, now), now)

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Membership says so."""
        for job, keeping in list(self._keepings.items()):
            if keeping.keeper is not None:
                self._keep(job, keeping.keeper.peer_is_gone(node, now), now)

    # ---- keeping -------------------------------------------------------------------------------------------

    def lead(self, job: str, record: JobRecord, now: float, *, is_wanted: bool = False) -> None:
        """This peer leads a job: keep its locks, if it has any or one is wanted."""
        if record.lock_members:
            self._keepings[job] = _Keeping(named=record.lock_epoch)
            self._found(job, record, now)
        elif is_wanted:
            group = self._desk.job_group(job)
            if group is not None:
                self._keepings[job] = _Keeping()
                self._name(job, 0, group.members, now)

    def _name(self, job: str, epoch: int, members: tuple[AcceptorId, ...], now: float) -> None:
        """Write into the job's record who keeps its locks."""

        def change(record: Record) -> bytes:
            before = self._desk.record_in(record)
            after = with_lock_members(before, epoch, members)
            return record.payload if after is before else pack_record(after)

        number = self._desk.propose(job, change, now)
        keeping = self._keepings[job]
        keeping.naming = NOTHING if number is None else number
        if number is None:
            self._not_named(job, keeping)

    def _not_named(self, job: str, keeping: _Keeping) -> None:
        """The first name is sought again when somebody asks for a lock again, a later one by `heal`."""
        if keeping.keeper is None:
            del self._keepings[job]

    def naming_failed(self, job: str, proposals: tuple[int, ...]) -> None:
        """Proposals to a job's register were refused or given up, ours perhaps among them."""
        keeping = self._keepings.get(job)
        if keeping is not None and keeping.naming in proposals:
            keeping.naming = NOTHING
            self._not_named(job, keeping)

    def on_read(self, job: str, proposal: int, record: JobRecord, now: float) -> bool:
        """A proposal to a job's register is chosen; whether it was one of ours."""
        keeping = self._keepings.get(job)
        if keeping is None or keeping.naming != proposal:
            return False
        keeping.naming, keeping.named = NOTHING, record.lock_epoch
        if keeping.keeper is None and record.lock_members:
            self._found(job, record, now)
        return True

    def _found(self, job: str, record: JobRecord, now: float) -> None:
        """Bring the lock register to life, or find it."""
        key, registers = LOCK_KEY + job, self._desk.registers
        if record.lock_epoch > 0:
            place = Place(0, record.lock_epoch)
            group = Group(key=key, place=place, members=record.lock_members)
            self._desk.perform_register(registers.learn(group, now))
            self._begin(job, now)
            return
        first = Record(generation=0, epoch=0, members=record.lock_members)
        self._desk.perform_register(registers.found(key, first, now))

    def _begin(self, job: str, now: float) -> None:
        keeping = self._keepings.get(job)
        if keeping is not None and keeping.keeper is None:
            keeping.keeper = LockKeeper(job=job, config=self._config)
            self._keep(job, keeping.keeper.start(), now)

    def _keep(self, job: str, effects: list[KeeperEffect], now: float) -> None:
        for effect in effects:
            match effect:
                case TellLocks(to=to, message=message):
                    self._desk.say(to, message)
                case AmendLocks(claims=claims, releases=releases):
                    self._amend(job, claims, releases, now)
                case _:
                    assert_never(effect)

    def _amend(
        self, job: str, claims: tuple[tuple[str, str], ...], releases: tuple[str, ...], now: float
    ) -> None:
        keeping = self._keepings[job]
        try:
            keeping.amending, effects = self._desk.registers.propose(
                LOCK_KEY + job, amend(claims, releases), now
            )
        except (UnknownRegister, TooManyProposals):
            assert keeping.keeper is not None
            self._keep(job, keeping.keeper.on_failed(now), now)
            return
        self._desk.perform_register(effects)

    # ---- what becomes of it --------------------------------------------------------------------------------

    def on_register(self, event: reg.RegisterEvent, now: float) -> None:
        """Take what a lock register reports."""
        match event:
            case reg.Founded(group=group):
                self._begin(group.key.removeprefix(LOCK_KEY), now)
            case reg.Committed(key=key, proposal=number, record=record):
                job = key.removeprefix(LOCK_KEY)
                keeping = self._keepings.get(job)
                if keeping is not None and keeping.keeper is not None and keeping.amending == number:
                    keeping.amending = NOTHING
                    self._keep(job, keeping.keeper.on_chosen(locks_in(record), now), now)
            case reg.Abandoned(key=key, proposals=numbers):
                self._failed(key, numbers, now)
            case reg.Refused(key=key, proposal=number):
                self._failed(key, (number,), now)
            case reg.GroupChanged(group=group):
                job = group.key.removeprefix(LOCK_KEY)
                if job in self._keepings:
                    self._name(job, group.place.epoch, group.members, now)
            case reg.QuorumLost() | reg.QuorumRegained() | reg.Leads() | reg.LeaderHeard() | reg.Outbid():
                pass  # who waits for a lock waits; nobody leads these registers
            case _:
                assert_never(event)

    def _failed(self, key: str, numbers: tuple[int, ...], now: float) -> None:
        job = key.removeprefix(LOCK_KEY)
        keeping = self._keepings.get(job)
        if keeping is not None and keeping.keeper is not None and keeping.amending in numbers:
            keeping.amending = NOTHING
            self._keep(job, keeping.keeper.on_failed(now), now)

    # ---- time, and the end ---------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._perform(self._claims.tick(now))
        for job, keeping in list(self._keepings.items()):
            if self._desk.leader(job) is None:
                self._stop(job)
            elif keeping.keeper is not None and keeping.keeper.next_deadline() <= now:
                self._keep(job, keeping.keeper.tick(now), now)

    def next_deadline(self) -> float:
        """When to be ticked again (seconds)."""
        keepers = [one.keeper.next_deadline() for one in self._keepings.values() if one.keeper is not None]
        return min([self._claims.next_deadline(), *keepers])

    def heal(self, now: float) -> None:
        """Give the lock registers that we keep a group of the living again, and see that it is named."""
        for job, keeping in list(self._keepings.items()):
            group, plan = self._desk.registers.group(LOCK_KEY + job), self._desk.plan(job)
            if keeping.keeper is None or group is None or now - keeping.healed_at < HEAL_PAUSE_S:
                continue
            if keeping.naming == NOTHING and group.place.epoch > keeping.named:
                keeping.healed_at = now
                self._name(job, group.place.epoch, group.members, now)
                continue
            if plan is None:
                continue
            alive = acceptors(job, self._desk.swim.view)
            members = next_group(group.members, alive, 2 * plan.replicas - 1)
            if members is not None and set(members) != set(group.members):
                keeping.healed_at = now
                self._desk.perform_register(self._desk.registers.seal(group.key, members, now))

    def _stop(self, job: str) -> None:
        """We lead the job no more."""
        if self._keepings.pop(job, None) is not None:
            self._desk.registers.close(LOCK_KEY + job)

    def drop_job(self, job: str) -> None:
        """This peer has no part in the job any more."""
        self._claims.drop_job(job)
        self._stop(job)

    def forget(self, job: str) -> None:
        """The job is known to be over, and its locks with it."""
        self._desk.perform_register(self._desk.registers.forget(LOCK_KEY + job))
