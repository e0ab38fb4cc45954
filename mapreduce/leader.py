"""The leader of one job: grants its tasks, commits their winners, and can be replaced at any moment.

Who calls what, and when
------------------------
The shell makes a `Leader` when the job's election makes this peer the proposer, with the record it has read
from the register; it calls `start` once, and then

* `receive` for every message of `mapreduce.messages.ToLeader`,
* `on_view` when membership's view changes,
* `on_committed` when a `Propose` was chosen, with the record as it is now, or when it learns of a newer
  record in another way,
* `cancel` when somebody who may asks for it,
* `on_quorum` when the register begins or ceases to lack a majority,
* `tick` at `next_deadline`.

When another ballot has overtaken this one, the shell drops the object: everything in it is a cache of what
workers and the register know.
"""

from __future__ import annotations

from mapreduce.config import JobsConfig
from mapreduce.effects import LeaderEffect
from mapreduce.messages import ToLeader
from mapreduce.record import JobRecord
from mapreduce.spec import JobPlan
from membership.view import NodeId, View


class Leader:
    """Leads one job.

    Args:
        me: this peer.
        plan: the job's.
        record: as read from the register.
        token: names this leadership among all others of the job: made of the register's fence.
        members: the job's group, of the current epoch.
        view: membership's.
        config: see there.
        wall_offset_s: what to add to `now` for the wall clock that events show.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        plan: JobPlan,
        record: JobRecord,
        token: str,
        members: tuple[NodeId, ...],
        view: View,
        config: JobsConfig,
        wall_offset_s: float,
    ) -> None:
        raise NotImplementedError

    def start(self, now: float) -> list[LeaderEffect]:
        """Take over: announce, ask what there is, go on."""
        raise NotImplementedError

    def receive(self, message: ToLeader, sender: NodeId, now: float) -> list[LeaderEffect]:
        """Take a worker's message; those for another leadership are dropped, or answered with who leads."""
        raise NotImplementedError

    def on_view(self, view: View, now: float) -> list[LeaderEffect]:
        """Members came or went: move places, take back what the dead had in hand."""
        raise NotImplementedError

    def on_members(self, members: tuple[NodeId, ...], now: float) -> list[LeaderEffect]:
        """The job's group was healed: a new epoch has other members."""
        raise NotImplementedError

    def on_committed(self, record: JobRecord, now: float) -> list[LeaderEffect]:
        """The last proposal was chosen, and this is the record now."""
        raise NotImplementedError

    def on_quorum(self, missing: tuple[NodeId, ...], now: float) -> list[LeaderEffect]:
        """The register waits for these members, who are too many; empty: it waits no more."""
        raise NotImplementedError

    def cancel(self, by: str, now: float) -> list[LeaderEffect]:
        """End the job as cancelled; nothing happens where it has ended."""
        raise NotImplementedError

    def tick(self, now: float) -> list[LeaderEffect]:
        """Do what is due."""
        raise NotImplementedError

    def next_deadline(self) -> float:
        """When to be ticked again."""
        raise NotImplementedError

    @property
    def record(self) -> JobRecord:
        """The record as last chosen."""
        raise NotImplementedError

    @property
    def waiting_for(self) -> str:
        """Why nothing moves, in words; "" while something does."""
        raise NotImplementedError

    @property
    def has_ended(self) -> bool:
        """Whether the job is over and this leader only answers stragglers."""
        raise NotImplementedError
