"""Frames: what is made is what is read, and nothing else is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membership.history import Cause
from membership.messages import Ack, Gossip, Nack, Ping, Rumour, SyncState
from membership.view import Member, NodeId, Status
from p2p.errors import MalformedFrame, NotOurFrame, OversizedFrame, WireError, WrongVersion
from p2p.protocol import KINDS, wire_format
from p2p.questions import AskMembers, MembersAre
from p2p.ring_questions import Story, WhyIs, WhyLine
from p2p.roles import Role
from p2p.wire import Envelope, Kind, WireFormat, peek_version

WIRE = wire_format()
HEADER = WIRE.encode(
    Envelope(cluster="c", ring_digest=b"", sender=NodeId("n"), incarnation=0, message=Nack(number=1))
)[:4]

MEMBER = Member(
    NodeId("node-a"), "127.0.0.1:7700", 3, Status.SUSPECT, "rack-1", 2, 4, 4711, 99, (("bulk", "7701"),)
)
RUMOUR = Rumour(member=MEMBER, accusers=(NodeId("node-b"),))
WHY_LINE = WhyLine(age_s=0.5, cause=Cause.ACCUSED, by=(NodeId("b"),), status=Status.SUSPECT, incarnation=3)
MESSAGES: tuple[Any, ...] = (
    Nack(number=1),
    Ack(number=2, rumours=(RUMOUR,)),
    Ping(number=3, target=NodeId("node-b"), reply_to="127.0.0.1:7700", rumours=(RUMOUR, RUMOUR)),
    Gossip(rumours=()),
    SyncState(number=4, me=MEMBER, buckets=5, members=(MEMBER,) * 3, reply_wanted=True),
    AskMembers(number=6),
    MembersAre(
        number=7,
        cluster="c",
        me="node-a",
        health=0,
        ring_digest=b"d" * 16,
        members=(MEMBER,),
        refused={"bad_key": 1},
        counters={},
    ),
    WhyIs(number=9, node="no", stories=(Story(member=MEMBER, steps=(WHY_LINE,)),)),
)


def envelope(message: Any, **changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "cluster": "default",
        "ring_digest": b"12345678",
        "sender": NodeId("node-a"),
        "incarnation": 7,
        "message": message,
    }
    return Envelope(**{**fields, **changes})


def frame(*items: Any) -> bytes:
    body: bytes = msgpack.packb(items)
    return HEADER + body


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_encoded_is_what_is_decoded(message: Any) -> None:
    sent = envelope(message)
    assert WIRE.decode(WIRE.encode(sent)) == sent


def test_two_versions_refuse_each_other_and_name_both() -> None:
    newer = WireFormat(KINDS, version=2)
    for ours, theirs in ((WIRE, newer), (newer, WIRE)):
        with pytest.raises(WrongVersion) as refusal:
            ours.decode(theirs.encode(envelope(Nack(number=1))))
        assert f"version {theirs.version}" in str(refusal.value)
        assert f"version {ours.version}" in str(refusal.value)


def test_the_version_is_read_from_a_frame_whose_rest_makes_no_sense_to_us() -> None:
    assert peek_version(b"RR\x09\x00\xff\xff future") == 9
    with pytest.raises(WrongVersion):
        WIRE.decode(b"RR\x09\x00\xff\xff future")


@pytest.mark.parametrize(
    "garbage", [b"", b"R", b"GET / HTTP/1.1\r\n\r\n", b"RR\x01", b"RR\x01\x01\x90", b"\x00" * 64]
)
def test_garbage_is_told_from_a_frame_of_another_version(garbage: bytes) -> None:
    with pytest.raises(NotOurFrame):
        WIRE.decode(garbage)


def test_a_frame_above_the_limit_is_neither_made_nor_read() -> None:
    small = WireFormat(KINDS, max_bytes=100)
    big = envelope(Gossip(rumours=(RUMOUR,) * 10))
    with pytest.raises(OversizedFrame):
        small.encode(big)
    with pytest.raises(OversizedFrame):
        small.decode(WIRE.encode(big))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (frame("c", b"", "n", 0, 3), "no list of six items"),
        (frame("c", b"", "n", 0, 3, (1,), "more"), "no list of six items"),
        (frame(b"c", b"", "n", 0, 3, (1,)), "names no cluster"),
        (frame("c" * 64, b"", "n", 0, 3, (1,)), "names no cluster"),
        (frame("c", "", "n", 0, 3, (1,)), "no ring digest"),
        (frame("c", b"d" * 17, "n", 0, 3, (1,)), "no ring digest"),
        (frame("c", b"", "", 0, 3, (1,)), "names no sender"),
        (frame("c", b"", "two\nlines", 0, 3, (1,)), "names no sender"),
        (frame("c", b"", "n", -1, 3, (1,)), "no incarnation"),
        (frame("c", b"", "n", True, 3, (1,)), "no incarnation"),
        (frame("c", b"", "n", 0, 199, (1,)), "no message has the tag 199"),
        (frame("c", b"", "n", 0, True, (1,)), "no message has the tag True"),
        (frame("c", b"", "n", 0, 3, ("1",)), "Nack.number: expected int, got str"),
        (HEADER + b"\xd6\xff\x00\x00\x00\x01", "msgpack is damaged"),
        (HEADER + b"\x91" * 5000 + b"\xc0", "msgpack is damaged"),
        (HEADER + b"\x81\x01\x01", "msgpack is damaged"),
        (HEADER + b"\xc0\xc0", "msgpack is damaged"),
    ],
)
def test_a_malformed_frame_is_refused_with_the_reason(bad: bytes, complaint: str) -> None:
    with pytest.raises(MalformedFrame) as refusal:
        WIRE.decode(bad)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("text", ["\ud800", "x"])
def test_what_msgpack_cannot_carry_is_named_when_it_is_sent(text: str) -> None:
    number = 1 << 64 if text == "x" else 1
    message = Ping(number=number, target=NodeId("b"), reply_to=text)
    with pytest.raises(MalformedFrame, match="Ping cannot be sent"):
        WIRE.encode(envelope(message))


def test_tags_are_unique() -> None:
    with pytest.raises(ValueError, match="twice"):
        WireFormat((Kind(tag=1, message=Nack, role=Role.PEER), Kind(tag=1, message=Ack, role=Role.PEER)))


def test_an_observer_may_ask_and_only_a_peer_may_gossip() -> None:
    assert WIRE.least_role(AskMembers(number=1)) is Role.OBSERVE
    assert WIRE.least_role(Gossip(rumours=())) is Role.PEER


def test_a_list_that_claims_more_items_than_the_frame_has_bytes_costs_no_memory() -> None:
    liar = HEADER + b"\xdd\x00\x00\x40\x00" * 1000
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            WIRE.decode(liar)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


FRAMES = tuple(WIRE.encode(envelope(message)) for message in MESSAGES)


def decode_or_refuse(data: bytes) -> None:
    try:
        decoded = WIRE.decode(data)
    except WireError:
        return
    # Whatever is let in can be sent on: it is a message like any other.
    assert WIRE.decode(WIRE.encode(decoded)) == decoded


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_and_never_crash(data: bytes) -> None:
    decode_or_refuse(data)
    decode_or_refuse(HEADER + data)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from([kind.tag for kind in KINDS]), st.lists(PLAIN, max_size=9))
def test_any_values_in_the_place_of_the_fields_are_accepted_or_refused(tag: int, fields: list[Any]) -> None:
    decode_or_refuse(frame("default", b"", "n", 0, tag, fields))


@settings(max_examples=300)
@given(
    st.sampled_from(FRAMES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_a_valid_frame_with_some_bytes_changed_or_cut_is_accepted_or_refused(
    original: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    mutated = bytearray(original)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    decode_or_refuse(bytes(mutated))
    decode_or_refuse(bytes(mutated[: cut % (len(mutated) + 1)]))
