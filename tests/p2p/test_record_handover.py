"""In which order a peer that leaves hands records on, and when it gives one up; on a fake desk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from membership.register import AcceptorId, Group, Place, Record
from membership.view import NodeId
from p2p import record_handover
from p2p.job_keys import JOB_KEY
from p2p.record_handover import AGAIN_S, MAX_TRIES, RecordHandover

ME, *OTHERS = (AcceptorId(NodeId(name), "00" * 8) for name in "abcd")


class Desk:
    """Knows some final records, each kept by this peer and two others; of `stuck` no seal is ever chosen."""

    def __init__(self, jobs: list[str], stuck: set[str]) -> None:
        self.groups = {
            JOB_KEY + job: Group(key=JOB_KEY + job, place=Place(0, 0), members=(ME, *OTHERS[:2]))
            for job in jobs
        }
        record = Record(generation=0, epoch=0, members=(ME, *OTHERS[:2]), terminal=True)
        self.acceptor = {key: SimpleNamespace(record=record) for key in self.groups}
        self.sealed: list[str] = []
        self.stuck = stuck
        self.me = ME
        self.registers = self
        self.lives = SimpleNamespace(until=lambda _job: 1e9)
        self.swim = SimpleNamespace(view=None)

    def group(self, key: str) -> Group:
        return self.groups[key]

    def seal(self, key: str, members: tuple[AcceptorId, ...], _now: float) -> list[Any]:
        job = key.removeprefix(JOB_KEY)
        self.sealed.append(job)
        if job not in self.stuck:
            self.groups[key] = Group(key=key, place=Place(0, 1), members=members, settled=True)
        return []

    def perform_register(self, _effects: list[Any]) -> None:
        pass

    def plan(self, _job: str) -> None:
        return None

    def is_gone(self, _job: str) -> bool:
        return False


def test_records_that_cannot_be_handed_on_let_others_have_their_turn_and_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_handover, "MAX_AT_A_TIME", 2)
    monkeypatch.setattr(record_handover, "acceptors", lambda *_: [ME, *OTHERS])
    desk: Any = Desk(["1", "2", "3", "4"], stuck={"1", "2"})
    handover = RecordHandover(desk)
    handover.begin(0.0)
    assert desk.sealed == ["1", "2"]
    handover.tick(AGAIN_S)
    assert desk.sealed == ["1", "2", "3", "4"]
    now = AGAIN_S
    while not handover.is_done:
        assert now <= 4 * MAX_TRIES * AGAIN_S
        now += AGAIN_S / 2
        handover.tick(now)
    assert [desk.sealed.count(job) for job in "1234"] == [MAX_TRIES, MAX_TRIES, 1, 1]
