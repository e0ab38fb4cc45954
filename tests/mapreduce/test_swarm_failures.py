"""A job that must not end well: attempts that fail, bad input, a record that is full, a cancellation.

An attempt that failed is tried again elsewhere, a bounded number of times; then the job fails, everywhere and
at once, and its record says what happened, even where it has hardly room to say it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from mapreduce import effects as e
from mapreduce.errors import InputError, TaskFailed
from mapreduce.failures import error_of
from mapreduce.record import Failure, JobStatus, StageKind
from p2p.job_protocol import pack_record
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan, plan_with, step

MAP = StageKind.MAP
ERROR = Failure(kind="UserCode", message="ValueError: no", details="Traceback\n  line 3", position="line 7")


# -- attempts -------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_on_another_peer() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda order, peer: (
        ERROR if order.setup.kind is MAP and order.task == 2 and order.number == 1 else output_of(order)
    )
    swarm.submit(plan(tasks=6))
    record = swarm.commit()
    ran = [peer for task, peer in swarm.runs(MAP) if task == 2]
    assert len(set(ran)) == 2
    assert record.totals.failed_attempts == 1
    assert record.counters["maps"] == 6


def test_alone_a_peer_gets_the_task_again_that_it_failed_on() -> None:
    swarm = FakeSwarm(1)
    swarm.outcome = lambda order, peer: (
        ERROR if order.setup.kind is MAP and order.number == 1 else output_of(order)
    )
    swarm.submit(plan(tasks=2, replicas=1))
    swarm.commit()


def test_after_its_last_attempt_a_task_fails_the_job_and_says_all_about_it() -> None:
    swarm = FakeSwarm(4)
    swarm.outcome = lambda order, peer: ERROR if order.task == 2 else output_of(order)
    swarm.submit(plan(tasks=6, max_attempts=3))
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    failure = record.failure
    assert failure is not None
    assert failure.message == (
        f"step 'main', task map-00002, attempt 3 of 3 on {failure.node} at line 7: ValueError: no"
    )
    error = error_of(failure)
    assert isinstance(error, TaskFailed)
    assert (error.exit_code, error.details) == (1, "Traceback\n  line 3")


def test_bad_input_fails_the_job_at_once() -> None:
    swarm = FakeSwarm(4)
    bad = Failure(kind="InputError", message="a.txt: not a text file")
    swarm.outcome = lambda order, peer: bad if order.task == 2 else output_of(order)
    swarm.submit(plan(tasks=6))
    failure = swarm.finish().failure
    assert failure is not None
    assert isinstance(error_of(failure), InputError)
    assert error_of(failure).exit_code == 2
    assert failure.message == "a.txt: not a text file"


def test_bad_records_are_counted_over_the_whole_step() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda order, _: (
        e.TaskOutput(size_bytes=1, bad_records=2) if order.setup.kind is MAP else output_of(order)
    )
    swarm.submit(plan_with(plan(), step("main", 4, partitions=1, skip_limit=7)))
    failure = swarm.finish().failure
    assert failure is not None
    assert failure.kind == "TooManyBadRecords"


# -- a record that is full ------------------------------------------------------------------------------


def test_a_record_that_grows_too_large_fails_its_job_and_keeps_what_it_says() -> None:
    swarm = FakeSwarm(4)
    swarm.record_bytes_max = 4_000
    swarm.outcome = lambda order, _: replace(output_of(order), counters=((f"{order.task:0200}", 1),))
    swarm.submit(plan(tasks=40))
    failure = swarm.finish().failure
    assert failure is not None
    assert "use fewer, larger splits" in failure.message


def test_in_a_record_that_is_nearly_full_a_failure_is_told_shortly() -> None:
    swarm = FakeSwarm(4)
    failing = Failure(kind="InputError", message="not a text file", details="line\n" * 2_000 + "the end")
    swarm.outcome = lambda order, _: failing if order.task == 5 else output_of(order)
    swarm.submit(plan(tasks=6))
    swarm.run_until(lambda: swarm.record().leader != "")
    swarm.record_bytes_max = len(pack_record(swarm.record())) + 3_000
    record = swarm.finish()
    assert record.failure is not None
    assert record.failure.message == "not a text file"
    assert record.failure.details.endswith("the end")
    assert record.stages != ()


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_record_that_is_full_makes_room_for_its_last_word(is_cancelled: bool) -> None:
    swarm = FakeSwarm(4)
    job = swarm.submit(plan(tasks=40))
    swarm.run_until(lambda: swarm.done() > 0)
    swarm.record_bytes_max = len(pack_record(swarm.record()))
    if is_cancelled:
        swarm.call(node(0), swarm.leader().cancel("somebody", swarm.now), job)
    record = swarm.finish(limit_s=5.0)
    assert record.failure is not None
    assert record.failure.kind == ("Cancelled" if is_cancelled else "JobDefinitionError")
    assert len(pack_record(record)) < 1_000


def test_a_leader_whose_takeover_does_not_fit_ends_the_job() -> None:
    swarm = FakeSwarm(4)
    job = swarm.submit(plan(tasks=40))
    swarm.run_until(lambda: swarm.done() > 0)
    swarm.record_bytes_max = len(pack_record(swarm.record()))
    swarm.lead(job, 1)
    assert swarm.finish(limit_s=5.0).status is JobStatus.FAILED
    assert swarm.record().leader == node(1)


# -- everywhere -----------------------------------------------------------------------------------------


def test_a_failed_job_stops_everywhere() -> None:
    swarm = FakeSwarm(4)
    swarm.outcome = lambda order, peer: (
        Failure(kind="BadKey", message="no key") if order.task == 0 else output_of(order)
    )
    swarm.duration = lambda order, _: 0.1 if order.task == 0 else 500.0
    swarm.submit(plan(tasks=12))
    swarm.finish()
    swarm.run_for(1.0)
    assert all(peer.running == {} and peer.worker.jobs == () for peer in swarm.peers.values())


def test_a_cancelled_job_stops_everywhere() -> None:
    swarm = FakeSwarm(4)
    swarm.task_s = 500.0
    job = swarm.submit(plan(tasks=12))
    swarm.run_for(1.0)
    assert any(peer.running for peer in swarm.peers.values())
    swarm.call(node(0), swarm.leader().cancel("the test", swarm.now))
    record = swarm.finish(job)
    swarm.run_for(1.0)
    assert record.status is JobStatus.CANCELLED
    assert record.failure is not None
    assert record.failure.message == "cancelled by the test"
    assert all(peer.running == {} and peer.stored == {} for peer in swarm.peers.values())
