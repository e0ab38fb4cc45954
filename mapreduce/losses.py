"""When is an output given up?  The most careful decision of a leader, since it makes committed work undone.

An output that nobody seems to hold may be held all the same: by a peer that is thought dead and is only cut
off, by one that restarts on its disk, or by one that got a copy after it had said what it holds.  So an
output is *missed* first: everybody is asked once more, and it is given up only if, `lost_grace_s` after it
was missed first, everybody who is here has answered and nobody has it.  While the register lacks a quorum
nothing is missed: then it is, most likely, we who are cut off.
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

    def doubt(self) -> None:
        """Miss nothing; what is not seen may be hidden from us alone."""
        self._since.clear()
        self._asked_for = frozenset()

    def miss(self, gone: frozenset[Output], now: float) -> bool:
        """Take note of what nobody seems to hold; True if everybody should be asked again."""
        self._since = {output: self._since.get(output, now) for output in sorted(gone)}
        ask = not gone <= self._asked_for
        self._asked_for = gone  # what is found again and missed again is asked for again
        return ask

    def due(self, now: float) -> list[Output]:
        """What can be given up now, if everybody has answered."""
        return [output for output, since in self._since.items() if now - since >= self._grace_s]

    @property
    def missed(self) -> int:
        """How many outputs are missed."""
        return len(self._since)

    @property
    def due_at(self) -> float:
        """When the first of them can be given up."""
        return min(self._since.values(), default=inf) + self._grace_s
