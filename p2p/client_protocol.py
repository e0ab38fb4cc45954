"""What clients and peers say to each other; a client needs nothing else of `p2p.protocol`.

It stands apart because importing and compiling the rest would take a short command most of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from membership.ring_types import MAX_WEIGHT
from p2p import questions as q
from p2p.job_questions import QUESTION_KINDS
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import MAX_ITEMS, Kind, WireFormat

__all__ = ["ADDRESS", "ASKING_KINDS", "ID", "MEMBER", "WORD", "client_wire_format"]

# Ids, addresses and zones stand in log lines and tables, so they hold no spaces and no control characters.
WORD = r"[\x21-\x7e]+"
ID = Bounds(text_chars=64, pattern=WORD)
ADDRESS = Bounds(text_chars=255, pattern=WORD)
MEMBER: dict[str, Bounds] = {
    "Member.id": ID,
    "Member.address": ADDRESS,
    "Member.incarnation": Bounds(most=(1 << 63) - 1),
    "Member.zone": Bounds(text_chars=64, pattern=r"[\x21-\x7e]*"),
    "Member.weight": Bounds(most=int(MAX_WEIGHT)),
    "Member.slots": Bounds(most=1_000_000),
    "Member.pid": Bounds(most=(1 << 32) - 1),
    "Member.meta": Bounds(items=16, text_chars=128),
}


def _peer(tag: int, message: type, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=bounds or {})


def _ask(tag: int, message: type, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=Role.OBSERVE, bounds=bounds or {})


ASKING_KINDS: tuple[Kind, ...] = (
    _ask(20, q.AskMembers),
    _peer(21, q.MembersAre, {**MEMBER, "MembersAre.members": Bounds(items=MAX_ITEMS)}),
    _ask(22, q.AskWhere, {"AskWhere.count": Bounds(least=1, most=1_024)}),
    _peer(23, q.WhereIs, {**MEMBER, "WhereIs.owners": Bounds(items=1_024)}),
    _ask(24, q.AskWhy, {"AskWhy.node": ID}),
    _peer(25, q.WhyIs, MEMBER),
    _ask(26, q.Watch),
    _peer(27, q.Happened),
    _peer(28, q.Refused),
)


@cache
def client_wire_format(*, with_files: bool = False) -> WireFormat:
    """The wire format as far as a client speaks it: questions about peers and jobs, or about files, too."""
    kinds = [*ASKING_KINDS, *QUESTION_KINDS]
    if with_files:
        from p2p.file_questions import FILE_KINDS

        kinds += FILE_KINDS
    return WireFormat(kind for kind in kinds if kind.tag < 120)  # what is above is among peers
