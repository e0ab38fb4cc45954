"""Comparing notes: only differences travel, in bounded messages, and both sides end up knowing the same."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from membership.config import LAN
from membership.effects import Send
from membership.messages import SyncState
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from tests.membership.cluster import Cluster, record


def exchange(one: Swim, other: Swim, now: float) -> list[SyncState]:
    """Let `one` compare notes with `other`; return the states that went either way."""
    states: list[SyncState] = []
    machines = {one.me.address: one, other.me.address: other}
    flying = [(one.me, Send(other.me.address, other.me.id, one._voice.sync_request()))]
    while flying:
        sender, send = flying.pop(0)
        if isinstance(send.message, SyncState):
            states.append(send.message)
        receiver = machines[send.to_address]
        for effect in receiver.receive(send.message, sender.id, now):
            if isinstance(effect, Send) and effect.to_address in machines:
                flying.append((receiver.me, effect))
    return states


def machine(number: int, known: list[Member], size_max: int = 500) -> Swim:
    config = replace(LAN, sync_members_max=size_max)
    swim = Swim(me=record(number), config=config, rng=random.Random(number), known=[record(number), *known])
    swim.start(0.0)
    return swim


def test_peers_that_agree_exchange_no_records_but_their_own() -> None:
    cluster = Cluster(30)
    (state,) = exchange(cluster[0], cluster[1], 0.0)
    assert [member.id for member in state.members] == [cluster[0].me.id]
    assert not state.reply_wanted


def test_a_large_state_comes_in_messages_of_bounded_size() -> None:
    others = [record(number) for number in range(2, 200)]
    newcomer, veteran = machine(0, []), machine(1, others, size_max=20)
    states = exchange(newcomer, veteran, 0.0)
    assert len(states) >= 10
    assert max(len(state.members) for state in states) <= 20 + 1  # one more: what is known of the receiver
    assert len(newcomer.view.alive) == 200


beliefs = st.dictionaries(
    st.integers(2, 9),
    st.tuples(st.integers(1, 3), st.sampled_from([Status.ALIVE, Status.SUSPECT, Status.LEFT])),
)


def believed(beliefs: dict[int, tuple[int, Status]]) -> list[Member]:
    return [record(n, incarnation=i, status=status) for n, (i, status) in sorted(beliefs.items())]


@settings(deadline=None)
@given(beliefs, beliefs)
def test_one_exchange_makes_two_peers_see_the_same_ring(
    mine: dict[int, tuple[int, Status]], yours: dict[int, tuple[int, Status]]
) -> None:
    one, other = machine(0, believed(mine)), machine(1, believed(yours))
    exchange(one, other, 0.0)
    assert one.view.digest == other.view.digest
    assert one.view.ring_members == other.view.ring_members


def test_a_death_heard_in_a_state_is_only_an_accusation() -> None:
    """Where islands meet, each holds the other for dead; burying on its word would empty both rings."""
    one = machine(0, [record(5)])
    other = machine(1, [record(5, status=Status.DEAD)])
    exchange(one, other, 0.0)
    suspect = one.get(NodeId("n05"))
    assert suspect is not None
    assert suspect.status is Status.SUSPECT
