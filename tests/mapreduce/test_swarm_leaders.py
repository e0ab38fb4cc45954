"""Leaders come and go, and the job goes on: what is committed stays, what is in hand is taken over.

A leader begins with what the record and the workers say; orders of the one before move nobody. One that has
no quorum, or sees no progress, grants nothing that could not be committed, and says what it waits for.
"""

from __future__ import annotations

from collections import Counter

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.failures import INPUT_GONE
from mapreduce.leader import LeaderPhase
from mapreduce.placement import FULL
from mapreduce.record import Failure, StageKind
from membership.view import Status
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan

MAP = StageKind.MAP


# -- taking over ----------------------------------------------------------------------------------------


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


# -- a job that stands still ----------------------------------------------------------------------------


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
