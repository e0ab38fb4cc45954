"""What a place has acknowledged of an output, and what that is worth when the place begins anew."""

from __future__ import annotations

from typing import Any

from mapreduce.effects import Push, Send
from mapreduce.held import WHOLE, Held
from mapreduce.messages import CopyOrder, Finished
from membership.view import NodeId
from tests.mapreduce.fake_swarm import FakeSwarm, node, plan

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


class Lagging(FakeSwarm):
    """Reports of finished attempts are held back, some peers are deaf to membership, others mute."""

    def __init__(self, peers: int) -> None:
        self.late: list[tuple[NodeId, NodeId, Finished]] | None = []
        self.deaf: frozenset[NodeId] = frozenset()
        self.mute: frozenset[NodeId] = frozenset()
        super().__init__(peers)

    def _send(self, sender: NodeId, to: NodeId, message: Any) -> None:
        if sender in self.mute:
            return
        if isinstance(message, Finished) and self.late is not None:
            self.late.append((sender, to, message))
        else:
            super()._send(sender, to, message)

    def _tell_view(self) -> None:
        deaf = {name: self.peers[name] for name in self.deaf}
        for name in deaf:
            del self.peers[name]
        super()._tell_view()
        self.peers |= deaf

    def deliver(self) -> None:
        """Let all that was held back arrive, in order, and hold back nothing any more."""
        late, self.late = self.late or [], None
        for sender, to, message in late:
            self._send(sender, to, message)


def finished_by_another_than(leader: int) -> tuple[Lagging, NodeId, list[NodeId]]:
    """A job whose only map task has finished, unheard; who ran it, and the places of its output."""
    swarm = Lagging(6)
    swarm.submit(plan(tasks=1, partitions=1, replicas=2), leader=leader)
    swarm.run_until(lambda: bool(swarm.late))
    assert swarm.late
    return swarm, swarm.late[0][0], list(swarm.record().places(0)[0])


def test_what_a_wiped_place_acknowledged_in_its_former_life_does_not_count_however_late_it_is_reported() -> (
    None
):
    for leader in range(6):
        swarm, runner, places = finished_by_another_than(leader)
        if len({runner, node(leader), *places}) == 4:
            break
    wiped, other = places
    swarm.deaf = frozenset({runner})  # so its acknowledgement seems good to it still
    swarm.peers[wiped].stored.clear()
    swarm.restart(int(wiped[1:]))
    swarm.run_for(1.0)  # the leader hears it speak, and knows better
    swarm.deliver()
    swarm.run_until(lambda: swarm.done() == 1)
    swarm.kill(int(other[1:]), disk=False)
    swarm.deaf = frozenset()
    assert swarm.commit().totals.maps_run_again == 0


def test_of_a_place_that_began_anew_the_next_version_counts_again() -> None:
    swarm, runner, places = finished_by_another_than(0)
    place = next(name for name in places if name not in (runner, node(0)))
    swarm.restart(int(place[1:]))
    swarm.run_for(1.0)
    assert swarm.late
    newest = max(message.version for _, _, message in swarm.late)
    swarm.late = [one for one in swarm.late if one[2].version == newest]
    swarm.deliver()
    swarm.commit()
    copies = [
        effect
        for _, effect in swarm.effects
        if isinstance(effect, Send) and type(effect.message) is CopyOrder
    ]
    assert copies == []


def test_what_a_place_held_that_began_anew_does_not_count_even_before_its_new_process_has_spoken() -> None:
    swarm = Lagging(6)
    swarm.late = None
    swarm.duration = lambda order, _: 5.0 if order.task else 0.05
    swarm.submit(plan(tasks=2, partitions=1, replicas=2))
    swarm.run_until(lambda: swarm.record().stage == 0)
    wiped = next(name for name in swarm.record().places(0)[0] if name != node(0))
    swarm.mute = frozenset({wiped})
    swarm.run_until(lambda: swarm.done() == 1)
    swarm.peers[wiped].stored.clear()
    swarm.restart(int(wiped[1:]))
    swarm.run_for(1.0)
    assert any(event.startswith(f"restarted {wiped}") for event in swarm.events)
    copies = [
        effect.message
        for _, effect in swarm.effects
        if isinstance(effect, Send) and type(effect.message) is CopyOrder
    ]
    assert {order.to for order in copies} == {wiped}
