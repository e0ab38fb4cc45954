"""Whatever user code makes of its texts and counters, its job ends: well, or with a line that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mapreduce.claiming import Claiming
from mapreduce.columns import pack_column
from mapreduce.config import JobsConfig
from mapreduce.context import MAX_COUNTERS
from mapreduce.effects import CancelTask, RunTask, Send, TaskOutput
from mapreduce.held import Hands
from mapreduce.messages import Claim, Done, Failed, Finished, HeldGroup
from mapreduce.outcome import Failure, JobStatus, StageKind
from mapreduce.record import MAX_EVENT_CHARS
from mapreduce.reports import inventory_parts
from mapreduce.spec import MAX_TASKS, PackedColumn
from mapreduce.telling import MAX_DONE_IN_MESSAGE, in_messages, plain, told
from membership.view import NodeId
from p2p.job_protocol import JOB_KINDS
from p2p.wire import MAX_CONTROL_BYTES, Envelope, WireFormat
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan, splits, step

HALF_A_CHARACTER = "\udcff"  # what Python makes of a byte in a file's name that is no UTF-8


def ended(swarm: FakeSwarm, kind: StageKind, output: TaskOutput | Failure) -> Any:
    """The record of a small job of which every task of one kind gives this."""
    swarm.outcome = lambda order, _: output if order.setup.kind is kind else output_of(order)
    swarm.submit(plan(tasks=2))
    return swarm.finish(limit_s=30)


def counting(*counters: tuple[str, int]) -> TaskOutput:
    return TaskOutput(partitions=(0,), size_bytes=10, counters=counters)


# -- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Failure(kind="UserCode", message="m", details="frame\n" * 20_000),
        Failure(kind="UserCode", message=f"no file {HALF_A_CHARACTER}", details=HALF_A_CHARACTER),
        Failure(kind="InputError", message="m" * 20_000),
        Failure(kind="InputError", message="m", position=f"/data/{HALF_A_CHARACTER}" + "p" * 20_000),
    ],
    ids=["a long traceback", "half a character", "a long message", "a long position"],
)
def test_a_failure_ends_its_job_however_long_its_texts_are_and_whatever_is_in_them(failure: Failure) -> None:
    record = ended(FakeSwarm(3), StageKind.MAP, failure)
    assert record.status is JobStatus.FAILED
    assert failure.message[:5] in record.failure.message


def test_of_a_long_traceback_the_end_is_told() -> None:
    failure = told(Failure(kind="UserCode", message="m", details="x" * 100_000 + "ValueError: no"))
    assert failure.details.endswith("ValueError: no")


def test_half_a_character_is_written_out_and_a_whole_one_stays() -> None:
    assert plain(f"é{HALF_A_CHARACTER}", 100) == "é\\udcff"
    assert plain("é" * 200, 100) == "é" * 100
    assert len(plain(HALF_A_CHARACTER * 100, 100)) == 100


def test_a_status_that_is_no_text_does_not_keep_a_worker_from_saying_what_it_works_on() -> None:
    swarm = FakeSwarm(3)
    job = swarm.submit(plan(tasks=6))
    swarm.task_s = 3 * swarm.config.lease_s
    swarm.run_for(1.0)
    for peer in swarm.peers.values():
        peer.worker.on_task_status(job, f"reading {HALF_A_CHARACTER}" + "x" * 2_000)
    assert swarm.commit().totals.attempts - swarm.record().totals.speculated == 8


# -- counters, cuts, samples ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (counting(("n" * 300, 1)), "no text of at most 256 characters"),
        (counting((HALF_A_CHARACTER, 1)), "no text of at most 256 characters"),
        (counting(*((f"n{i}", 1) for i in range(MAX_COUNTERS + 1))), "4,097 names"),
        (counting(*((f"{i:0256}", 1) for i in range(MAX_COUNTERS))), "bytes"),
        (TaskOutput(sample=PackedColumn(form=0, data=bytes(1 << 20))), "bytes"),
        (TaskOutput(cuts=tuple(range(MAX_TASKS + 1))), "larger splits"),
    ],
    ids=["a long name", "half a character", "many names", "many long names", "a large sample", "many cuts"],
)
def test_news_that_no_message_can_carry_fail_the_job_with_a_line_that_says_of_what_there_is_too_much(
    output: TaskOutput, reason: str
) -> None:
    record = ended(FakeSwarm(3), StageKind.MAP, output)
    assert record.status is JobStatus.FAILED
    assert record.failure.kind == "JobDefinitionError"
    assert reason in record.failure.message
    assert "map-0000" in record.failure.message


def test_what_such_an_attempt_wrote_is_removed() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda _order, _: counting(("n" * 300, 1))
    swarm.submit(plan(tasks=1))
    swarm.finish()
    cancelled = [effect.attempt for _, effect in swarm.effects if type(effect) is CancelTask]
    (ran,) = [order.attempt for peer in swarm.peers.values() for order in peer.done]
    assert ran in cancelled


def test_counters_that_are_too_many_together_fail_the_job_and_stay_out_of_its_record() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda order, _: counting(*((f"{order.task}/{i}", 1) for i in range(1_500)))
    swarm.submit(plan(tasks=4))
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert record.failure is not None
    assert "counters, more than 4,096" in record.failure.message
    assert len(record.counters) <= MAX_COUNTERS


@pytest.mark.parametrize("sign", [1, -1])
def test_counters_that_grow_beyond_64_bits_fail_the_job_and_stay_out_of_its_record(sign: int) -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda _order, _: counting(("bytes", sign << 62))
    swarm.submit(plan(tasks=4))
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert record.failure is not None
    assert "'bytes'" in record.failure.message
    assert "64 bits" in record.failure.message


def test_what_a_failing_job_has_done_is_counted_all_the_same() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda _order, _: counting(("bytes", 1 << 62))
    swarm.submit(plan(tasks=4))
    assert swarm.finish().totals.attempts >= 2


def test_large_samples_of_many_tasks_travel_in_as_many_messages_as_it_takes() -> None:
    def outcome(order: RunTask, _: NodeId) -> TaskOutput:
        if order.setup.kind is StageKind.SAMPLE:
            form, data = pack_column([str(order.task).zfill(50_000)])
            return TaskOutput(sample=PackedColumn(form=form, data=data))
        return output_of(order)

    swarm = FakeSwarm(2, slots=64)  # all of them are finished at one moment
    swarm.outcome = outcome
    sampled = replace(step("main", 64, partitions=2, sample_keys=64), samples=splits("main", 64))
    swarm.submit(replace(plan(), steps=(sampled,)))
    swarm.commit()


# -- messages -------------------------------------------------------------------------------------------


def sent_bytes(message: Any) -> int:
    envelope = Envelope(cluster="c", ring_digest=b"", sender=NodeId("n"), incarnation=1, message=message)
    return len(WireFormat(JOB_KINDS).encode(envelope))


def most(message: str, field: str) -> int:
    """The longest list that is heard in a message."""
    (bounds,) = [kind.bounds for kind in JOB_KINDS if kind.message.__name__ == message]
    return bounds[f"{message}.{field}"].items


def test_results_share_a_message_as_long_as_they_fit_into_one() -> None:
    small = [Done(task=task, attempt=task) for task in range(1_000)]
    assert [len(some) for some in in_messages(small)] == [MAX_DONE_IN_MESSAGE, 1_000 - MAX_DONE_IN_MESSAGE]
    large = [replace(one, cuts=tuple(range(10_000))) for one in small[:5]]
    assert [len(some) for some in in_messages(large)] == [2, 2, 1]
    assert list(in_messages([])) == []


def test_an_inventory_of_thousands_of_single_outputs_is_cut_into_messages_that_are_heard() -> None:
    groups = [HeldGroup(stage=1, partitions=(), tasks=(t,), attempts=(t,)) for t in range(10_000)]
    parts = list(inventory_parts(groups))
    assert [group for part in parts for group in part] == groups
    assert max(map(len, parts)) <= most("Inventory", "groups")


def test_room_for_thousands_of_tasks_brings_no_grant_that_is_too_long_to_be_heard() -> None:
    swarm = FakeSwarm(2, slots=1)
    swarm.task_s = 1e6
    job = swarm.submit(plan(tasks=9_000))
    swarm.run_until(lambda: swarm.record().stage == 0)
    swarm.run_for(1.0)
    claim = Claim(job=job, ballot=1, stage=0, session=1, seen=99, room=1 << 20)
    grants = [e.message for e in swarm.leader().receive(claim, node(1), swarm.now) if type(e) is Send]
    assert 0 < sum(len(grant.items) for grant in grants) <= most("Grant", "items") / 2


def test_however_many_slots_there_are_no_more_is_claimed_than_fits_into_a_message() -> None:
    claiming = Claiming(Hands(), 1_000, JobsConfig())
    claiming.took(0.000_1)
    assert 1_000 < claiming.room <= most("Working", "held") / 2


# -- the record -----------------------------------------------------------------------------------------


def test_a_line_of_the_log_is_cut_where_the_record_would_not_hold_it() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=4))
    swarm.run_for(0.02)
    swarm.call(node(0), swarm.leader().on_members(tuple(NodeId(f"{i:064}") for i in range(32)), swarm.now))
    record = swarm.commit()
    (healed,) = [event for event in record.events if event.kind == "healed"]
    assert len(healed.text) == MAX_EVENT_CHARS


def test_attempts_that_a_former_leader_gave_are_not_taken_from_what_was_never_counted() -> None:
    swarm = FakeSwarm(4, slots=1)
    swarm.task_s = 30.0
    job = swarm.submit(plan(tasks=12))
    swarm.run_for(0.5)
    swarm.kill(0)  # before anything was written
    swarm.run_for(1.5)
    swarm.lead(job, 1)
    swarm.run_for(3.0)
    for number in (1, 2, 3):  # what is queued goes back
        swarm.call(node(number), swarm.peers[node(number)].worker.drain(swarm.now))
    swarm.run_for(1.0)
    swarm.kill(3)  # which is written
    swarm.run_for(5.0)
    assert swarm.record().totals.peers_lost >= 1
    assert swarm.record().totals.attempts >= 0


def test_the_largest_news_of_one_attempt_fit_into_a_frame() -> None:
    failure = told(Failure(kind="Died", message="𝄞" * 99_999, details="𝄞" * 99_999, position="𝄞" * 99_999))
    failed = Failed(job="0" * 32, ballot=1, stage=0, task=0, attempt=1, failure=failure)
    assert sent_bytes(failed) < MAX_CONTROL_BYTES
    sample = PackedColumn(form=0, data=bytes(750 << 10))
    items = next(in_messages([Done(task=0, attempt=1, sample=sample)]))
    assert sent_bytes(Finished(job="0" * 32, ballot=1, stage=0, version=1, items=items)) < MAX_CONTROL_BYTES
