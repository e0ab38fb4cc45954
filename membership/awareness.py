"""How well are we ourselves? A peer that doubts itself doubts others less.

Lifeguard (Dadgar, Phillips, Currey, 2017), section IV-A, "Local Health Aware Probe": most false accusations
come from an accuser that is itself too slow to hear the answer. Each peer keeps a score from 0 (well) to
`score_max` and multiplies its probe period and its timeouts by 1 + score.

====================================================================  =====
what happened                                                         score
====================================================================  =====
a probe was answered                                                  - 1
a probe of a suspect failed                                           + 0
a probe failed; every relay said "nack", or is accused itself by now  + 0
a probe failed; a relay that nobody accuses said nothing at all       + 1
a probe failed; there was no relay to ask                             + 1
we were accused and had to refute                                     + 1
we woke up late                                                       + 1
====================================================================  =====

The paper counts every failed probe and every missing nack. That a target is dead does not make us ill (as in
memberlist, which takes the nacks as the sign), and silent relays may be as dead as the target is: where half
of a cluster dies at once, the survivors would think themselves deaf, and wait when they should hurry.
"""

from __future__ import annotations

__all__ = ["Awareness"]


class Awareness:
    """The local health multiplier.

    Args:
        score_max: where the score is capped.
    """

    __slots__ = ("_score_max", "score")

    def __init__(self, score_max: int) -> None:
        self._score_max = score_max
        self.score = 0

    def worsen(self, by: int) -> None:
        """Raise the score, up to its cap."""
        self.score = min(self._score_max, self.score + by)

    def improve(self) -> None:
        """Lower the score by one, down to 0."""
        if self.score > 0:
            self.score -= 1

    def scale(self, seconds: float) -> float:
        """Return a period or timeout as our health stretches it."""
        return seconds * (1 + self.score)
