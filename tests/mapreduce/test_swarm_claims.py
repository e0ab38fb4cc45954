"""Which peer runs which task: claims, grants, second attempts, and the slots that several jobs share.

The ring says whose a task is; whoever has nothing left takes what others have not begun, what is queued
behind a slow task is asked back, and the last slow ones are given to a second peer. Jobs share slots by
priority, and none waits while a slot is free.
"""

from __future__ import annotations

from collections import Counter

from mapreduce import effects as e
from mapreduce.placement import DRAINING
from mapreduce.record import StageKind
from membership.view import NodeId
from tests.mapreduce.fake_swarm import FakeSwarm, node, plan

MAP, REDUCE = StageKind.MAP, StageKind.REDUCE


# -- whose a task is ------------------------------------------------------------------------------------


def test_claims_follow_the_ring_with_bounded_loads() -> None:
    swarm = FakeSwarm(5, slots=1)
    swarm.task_s = 1.0  # nobody is idle before all have begun
    swarm.submit(plan(tasks=200))
    swarm.commit(limit_s=120)
    loads = Counter(peer for _, peer in swarm.runs(MAP))
    assert len(loads) == 5
    assert max(loads.values()) <= 1.25 * 200 / 5 + 1


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


def test_what_only_busy_peers_can_run_is_not_given_back_and_forth() -> None:
    swarm = FakeSwarm(4, slots=1)
    swarm.duration = lambda order, _: 5.0 if order.setup.kind is REDUCE else 0.05
    swarm.submit(plan(tasks=4, partitions=6, replicas=1))
    swarm.commit()
    assert swarm.sent["Revoke"] <= 2


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
    assert [swarm.peers[node(n)].worker.held_count(second) for n in range(2)] == [0, 0]
    assert swarm.records[second].stages[0].done == 0
    swarm.commit(first)
    swarm.commit(second)
