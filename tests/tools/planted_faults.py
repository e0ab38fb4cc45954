"""A machine that breaks the rules of determinism, in a module of its own: other processes import it."""

from __future__ import annotations

from membership.effects import Effect
from membership.swim import Swim

__all__ = ["GossipsInTheOrderOfASet"]


class GossipsInTheOrderOfASet(Swim):
    """Returns its effects in whatever order a set of strings has in this process."""

    def tick(self, now: float) -> list[Effect]:
        """Do what is due, in a random order that no generator knows of."""
        effects = {repr(effect): effect for effect in super().tick(now)}
        return [effects[text] for text in set(effects)]
