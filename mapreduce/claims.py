"""Which tasks the ring gives to whom.

A task's key (a split's, see `mapreduce.spec.InputSplit`) stands on the ring, and the first peer clockwise
has it as long as its load stays within 1.25 times its share (Mirrokni, Thorup, Zadimoghaddam, *Consistent
Hashing with Bounded Loads*, 2016, section 2); else the next one with room.  `membership.ring.Ring.assign`
does the same for few keys with replicas and zones; this is the lean form for the thousands of tasks of a
stage, of which nobody needs more than the first owner.

Tasks are placed in the order of their numbers, which are the same at every peer.  So peers with the same
view agree on whose each task is, without a word; peers with different views may claim the same task, and
the leader grants it once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter

from membership.ring import Ring
from membership.ring_types import key_position
from membership.view import NodeId

__all__ = ["CAPACITY_FACTOR", "homes"]

CAPACITY_FACTOR = 1.25


def homes(keys: Sequence[str], ring: Ring) -> list[NodeId]:
    """Return the peer that should run each task.

    Args:
        keys: of the tasks, by task.
        ring: of the peers that take tasks; empty: nobody is named.
    """
    points = list(ring.points())
    if not points:
        return []
    positions = list(map(itemgetter(0), points))
    owners = list(map(itemgetter(1), points))
    room = {
        peer.id: math.ceil(CAPACITY_FACTOR * len(keys) * peer.points / len(points)) for peer in ring.peers
    }
    found: list[NodeId] = []
    for key in keys:
        place = bisect_left(positions, key_position(key)) % len(points)
        while not room[owners[place]]:  # ends: the rooms add up to more than there are keys
            place = (place + 1) % len(points)
        room[owners[place]] -= 1
        found.append(owners[place])
    return found
