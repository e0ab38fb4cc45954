"""How well are we ourselves? A peer that doubts itself doubts others less.

Lifeguard (Dadgar, Phillips, Currey, 2017), section IV-A, "Local Health Aware Probe": most false accusations
come from an accuser that is itself too slow to hear the answer. Each peer keeps a score from 0 (well) to
`score_max` and multiplies its probe period and its timeouts by 1 + score.

=======================================================  ======
what happened                                            score
=======================================================  ======
a probe was answered                                     - 1
a probe failed, and every relay said "nack"              + 0
a probe failed, and so many relays said nothing at all   + each
a probe failed, and there was no relay to ask            + 1
we were accused and had to refute                        + 1
we woke up late                                          + 1
=======================================================  ======

The second row is memberlist's rather than the paper's: relays that tell us in time that they don't hear the
target either show that our own ears are fine.
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
