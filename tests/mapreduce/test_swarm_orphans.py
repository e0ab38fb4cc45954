"""Workers that are left behind learn what became of their job, and nothing of it stays with them for ever.

Whoever missed the end, or finds outputs on its disk when it starts, asks: the members of the job's group,
then all others in turn, then it rests. Only what nobody has known for long is forgotten; and what comes late
for a job that is over is not wanted.
"""

from __future__ import annotations

import pytest

from mapreduce import effects as e
from mapreduce import messages as m
from mapreduce.record import born
from membership.view import NodeId
from tests.mapreduce.fake_swarm import FakeSwarm, node, plan

JOB = "5" * 32


# -- who missed the end ---------------------------------------------------------------------------------


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


# -- what lay on the disk -------------------------------------------------------------------------------


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
    worker.on_stored(JOB, swarm.now, source=node(0))
    swarm.records[JOB] = born(JOB, "ab", 0.0)
    swarm.plans[JOB] = plan()
    swarm.run_for(90.0)
    assert worker.jobs == ()
    assert any(isinstance(effect, e.DropJob) for _, effect in swarm.effects)


# -- what comes late ------------------------------------------------------------------------------------


def test_late_outputs_of_a_job_that_is_over_are_not_wanted() -> None:
    swarm = FakeSwarm(2)
    job = swarm.submit(plan(tasks=2))
    assert swarm.peers[node(1)].worker.accepts(job)
    swarm.commit()
    swarm.run_for(1.0)
    assert not swarm.peers[node(1)].worker.accepts(job)
