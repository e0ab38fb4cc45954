"""When is an output given up?  The most careful decision of a leader, since it makes committed work undone.

An output that nobody seems to hold may be held all the same: by a peer that is thought dead and is only cut
off, by one that restarts on its disk, or by one that got a copy after it had said what it holds.  So an
output is *missed* first: everybody is asked once more.  `lost_grace_s` later everybody is asked a last time,
for a copy may have come meanwhile that was on its way when its sender died; only when all who are here have
answered that too, and nobody has it, it is given up.  While the register lacks a quorum nothing is missed:
then it is, most likely, we who are cut off.
"""

from __future__ import annotations

from math import inf

__all__ = ["Losses"]

Output = tuple[int, int]
"""(stage, task)"""


class Losses:
    """What is missed, and since when.

    Args:
        grace_s: how long an output is missed before it is given up.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since: dict[Output, float] = {}
        self._asked_for: frozenset[Output] = frozenset()
        self._asked_last: frozenset[Output] = frozenset()

    def doubt(self) -> None:
        """Miss nothing; what is not seen may be hidden from us alone."""
        self._since.clear()
        self._asked_for = self._asked_last = frozenset()

    def miss(self, gone: frozenset[Output], now: float) -> bool:
        """Take note of what nobody seems to hold, now that everybody has answered; True: ask them again."""
        self._since = {output: self._since.get(output, now) for output in sorted(gone)}
        last = frozenset(output for output, since in self._since.items() if now >= since + self._grace_s)
        ask = not gone <= self._asked_for or not last <= self._asked_last
        # What is found again and missed again is asked for again.
        self._asked_for, self._asked_last = gone, last
        return ask

    def due(self) -> list[Output]:
        """What can be given up: everybody has been asked for it a last time, and has answered."""
        return sorted(self._asked_last)

    @property
    def missed(self) -> int:
        """How many outputs are missed."""
        return len(self._since)

    @property
    def due_at(self) -> float:
        """When the first of them can be given up."""
        return min(self._since.values(), default=inf) + self._grace_s
