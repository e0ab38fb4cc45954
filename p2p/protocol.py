"""The table of everything peers and clients say to each other: tag, type, who may say it, limits.

Tags are for ever: a message that is no longer spoken leaves its number unused.  1–19 membership, 20–39
questions to a peer and their answers, 40–59 registers and transfers (`p2p.register_protocol`), 60–89 leaders
and workers (`p2p.job_protocol`), 90–105 and 120–130 questions about jobs (`p2p.job_questions`), 106–119 and
131 and up about files (`p2p.file_questions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import get_args

from membership import messages as swim
from membership.ring import MAX_WEIGHT
from p2p import questions as q
from p2p.file_questions import FILE_KINDS
from p2p.job_protocol import JOB_KINDS
from p2p.job_questions import QUESTION_KINDS
from p2p.register_protocol import REGISTER_KINDS
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import MAX_ITEMS, Kind, WireFormat

__all__ = ["KINDS", "client_wire_format", "wire_format"]

# Ids, addresses and zones stand in log lines and tables, so they hold no spaces and no control characters.
_WORD = r"[\x21-\x7e]+"
_ID = Bounds(text_chars=64, pattern=_WORD)
_ADDRESS = Bounds(text_chars=255, pattern=_WORD)
_MEMBER: dict[str, Bounds] = {
    "Member.id": _ID,
    "Member.address": _ADDRESS,
    "Member.incarnation": Bounds(most=(1 << 63) - 1),
    "Member.zone": Bounds(text_chars=64, pattern=r"[\x21-\x7e]*"),
    "Member.weight": Bounds(most=int(MAX_WEIGHT)),
    "Member.slots": Bounds(most=1_000_000),
    "Member.pid": Bounds(most=(1 << 32) - 1),
    "Member.meta": Bounds(items=16, text_chars=128),
}
_RUMOUR: dict[str, Bounds] = {**_MEMBER, "Rumour.accusers": Bounds(items=16, text_chars=64, pattern=_WORD)}
_RUMOURS = Bounds(items=256)


def _peer(tag: int, message: type, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=bounds or {})


def _ask(tag: int, message: type, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=Role.OBSERVE, bounds=bounds or {})


KINDS: tuple[Kind, ...] = (
    _peer(
        1,
        swim.Ping,
        {**_RUMOUR, "Ping.target": _ID, "Ping.reply_to": _ADDRESS, "Ping.rumours": _RUMOURS},
    ),
    _peer(2, swim.Ack, {**_RUMOUR, "Ack.rumours": _RUMOURS}),
    _peer(3, swim.Nack),
    _peer(
        4,
        swim.PingRequest,
        {
            **_RUMOUR,
            "PingRequest.target": _ID,
            "PingRequest.target_address": _ADDRESS,
            "PingRequest.reply_to": _ADDRESS,
            "PingRequest.rumours": _RUMOURS,
        },
    ),
    _peer(5, swim.Gossip, {**_RUMOUR, "Gossip.rumours": _RUMOURS}),
    _peer(6, swim.SyncRequest, {**_MEMBER, "SyncRequest.digests": Bounds(items=256)}),
    _peer(7, swim.SyncState, {**_MEMBER, "SyncState.members": Bounds(items=MAX_ITEMS)}),
    _peer(8, swim.Conflict, _MEMBER),
    _ask(20, q.AskMembers),
    _peer(21, q.MembersAre, {**_MEMBER, "MembersAre.members": Bounds(items=MAX_ITEMS)}),
    _ask(22, q.AskWhere, {"AskWhere.count": Bounds(least=1, most=1_024)}),
    _peer(23, q.WhereIs, {**_MEMBER, "WhereIs.owners": Bounds(items=1_024)}),
    _ask(24, q.AskWhy, {"AskWhy.node": _ID}),
    _peer(25, q.WhyIs, _MEMBER),
    _ask(26, q.Watch),
    _peer(27, q.Happened),
    _peer(28, q.Refused),
    *REGISTER_KINDS,
    *JOB_KINDS,
    *QUESTION_KINDS,
    *FILE_KINDS,
)

assert set(get_args(swim.Message)) <= {kind.message for kind in KINDS}, (
    "membership speaks a message without a tag"
)


@cache
def wire_format() -> WireFormat:
    """The wire format of this version, compiled."""
    return WireFormat(KINDS)


@cache
def client_wire_format() -> WireFormat:
    """What a client speaks of it: questions and answers; compiling the rest would take most of its time."""
    return WireFormat(kind for kind in KINDS if 20 <= kind.tag < 40 or 90 <= kind.tag < 120)
