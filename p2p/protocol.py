"""The table of everything peers and clients say to each other: tag, type, who may say it, limits.

Tags are for ever: a message that is no longer spoken leaves its number unused.  1–19 membership and what is
passed on (`p2p.forwarding`), 20–39
questions about the ring (`p2p.questions`, `p2p.ring_questions`), 40–59 registers and transfers
(`p2p.register_protocol`), 60–89 leaders and workers (`p2p.job_protocol`), 90–105 questions about
jobs (`p2p.job_questions`), 106–119 and 131–149 about files (`p2p.file_questions`), 120–130 what peers ask
each other about jobs (`p2p.job_inquiries`), 150–155 the copies of results (`p2p.result_questions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import get_args

from membership import messages as swim
from p2p.file_questions import FILE_KINDS
from p2p.forwarding import FORWARD_KIND
from p2p.job_inquiries import INQUIRY_KINDS
from p2p.job_protocol import JOB_KINDS
from p2p.job_questions import QUESTION_KINDS
from p2p.member_bounds import ADDRESS, ID, MEMBER, WORD
from p2p.questions import COMMON_KINDS
from p2p.register_protocol import REGISTER_KINDS
from p2p.result_questions import RESULT_KINDS
from p2p.ring_questions import RING_KINDS
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import MAX_ITEMS, Kind, WireFormat

__all__ = ["KINDS", "wire_format"]

_RUMOUR: dict[str, Bounds] = {**MEMBER, "Rumour.accusers": Bounds(items=16, text_chars=64, pattern=WORD)}
_RUMOURS = Bounds(items=256)


def _peer(tag: int, message: type, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=bounds or {})


KINDS: tuple[Kind, ...] = (
    _peer(
        1,
        swim.Ping,
        {**_RUMOUR, "Ping.target": ID, "Ping.reply_to": ADDRESS, "Ping.rumours": _RUMOURS},
    ),
    _peer(2, swim.Ack, {**_RUMOUR, "Ack.rumours": _RUMOURS}),
    _peer(3, swim.Nack),
    _peer(
        4,
        swim.PingRequest,
        {
            **_RUMOUR,
            "PingRequest.target": ID,
            "PingRequest.target_address": ADDRESS,
            "PingRequest.reply_to": ADDRESS,
            "PingRequest.rumours": _RUMOURS,
        },
    ),
    _peer(5, swim.Gossip, {**_RUMOUR, "Gossip.rumours": _RUMOURS}),
    _peer(6, swim.SyncRequest, {**MEMBER, "SyncRequest.digests": Bounds(items=256)}),
    _peer(7, swim.SyncState, {**MEMBER, "SyncState.members": Bounds(items=MAX_ITEMS)}),
    _peer(8, swim.Conflict, MEMBER),
    FORWARD_KIND,
    *COMMON_KINDS,
    *RING_KINDS,
    *REGISTER_KINDS,
    *JOB_KINDS,
    *QUESTION_KINDS,
    *INQUIRY_KINDS,
    *FILE_KINDS,
    *RESULT_KINDS,
)

assert set(get_args(swim.Message)) <= {kind.message for kind in KINDS}, (
    "membership speaks a message without a tag"
)


@cache
def wire_format() -> WireFormat:
    """The wire format of this version, compiled."""
    return WireFormat(KINDS)
