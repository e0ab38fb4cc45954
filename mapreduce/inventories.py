"""Who has said what it holds, and what nobody holds: the roll call of a job.

What lies where is known by its holders alone.  A new leader asks them all (`AskInventory`), and again those
who are silent, every `retry_s`.  It grants nothing before all who are alive have answered, or `gather_s` is
over: what seems undone may be in somebody's hands.  It gives nothing up before *all* who are here have
answered, however long that takes, and then only by the rules of `mapreduce.losses`.
"""

from __future__ import annotations

from math import inf

from mapreduce.changes import Change
from mapreduce.config import JobsConfig
from mapreduce.keeper import Keeper
from mapreduce.losses import Losses
from mapreduce.messages import AskInventory
from mapreduce.seats import Seats
from membership.view import NodeId, View

__all__ = ["Inventories"]


class Inventories:
    """What the workers of a job have said that they hold.

    Args:
        job: its id.
        seats: the workers.
        keeper: knows who holds what of all that was said.
        config: see there.

    Attributes:
        gather_until: when to go on without those who are silent.
    """

    def __init__(self, job: str, seats: Seats, keeper: Keeper, config: JobsConfig) -> None:
        self.gather_until = inf
        self._job = job
        self._seats = seats
        self._keeper = keeper
        self._config = config
        self._losses = Losses(config.lost_grace_s)

    @property
    def knows_all(self) -> bool:
        """Whether everybody who is here has said what it holds."""
        return all(seat.knows_inventory for seat in self._seats)

    @property
    def silent(self) -> list[NodeId]:
        """Those who have not."""
        return [seat.node for seat in self._seats if not seat.knows_inventory]

    @property
    def missed(self) -> int:
        """How many outputs nobody seems to hold."""
        return self._losses.missed

    @property
    def gives_up_at(self) -> float:
        """When the first of them can be given up, if nobody is found to hold it."""
        return self._losses.due_at if self.knows_all else inf

    def begin_gathering(self, now: float) -> None:
        """Wait for all who are alive, for a while."""
        self.gather_until = now + self._config.gather_s

    def has_gathered(self, view: View, now: float) -> bool:
        """Whether all who are alive have answered, or were waited for long enough."""
        if now >= self.gather_until:
            return True
        alive = {member.id for member in view.alive}
        return all(seat.knows_inventory for seat in self._seats if seat.node in alive)

    def end_gathering(self) -> None:
        """Wait no more."""
        self.gather_until = inf

    def requests(self, ballot: int, now: float) -> list[tuple[NodeId, AskInventory]]:
        """What is to be asked now, of those who are silent and were not asked a moment ago."""
        letters = []
        for seat in self._seats:
            if not seat.knows_inventory and now - seat.asked_at >= self._config.retry_s:
                seat.asked_at = now
                letters.append((seat.node, AskInventory(job=self._job, ballot=ballot)))
        return letters

    def doubt(self) -> None:
        """Miss nothing; what is not seen may be hidden from us alone."""
        self._losses.doubt()

    def give_up(self, now: float) -> list[Change]:
        """What is taken back because nobody holds it.

        Where something is newly missed it is nothing yet: everybody is silent again, and has to be asked.
        """
        if not self.knows_all:
            return []
        if self._losses.miss(self._keeper.gone(), now):
            for seat in self._seats:
                seat.knows_inventory = False
                seat.asked_at = -inf
            return []
        return self._keeper.give_up(self._losses.due())
