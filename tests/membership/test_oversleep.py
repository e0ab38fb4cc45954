"""A sleep counts once, however many messages have come meanwhile."""

from __future__ import annotations

import random
from dataclasses import replace

from membership.config import LOCAL
from membership.effects import Send
from membership.messages import Gossip, Ping
from membership.swim import Swim
from membership.view import Member, NodeId, Status


def test_a_full_inbox_does_not_multiply_the_sleep_over_a_time_to_forget() -> None:
    """Found by the simulation: a stopped peer slept over the time to forget a dead one."""
    config = replace(LOCAL, gossip_to_dead_s=1.0, reap_after_s=2.0)
    me, friend = Member(NodeId("me"), "host:1"), Member(NodeId("friend"), "host:2")
    dead = Member(NodeId("dead"), "host:3", status=Status.DEAD)
    peer = Swim(me=me, config=config, rng=random.Random(1), known=[me, friend, dead])
    peer.start(0.0)
    now = 0.0
    while now < 1.0:
        now = peer.next_deadline()
        peer.tick(now)
    woken = now + 10.0
    for _ in range(50):
        peer.receive(Gossip(rumours=()), friend.id, woken)
    now, probed_at = woken, None
    while probed_at is None and now < woken + 60.0:
        now = max(now, peer.next_deadline())
        for effect in peer.tick(now):
            if isinstance(effect, Send) and isinstance(effect.message, Ping):
                probed_at = now
    assert probed_at is not None
    # The unanswered probe gets the time we slept, and one timeout more; not fifty times that.
    assert probed_at <= woken + 10.0 + 2.0
