"""Scrubbing: bytes rot where nobody reads them, so that somebody has to.

Every segment of the store, be it a block or a part of a result, is read through once in `SCRUB_PERIOD_S`, out
of the same budget as repairs.  A damaged one is removed and counted; what it held is then lacking, and comes
again from another holder by the rules for blocks (`p2p.replication`) and results (`p2p.result_keeper`).

Whoever doubts a disk asks for a pass at once (`ringreduce scrub`, `p2p.ring_questions.AskScrub`), out of the
same budget; where one is under way he joins it, so that nobody who waits for it loses its counts.

⚙ Reads segments, through the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from p2p.segments import COPY_BYTES

if TYPE_CHECKING:
    from p2p.job_service import JobService

__all__ = ["SCRUB_PERIOD_S", "Scrubber"]

SCRUB_PERIOD_S = 3600.0
SCRUB_TURN_S = 0.25


class Scrubber:
    """Reads through the store of one peer, again and again; `desk` is the service that it is a part of.

    Attributes:
        due_at: when to be ticked again.
        checked: how many segments the present or last pass has read.
        damaged: how many of them were damaged, or not there any more.
    """

    def __init__(self, desk: JobService, now: float) -> None:
        self._desk = desk
        self.due_at = now + SCRUB_TURN_S
        self._under_way: Iterator[bool] | None = None
        self._path = ""
        self._waits: list[str] = []
        self._next_pass_at = now + SCRUB_PERIOD_S
        self.checked = 0
        self.damaged = 0

    def begin(self, now: float) -> None:
        """Read through all that lies here, however long ago the last pass was, or join the present one."""
        if self.waiting:
            return
        self._next_pass_at = now + SCRUB_PERIOD_S
        self._waits = self._desk.store.segments()
        self.checked = self.damaged = 0
        self.due_at = now

    @property
    def waiting(self) -> int:
        """How many segments the present pass has not read to their end."""
        return len(self._waits) + (self._under_way is not None)

    def tick(self, now: float) -> None:
        """Check a little more, if it is due and the budget has room."""
        store = self._desk.store
        if now < self.due_at:
            return
        self.due_at = now + SCRUB_TURN_S
        while True:
            if self._under_way is None:
                if not self._waits:
                    if now < self._next_pass_at:
                        return
                    self.begin(now)
                    self.due_at = now + SCRUB_TURN_S
                    if not self._waits:
                        return
                self._path = self._waits.pop()
                if not store.holds_path(self._path):
                    continue
                self._under_way = store.verifying(self._path)
            if not self._desk.bulk.take_repair_budget(COPY_BYTES, now):
                return
            damaged_before = store.damaged
            try:
                goes_on = next(self._under_way, False)
            except OSError:  # for want of descriptors: it is read in a later turn, and not counted before
                self._waits.append(self._path)
                self._under_way = None
                return
            if not goes_on:
                self._under_way = None
                self.checked += 1
            if store.damaged > damaged_before:  # not one that was dropped before its turn came
                self.damaged += 1
                self._desk.log("a damaged segment was found by scrubbing and removed; copies are made again")
