"""A member that says nonsense in well-formed messages: a peer may disbelieve it, and must not fall over."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membership.config import LOCAL
from membership.swim import Swim
from membership.view import Member, NodeId
from p2p.errors import IdentityTaken, MalformedFrame
from p2p.keys import generate
from p2p.memory_transport import MemoryNetwork
from p2p.peer import Peer
from p2p.protocol import KINDS, wire_format
from p2p.wire import Envelope
from p2p.zmq_transport import new_key_pair
from tests.p2p.nonsense import IDS, messages

KEYS = generate("home", new_key_pair)
WIRE = wire_format()
MESSAGES = messages(KINDS)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(IDS), MESSAGES, st.sampled_from([0.0, 0.1, 3.0])), max_size=20))
def test_whatever_a_member_says_a_peer_goes_on(said: list[tuple[str, Any, float]]) -> None:
    network = MemoryNetwork()
    end = network.open(KEYS)
    swim = Swim(me=Member(NodeId("a"), end.address), config=LOCAL, rng=random.Random(1), seeds=["memory:9"])
    log: list[str] = []
    peer = Peer(
        cluster="home",
        swim=swim,
        transport=end,
        wire=WIRE,
        persist=lambda _incarnation, _session: None,
        log=log.append,
    )
    liar = network.open(KEYS)
    now = 100.0
    peer.start(now)
    for sender, message, pause_s in said:
        try:
            frame = WIRE.encode(
                Envelope(
                    cluster="home", ring_digest=b"", sender=NodeId(sender), incarnation=1, message=message
                )
            )
        except MalformedFrame:
            continue
        liar.send(end.address, frame)
        now += pause_s
        try:
            peer.turn(now)
        except IdentityTaken:
            return
        assert peer.wait_s(now) >= 0.0
    me = swim.get(NodeId("a"))
    assert me is None or swim.stopped or me.status.in_ring
