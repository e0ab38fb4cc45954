"""Named locks and counters: what a register holds for them, as pure changes.

A job's code may ask for a lock or a counter by name; each is a register of its own, without a leader. The
functions here make the changes (`membership.register.Change`) that its proposers propose; who waits for a
lock looks again from time to time.

*Locks* are queues. Whoever stands first holds the lock, with a *token* that grows with every new holder. A
holder may be slow, or cut off, and not know that it was struck off, so the lock alone protects nothing: what
it guards must refuse a token lower than one it has seen (M. Kleppmann, "How to do distributed locking",
2016). There is no lease. A lock is given up by its holder, or by whoever knows that the holder is dead: for a
job's tasks, their leader.

*Counters* count each addition once: a client numbers its additions, and the register remembers the last
number of each client. So a client has one addition under way at a time, and what bounds the clients is the
register's own limit on its payload: an addition beyond it is refused.

Both recognise their own effect, as a change must. For a lock that means that a claimant's name is used for
one claim only (a task's attempt, and a number).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgpack

from membership.register import Change, Record

__all__ = ["Count", "Lock", "acquire", "add", "count_of", "lock_of", "release"]

CLAIMANTS_MAX = 1_000  # further ones are not queued, and may claim again


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock's state.

    Attributes:
        token: of the present holder, or of the last one; 0 before there was any.
        claimants: the holder, and behind it those that wait, in order.
    """

    token: int = 0
    claimants: tuple[str, ...] = ()

    @property
    def holder(self) -> str | None:
        """Who holds the lock."""
        return self.claimants[0] if self.claimants else None


@dataclass(frozen=True, slots=True)
class Count:
    """A counter's state.

    Attributes:
        total: the sum so far.
        last: the number of each client's last addition, sorted by client.
    """

    total: int = 0
    last: tuple[tuple[str, int], ...] = ()


def lock_of(record: Record) -> Lock:
    """Return the lock that a register holds; an empty payload is one that nobody has ever held."""
    if not record.payload:
        return Lock()
    token, claimants = msgpack.unpackb(record.payload)
    return Lock(token, tuple(claimants))


def count_of(record: Record) -> Count:
    """Return the counter that a register holds; an empty payload is 0."""
    if not record.payload:
        return Count()
    total, last = msgpack.unpackb(record.payload)
    return Count(total, tuple((client, number) for client, number in last))


def acquire(claimant: str) -> Change:
    """Make the change that puts a claimant into the lock's queue.

    It holds the lock when `lock_of(record).holder` is its name, and its token is that record's. It holds no
    claim at all if its name is missing: the queue was full.
    """

    def change(record: Record) -> bytes:
        lock = lock_of(record)
        if claimant in lock.claimants or len(lock.claimants) >= CLAIMANTS_MAX:
            return record.payload
        return _lock(_served(lock, (*lock.claimants, claimant)))

    return change


def release(claimant: str) -> Change:
    """Make the change that strikes a claimant off, whether it holds the lock or waits for it."""

    def change(record: Record) -> bytes:
        lock = lock_of(record)
        if claimant not in lock.claimants:
            return record.payload
        return _lock(_served(lock, tuple(one for one in lock.claimants if one != claimant)))

    return change


def add(client: str, number: int, amount: int) -> Change:
    """Make the change that adds to a counter once.

    Args:
        client: who adds.
        number: 1 for its first addition, then one more each time.
        amount: what is added.
    """

    def change(record: Record) -> bytes:
        count = count_of(record)
        last = dict(count.last)
        if number <= last.get(client, 0):
            return record.payload
        last[client] = number
        return _plain((count.total + amount, sorted(last.items())))

    return change


def _served(lock: Lock, claimants: tuple[str, ...]) -> Lock:
    """The lock with another queue: a new holder gets a new token."""
    is_new = bool(claimants) and claimants[0] != lock.holder
    return replace(lock, token=lock.token + is_new, claimants=claimants)


def _lock(lock: Lock) -> bytes:
    return _plain((lock.token, lock.claimants))


def _plain(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
