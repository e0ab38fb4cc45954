"""What a member's record may look like on the wire, wherever it stands."""

from __future__ import annotations

from membership.view import MAX_WEIGHT
from p2p.schema import Bounds

__all__ = ["ADDRESS", "ID", "MEMBER", "WORD"]

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
