"""Two peers that hold each other for dead: they must find out that both live, and stop talking about it."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

from membership.config import LOCAL
from membership.effects import Send
from membership.messages import Gossip, Message
from membership.swim import Swim
from membership.view import Member, NodeId, Status


def test_peers_that_bury_each_other_do_not_answer_each_other_for_ever() -> None:
    """Each is at a higher incarnation than the other one's last news of it; found by the simulation."""
    ann = Member(NodeId("ann"), "host:1", incarnation=3, session=1)
    bob = Member(NodeId("bob"), "host:2", incarnation=3, session=1)

    def machine(me: Member, other: Member) -> Swim:
        buried = replace(other, incarnation=1, status=Status.DEAD)
        return Swim(me=me, config=LOCAL, rng=random.Random(me.id), known=[me, buried])

    peers = {ann.address: machine(ann, bob), bob.address: machine(bob, ann)}
    for peer in peers.values():
        peer.start(0.0)
    post: deque[tuple[Swim, NodeId, Message]] = deque([(peers[bob.address], ann.id, Gossip(rumours=()))])
    delivered = 0
    while post:
        peer, sender, message = post.popleft()
        delivered += 1
        assert delivered < 20, "they talk for ever"
        for effect in peer.receive(message, sender, 0.001 * delivered):
            if isinstance(effect, Send):
                post.append((peers[effect.to_address], peer.me.id, effect.message))
    for peer, other in ((peers[ann.address], bob), (peers[bob.address], ann)):
        seen = peer.get(other.id)
        assert seen is not None
        assert seen.status is Status.ALIVE
