"""How a job goes through a swarm: claims, grants, commits, and what happens when peers come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.columns import pack_column, unpack_column
from mapreduce.errors import InputError, TaskFailed
from mapreduce.failures import INPUT_GONE, error_of
from mapreduce.leader import LeaderPhase
from mapreduce.placement import DRAINING, FULL
from mapreduce.record import Failure, JobStatus, StageKind
from mapreduce.spec import PackedColumn
from membership.view import NodeId, Status
from p2p.job_protocol import pack_record
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan, splits, step

MAP, REDUCE = StageKind.MAP, StageKind.REDUCE
JOB = "5" * 32
ERROR = Failure(kind="UserCode", message="ValueError: no", details="Traceback\n  line 3", position="line 7")


# -- the plain way --------------------------------------------------------------------------------------


def test_every_task_runs_once_and_the_job_is_committed_with_exact_counters() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(plan(tasks=20, partitions=3))
    record = swarm.commit()
    assert sorted(task for task, _ in swarm.runs(MAP)) == list(range(20))
    assert sorted(task for task, _ in swarm.runs(REDUCE)) == [0, 1, 2]
    assert record.counters == {"maps": 20, "parts": 3}
    assert record.totals.attempts == 23


def test_no_reduce_begins_before_the_last_map_is_committed() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=10))
    begun = []
    swarm.duration = lambda order, _: begun.append((order, swarm.record().stages[0].done)) or 0.05  # type: ignore[func-returns-value]
    swarm.commit()
    assert {done for order, done in begun if order.setup.kind is REDUCE} == {10}


def test_reduces_read_the_winners_in_map_task_order() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=10))
    swarm.run_until(lambda: swarm.record().stage == 1)
    winners = tuple(winner.attempt for winner in swarm.record().stages[0].winners if winner)
    swarm.commit()
    reduces = [order for peer in swarm.peers.values() for order in peer.done if order.setup.kind is REDUCE]
    assert {order.reads for order in reduces} == {winners}


def test_map_outputs_lie_at_r_places_and_parts_too() -> None:
    swarm = FakeSwarm(5)
    swarm.submit(plan(tasks=10, partitions=4, replicas=3))
    swarm.run_until(lambda: swarm.record().stage == 1)
    for task in range(10):
        assert set(swarm.holders(0, task)) == {n for row in swarm.record().places(0) for n in row}
    swarm.commit()
    for part in range(4):
        assert len(swarm.holders(1, part)) == 3


def test_reduces_run_where_their_input_lies() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan(tasks=10, partitions=8))
    swarm.commit()
    places = swarm.record().places(0)
    assert all(peer in places[part] for part, peer in swarm.runs(REDUCE))


def test_an_output_without_pairs_is_pushed_nowhere() -> None:
    swarm = FakeSwarm(3)
    empty = e.TaskOutput(is_empty=True)
    swarm.outcome = lambda order, _: empty if order.setup.kind is MAP else output_of(order)
    swarm.submit(plan(tasks=6))
    swarm.commit()
    pushes = [effect for _, effect in swarm.effects if isinstance(effect, e.Push)]
    assert {push.group.stage for push in pushes} == {1}


def test_a_job_without_output_waits_for_no_copies_of_it() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda _order, _: e.TaskOutput(is_empty=True)
    swarm.submit(plan(tasks=6))
    began = swarm.now
    swarm.commit()
    assert swarm.now - began < swarm.config.retry_s


def test_when_the_job_is_over_nothing_of_it_remains_but_the_result() -> None:
    swarm = FakeSwarm(4)
    job = swarm.submit(plan(tasks=12))
    swarm.commit()
    swarm.run_for(swarm.config.linger_s + 1)
    for peer in swarm.peers.values():
        assert peer.worker.jobs == ()
        assert peer.leaders == {}
        assert peer.running == {}
        assert {key[1] for key in peer.stored} <= {1}
    assert swarm.peers[node(1)].worker.fate_of(job) is not None


# -- many tasks -----------------------------------------------------------------------------------------


def test_a_thousand_empty_tasks_cost_few_messages_and_few_writes() -> None:
    swarm = FakeSwarm(4)
    swarm.task_s = 0.001
    swarm.outcome = lambda order, _: e.TaskOutput(is_empty=order.setup.kind is MAP)
    swarm.submit(plan(tasks=1000, partitions=1))
    began = swarm.now
    swarm.commit()
    assert swarm.now - began < 0.5
    assert sum(swarm.sent.values()) < 500
    assert swarm.proposals < 30


def test_claims_follow_the_ring_with_bounded_loads() -> None:
    swarm = FakeSwarm(5, slots=1)
    swarm.task_s = 1.0  # nobody is idle before all have begun
    swarm.submit(plan(tasks=200))
    swarm.commit(limit_s=120)
    loads = Counter(peer for _, peer in swarm.runs(MAP))
    assert len(loads) == 5
    assert max(loads.values()) <= 1.25 * 200 / 5 + 1


def test_small_outputs_for_one_place_travel_together() -> None:
    swarm = FakeSwarm(3)
    swarm.task_s = 0.001
    swarm.submit(plan(tasks=300, partitions=1))
    swarm.commit()
    pushed = [effect.group for _, effect in swarm.effects if isinstance(effect, e.Push)]
    assert sum(len(group.tasks) for group in pushed) >= 600
    assert len(pushed) < 150


# -- the idle and the slow ------------------------------------------------------------------------------


def test_an_idle_peer_takes_what_others_have_not_begun() -> None:
    swarm = FakeSwarm(2, slots=1)
    swarm.duration = lambda order, peer: 5.0 if peer == node(0) else 0.1
    swarm.submit(plan(tasks=12))
    swarm.commit()
    loads = Counter(peer for _, peer in swarm.runs(MAP))
    assert loads[node(1)] > loads[node(0)]


def test_what_lies_queued_behind_a_slow_task_is_asked_back() -> None:
    swarm = FakeSwarm(2, slots=1)
    swarm.duration = lambda order, peer: 30.0 if peer == node(1) and order.setup.kind is MAP else 1.5
    swarm.submit(plan(tasks=6))
    swarm.run_until(lambda: swarm.sent["Returned"] > 0)
    swarm.run_until(lambda: swarm.done() >= 5)
    assert all(peer == node(0) for _, peer in swarm.runs(MAP))


def test_a_straggler_gets_a_second_attempt_and_the_first_that_finishes_wins() -> None:
    swarm = FakeSwarm(3, slots=1)
    slow: list[int] = []

    def duration(order: e.RunTask, peer: NodeId) -> float:
        if order.setup.kind is MAP and order.task == 4 and not slow:
            slow.append(order.attempt)
            return 1000.0
        return 0.2

    swarm.duration = duration
    swarm.submit(plan(tasks=9))
    record = swarm.commit(limit_s=30)
    assert record.totals.speculated == 1
    assert record.counters["maps"] == 9
    assert not any((swarm.record().job, slow[0]) in peer.running for peer in swarm.peers.values())


def test_nobody_is_called_slow_before_the_stage_has_a_median() -> None:
    swarm = FakeSwarm(3, slots=1)
    swarm.task_s = 20.0
    swarm.submit(plan(tasks=3))
    record = swarm.commit(limit_s=120)
    assert record.totals.speculated == 0


# -- failures -------------------------------------------------------------------------------------------


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
    job_plan = plan()
    job_plan = plan_with(job_plan, step("main", 4, partitions=1, skip_limit=7))
    swarm.submit(job_plan)
    failure = swarm.finish().failure
    assert failure is not None
    assert failure.kind == "TooManyBadRecords"


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


# -- leaders come and go --------------------------------------------------------------------------------


def test_a_new_leader_goes_on_and_no_committed_map_runs_again() -> None:
    swarm = FakeSwarm(5)
    swarm.submit(plan(tasks=40))
    swarm.run_until(lambda: swarm.done() >= 15)
    swarm.kill(0)
    swarm.after(0.5, lambda: swarm.lead("0" * 32, 1))
    record = swarm.commit()
    assert (record.totals.leader_changes, record.totals.maps_run_again) == (1, 0)
    assert record.counters == {"maps": 40, "parts": 2}


def test_each_lost_peer_is_counted_once_whoever_leads_when_its_death_is_known() -> None:
    swarm = FakeSwarm(7)
    swarm.task_s = 1.0
    swarm.submit(plan(tasks=60))
    swarm.run_until(lambda: swarm.done() >= 10)
    swarm.kill(6)  # the first leader sees it
    swarm.run_for(1.5)
    swarm.kill(5)
    swarm.kill(0)  # both are dead before the second begins
    swarm.after(1.5, lambda: swarm.lead("0" * 32, 1))
    swarm.run_for(2.0)
    swarm.change(4, status=Status.LEFT)
    swarm.lead("0" * 32, 2)
    record = swarm.commit()
    lost = [event.node for event in record.events if event.kind == "lost"]
    assert sorted(lost) == [node(0), node(5), node(6)]
    assert record.totals.peers_lost == 3


def test_a_new_leader_takes_over_what_is_in_hand() -> None:
    swarm = FakeSwarm(4)
    swarm.task_s = 3.0
    swarm.submit(plan(tasks=8))
    swarm.run_for(0.5)
    began = {order.task for peer in swarm.peers.values() for order in peer.running.values()}
    assert len(began) == 8
    swarm.lead("0" * 32, 1)
    swarm.commit()
    assert Counter(task for task, _ in swarm.runs(MAP)) == Counter(range(8))


def test_what_finished_while_nobody_led_is_reported_to_the_next_leader() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(plan(tasks=8))
    swarm.run_for(0.02)
    swarm.peers[node(0)].leaders.clear()
    swarm.run_for(5.0)
    assert swarm.record().stages[0].done == 0
    swarm.lead("0" * 32, 2)
    record = swarm.commit()
    assert record.counters["maps"] == 8
    assert len(swarm.runs(MAP)) == 8


def test_a_worker_drops_the_orders_of_a_deposed_leader() -> None:
    swarm = FakeSwarm(3)
    swarm.task_s = 100.0
    job = swarm.submit(plan(tasks=6))
    swarm.run_for(0.5)
    swarm.lead(job, 1)
    swarm.run_for(0.5)
    worker = swarm.peers[node(2)].worker
    attempts = tuple(attempt for _, attempt in swarm.peers[node(2)].running)
    old = m.Revoke(job=job, ballot=1, stage=0, attempts=attempts, force=True)
    assert worker.receive(old, node(0), swarm.now) == []
    new = m.Revoke(job=job, ballot=2, stage=0, attempts=attempts, force=True)
    assert worker.receive(new, node(1), swarm.now) != []


def test_a_leader_that_takes_over_an_ended_job_only_tells_everybody() -> None:
    swarm = FakeSwarm(3)
    job = swarm.submit(plan(tasks=4))
    swarm.commit()
    swarm.run_for(60.0)
    leader = swarm.lead(job, 2)
    assert leader.phase is LeaderPhase.ENDED
    swarm.run_for(swarm.config.linger_s + 1)
    assert swarm.peers[node(2)].leaders == {}


def test_without_a_quorum_nothing_is_granted_and_the_reason_is_said() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=40))
    swarm.run_until(lambda: swarm.done() >= 6)
    swarm.quorum = False
    swarm.call(node(0), swarm.leader().on_quorum((node(1), node(2)), swarm.now))
    swarm.run_for(30.0)
    ran = len(swarm.runs(MAP))
    assert ran < 40
    stalled = [event for event in swarm.announced if isinstance(event, e.Stalled)]
    assert "no progress for 10 s: waiting for a quorum: {n1, n2} do not answer" in stalled[0].text
    swarm.quorum = True
    swarm.call(node(0), swarm.leader().on_quorum((), swarm.now))
    swarm.commit()
    assert [event.text for event in swarm.announced if isinstance(event, e.Stalled)][-1] == ""


def test_a_stall_is_said_once_and_its_end_when_a_task_has_moved() -> None:
    swarm = FakeSwarm(3, slots=1)
    gone = Failure(kind=INPUT_GONE, message="it is not here")  # tried again every second, and moves nothing
    swarm.outcome = lambda order, _: (
        gone if order.setup.kind is MAP and order.task == 2 and swarm.now < 140.0 else output_of(order)
    )
    swarm.submit(plan(tasks=6, partitions=1))
    swarm.run_for(20.0)
    for number in (1, 2):
        swarm.change(
            number, meta=((FULL, "1"),)
        )  # places move, events are written: nothing of it is progress
        swarm.run_for(8.0)
        swarm.change(number, meta=())
    assert [str(event)[:500].count("no progress for 10 s: waiting for") for event in swarm.announced] == [1]
    swarm.commit()
    assert [event.text for event in swarm.announced if isinstance(event, e.Stalled)][1:] == [""]


# -- places come and go ---------------------------------------------------------------------------------


def test_a_worker_that_waits_for_a_dead_place_is_released() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(plan(tasks=8))
    swarm.run_until(lambda: swarm.record().stage == 0)
    victim = next(n for row in swarm.record().places(0) for n in row if n != node(0))
    swarm.kill(int(victim[1:]))
    record = swarm.commit()
    assert record.totals.maps_run_again == 0
    assert victim not in {n for row in record.places(0) for n in row}


def test_the_copies_of_a_dead_peer_are_made_again() -> None:
    swarm = FakeSwarm(5)
    swarm.task_s = 0.5
    swarm.submit(plan(tasks=60))
    swarm.run_until(lambda: swarm.done() >= 20)
    victim = next(n for row in swarm.record().places(0) for n in row if n != node(0))
    swarm.kill(int(victim[1:]))
    swarm.run_until(lambda: swarm.record().stage == 1)
    for partition, row in enumerate(swarm.record().places(0)):
        assert len(row) == 2
        for task in range(60):
            assert set(row) <= set(swarm.holders(0, task)), f"map {task}, partition {partition}"
    swarm.commit()


def test_maps_run_again_only_when_every_copy_is_gone() -> None:
    swarm = FakeSwarm(6)
    swarm.task_s = 0.3
    swarm.submit(plan(tasks=30, partitions=1))
    swarm.run_until(lambda: swarm.done() >= 10)
    places = [int(n[1:]) for n in swarm.record().places(0)[0]]
    done = swarm.record().stages[0].done
    if 0 in places:
        swarm.lead("0" * 32, next(n for n in range(6) if n not in places))
    for place in places:
        swarm.kill(place, disk=False)
    record = swarm.commit(limit_s=120)
    assert record.totals.maps_run_again >= done
    assert record.counters == {"maps": 30, "parts": 1}


def test_a_peer_that_restarts_on_its_disk_counts_as_a_holder_again() -> None:
    swarm = FakeSwarm(3, lost_grace_s=20.0)
    swarm.task_s = 0.3
    swarm.submit(plan(tasks=20, partitions=1))
    swarm.run_until(lambda: swarm.done() >= 10)
    places = [int(n[1:]) for n in swarm.record().places(0)[0]]
    other = next(n for n in range(3) if n not in places)
    swarm.lead("0" * 32, other)
    for place in places:
        swarm.kill(place)
    swarm.run_for(5.0)
    for place in places:
        swarm.restart(place)
    record = swarm.commit(limit_s=120)
    assert record.totals.maps_run_again == 0
    assert record.counters == {"maps": 20, "parts": 1}


def test_with_fewer_peers_than_copies_the_job_runs_and_warns() -> None:
    swarm = FakeSwarm(2)
    swarm.submit(plan(tasks=4, replicas=3))
    swarm.commit()
    assert any("3 copies are wanted and 2 peers are here" in event for event in swarm.events)


def test_joiners_get_the_missing_copies_and_tasks() -> None:
    swarm = FakeSwarm(1)
    swarm.task_s = 0.3
    swarm.submit(plan(tasks=40, partitions=1))
    swarm.run_until(lambda: swarm.done() >= 6)
    swarm.join(1)
    swarm.run_until(lambda: swarm.record().stage == 1)
    assert all(swarm.holders(0, task) == [node(0), node(1)] for task in range(40))
    swarm.commit()
    assert {peer for _, peer in swarm.runs(MAP)} == {node(0), node(1)}


def test_strict_replicas_refuse_a_swarm_that_is_too_small() -> None:
    swarm = FakeSwarm(2)
    swarm.submit(plan(tasks=4, replicas=3, strict_replicas=True))
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert swarm.runs(MAP) == []


def test_a_draining_peer_hands_its_copies_on_and_may_leave() -> None:
    swarm = FakeSwarm(4)
    swarm.task_s = 0.5
    swarm.submit(plan(tasks=60, partitions=2))
    swarm.run_until(lambda: swarm.done() >= 20)
    victim = next(n for row in swarm.record().places(0) for n in row if n != node(0))
    worker = swarm.peers[victim].worker
    swarm.change(int(victim[1:]), meta=((DRAINING, "1"),))
    swarm.call(victim, worker.drain(swarm.now))
    assert not worker.may_leave
    swarm.run_until(lambda: worker.may_leave)
    before = len(swarm.peers[victim].done)
    swarm.kill(int(victim[1:]), disk=False)
    record = swarm.commit()
    assert record.totals.maps_run_again == 0
    assert len(swarm.peers[victim].done) == before


def test_a_full_peer_takes_no_copies() -> None:
    swarm = FakeSwarm(4)
    swarm.change(2, meta=((FULL, "1"),))
    swarm.submit(plan(tasks=12, partitions=6))
    swarm.commit()
    assert node(2) not in {n for row in swarm.record().places(0) for n in row}
    assert node(2) in {peer for _, peer in swarm.runs(MAP)}


def test_a_place_whose_disk_fails_gives_its_turn_to_the_next_peer_of_the_row() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(plan(tasks=12, partitions=6))
    swarm.run_until(lambda: swarm.done() >= 1)
    victim = swarm.record().places(0)[0][0]
    assert any(victim != name for name in swarm.record().places(0)[0])
    swarm.failing.add(victim)
    record = swarm.commit(limit_s=10)
    assert all(victim not in row and len(row) == 2 for row in record.places(0))
    assert record.totals.maps_run_again == 0
    assert [line for line in swarm.events if victim in line and "refuses" in line] == [
        f"refuses {victim}: takes no copies, its disk fails: Input/output error"
    ]


def test_where_nobody_is_left_to_take_its_turn_the_sound_place_is_enough() -> None:
    swarm = FakeSwarm(2)
    swarm.failing.add(node(1))
    swarm.submit(plan(tasks=6, partitions=2))
    record = swarm.commit(limit_s=10)
    assert set(record.places(0)) == {(node(0),)}


def test_when_every_disk_fails_the_places_stay_and_the_stall_says_why() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=6, partitions=2))
    swarm.failing.update(swarm.peers)
    swarm.run_for(25.0)
    assert all(row for row in swarm.record().places(0))
    stalls = [event.text for event in swarm.announced if isinstance(event, e.Stalled)]
    assert "no peer takes copies (n0: Input/output error, " in stalls[-1]
    swarm.failing.clear()
    swarm.change(2, meta=())
    record = swarm.commit()
    assert "refuses n2: takes copies again" in swarm.events
    assert record.totals.maps_run_again == 0


def test_a_run_that_its_place_has_lost_is_copied_there_again() -> None:
    swarm = FakeSwarm(3)
    job = swarm.submit(plan(tasks=6, partitions=1))
    swarm.run_until(lambda: swarm.record().stage == 1)
    first = swarm.record().places(0)[0][0]
    winner = swarm.record().stages[0].winners[3]
    assert winner is not None
    del swarm.peers[first].stored[job, 0, 3, winner.attempt]
    record = swarm.commit()
    assert record.totals.maps_run_again == 0
    assert record.totals.failed_attempts == 0


# -- more than one step ---------------------------------------------------------------------------------


def plan_with(base: object, *steps: object) -> object:
    return replace(base, steps=steps)  # type: ignore[type-var]


def test_later_steps_read_the_parts_of_earlier_ones() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(
        plan_with(
            plan(),
            step("one", 6, partitions=3),
            step("two", after=(0,), map_only=True),
            step("three", after=(0, 1), partitions=2),
        )
    )
    record = swarm.commit()
    kinds = [(stage.kind, stage.tasks) for stage in record.stages]
    assert kinds == [(MAP, 6), (REDUCE, 3), (MAP, 3), (MAP, 6), (REDUCE, 2)]
    last = [order for peer in swarm.peers.values() for order in peer.done if order.setup.stage == 3]
    read = sorted((o.task, o.piece.name) for o in last if o.piece is not None)
    assert [name for _, name in read] == [f"{s}/part-{p:05d}" for s in ("one", "two") for p in range(3)]


def test_maps_of_parts_run_where_the_parts_lie() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=4), step("two", after=(0,), partitions=1)))
    swarm.commit()
    assert [effect for _, effect in swarm.effects if isinstance(effect, e.Fetch)] == []


def test_a_new_leader_too_gives_maps_of_parts_to_where_the_parts_lie() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=4), step("two", after=(0,), partitions=1)))
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.lead("0" * 32, 3)
    swarm.commit()
    assert [effect for _, effect in swarm.effects if isinstance(effect, e.Fetch)] == []


def test_a_peer_without_the_part_fetches_it_first() -> None:
    swarm = FakeSwarm(3, slots=1)
    swarm.submit(
        plan_with(plan(replicas=1), step("one", 3, partitions=6), step("two", after=(0,), partitions=1))
    )
    swarm.duration = lambda order, peer: 9.0 if order.setup.stage == 2 and peer != node(2) else 0.05
    swarm.commit(limit_s=200)
    fetches = [(name, effect) for name, effect in swarm.effects if isinstance(effect, e.Fetch)]
    assert fetches
    assert all(name not in fetch.piece.holders for name, fetch in fetches)


def test_intermediate_outputs_are_dropped_when_their_step_is_complete() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan_with(plan(), step("one", 4, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.run_for(0.01)
    assert swarm.record().stages[0].is_dropped
    assert not swarm.record().stages[1].is_dropped
    assert {key[1] for peer in swarm.peers.values() for key in peer.stored} == {1}
    swarm.commit()


def test_a_lost_part_is_made_again_from_the_beginning() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.duration = lambda order, _: 2.0 if order.setup.stage == 2 else 0.05
    swarm.run_until(lambda: swarm.record().stage == 2)
    holders = [int(n[1:]) for n in swarm.holders(1, 0)]
    swarm.lead("0" * 32, next(n for n in range(6) if n not in holders))
    for holder in holders:
        swarm.kill(holder, disk=False)
    record = swarm.commit(limit_s=120)
    assert record.totals.parts_run_again >= 1
    assert record.totals.maps_run_again >= 6
    assert record.counters == {"maps": 8, "parts": 3}


def test_a_step_that_gives_other_output_when_run_again_fails_the_job_under_the_next_leader_too() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.duration = lambda order, _: 2.0 if order.setup.stage == 2 else 0.05

    def outcome(order: e.RunTask, _: NodeId) -> e.TaskOutput:
        is_other = order.setup.stage == 1 and swarm.record().totals.parts_run_again > 0
        return replace(output_of(order), cuts=(0, 5, 10)) if is_other else output_of(order)

    swarm.outcome = outcome
    swarm.run_until(lambda: swarm.record().stage == 2)
    holders = [int(n[1:]) for n in swarm.holders(1, 0)]
    first, second, *_ = (n for n in range(6) if n not in holders)
    swarm.lead("0" * 32, first)
    for holder in holders:
        swarm.kill(holder, disk=False)
    swarm.run_until(lambda: swarm.record().stage < 2)
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.lead("0" * 32, second)  # before the first one's last word is chosen
    swarm.run_until(lambda: swarm.record().leader == node(second))
    swarm.quorum = False  # long enough for workers to report, and for somebody to come
    swarm.join(6)
    swarm.change(first, status=Status.DEAD)
    swarm.run_for(0.5)
    swarm.quorum = True
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert record.failure is not None
    assert "not deterministic" in record.failure.message


def test_a_step_that_reads_nothing_reduces_nothing() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda order, _: e.TaskOutput(is_empty=order.setup.kind is MAP)
    swarm.submit(plan_with(plan(), step("one", 4, partitions=2), step("two", after=(0,), partitions=1)))
    record = swarm.commit()
    assert [stage.tasks for stage in record.stages] == [4, 2, 0, 1]


def test_a_total_order_samples_first_and_cuts_at_its_quantiles() -> None:
    swarm = FakeSwarm(3)
    samples = {0: [1, 2, 3], 1: [7, 8, 9]}

    def outcome(order: e.RunTask, _: NodeId) -> e.TaskOutput:
        if order.setup.kind is not StageKind.SAMPLE:
            return output_of(order)
        form, data = pack_column(samples[order.task])
        return e.TaskOutput(sample=PackedColumn(form=form, data=data), took_s=0.01)

    swarm.outcome = outcome
    sampled = step("main", 4, partitions=2, sample_keys=6, samples=splits("sample", 2))
    swarm.submit(plan_with(plan(), sampled))
    record = swarm.commit()
    assert [stage.kind for stage in record.stages] == [StageKind.SAMPLE, MAP, REDUCE]
    borders = record.stages[1].borders
    assert borders is not None
    assert unpack_column(borders.form, borders.data) == [7]
    orders = [order for peer in swarm.peers.values() for order in peer.done]
    assert {o.sample_keys for o in orders if o.setup.kind is StageKind.SAMPLE} == {3}
    assert {o.setup.borders for o in orders if o.setup.kind is MAP} == {borders}


def test_one_partition_needs_no_sample() -> None:
    swarm = FakeSwarm(3)
    sampled = step("main", 4, partitions=1, sample_keys=6, samples=splits("sample", 2))
    swarm.submit(plan_with(plan(), sampled))
    record = swarm.commit()
    assert [stage.tasks for stage in record.stages] == [0, 4, 1]
    assert record.stages[1].borders is None


# -- several jobs ---------------------------------------------------------------------------------------


def test_jobs_share_the_slots_by_priority() -> None:
    swarm = FakeSwarm(2, slots=3)
    swarm.task_s = 0.5
    low = swarm.submit(plan(tasks=60, priority=0), job="0" * 32)
    high = swarm.submit(plan(tasks=60, priority=1), job="1" * 32, leader=1)
    swarm.run_for(8.0)
    done = {job: swarm.records[job].stages[0].done for job in (low, high)}
    assert 1.4 < done[high] / done[low] < 2.8
    swarm.commit(low)
    swarm.commit(high)


def test_a_small_job_runs_at_once_on_idle_peers_although_its_tasks_belong_to_busy_ones() -> None:
    swarm = FakeSwarm(4, slots=2)
    busy = {node(0), node(1)}
    swarm.duration = lambda order, _: 60.0 if order.setup.job == "0" * 32 else 0.1
    swarm.change(2, meta=((DRAINING, "1"),))
    swarm.change(3, meta=((DRAINING, "1"),))
    swarm.submit(plan(tasks=4), job="0" * 32)
    swarm.run_until(lambda: sum(len(peer.running) for peer in swarm.peers.values()) == 4)
    swarm.change(2, meta=())
    swarm.change(3, meta=())
    small = swarm.submit(plan(tasks=3, partitions=1, replicas=4), job="1" * 32, leader=1)
    began = swarm.now
    swarm.commit(small)
    assert swarm.now - began < 1.0
    ran = [peer for task, peer in swarm.runs(MAP) if peer not in busy]
    assert len(ran) == 3


def test_a_job_that_comes_second_gets_its_share_as_slots_become_free() -> None:
    swarm = FakeSwarm(2, slots=2)
    swarm.task_s = 1.0
    first = swarm.submit(plan(tasks=60), job="0" * 32)
    swarm.run_for(0.5)
    second = swarm.submit(plan(tasks=20), job="1" * 32, leader=1)
    swarm.run_for(10.2)
    assert 16 <= swarm.done(0, second) <= 20
    assert swarm.done(0, first) <= 26


def test_what_only_busy_peers_can_run_is_not_given_back_and_forth() -> None:
    swarm = FakeSwarm(4, slots=1)
    swarm.duration = lambda order, _: 5.0 if order.setup.kind is REDUCE else 0.05
    swarm.submit(plan(tasks=4, partitions=6, replicas=1))
    swarm.commit()
    assert swarm.sent["Revoke"] <= 2


def test_a_job_alone_uses_what_others_leave() -> None:
    swarm = FakeSwarm(2, slots=3)
    swarm.task_s = 0.5
    low = swarm.submit(plan(tasks=40, priority=-3), job="0" * 32)
    high = swarm.submit(plan(tasks=2, priority=3), job="1" * 32, leader=1)
    swarm.commit(high)
    began = swarm.now
    swarm.commit(low)
    assert swarm.now - began < 40 / 6 * 0.5 + 3


def test_beyond_the_limit_jobs_wait_for_others_to_end() -> None:
    swarm = FakeSwarm(2, jobs_most=1)
    swarm.task_s = 0.2
    first = swarm.submit(plan(tasks=10), job="0" * 32)
    swarm.run_for(0.1)
    second = swarm.submit(plan(tasks=4), job="1" * 32, leader=1)
    swarm.run_until(lambda: swarm.records[first].stages[0].done >= 5)
    assert swarm.peers[node(0)].worker.is_full
    assert swarm.records[second].stages[0].done == 0
    swarm.commit(first)
    swarm.commit(second)


# -- who is left behind ---------------------------------------------------------------------------------


def test_a_worker_that_nobody_leads_asks_the_members() -> None:
    swarm = FakeSwarm(4)
    job = swarm.submit(plan(tasks=4))
    deaf = swarm.peers[node(3)]
    swarm.commit()
    deaf.is_up = False  # what it should hear of the end is lost
    swarm.run_for(swarm.config.linger_s + 1)
    deaf.is_up = True
    assert deaf.worker.jobs == (job,)
    swarm.run_for(2 * swarm.config.orphan_s)
    assert deaf.worker.jobs == ()
    assert {key[1] for key in deaf.stored} <= {1}


@pytest.mark.parametrize("peers", [4, 5])
def test_a_worker_whose_members_are_all_gone_asks_the_others_and_its_own_peer(peers: int) -> None:
    swarm = FakeSwarm(peers)
    swarm.submit(plan(tasks=4))
    deaf = swarm.peers[node(3)]
    swarm.commit()
    deaf.is_up = False  # what it should hear of the end is lost
    swarm.run_for(swarm.config.linger_s + 1)
    deaf.is_up = True
    for number in range(3):  # all of the group
        swarm.kill(number)
    assert deaf.worker.jobs
    swarm.run_for(3 * swarm.config.orphan_s)
    assert deaf.worker.jobs == ()


def test_a_worker_that_finds_outputs_of_an_ended_job_on_its_disk_soon_asks_one_peer_after_the_other() -> None:
    count = 8
    swarm = FakeSwarm(count)
    worker = swarm.peers[node(0)].worker
    worker.on_stored(JOB, 0.0)
    asked: list[tuple[float, NodeId]] = []
    now = 0.0
    while len(asked) < count + 1:
        now = worker.next_deadline()
        sent = [effect for effect in worker.tick(now) if isinstance(effect, e.Send)]
        asked += [(now, effect.to) for effect in sent if isinstance(effect.message, m.AskFate)]
    first_at, last_at = asked[0][0], asked[count - 1][0]
    assert {to for _, to in asked[:count]} == {node(number) for number in range(count)}
    assert first_at == 2 * swarm.config.beat_s
    assert last_at - first_at <= count * swarm.config.retry_s
    assert asked[count][0] - last_at >= swarm.config.orphan_s  # then it rests


def test_what_lay_on_the_disk_is_not_dropped_because_nobody_says_anything_of_its_job() -> None:
    swarm = FakeSwarm(2)
    worker = swarm.peers[node(0)].worker
    worker.on_stored(JOB, 0.0)
    said = worker.tick(swarm.config.forget_s)
    assert worker.jobs == ()
    assert not any(isinstance(effect, e.DropJob) for effect in said)


def test_a_worker_that_drains_does_not_wait_for_a_job_of_which_it_has_heard_nothing() -> None:
    worker = FakeSwarm(2).peers[node(0)].worker
    worker.on_stored(JOB, 0.0)
    worker.drain(1.0)
    assert worker.may_leave


def test_a_worker_forgets_a_job_that_nobody_knows() -> None:
    swarm = FakeSwarm(2, forget_s=60.0)
    worker = swarm.peers[node(1)].worker
    worker.on_stored("5" * 32, swarm.now, source=node(0))
    swarm.records["5" * 32] = swarm.records.get("5" * 32) or _unborn()
    swarm.plans["5" * 32] = plan()
    swarm.run_for(90.0)
    assert worker.jobs == ()
    assert any(isinstance(effect, e.DropJob) for _, effect in swarm.effects)


def _unborn() -> object:
    from mapreduce.record import born

    return born("5" * 32, "ab", 0.0)


def test_late_outputs_of_a_job_that_is_over_are_not_wanted() -> None:
    swarm = FakeSwarm(2)
    job = swarm.submit(plan(tasks=2))
    assert swarm.peers[node(1)].worker.accepts(job)
    swarm.commit()
    swarm.run_for(1.0)
    assert not swarm.peers[node(1)].worker.accepts(job)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_peers_does(count: int) -> None:
    swarm = FakeSwarm(count)
    swarm.submit(plan(tasks=9, partitions=3))
    record = swarm.commit()
    assert record.counters == {"maps": 9, "parts": 3}


def test_a_suspect_keeps_its_places_and_its_tasks() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=30))
    swarm.run_for(0.1)
    places = swarm.record().places(0)
    swarm.change(1, status=Status.SUSPECT)
    record = swarm.commit()
    assert record.places(0) == places or record.stages[0].is_dropped
    assert len(swarm.runs(MAP)) == 30
