"""Who holds what of a stage's outputs, as far as the leader knows.

Tasks are bits of an int: the sets of tasks that nodes hold are united and compared in C, so the thousands
of tasks of a stage cost about as much as one.  What a node holds of a task is a *coverage*: some partitions
of a map output, or the whole of it.  Nodes have one coverage each, mostly (their duty when the stage began)
and one more for each time that places moved.

The leader's knowledge may lag behind the truth in both directions.  It says that something is held only
when the holder said so; that a holder has lost it is found when it is read, and said with `Missing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from membership.view import NodeId

__all__ = ["WHOLE", "Coverage", "Holdings", "bits_of", "tasks_in"]


class Coverage:
    """A set of partitions, interned by its holder: compared by identity, hashed in no time."""

    __slots__ = ("_members", "partitions")

    def __init__(self, partitions: tuple[int, ...]) -> None:
        self.partitions = partitions
        self._members = frozenset(partitions)

    def covers(self, partition: int) -> bool:
        """Whether the partition is among them; the empty coverage is the whole output."""
        return not self.partitions or partition in self._members

    def covers_all(self, other: Coverage) -> bool:
        """Whether everything that `other` covers is covered."""
        if not self.partitions:
            return True
        return bool(other.partitions) and other._members <= self._members

    def meets(self, other: Coverage) -> bool:
        """Whether something is covered by both."""
        return not self.partitions or not other.partitions or not self._members.isdisjoint(other._members)

    def __repr__(self) -> str:
        return f"Coverage({self.partitions or 'whole'})"


WHOLE = Coverage(())


class Holdings:
    """The outputs of one stage, by holder."""

    def __init__(self) -> None:
        self._held: dict[NodeId, dict[Coverage, int]] = {}
        self._interned: dict[tuple[int, ...], Coverage] = {(): WHOLE}

    def coverage(self, partitions: tuple[int, ...]) -> Coverage:
        """The one coverage of these partitions; empty: the whole output."""
        found = self._interned.get(partitions)
        if found is None:
            found = self._interned[partitions] = Coverage(partitions)
        return found

    def add(self, node: NodeId, coverage: Coverage, tasks: int) -> None:
        """A node holds so much of these tasks' outputs, too."""
        held = self._held.setdefault(node, {})
        held[coverage] = held.get(coverage, 0) | tasks

    def remove(self, node: NodeId, tasks: int) -> None:
        """A node does not hold these tasks' outputs after all, or not whole."""
        held = self._held.get(node, {})
        for coverage in held:
            held[coverage] &= ~tasks

    def forget_tasks(self, tasks: int) -> None:
        """Nobody holds outputs of these tasks that count."""
        for node in self._held:
            self.remove(node, tasks)

    def forget_node(self, node: NodeId) -> None:
        """Nothing is known of this node."""
        self._held.pop(node, None)

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Everybody who holds something, in a fixed order."""
        return tuple(sorted(self._held))

    def held(self, node: NodeId, partition: int) -> int:
        """The tasks of which a node holds the partition."""
        return _united(bits for c, bits in self._held.get(node, {}).items() if c.covers(partition))

    def held_all(self, node: NodeId, wanted: Coverage) -> int:
        """The tasks of which a node holds everything in a coverage."""
        held = self._held.get(node, {})
        whole = _united(bits for c, bits in held.items() if c.covers_all(wanted))
        if len(held) < 2 or not wanted.partitions:
            return whole
        each = -1  # every bit set
        for partition in wanted.partitions:
            each &= self.held(node, partition)
        return whole | each

    def copies(self, partition: int, task_bit: int) -> int:
        """How many nodes hold this partition of this task."""
        return sum(1 for node in self._held if self.held(node, partition) & task_bit)

    def somewhere(self, partition: int) -> int:
        """The tasks of which anybody holds the partition."""
        return _united(self.held(node, partition) for node in self._held)


def bits_of(tasks: Iterable[int]) -> int:
    """Return a set of tasks as bits."""
    numbers = list(tasks)
    if len(numbers) < 8:
        bits = 0
        for number in numbers:
            bits |= 1 << number
        return bits
    data = bytearray((max(numbers) >> 3) + 1)
    for number in numbers:
        data[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(data, "little")


def tasks_in(bits: int) -> Iterator[int]:
    """Yield the tasks in a set, ascending."""
    data = bits.to_bytes((bits.bit_length() + 7) >> 3, "little")
    for index, byte in enumerate(data):
        while byte:
            low = byte & -byte
            yield (index << 3) + low.bit_length() - 1
            byte ^= low


def _united(sets: Iterable[int]) -> int:
    united = 0
    for bits in sets:
        united |= bits
    return united
