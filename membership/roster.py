"""An order that is not decided before it is needed: whom to probe next, and whom to pick at random.

SWIM (section 4.3) probes in rounds: the list of members is shuffled, walked through, and shuffled again, and
a newcomer is put in at a random place. Done literally, that costs each peer a list of all members; ten
thousand simulated peers would need ten thousand lists of ten thousand.

Here the list is virtual. It is the shared, sorted tuple of ids that all peers start from, plus the places
where this peer's list differs from it, in a dictionary. The shuffle is Fisher and Yates's, one step at a
time: places below the cursor were probed in this round, and the next one is drawn at random from the rest,
which stays in the order it had. Newcomers are appended to that undecided rest, so they come up at a random
place without being put there.

    place     0 … cursor-1     cursor … count-1
              probed           not yet probed in this round

Every operation takes constant time; memory grows with the number of differences only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from membership.view import NodeId

__all__ = ["Roster"]


class Roster:
    """The other members that are in the ring, as a list with a round-robin cursor.

    Args:
        base: ids that everybody starts from; shared, never changed.
        position: the place of each of them in `base`; shared, never changed.
    """

    __slots__ = ("_base", "_count", "_cursor", "_moved", "_position", "_where")

    def __init__(self, base: Sequence[NodeId] = (), position: Mapping[NodeId, int] | None = None) -> None:
        self._base = base
        self._position: Mapping[NodeId, int] = {} if position is None else position
        self._moved: dict[int, NodeId] = {}  # place -> id, where it is not base[place]
        self._where: dict[NodeId, int] = {}  # id -> place, where it is not position[id]; _NOWHERE if removed
        self._count = len(base)
        self._cursor = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, node: NodeId) -> bool:
        return self._place_of(node) >= 0

    def __getitem__(self, place: int) -> NodeId:
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._at(place)

    def add(self, node: NodeId) -> None:
        """Put in a newcomer, to be probed at a random time of this round; one who is here stays put."""
        if node not in self:
            self._put(self._count, node)
            self._count += 1

    def remove(self, node: NodeId) -> None:
        """Take a member out, without disturbing the round of the others. Unknown ones are ignored."""
        place = self._place_of(node)
        if place < 0:
            return
        if place < self._cursor:
            # Close the gap among the probed with the last probed one: the gap moves to the border.
            self._cursor -= 1
            place = self._fill(place, self._cursor)
        self._count -= 1
        gap = self._fill(place, self._count)
        self._moved.pop(gap, None)
        if node in self._position:
            self._where[node] = _NOWHERE
        else:
            self._where.pop(node, None)

    def next(self, rng: random.Random) -> NodeId | None:
        """Return whom to probe next: everybody once a round, in random order; None if nobody is here."""
        if self._count == 0:
            return None
        if self._cursor >= self._count:
            self._cursor = 0
        drawn = self._cursor + int(rng.random() * (self._count - self._cursor))
        node, displaced = self._at(drawn), self._at(self._cursor)
        if drawn != self._cursor:
            self._put(drawn, displaced)
            self._put(self._cursor, node)
        self._cursor += 1
        return node

    def sample(self, k: int, rng: random.Random, without: NodeId | None = None) -> list[NodeId]:
        """Return up to k distinct members in random order, `without` not among them; takes O(k)."""
        places = rng.sample(range(self._count), min(k + 1, self._count))
        return [node for node in map(self._at, places) if node != without][:k]

    def _fill(self, gap: int, source: int) -> int:
        """Move what is at `source` into the gap; return where the gap is now."""
        if gap != source:
            self._put(gap, self._at(source))
        return source

    def _at(self, place: int) -> NodeId:
        node = self._moved.get(place)
        return self._base[place] if node is None else node

    def _place_of(self, node: NodeId) -> int:
        place = self._where.get(node)
        return self._position.get(node, _NOWHERE) if place is None else place

    def _put(self, place: int, node: NodeId) -> None:
        if self._position.get(node) == place:
            # Back where everybody has it: nothing to remember.
            self._moved.pop(place, None)
            self._where.pop(node, None)
        else:
            self._moved[place] = node
            self._where[node] = place


_NOWHERE = -1
