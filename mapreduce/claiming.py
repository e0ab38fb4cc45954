"""When a worker claims tasks of a job, how many, and which: its credit, as it sees it.

It claims as many as it has room for: free slots, and a little more where tasks are so short that asking would
cost more time than running.  First those that are its own (`mapreduce.claims`, or the homes that the leader
names where data lies); when these are gone it claims without naming any, and gets what others have not begun.

A claim is about *now*: it says the whole room there is, how much of that could begin at once, and which grant
was the last to be counted in it.  It is said again when the room has changed, and now and then in case it was
lost.  `mapreduce.seats` is the other end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil, inf
from typing import NamedTuple

from mapreduce.config import JobsConfig
from mapreduce.held import Hands

__all__ = ["Claiming", "Wanted"]

NOTHING_CLAIMED = (-1, False)
SMOOTHING = 0.3
# However many slots there are: all that is in hand must fit into one message.
MAX_QUEUED = 2_048


class Wanted(NamedTuple):
    """What is claimed: `room` tasks in all, `idle` of them to begin at once, by name `tasks`; see `Claim`."""

    room: int
    idle: int
    tasks: tuple[int, ...]


class Claiming:
    """What one job claims of its leader on one worker.

    Args:
        hands: what the job has in hand here.
        slots: of the worker.
        config: see there.

    Attributes:
        may_claim: False where the worker takes no more of the job.
        share: how many slots the job should claim for.
        seen: the number of the last grant that is counted.
        due_at: when to claim.
    """

    def __init__(self, hands: Hands, slots: int, config: JobsConfig) -> None:
        self.may_claim = True
        self.share = slots
        self.seen = 0
        self.due_at = inf
        self._hands = hands
        self._config = config
        self._own: deque[int] = deque()
        self._idle = slots
        self._claimed = NOTHING_CLAIMED
        self._claimed_at = -inf
        self._asks_until = -inf
        self._task_s = inf

    # -- what is known -------------------------------------------------------------------------------------

    def begin_stage(self) -> None:
        """Another stage: how long its tasks take is not known yet."""
        self._task_s = inf

    def anew(self, now: float) -> None:
        """What was claimed before may not have been heard: claim at once."""
        self._claimed = NOTHING_CLAIMED
        self.due_at = now

    def own(self, tasks: Iterable[int]) -> None:
        """Claim these by name, in this order."""
        self._own = deque(tasks)

    def took(self, took_s: float) -> None:
        """A task was busy for so long."""
        before_s = self._task_s
        self._task_s = took_s if before_s == inf else (1 - SMOOTHING) * before_s + SMOOTHING * took_s

    def granted(self, number: int, *, is_empty: bool) -> None:
        """A claim is answered, with the grant of this number."""
        self.seen = max(self.seen, number)
        self._asks_until = -inf
        if self._own or not is_empty:
            self._claimed = NOTHING_CLAIMED  # where that came from there may be more

    def may_use(self, idle: int, now: float) -> None:
        """So many slots are left to whoever has tasks: claim at once if that is news."""
        self._idle = idle
        room, has_idle = self.room, self._idle_slots > 0
        if room > 0 and (room, has_idle) != self._claimed:
            window_s = self._config.report_window_s
            # Short tasks end in quick succession: claim for all of them together.
            at_once = has_idle and now - self._claimed_at >= window_s
            self.due_at = min(self.due_at, now if at_once else now + window_s)

    # -- what is wanted ------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more attempts the job could use here."""
        hands = self._hands
        if not self.may_claim or hands.pushing >= self._config.push_pending:
            return 0
        used = ceil(hands.running / self.depth)
        slots = max(self.share - used, self._idle)
        return max(0, slots + used + self._queue_goal - hands.queued - hands.running)

    @property
    def _queue_goal(self) -> int:
        """How many attempts should lie ready behind those that run."""
        if self._task_s == inf:
            return 1
        by_time = int(self._config.queue_s / max(self._task_s, 1e-6) * self.share)
        return max(1, min(self._config.queue_most * self.share, by_time, MAX_QUEUED))

    @property
    def depth(self) -> int:
        """How many attempts a slot should be given at a time, so that it never waits for the next."""
        if self._task_s == inf:
            return 1
        return max(1, min(self._config.queue_most, int(self._config.queue_s / 2 / max(self._task_s, 1e-6))))

    @property
    def _idle_slots(self) -> int:
        """How many slots wait for more than what is on its way here."""
        return max(0, self._idle - max(0, self._hands.queued - len(self._hands.queue)))

    def asks(self, now: float, *, has_offer: bool) -> bool:
        """Whether it has asked for tasks a moment ago, or is about to; without an offer it cannot."""
        if now < self._asks_until:
            return True
        return has_offer and self.room not in (0, self._claimed[0])

    def ask_at_once(self, now: float) -> float:
        """A slot is kept for it: claim now; gives how long to keep the slot."""
        if now >= self._asks_until:
            self.due_at, self._asks_until = now, now + self._config.asking_s
        return self._asks_until

    def claim(self, now: float) -> Wanted | None:
        """Claim what there is room for; None when there is none."""
        room, idle = self.room, self._idle_slots
        self.due_at = now + self._config.retry_s
        if room <= 0:
            return None
        tasks = tuple([self._own.popleft() for _ in range(min(room, len(self._own)))])
        self._claimed = (room, idle > 0)
        self._claimed_at = now
        self._asks_until = now + self._config.asking_s
        return Wanted(room, min(idle, room), tasks)
