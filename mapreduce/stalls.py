"""When has a job stalled?  Said once, with the reason, and taken back only when a task has really moved.

Progress is a number that grows with every task that is granted for the first time and every winner that is
written.  What merely happens (a beat, a task given back and granted again, places that move, an event that is
written down) is none: a job in which only that happens is the very one whose user should be told.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

__all__ = ["StallWatch"]


class StallWatch:
    """Watches one job.

    Args:
        stall_s: no progress for so long is a stall.
        now: when watching begins, in seconds.
    """

    def __init__(self, stall_s: float, now: float) -> None:
        self._stall_s = stall_s
        self._since = now
        self._progress = 0
        self._is_said = False

    def look(self, progress: int, now: float, reason: Callable[[], str]) -> str | None:
        """Say what is to be announced now: a stall, "" for its end, None for nothing.

        Args:
            progress: grows whenever a task moves.
            now: in seconds.
            reason: what the job waits for, in words.
        """
        if progress != self._progress:
            was_said, self._is_said = self._is_said, False
            self._progress, self._since = progress, now
            return "" if was_said else None
        if now < self.due_at:
            return None
        self._is_said = True
        return f"no progress for {now - self._since:.0f} s: {reason()}"

    @property
    def due_at(self) -> float:
        """When to look again, in seconds."""
        return inf if self._is_said else self._since + self._stall_s
