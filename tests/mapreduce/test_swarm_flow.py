"""A job that nothing disturbs goes through a swarm: maps, copies, reduces, the end, and nothing else.

Every task runs once, outputs lie at R places, reduces read the winners where they lie, and afterwards only
the result is left; with a thousand tasks as with nine, on one peer as on seven.
"""

from __future__ import annotations

import pytest

from mapreduce import effects as e
from mapreduce.record import StageKind
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan

MAP, REDUCE = StageKind.MAP, StageKind.REDUCE


# -- the plain way --------------------------------------------------------------------------------------


def test_every_task_runs_once_and_the_job_is_committed_with_exact_counters() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(plan(tasks=20, partitions=3))
    record = swarm.commit()
    assert sorted(task for task, _ in swarm.runs(MAP)) == list(range(20))
    assert sorted(task for task, _ in swarm.runs(REDUCE)) == [0, 1, 2]
    assert record.counters == {"maps": 20, "parts": 3}
    assert record.totals.attempts == 23


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_peers_does(count: int) -> None:
    swarm = FakeSwarm(count)
    swarm.submit(plan(tasks=9, partitions=3))
    record = swarm.commit()
    assert record.counters == {"maps": 9, "parts": 3}


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


def test_small_outputs_for_one_place_travel_together() -> None:
    swarm = FakeSwarm(3)
    swarm.task_s = 0.001
    swarm.submit(plan(tasks=300, partitions=1))
    swarm.commit()
    pushed = [effect.group for _, effect in swarm.effects if isinstance(effect, e.Push)]
    assert sum(len(group.tasks) for group in pushed) >= 600
    assert len(pushed) < 150
