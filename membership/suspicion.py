"""How long a suspect has to object: shorter, the more peers accuse it independently.

Lifeguard (section IV-B, "Local Health Aware Suspicion"): an accusation by one peer may be that peer's own
fault, so it lasts `max_s`; each further accuser that failed to reach the suspect by a probe of its own
shrinks it, logarithmically, until with `expected` of them it lasts `min_s`, counted from the start of the
suspicion.

    confirmations  0        1        2 (expected = 2)
    lasts          max_s    …        min_s

Suspicions are values; `Suspicions` keeps those under way, with their deadlines in a heap from which outdated
entries are dropped when they come to the top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf, log

from membership.view import NodeId

__all__ = ["Suspicion", "Suspicions", "suspicion_timeout_s"]


def suspicion_timeout_s(confirmations: int, expected: int, min_s: float, max_s: float) -> float:
    """Return how long a suspicion lasts from its start.

    Args:
        confirmations: accusers beyond the first.
        expected: so many confirmations make it shortest; 0 if there is nobody to confirm.
        min_s, max_s: the shortest and the longest, in seconds.
    """
    if expected <= 0 or confirmations >= expected:
        return min_s
    return max_s - (max_s - min_s) * log(confirmations + 1) / log(expected + 1)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One suspicion under way.

    Attributes:
        accusers: distinct, in the order in which we heard of them; at most `expected` + 1 count.
        started_s: when it began here.
        expected, min_s, max_s: see `suspicion_timeout_s`.
    """

    accusers: tuple[NodeId, ...]
    started_s: float
    expected: int
    min_s: float
    max_s: float

    @property
    def deadline_s(self) -> float:
        """When the suspect is dead."""
        confirmations = max(0, len(self.accusers) - 1)  # nobody is named where a state exchange told us
        return self.started_s + suspicion_timeout_s(confirmations, self.expected, self.min_s, self.max_s)

    def confirm(self, accusers: Iterable[NodeId], accusers_max: int) -> Suspicion:
        """Return the suspicion with further accusers; itself if they are not new, or enough are known."""
        merged = list(self.accusers)
        for accuser in accusers:
            if accuser not in merged and len(merged) < accusers_max:
                merged.append(accuser)
        return self if len(merged) == len(self.accusers) else replace(self, accusers=tuple(merged))


class Suspicions:
    """The suspicions under way, by suspect.

    Attributes:
        deadline_s: when the first suspect dies; infinity if there is none.
    """

    __slots__ = ("_by_node", "_entries", "_heap", "deadline_s")

    def __init__(self) -> None:
        self._by_node: dict[NodeId, Suspicion] = {}
        self._heap: list[tuple[float, int, NodeId, Suspicion]] = []  # the int only keeps entries comparable
        self._entries = 0
        self.deadline_s = inf

    def __len__(self) -> int:
        return len(self._by_node)

    def get(self, node: NodeId) -> Suspicion | None:
        """Return the suspicion of a node, if it is under way."""
        return self._by_node.get(node)

    def put(self, node: NodeId, suspicion: Suspicion) -> None:
        """Begin or replace the suspicion of a node."""
        self._by_node[node] = suspicion
        self._entries += 1
        heappush(self._heap, (suspicion.deadline_s, self._entries, node, suspicion))
        self._tidy()

    def drop(self, node: NodeId) -> Suspicion | None:
        """End the suspicion of a node, if there is one, and return it."""
        suspicion = self._by_node.pop(node, None)
        if suspicion is not None:
            self._tidy()
        return suspicion

    def pop_due(self, now: float) -> list[tuple[NodeId, Suspicion]]:
        """End and return the suspicions whose time is up, in order of their deadlines."""
        due = []
        while self.deadline_s <= now:
            _, _, node, suspicion = heappop(self._heap)
            del self._by_node[node]
            due.append((node, suspicion))
            self._tidy()
        return due

    def postpone(self, by_s: float) -> None:
        """Give every suspect more time: while we were asleep, nobody could tell us that it is well."""
        waiting = list(self._by_node.items())
        self._heap.clear()
        for node, suspicion in waiting:
            self.put(node, replace(suspicion, started_s=suspicion.started_s + by_s))

    def _tidy(self) -> None:
        """Drop entries that were ended or replaced from the top of the heap, and note the deadline."""
        heap = self._heap
        while heap and self._by_node.get(heap[0][2]) is not heap[0][3]:
            heappop(heap)
        self.deadline_s = heap[0][0] if heap else inf
