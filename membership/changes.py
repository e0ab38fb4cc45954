"""The changes that one proposer has been given: those that wait, and those in the round under way.

A change is in exactly one of the two places. When its round is chosen it is done; when its round is cut short
it goes back to where it came from, before those that came later, and is applied again to what the next round
finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from membership.errors import TooManyProposals
from membership.register import Change, Record
from membership.register_config import RegisterConfig

__all__ = ["Changes", "Oversized"]


@dataclass(frozen=True, slots=True)
class Oversized:
    """A change whose payload is too large; it has been dropped."""

    number: int
    payload_bytes: int


class Changes:
    """A bounded queue of numbered changes, and a round's batch of them.

    Args:
        config: `proposals_max`, `batch_max`, `payload_bytes_max`.
    """

    __slots__ = ("_config", "_last", "_under_way", "_waiting")

    def __init__(self, config: RegisterConfig) -> None:
        self._config = config
        self._last = 0
        self._waiting: deque[tuple[int, Change]] = deque()
        self._under_way: list[tuple[int, Change, Record]] = []

    @property
    def waiting(self) -> int:
        """How many wait for a round."""
        return len(self._waiting)

    def add(self, change: Change) -> int:
        """Queue a change; return its number.

        Raises:
            TooManyProposals: the queue is full.
        """
        if len(self._waiting) + len(self._under_way) >= self._config.proposals_max:
            raise TooManyProposals(f"{self._config.proposals_max} changes are waiting already")
        number = self.next_number()
        self._waiting.append((number, change))
        return number

    def next_number(self) -> int:
        """Return a number that no change had."""
        self._last += 1
        return self._last

    def apply(
        self, base: Record, derive: Callable[[Record, Change], Record]
    ) -> tuple[Record, list[Oversized]]:
        """Take those that wait, in order and up to a batch, and apply them.

        Args:
            base: what the register holds; a sealed record takes no changes, so all go on waiting.
            derive: how a change is applied.

        Returns:
            The record after all of them, and those that were dropped.
        """
        record, dropped = base, []
        while self._waiting and not base.sealed and len(self._under_way) < self._config.batch_max:
            number, change = self._waiting.popleft()
            changed = derive(record, change)
            if len(changed.payload) > self._config.payload_bytes_max:
                dropped.append(Oversized(number, len(changed.payload)))
                continue
            record = changed
            self._under_way.append((number, change, record))
        return record, dropped

    def finish(self) -> list[tuple[int, Record]]:
        """The round is chosen: return its changes' numbers, each with the record right after it."""
        done = [(number, record) for number, _, record in self._under_way]
        self._under_way.clear()
        return done

    def take_back(self) -> None:
        """The round was cut short: its changes wait again, in front."""
        self._waiting.extendleft((number, change) for number, change, _ in reversed(self._under_way))
        self._under_way.clear()

    def abandon(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Drop everything; return the numbers of those under way (whose fate is open), and of the waiting."""
        uncertain = tuple(number for number, _, _ in self._under_way)
        waiting = tuple(number for number, _ in self._waiting)
        self._under_way.clear()
        self._waiting.clear()
        return uncertain, waiting
