"""Pushes of one job from one worker: what waits for which place, what is under way, what is tried again.

A push carries the same partitions of many attempts to one place.  While a worker is busy, small outputs wait
a few milliseconds for each other, because a transfer costs about as much as it takes to read a small one.
What waits is bounded by the worker, which begins no task while too many outputs are unacknowledged.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from math import inf

from mapreduce.config import JobsConfig
from mapreduce.held import Partitions
from mapreduce.messages import HeldGroup, most_attempts
from membership.view import NodeId

__all__ = ["OutPush", "Outgoing"]

# An output of this size gains nothing from waiting for others.
LARGE_BYTES = 256 << 10

Lane = tuple[NodeId, Partitions]


@dataclass(frozen=True, slots=True)
class OutPush:
    """A push under way.

    Attributes:
        copy_order: the order that it answers, 0 for outputs of this worker.
        ballot: of the leader that gave the order; another one numbers its orders anew.
        is_doubtful: its place began anew meanwhile: an acknowledgement may be an earlier process's.
    """

    number: int
    to: NodeId
    group: HeldGroup
    copy_order: int = 0
    ballot: int = 0
    is_doubtful: bool = False


class Outgoing:
    """The pushes of one job.

    Args:
        config: see there.
        numbers: of pushes, never used twice by this worker.
    """

    def __init__(self, config: JobsConfig, numbers: Iterator[int]) -> None:
        self.due_at = inf
        self._config = config
        self._numbers = numbers
        self._lanes: dict[Lane, list[tuple[int, int]]] = {}
        self._under_way: dict[int, OutPush] = {}
        self._again: list[tuple[float, int, Lane, list[tuple[int, int]]]] = []

    def add(
        self, to: NodeId, partitions: Partitions, task: int, attempt: int, now: float, *, at_once: bool
    ) -> None:
        """Let an output wait for its place; `at_once` where nothing else is to come soon."""
        lane = self._lanes.setdefault((to, partitions), [])
        lane.append((task, attempt))
        if at_once or len(lane) >= self._config.push_batch:
            self.due_at = now
        else:
            self.due_at = min(self.due_at, now + self._config.push_window_s)

    def flush(self, stage: int, now: float, in_hand: Container[int]) -> list[OutPush]:
        """Begin what is due.

        Args:
            in_hand: the attempts that are still to be pushed.  One that waited for a place that had died may
                have been settled meanwhile: its output is not here any more, and nobody waits for it.
        """
        while self._again and self._again[0][0] <= now:
            _, _, lane, outputs = heapq.heappop(self._again)
            self._lanes.setdefault(lane, []).extend(outputs)
            self.due_at = now
        begun: list[OutPush] = []
        if now < self.due_at:
            return begun
        self.due_at = inf
        lanes, self._lanes = self._lanes, {}
        for (to, partitions), outputs in lanes.items():
            most = most_attempts(self._config.push_batch, len(partitions))
            waiting = [output for output in outputs if output[1] in in_hand]
            for start in range(0, len(waiting), most):
                some = waiting[start : start + most]
                group = HeldGroup(
                    stage=stage,
                    partitions=partitions,
                    tasks=tuple([task for task, _ in some]),
                    attempts=tuple([attempt for _, attempt in some]),
                )
                begun.append(self.begin(to, group))
        return begun

    def begin(self, to: NodeId, group: HeldGroup, copy_order: int = 0, ballot: int = 0) -> OutPush:
        """Number a push and keep it until it is answered."""
        push = OutPush(next(self._numbers), to, group, copy_order, ballot)
        self._under_way[push.number] = push
        return push

    def answered(self, number: int) -> OutPush | None:
        """A push succeeded or failed; None for one that nobody waits for any more."""
        return self._under_way.pop(number, None)

    def doubt(self, nodes: Container[NodeId]) -> None:
        """These began anew: what they say of pushes that are under way does not count."""
        for number, push in self._under_way.items():
            if push.to in nodes:
                self._under_way[number] = replace(push, is_doubtful=True)

    def again(self, to: NodeId, partitions: Partitions, outputs: list[tuple[int, int]], now: float) -> None:
        """Push (task, attempt) again after a while."""
        # A number breaks ties between equal times.
        due = now + self._config.push_retry_s
        heapq.heappush(self._again, (due, next(self._numbers), (to, partitions), outputs))

    def drop(self) -> list[int]:
        """Forget the outputs of a stage, but go on with copies; gives the pushes that nobody waits for."""
        self._lanes.clear()
        self._again.clear()
        self.due_at = inf
        dropped = [number for number, push in self._under_way.items() if not push.copy_order]
        for number in dropped:
            del self._under_way[number]
        return dropped

    def drop_all(self) -> list[int]:
        """Forget everything; gives the pushes that nobody waits for."""
        self.drop()
        dropped = list(self._under_way)
        self._under_way.clear()
        return dropped

    @property
    def next_deadline(self) -> float:
        """When something is due."""
        return min(self.due_at, self._again[0][0] if self._again else inf)
