"""How long a peer keeps what lies with it of a job that is over, whatever others go on saying of the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mapreduce.config import JobsConfig
from mapreduce.messages import AskFate, Beat, Dissolve
from mapreduce.record import JobStatus
from mapreduce.spec import InputSplit, JobPlan, StepPlan
from membership.view import Member, NodeId
from p2p import job_inquiries as iq
from p2p.job_vetting import UNBORN_S
from p2p.service import Say
from p2p.spec_packing import spec_digest
from tests.p2p.test_job_service import (
    JOB,
    LEFT_S,
    ORPHAN_S,
    Alone,
    Talking,
    outputs_from,
    spec_of_another_python,
)

KEEP_S = 600.0
PART, ATTEMPT = 1, 2  # the result's stage, and the attempt whose output lies here
OVER = Dissolve(job=JOB, ballot=5, status=JobStatus.COMMITTED, keep_stage=PART, keep_s=KEEP_S)


def with_a_part(directory: Path, job: str = JOB) -> Talking:
    """A peer that has heard a job's end since it started, and holds a part of its result."""
    peer = Talking(directory)
    peer.engine.store.put(job, PART, 0, ATTEMPT, b"part")
    peer.hear(replace(OVER, job=job), "b")
    return peer


def told(peer: Talking) -> list[float]:
    """For how long others were told to keep what they have."""
    return [one.message.keep_s for one in peer.said if isinstance(one.message, Dissolve)]


def test_who_submits_again_a_job_that_is_over_does_not_shorten_the_life_of_its_result(tmp_path: Path) -> None:
    job, packed = "1" * 32, spec_of_another_python()
    peer = with_a_part(tmp_path, job)
    try:
        peer.hear(iq.Vet(number=1, job=job, spec_digest=spec_digest(packed), spec=packed), "b")
        peer.leave_alone(UNBORN_S)
        assert peer.engine.store.holds(job, PART, ATTEMPT)
        peer.leave_alone(KEEP_S - UNBORN_S)
        assert not peer.engine.store.holds(job, PART, ATTEMPT)
    finally:
        peer.engine.close()


def test_a_leader_that_slept_while_its_job_ended_does_not_make_its_result_immortal(tmp_path: Path) -> None:
    peer = with_a_part(tmp_path)
    try:
        peer.hear(Beat(job=JOB, ballot=1, spec_digest="00" * 32, stage=0, version=0), "c")
        peer.leave_alone(KEEP_S)
        assert not peer.engine.store.holds(JOB, PART, ATTEMPT)
    finally:
        peer.engine.close()


def test_who_brings_outputs_long_after_the_end_keeps_its_own_for_what_is_left(tmp_path: Path) -> None:
    peer = with_a_part(tmp_path / "a")
    try:
        peer.leave_alone(KEEP_S - 10.0)
        peer.said.clear()
        for arrival in outputs_from(tmp_path / "b", 0):
            peer._take(peer.engine.pump([arrival], peer.now))
        assert told(peer)
        assert max(told(peer)) == pytest.approx(10.0, abs=4.0)
    finally:
        peer.engine.close()


def test_outputs_of_a_job_of_which_nothing_is_heard_are_asked_about_and_do_not_stay(tmp_path: Path) -> None:
    # Who brings them has slept for long, and this peer has begun since.
    peer = Talking(tmp_path / "a")
    try:
        peer.engine.drain(peer.now)
        for arrival in outputs_from(tmp_path / "b", 0):
            peer._take(peer.engine.pump([arrival], peer.now))
        assert peer.engine.store.holds(JOB, 0, 1)
        peer.advance(2 * JobsConfig().orphan_s)
        assert any(isinstance(one.message, AskFate) for one in peer.said)
        assert peer.engine.worker.may_leave  # for all that, it does not wait
        peer.leave_alone(JobsConfig().forget_s)
        assert JOB not in peer.engine.store.jobs
    finally:
        peer.engine.close()


class Keeper(Talking):
    """The one member of the job's group, started anew after the end."""

    def __init__(self, directory: Path) -> None:
        self.said: list[Say] = []
        Alone.__init__(self, directory, members=1)

    def _known(self) -> list[Member]:
        return [Member(NodeId("b"), "memory:b")]


def test_who_read_of_the_end_in_the_record_tells_others_to_keep_the_result_for_what_is_left(
    tmp_path: Path,
) -> None:
    peer = Keeper(tmp_path)
    try:
        step = StepPlan(
            name="main", map_only=True, splits=(InputSplit(path="/0", name="0", size_bytes=1, key="/0:0"),)
        )
        plan = JobPlan(name="job", steps=(step,), split_bytes=100, python="3.11", ttl_s=ORPHAN_S)
        peer.engine.take_plan(JOB, plan)
        peer.hear(AskFate(job=JOB), "b")
        peer.advance(0.2)  # it reads the register
        assert told(peer) == [pytest.approx(LEFT_S)]
    finally:
        peer.engine.close()
