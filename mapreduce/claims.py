"""Which tasks the ring gives to whom.

A task's key (a split's, see `mapreduce.spec.InputSplit`) stands on the ring, and the first peer clockwise
has it as long as its load stays within 1.25 times its share (Mirrokni, Thorup, Zadimoghaddam, *Consistent
Hashing with Bounded Loads*, 2016, section 2); else the next one with room.  `membership.ring.Ring.assign`
does the same for few keys with replicas and zones; this is the lean form for the thousands of tasks of a
stage, of which nobody needs more than the first owner.  It costs little a key and little a peer, and never
looks at all points of the ring, of which there are 64 a peer.

Tasks are placed in the order of their numbers, which are the same at every peer.  So peers with the same
view agree on whose each task is, without a word; peers with different views may claim the same task, and
the leader grants it once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    peers = ring.peers
    if not peers:
        return []
    points = sum([peer.points for peer in peers])
    room = {peer.id: math.ceil(CAPACITY_FACTOR * len(keys) * peer.points / points) for peer in peers}
    owner_at = ring.owner_at
    found: list[NodeId] = []
    for key in keys:
        position = key_position(key)
        home = owner_at(position)
        if not room[home]:
            # There is one: the rooms add up to more than there are keys.
            home = next(peer.id for peer in ring.walk(position) if room[peer.id])
        room[home] -= 1
        found.append(home)
    return found
