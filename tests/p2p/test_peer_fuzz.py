"""A member that says nonsense in well-formed messages: a peer may disbelieve it, and must not fall over."""

from __future__ import annotations

import dataclasses
import enum
import random
import types
import typing
from collections.abc import Mapping
from typing import Any, NewType

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

KEYS = generate("home", new_key_pair)
WIRE = wire_format()
IDS = ("a", "b", "c", "d")
ADDRESSES = ("memory:1", "memory:2", "memory:3", "nowhere:1", "x")
NUMBERS = st.integers(0, 3) | st.sampled_from([1 << 31, (1 << 63) - 1, (1 << 64) - 1])


def values(hint: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Anything that fits an annotation, with names and numbers that mean something here."""
    if isinstance(hint, NewType):
        return st.sampled_from(IDS)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(option, name) for option in inside))
    if origin is tuple and inside[-1] is Ellipsis:
        return st.lists(values(inside[0], name), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(item, name) for item in inside))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(st.sampled_from(IDS), values(inside[1], name), max_size=3)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {field.name: values(hints[field.name], field.name) for field in dataclasses.fields(hint)}
        make: Any = hint
        return st.fixed_dictionaries(fields).map(lambda filled: make(**filled))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 64) if name in ("weight", "count") else NUMBERS,
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bytes: st.binary(max_size=16),
        str: st.sampled_from(ADDRESSES if "address" in name or name == "reply_to" else IDS),
        type(None): st.none(),
    }
    return plain[hint]


MESSAGES = st.one_of(*(values(kind.message) for kind in KINDS))


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
