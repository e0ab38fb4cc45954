"""Why a member has the status it has: who said what about it, and when.

Kept for each member separately and bounded, so that a flapping member neither hides the story of the others
nor fills the memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from membership.view import NodeId, Status

__all__ = ["Cause", "History", "WhyEntry"]


class Cause(StrEnum):
    """What changed a belief."""

    JOINED = "joined"
    PROBE_FAILED = "probe failed"
    ACCUSED = "accused"
    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    TIMED_OUT = "suspicion timed out"
    DECLARED_DEAD = "declared dead"
    LEFT = "left"
    RETURNED = "returned"
    UPDATED = "updated"
    REAPED = "reaped"


@dataclass(frozen=True, slots=True)
class WhyEntry:
    """One step in the story of a member.

    Attributes:
        at_s: when we learned it, in seconds of our own clock.
        cause: what happened.
        by: whose word it is: the accusers, ourselves, or the member itself; empty if not known.
        status: the status that followed.
        incarnation: of the member, then.
    """

    at_s: float
    cause: Cause
    by: tuple[NodeId, ...]
    status: Status
    incarnation: int


class History:
    """The last entries for each member."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: dict[NodeId, deque[WhyEntry]] = {}

    def add(self, node: NodeId, entry: WhyEntry) -> None:
        """Append an entry; the node's oldest one goes when it has too many."""
        entries = self._entries.get(node)
        if entries is None:
            entries = self._entries[node] = deque(maxlen=self._entries_max)
        entries.append(entry)

    def of(self, node: NodeId) -> tuple[WhyEntry, ...]:
        """Return the node's entries, oldest first."""
        return tuple(self._entries.get(node, ()))

    def forget(self, node: NodeId) -> None:
        """Drop the node's entries."""
        self._entries.pop(node, None)
