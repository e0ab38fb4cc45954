"""Where outputs lie while peers come and go: copies are made again, and maps only when every copy is gone.

A place that dies, drains, is full or whose disk fails gives its turn to the next peer of its row; one that
restarts on its disk counts again, one that is only suspected never stopped; with too few peers a job warns,
or refuses if it was told to.
"""

from __future__ import annotations

from mapreduce import effects as e
from mapreduce.placement import DRAINING, FULL
from mapreduce.record import JobStatus, StageKind
from membership.view import Status
from tests.mapreduce.fake_swarm import FakeSwarm, node, plan

MAP = StageKind.MAP


# -- the dead and the suspected -------------------------------------------------------------------------


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


def test_a_suspect_keeps_its_places_and_its_tasks() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan(tasks=30))
    swarm.run_for(0.1)
    places = swarm.record().places(0)
    swarm.change(1, status=Status.SUSPECT)
    record = swarm.commit()
    assert record.places(0) == places or record.stages[0].is_dropped
    assert len(swarm.runs(MAP)) == 30


# -- few peers, and who comes and leaves ----------------------------------------------------------------


def test_with_fewer_peers_than_copies_the_job_runs_and_warns() -> None:
    swarm = FakeSwarm(2)
    swarm.submit(plan(tasks=4, replicas=3))
    swarm.commit()
    assert any("3 copies are wanted and 2 peers are here" in event for event in swarm.events)


def test_strict_replicas_refuse_a_swarm_that_is_too_small() -> None:
    swarm = FakeSwarm(2)
    swarm.submit(plan(tasks=4, replicas=3, strict_replicas=True))
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert swarm.runs(MAP) == []


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


# -- disks ----------------------------------------------------------------------------------------------


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
