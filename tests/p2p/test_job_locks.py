"""The locks of one peer's jobs, with a service around them that only writes down what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from mapreduce.config import JobsConfig
from mapreduce.locking import LockClaim, WantLocks
from mapreduce.record import born, with_lock_members
from membership import register_effects as reg
from membership.register import AcceptorId, Group, Place, Record
from membership.view import NodeId
from p2p.job_locks import HEAL_PAUSE_S, LOCK_KEY, JobLocks
from p2p.job_service import JobService

JOB = "0" * 32
MEMBERS = tuple(AcceptorId(NodeId(name), "00" * 8) for name in ("a", "b", "c"))
RECORD = born(JOB, "00" * 32, 0.0)


class FakeRegisters:
    """Knows one lock register's group, and takes every change."""

    def __init__(self) -> None:
        self.known = Group(key=LOCK_KEY + JOB, place=Place(0, 0), members=MEMBERS)

    def group(self, _key: str) -> Group:
        return self.known

    def found(self, _key: str, _record: Record, _now: float) -> list[reg.RegisterEffect]:
        return []

    def propose(self, _key: str, _change: object, _now: float) -> tuple[int, list[reg.RegisterEffect]]:
        return 1, []


class FakeDesk:
    """What locks use of a service that leads the job; proposals to the job's register are numbered from 0."""

    def __init__(self) -> None:
        self.registers = FakeRegisters()
        self.record = RECORD
        self.has_ended = False
        self.named = 0

    def leader(self, _job: str) -> FakeDesk:
        return self

    def job_group(self, _job: str) -> Group:
        return self.registers.known

    def plan(self, _job: str) -> None:
        return None

    def perform_register(self, _effects: object) -> None:
        pass

    def propose(self, _job: str, _change: Callable[[Record], bytes], _now: float) -> int:
        self.named += 1
        return self.named - 1


def locks_on(desk: FakeDesk) -> JobLocks:
    return JobLocks(cast(JobService, desk), session=1, config=JobsConfig())


def ask(locks: JobLocks, number: int) -> None:
    claims = (LockClaim(lock="x", serial=1),)
    locks.hear(WantLocks(job=JOB, session=1, number=number, claims=claims), NodeId("a"), 0.0)


def test_a_first_name_that_came_to_nothing_is_sought_again_when_a_lock_is_wanted_again() -> None:
    desk = FakeDesk()
    locks = locks_on(desk)
    ask(locks, 1)
    ask(locks, 2)
    assert desk.named == 1
    locks.naming_failed(JOB, (7,))  # somebody else's
    ask(locks, 3)
    assert desk.named == 1
    locks.naming_failed(JOB, (0,))
    ask(locks, 4)
    assert desk.named == 2


def test_a_later_group_is_named_again_until_the_jobs_record_has_it() -> None:
    desk = FakeDesk()
    locks = locks_on(desk)
    locks.lead(JOB, with_lock_members(RECORD, 0, MEMBERS), 0.0)
    locks.on_register(reg.Founded(group=desk.registers.known), 0.0)
    locks.heal(10.0)
    assert desk.named == 0
    desk.registers.known = replace(desk.registers.known, place=Place(0, 1))
    locks.on_register(reg.GroupChanged(group=desk.registers.known), 10.0)
    assert desk.named == 1
    locks.heal(20.0)
    assert desk.named == 1, "while a proposal is under way there is no second one"
    locks.naming_failed(JOB, (0,))
    locks.heal(20.0)
    locks.heal(20.0 + HEAL_PAUSE_S)
    assert desk.named == 2
    named = with_lock_members(RECORD, 1, MEMBERS)
    assert locks.on_read(JOB, 1, named, 30.0)
    locks.heal(40.0)
    assert desk.named == 2
