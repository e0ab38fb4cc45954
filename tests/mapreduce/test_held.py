"""What a place has acknowledged of an output, and what that is worth when the place begins anew."""

from __future__ import annotations

from mapreduce.effects import Push
from mapreduce.held import WHOLE, Held
from membership.view import NodeId
from tests.mapreduce.fake_swarm import FakeSwarm, plan

A, B = NodeId("a"), NodeId("b")


def test_what_is_acknowledged_is_remembered_by_partition() -> None:
    held = Held(task=0, attempt=1, number=1, piece=None)
    held.owed = {A: (1, 2, 3)}
    held.acknowledge(A, (1, 2))
    assert held.owed == {A: (3,)}
    assert held.lacks(A, (1, 2)) is None
    assert held.lacks(A, (2, 3)) == (3,)
    assert held.lacks(A, WHOLE) == WHOLE
    assert held.lacks(B, (1,)) == (1,)
    held.acknowledge(A, (3,))
    assert held.owed == {}
    held.acknowledge(A, WHOLE)
    assert held.lacks(A, (9,)) is None


def test_an_output_is_pushed_again_to_a_place_that_began_anew_before_all_have_it() -> None:
    swarm = FakeSwarm(6)
    swarm.task_s = 0.5
    swarm.submit(plan(tasks=1, partitions=1, replicas=3))
    swarm.run_until(lambda: swarm.record().stage == 0)
    silent, *others = swarm.record().places(0)[0]
    swarm.blocked = {silent}
    swarm.run_for(1.0)
    (runner,) = [name for name, peer in swarm.peers.items() if peer.done]
    place = next(name for name in others if name not in (runner, swarm.leads["0" * 32]))

    def pushes() -> int:
        return sum(isinstance(effect, Push) and effect.to == place for _, effect in swarm.effects)

    assert pushes() == 1
    swarm.peers[place].stored.clear()
    swarm.restart(int(place[1:]))
    swarm.run_for(0.2)
    assert pushes() == 2
