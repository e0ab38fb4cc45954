"""Whether a proposer's rounds find a majority, and who is missing when they do not.

A round that gets no majority goes on for ever, since the answer may yet come. What its owner is told is told
once: that the quorum is lost after `patience_s`, again when others are missing, and that it is regained.
"""

from __future__ import annotations

from membership.register import AcceptorId, Group
from membership.register_effects import QuorumLost, QuorumRegained, Report
from membership.tally import Tally

__all__ = ["QuorumWatch"]


class QuorumWatch:
    """What was last said of a proposer's quorum.

    Args:
        patience_s: a round without a majority for so long is told.

    Attributes:
        told_missing: who was last said to be missing; empty while the quorum is not lost.
    """

    __slots__ = ("_patience_s", "told_missing")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.told_missing: tuple[AcceptorId, ...] = ()

    def lacks(self, group: Group, tally: Tally, needed: int, now: float) -> list[Report]:
        """A round has no majority at `now` (seconds): say so if it lasts, and has not been said."""
        missing = tally.missing
        if now - tally.began_s < self._patience_s or missing == self.told_missing:
            return []
        self.told_missing = missing
        return [Report(QuorumLost(key=group.key, group=group, missing=missing, needed=needed))]

    def found(self, key: str) -> list[Report]:
        """A round has found its majority."""
        if not self.told_missing:
            return []
        self.told_missing = ()
        return [Report(QuorumRegained(key=key))]
