"""What a leadership counts: its ballot, its attempts, and what the record does not know yet.

Attempts are numbered under the leader's ballot, so no two leaderships ever give out the same number, and none
needs to know how far an earlier one came.  Counts go into the record with the next proposal
(`mapreduce.changes.CommitTasks`); what a leader counted and did not propose any more dies with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mapreduce.doings import Doings
from mapreduce.messages import ATTEMPTS_PER_BALLOT

__all__ = ["Numbers"]


@dataclass(slots=True)
class Numbers:
    """What a leadership counts: its ballot, its attempts, and what the record does not know yet.

    `moves` grows with each task that is granted for the first time, and with each winner that is written.
    """

    job: str
    ballot: int
    attempts: int = 0
    moves: int = 0
    unsaved_attempts: int = 0
    unsaved_failures: int = 0
    unsaved_speculated: int = 0
    unsaved_peers_lost: int = 0
    doings: Doings = field(default_factory=Doings)

    @property
    def has_news(self) -> bool:
        """Whether something was counted that the record does not know."""
        return bool(
            self.unsaved_attempts
            or self.unsaved_failures
            or self.unsaved_speculated
            or self.unsaved_peers_lost
        )

    def saved(self) -> None:
        """A proposal carries what was counted."""
        self.unsaved_attempts = self.unsaved_failures = 0
        self.unsaved_speculated = self.unsaved_peers_lost = 0

    def given_back(self, attempt: int) -> None:
        """An attempt was not begun: it was none, if it is this leadership's, which has counted it."""
        if attempt // ATTEMPTS_PER_BALLOT == self.ballot:
            self.unsaved_attempts -= 1

    def next_attempt(self) -> int:
        """A number that no attempt of the job ever had."""
        self.attempts += 1
        self.unsaved_attempts += 1
        assert self.attempts < ATTEMPTS_PER_BALLOT
        return self.ballot * ATTEMPTS_PER_BALLOT + self.attempts
