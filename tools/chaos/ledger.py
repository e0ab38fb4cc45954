"""What was agreed about one job, by what lies on its acceptors' disks; and which of it was stale.  Pure.

Theory
------
A vote on disk names a ballot and the record that was accepted at it.  A record that a majority of its epoch's
members accepted at one ballot is *chosen*, whenever each of them was looked at: an acceptor accepts at a
ballot once.  So looking at the disks now and then shows some of the chosen records, and each that is seen is
one.  Put in the order of their places and ballots they must tell one story:

* the leadership's number never falls, nor the number of its last proposal within one leadership;
* a stage that was opened stays, and one that was dropped comes back only to be run again, as a whole;
* a task that has its winner keeps it, until its stage is dropped;
* what is final stays.

What a deposed leader brings about after its successor has committed, or a worker whose task another one has
done, would break one of these.  Of one acceptor, besides, neither place nor promise nor ballot ever falls.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mapreduce.record import JobRecord
from membership.acceptor import Vote
from membership.register import AcceptorId, Ballot, Place, majority

__all__ = ["Chosen", "Ledger"]

Where = tuple[Place, Ballot]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A record that was chosen, and at which place and ballot."""

    where: Where
    record: JobRecord


class Ledger:
    """The chosen records of one job's register, as far as they were seen.

    Args:
        unpack: gives the job's record that a register's payload holds.
    """

    def __init__(self, unpack: Callable[[bytes], JobRecord]) -> None:
        self.chosen: list[Chosen] = []
        self._unpack = unpack
        self._voters: dict[Where, set[AcceptorId]] = {}
        self._last: dict[AcceptorId, Vote] = {}
        self._fallen: list[str] = []

    @property
    def newest(self) -> JobRecord | None:
        """The last of those that were seen; None before the first."""
        return self.chosen[-1].record if self.chosen else None

    def see(self, acceptor: AcceptorId, vote: Vote) -> None:
        """Take what lies on an acceptor's disk now."""
        before = self._last.get(acceptor)
        if vote == before:
            return
        self._last[acceptor] = vote
        if before is not None and (
            (vote.place, vote.promised) < (before.place, before.promised)
            or (vote.place, vote.accepted) < (before.place, before.accepted)
        ):
            self._fallen.append(f"{acceptor.node} went back from {_text(before)} to {_text(vote)}")
        if acceptor not in vote.record.members:
            return  # it was left out of a later group, whose name is all that it keeps
        where = (vote.place, vote.accepted)
        voters = self._voters.setdefault(where, set())
        is_new = len(voters) < majority(vote.record.members)
        voters.add(acceptor)
        if is_new and len(voters) >= majority(vote.record.members):
            found = Chosen(where, self._unpack(vote.record.payload))
            insort(self.chosen, found, key=lambda one: one.where)

    def stale(self) -> list[str]:
        """Return a line for every write that took effect and must not have."""
        found = list(self._fallen)
        for earlier, later in zip(self.chosen, self.chosen[1:], strict=False):
            found += (f"{_name(later)}: {what}" for what in _broken(earlier.record, later.record))
        return found


def _broken(earlier: JobRecord, later: JobRecord) -> Iterator[str]:
    """What of two records, one chosen after the other, cannot be."""
    if (later.ballot, later.applied) < (earlier.ballot, earlier.applied):
        yield (
            f"proposal {later.applied} of leadership {later.ballot} ({later.leader}) after proposal "
            f"{earlier.applied} of leadership {earlier.ballot} ({earlier.leader})"
        )
    if earlier.status.is_final and later.status is not earlier.status:
        yield f"the job was {earlier.status} and is {later.status}"
    # What ends a job that has grown too large may forget how far it had come.
    if len(later.stages) < len(earlier.stages) and not later.status.is_final:
        yield f"{len(earlier.stages)} stages had been opened, now {len(later.stages)} have"
    for index, (before, after) in enumerate(zip(earlier.stages, later.stages, strict=False)):
        if after.is_dropped:
            continue
        if before.is_dropped and len(after.again) < after.tasks:
            yield f"stage {index} had been dropped, {after.tasks - len(after.again)} of its tasks are back"
        for task, (won, wins) in enumerate(zip(before.winners, after.winners, strict=False)):
            # A winner is taken back where its outputs are lost, and then the task is marked.
            if won is not None and (wins is None or wins.attempt != won.attempt) and task not in after.again:
                yield f"attempt {won.attempt} had won task {task} of stage {index}, now {wins} has"


def _name(chosen: Chosen) -> str:
    place, ballot = chosen.where
    return f"record {place.generation}.{place.epoch}, ballot {ballot.round} of {ballot.node or 'its birth'}"


def _text(vote: Vote) -> str:
    return f"{vote.place}, {vote.promised}, {vote.accepted}"
