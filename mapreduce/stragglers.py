"""At the end of a stage: which tasks are asked back from where they lie, and which get a second attempt.

When nothing waits any more and a slot is free somewhere, what lies queued elsewhere is asked back: at once
from a worker that runs nothing of the job, since its slots are another job's; from others when it has lain
there for longer than a queue should take.

What runs far longer than its like is given to a second worker, and the first that finishes wins: the backup
tasks of Dean and Ghemawat, *MapReduce*, 2004, section 3.6.  Far longer is `JobsConfig.slow_factor` times the
median of the stage; nothing is called slow before `slow_least_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, inf

from mapreduce.config import JobsConfig
from mapreduce.messages import Phase
from mapreduce.pool import TaskPool, TaskState
from mapreduce.seats import Seat, Seats
from membership.view import NodeId

__all__ = ["Stragglers"]


class Stragglers:
    """Looks after the tasks of one stage that others wait for.

    Args:
        pool: the stage's tasks.
        seats: the workers.
        may_run: whether a worker may have a task.
        config: see there.

    Attributes:
        due_at: when to look again what could be asked back.
    """

    def __init__(
        self, pool: TaskPool, seats: Seats, may_run: Callable[[NodeId, int], bool], config: JobsConfig
    ) -> None:
        self.due_at = inf
        self._pool = pool
        self._seats = seats
        self._may_run = may_run
        self._config = config
        self._asked_at = -inf

    def ask_back(self, workers: frozenset[NodeId], now: float) -> list[tuple[NodeId, list[int]]]:
        """What is to be asked back for the idle: attempts, by the worker that has not begun them.

        Args:
            workers: who takes tasks.
            now: in seconds.
        """
        self.due_at = inf
        if not self._pool.attempts or not (idle := self._idle(workers)):
            return []
        again_at = self._asked_at + self._config.report_window_s
        if now < again_at:  # many come to their end at once: look at all of them together
            self.due_at = again_at
            return []
        self._asked_at = now
        wanted = sum(seat.idle for seat in idle)
        back: list[tuple[NodeId, list[int]]] = []
        donors = [(self._queued(seat, idle, now), seat) for seat in self._seats if not seat.idle]
        for queued, seat in sorted(donors, key=lambda one: (-len(one[0]), one[1].node)):
            count = min(wanted, len(queued) if seat.is_stuck else ceil(len(queued) / 2))
            if count > 0:
                seat.revoked_at = now
                wanted -= count
                back.append((seat.node, queued[-count:]))
        return back

    def second_workers(self, workers: frozenset[NodeId], now: float) -> Iterator[tuple[Seat, int]]:
        """The slowest tasks, and who should run each a second time.

        Args:
            workers: who takes tasks.
            now: in seconds.

        Yields:
            (a worker with a free slot, a task): grant it before asking for the next, so that the slot counts.
        """
        idle = self._idle(workers)
        slow_s = max(self._config.slow_least_s, self._config.slow_factor * self._pool.median_s)
        slow = [
            attempt
            for attempt in self._pool.attempts.values()
            if now - attempt.begun_at > slow_s
            and self._pool.states[attempt.task] is TaskState.GRANTED
            and not self._pool.others(attempt.number)
        ]
        for attempt in sorted(slow, key=lambda attempt: (attempt.begun_at, attempt.task)):
            able = [
                seat
                for seat in idle
                if seat.node != attempt.worker and seat.idle > 0 and self._may_run(seat.node, attempt.task)
            ]
            if able:
                # One that holds the data, if it can be.
                home = self._pool.home(attempt.task)
                yield min(able, key=lambda s: (s.node != home, -s.idle, s.node)), attempt.task

    def _idle(self, workers: frozenset[NodeId]) -> list[Seat]:
        """The workers with a slot that nobody has anything for, those with the most of them first."""
        idle = [seat for seat in self._seats if seat.wants_any and seat.idle > 0 and seat.node in workers]
        return sorted(idle, key=lambda seat: (-seat.idle, -seat.room_left, seat.node))

    def _queued(self, seat: Seat, idle: Sequence[Seat], now: float) -> list[int]:
        """What could be asked back for the idle; sets when to look again at what is too new for that."""
        old: list[int] = []
        for number in seat.attempts:
            attempt = self._pool.attempts.get(number)
            if attempt is None or attempt.phase is not Phase.QUEUED:
                continue
            if not any(self._may_run(other.node, attempt.task) for other in idle):
                continue
            # Where another job has the slots it need not lie there first: once the worker has said so.
            begins = (
                -inf if seat.is_stuck and attempt.mentioned_at > attempt.granted_at else attempt.granted_at
            )
            due_at = max(begins, seat.revoked_at) + self._config.queue_s
            if now >= due_at:
                old.append(number)
            else:
                self.due_at = min(self.due_at, due_at)
        return old
