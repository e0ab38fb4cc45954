"""The gate, the doorman's verdicts, and the counting of those turned away."""

from __future__ import annotations

import pytest

from membership.messages import Nack
from membership.view import NodeId
from p2p.errors import NotAllowed, NotOurFrame, WrongCluster, WrongVersion
from p2p.gate import Gate, worth_telling
from p2p.protocol import KINDS, wire_format
from p2p.questions import AskMembers
from p2p.refusals import Refusals
from p2p.roles import Role
from p2p.wire import Envelope, WireFormat
from p2p.zap import ZAP_DOMAIN, judge

WIRE = wire_format()
GATE = Gate(WIRE, "ours")


def frame(message: object, cluster: str = "ours", wire: WireFormat = WIRE) -> bytes:
    return wire.encode(
        Envelope(cluster=cluster, ring_digest=b"", sender=NodeId("n"), incarnation=1, message=message)
    )


def test_rights_come_from_the_connection_and_not_from_the_sender() -> None:
    assert GATE.admit(frame(Nack(number=1)), Role.PEER).message == Nack(number=1)
    for role in (Role.OBSERVE, Role.SUBMIT):
        with pytest.raises(NotAllowed, match="may not send Nack"):
            GATE.admit(frame(Nack(number=1)), role)
        assert GATE.admit(frame(AskMembers(number=1)), role).message == AskMembers(number=1)


def test_a_frame_of_another_cluster_is_refused_with_both_names() -> None:
    with pytest.raises(WrongCluster, match="cluster 'theirs', this peer to 'ours'"):
        GATE.admit(frame(Nack(number=1), cluster="theirs"), Role.PEER)


def test_another_version_is_refused_before_anything_else_is_looked_at() -> None:
    other = frame(Nack(number=1), cluster="theirs", wire=WireFormat(KINDS, version=7))
    with pytest.raises(WrongVersion, match=r"version 7, this peer speaks version 1"):
        GATE.admit(other, Role.OBSERVE)


def test_garbage_is_not_answered_and_another_version_is() -> None:
    assert not worth_telling(NotOurFrame("x"))
    assert worth_telling(WrongVersion(2, 1))


KEY = b"k" * 32
USERS = {KEY: Role.SUBMIT}
REQUEST = [b"1.0", b"7", ZAP_DOMAIN, b"10.0.0.9", b"", b"CURVE", KEY]


def test_a_known_key_is_let_in_as_the_user_of_its_role() -> None:
    verdict = judge(REQUEST, USERS)
    assert verdict is not None
    assert verdict.role is Role.SUBMIT
    assert verdict.reply == [b"1.0", b"7", b"200", b"OK", b"submit", b""]
    assert verdict.remote == "10.0.0.9"


@pytest.mark.parametrize(
    ("place", "value"),
    [(6, b"x" * 32), (6, b""), (6, KEY[:-1]), (5, b"NULL"), (5, b"PLAIN"), (2, b""), (2, b"other")],
)
def test_whatever_else_is_turned_away(place: int, value: bytes) -> None:
    verdict = judge([*REQUEST[:place], value, *REQUEST[place + 1 :]], USERS)
    assert verdict is not None
    assert verdict.role is None
    assert verdict.reply[:3] == [b"1.0", b"7", b"400"]


@pytest.mark.parametrize("request_frames", [[], [b"1.0"], [b"2.0", *REQUEST[1:]]])
def test_what_is_no_request_gets_no_verdict(request_frames: list[bytes]) -> None:
    assert judge(request_frames, USERS) is None


def test_each_kind_of_refusal_writes_at_most_a_line_a_second_and_loses_no_count() -> None:
    refusals = Refusals()
    assert refusals.count("bad_key", "from a", 10.0) == (
        "refused a connection with an unknown key: from a [bad_key 1 in all]"
    )
    assert [refusals.count("bad_key", "from b", 10.0 + n / 100) for n in range(50)] == [None] * 50
    assert refusals.count("garbage", "from c", 10.5) is not None  # another kind has its own second
    assert refusals.due(10.99) == []
    assert refusals.due(11.0) == [
        "refused a connection with an unknown key (50 times): from b [bad_key 51 in all]"
    ]
    assert refusals.due(20.0) == []
    assert refusals.counts == {"bad_key": 51, "garbage": 1}
