"""Randomness by name: each subsystem draws from its own generator, derived from the seed and its name.

One shared generator would make every draw a part of every other subsystem's fate: a new fault kind would
reshuffle the whole network. Deriving the children by blake2b, not by ``Random(seed + 1)``, keeps them
independent, and equal under every hash seed.
"""

from __future__ import annotations

from hashlib import blake2b
from random import Random

__all__ = ["child_random"]


def child_random(seed: int, *names: str | int) -> Random:
    """The generator of the subsystem ``names`` in the world of ``seed``; the same arguments give the same
    draws."""
    path = "/".join([str(seed), *map(str, names)])
    return Random(
        int.from_bytes(blake2b(path.encode(), digest_size=16, person=b"ringreduce.sim").digest(), "big")
    )
