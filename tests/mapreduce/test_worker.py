"""One worker by itself: what it makes of a leader's messages."""

from __future__ import annotations

from mapreduce.config import JobsConfig
from mapreduce.effects import Announce, DropJob, JobEnded
from mapreduce.messages import Dissolve
from mapreduce.record import JobStatus
from mapreduce.worker import Worker
from membership.view import Member, NodeId, View

ME, LEADER = NodeId("a"), NodeId("b")
JOB = "0" * 32
OVER = Dissolve(job=JOB, ballot=3, status=JobStatus.COMMITTED, keep_stage=1, keep_s=60.0)


def test_the_end_of_a_job_is_announced_once_however_often_its_leader_says_so() -> None:
    view = View.of(Member(node, f"127.0.0.1:{1 + place}") for place, node in enumerate((ME, LEADER)))
    worker = Worker(me=ME, session=1, slots=1, view=view, config=JobsConfig())
    drop = DropJob(job=JOB, keep_stage=1, keep_s=60.0)
    first = worker.receive(OVER, LEADER, 1.0)
    assert first == [drop, Announce(event=JobEnded(job=JOB, status=JobStatus.COMMITTED))]
    # What came late is removed again with each.
    assert worker.receive(OVER, LEADER, 2.0) == [drop]
