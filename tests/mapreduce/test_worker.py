"""One worker by itself: what it makes of a leader's messages."""

from __future__ import annotations

import pytest

from mapreduce.config import JobsConfig
from mapreduce.effects import Announce, DropJob, JobEnded, Push, Send, TaskOutput, WorkerEffect
from mapreduce.messages import Beat, Copied, CopyOrder, Dissolve, Finished, Grant, GrantItem, Offer
from mapreduce.record import JobStatus, StageKind
from mapreduce.spec import InputSplit, JobPlan, StepPlan
from mapreduce.worker import Worker
from membership.view import Member, NodeId, View

ME, LEADER, SUCCESSOR, PLACE = map(NodeId, ("a", "b", "c", "d"))
JOB = "0" * 32
OVER = Dissolve(job=JOB, ballot=3, status=JobStatus.COMMITTED, keep_stage=1, keep_s=60.0)


def a_worker() -> Worker:
    nodes = (ME, LEADER, SUCCESSOR, PLACE)
    view = View.of(Member(node, f"127.0.0.1:{1 + place}") for place, node in enumerate(nodes))
    return Worker(me=ME, session=1, slots=1, view=view, config=JobsConfig())


def test_the_end_of_a_job_is_announced_once_however_often_its_leader_says_so() -> None:
    worker = a_worker()
    drop = DropJob(job=JOB, keep_stage=1, keep_s=60.0)
    first = worker.receive(OVER, LEADER, 1.0)
    assert first == [drop, Announce(event=JobEnded(job=JOB, status=JobStatus.COMMITTED))]
    # What came late is removed again with each.
    assert worker.receive(OVER, LEADER, 2.0) == [drop]


def pushed_for(worker: Worker, leader: NodeId, ballot: int, attempt: int, now: float) -> int:
    """The number of the push that a leader's first copy order makes."""
    order = CopyOrder(
        job=JOB, ballot=ballot, number=1, stage=0, to=PLACE, partitions=(), tasks=(0,), attempts=(attempt,)
    )
    (push,) = [one for one in worker.receive(order, leader, now) if isinstance(one, Push)]
    assert push.group.attempts == (attempt,)
    return push.number


def told(effects: list[WorkerEffect]) -> list[tuple[NodeId, Copied]]:
    return [
        (one.to, one.message) for one in effects if isinstance(one, Send) and isinstance(one.message, Copied)
    ]


@pytest.mark.parametrize("reason", ["", "no answer"], ids=["done", "failed"])
def test_the_end_of_a_copy_is_told_to_the_leader_that_ordered_it_alone(reason: str) -> None:
    """Its successor counts orders from one again: it would take another copy for the one that it ordered."""
    worker = a_worker()
    before = pushed_for(worker, LEADER, 3, 7, 1.0)
    after = pushed_for(worker, SUCCESSOR, 5, 8, 2.0)

    def end(push: int) -> list[WorkerEffect]:
        if reason:
            return worker.on_push_failed(JOB, push, reason, 3.0)
        return worker.on_pushed(JOB, push, 3.0)

    assert told(end(before)) == []
    assert told(end(after)) == [(SUCCESSOR, Copied(job=JOB, ballot=5, number=1, reason=reason))]


SPLIT = InputSplit(path="/0", name="0", size_bytes=1, key="/0:0")
PLAN = JobPlan(
    name="job", steps=(StepPlan(name="main", splits=(SPLIT,), partitions=1),), split_bytes=100, python="3.11"
)


def offer_of(ballot: int, version: int, *places: NodeId) -> Offer:
    """What a leader says of the job's map stage, whose one partition is to lie at these places."""
    return Offer(
        job=JOB,
        ballot=ballot,
        spec_digest="5" * 64,
        stage=0,
        version=version,
        kind=StageKind.MAP,
        tasks=1,
        partitions=1,
        nodes=places,
        places=(tuple(range(len(places))),) if places else (),
    )


def versions_told(effects: list[WorkerEffect]) -> set[int]:
    return {
        one.message.version for one in effects if isinstance(one, Send) and isinstance(one.message, Finished)
    }


def a_worker_that_pushes() -> tuple[Worker, Push]:
    """A worker with a finished task, and its push to the place of the first leader's version 2."""
    worker = a_worker()
    worker.receive(offer_of(3, 2, PLACE), LEADER, 1.0)
    worker.on_plan(JOB, PLAN, 1.0)
    grant = Grant(
        job=JOB, ballot=3, stage=0, number=1, items=(GrantItem(task=0, attempt=7, number=1),), lease_s=10.0
    )
    worker.receive(grant, LEADER, 1.0)
    output = TaskOutput(partitions=(0,), size_bytes=10)
    (push,) = [one for one in worker.on_task_done(JOB, 7, output, 1.1) if isinstance(one, Push)]
    return worker, push


def test_what_satisfied_one_leader_is_not_said_to_satisfy_the_next_that_has_no_places_yet() -> None:
    """The next one's version of that number, which it makes when there are places, has others in it."""
    worker, push = a_worker_that_pushes()
    assert versions_told(worker.on_pushed(JOB, push.number, 1.2)) == {2}

    told = versions_told(worker.receive(offer_of(5, 1), SUCCESSOR, 2.0))
    for second in range(3, 10):
        told |= versions_told(worker.tick(float(second)))
    assert 2 not in told
    (push,) = [
        one for one in worker.receive(offer_of(5, 2, LEADER), SUCCESSOR, 10.0) if isinstance(one, Push)
    ]
    assert push.to == LEADER
    assert versions_told(worker.on_pushed(JOB, push.number, 10.1)) == {2}


def test_what_is_acknowledged_between_two_leaders_is_of_no_version_of_the_next() -> None:
    worker, push = a_worker_that_pushes()
    beat = Beat(job=JOB, ballot=5, spec_digest="5" * 64, stage=0, version=1)
    told = versions_told(worker.receive(beat, SUCCESSOR, 1.2))
    told |= versions_told(worker.on_pushed(JOB, push.number, 1.3))
    told |= versions_told(worker.receive(offer_of(5, 1), SUCCESSOR, 2.0))
    for second in range(3, 10):
        told |= versions_told(worker.tick(float(second)))
    assert told == {0}
