"""Named locks: what a register holds for them, as pure changes.

A job's code may ask for locks by name; all locks of a job are one table in one register of its own (another
key than the job's record, so that a lock costs a small payload, however large the job). Here are the changes
(`membership.register.Change`) that are proposed to it; who proposes them is `mapreduce.lock_keeper`.

*A lock is a queue.* Whoever stands first holds it; who claims it comes last. A lock that nobody claims is not
in the table.

*Tokens.* Each new holder, of whatever lock, gets the next number of one counter. So the tokens of a lock
grow with each holder, and a lock that was forgotten while nobody wanted it begins no lower. A holder may be
slow, or cut off, and not know that it was struck off, so the lock alone protects nothing: what it guards
must refuse a token lower than one it has seen (M. Kleppmann, "How to do distributed locking", 2016).
Nothing here knows of time or leases: who is struck off, and why, is the proposer's affair, and concerns
liveness only.

*Applied twice.* A change recognises its own effect, as it must, as long as a claimant's name is used for one
claim only. One whose outcome was unknown may be applied again after others, and then bring a claim back that
was given up in between: a claimant that nobody speaks for, which is struck off like a dead one's.

There are no counters besides: a job's named counters (`task.counters`) are in its record, where they are
merged with the winners and so count each task once; a counter of its own would count attempts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgpack

from membership.register import Change, Record

__all__ = ["Lock", "LockTable", "amend", "locks_in"]

CLAIMANTS_MAX = 4_096  # of all locks together; further ones are not queued, and may claim again


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held.

    Attributes:
        token: of the holder.
        claimants: the holder, and behind it those that wait, in order; never empty.
    """

    token: int
    claimants: tuple[str, ...]

    @property
    def holder(self) -> str:
        """Who holds the lock."""
        return self.claimants[0]


@dataclass(frozen=True, slots=True)
class LockTable:
    """All locks of a register.

    Attributes:
        last_token: the last that was given out; 0 before there was any.
        locks: those that are held, with their names, sorted by name.
    """

    last_token: int = 0
    locks: tuple[tuple[str, Lock], ...] = ()

    def get(self, name: str) -> Lock | None:
        """Return a lock, None if nobody holds it."""
        return next((lock for known, lock in self.locks if known == name), None)

    def claimants(self) -> Iterator[str]:
        """Yield everybody who holds a lock or waits for one."""
        for _, lock in self.locks:
            yield from lock.claimants

    def tokens(self) -> dict[str, int]:
        """Return the token of each holder."""
        return {lock.holder: lock.token for _, lock in self.locks}


def locks_in(record: Record) -> LockTable:
    """Return the table that a register holds; an empty payload is one in which no lock was ever held."""
    if not record.payload:
        return LockTable()
    last_token, locks = msgpack.unpackb(record.payload)
    return LockTable(
        last_token, tuple((name, Lock(token, tuple(claimants))) for name, token, claimants in locks)
    )


def amend(claims: Sequence[tuple[str, str]] = (), releases: Sequence[str] = ()) -> Change:
    """Make the change that strikes claimants off and puts others at the end of queues; without both, a look.

    A claimant holds a lock when `LockTable.tokens()` has its name. It has no claim at all if it is nowhere:
    the table was full.

    Args:
        claims: (the lock's name, the claimant), in the order in which they are to queue.
        releases: claimants to be struck off, whether they hold a lock or wait for one.
    """

    def change(record: Record) -> bytes:
        table = locks_in(record)
        amended = _amended(table, claims, frozenset(releases))
        return record.payload if amended == table else _packed(amended)

    return change


def _amended(table: LockTable, claims: Sequence[tuple[str, str]], released: frozenset[str]) -> LockTable:
    queues = {name: [one for one in lock.claimants if one not in released] for name, lock in table.locks}
    known = {claimant for queue in queues.values() for claimant in queue}
    for name, claimant in claims:
        if claimant not in known and len(known) < CLAIMANTS_MAX:
            queues.setdefault(name, []).append(claimant)
            known.add(claimant)
    last_token = table.last_token
    locks: list[tuple[str, Lock]] = []
    for name, queue in sorted(queues.items()):
        if not queue:
            continue
        before = table.get(name)
        if before is not None and before.holder == queue[0]:
            token = before.token
        else:
            last_token += 1
            token = last_token
        locks.append((name, Lock(token, tuple(queue))))
    return LockTable(last_token, tuple(locks))


def _packed(table: LockTable) -> bytes:
    locks = [(name, lock.token, lock.claimants) for name, lock in table.locks]
    packed: bytes = msgpack.packb((table.last_token, locks))
    return packed
