"""Named locks of a running job: what the peers of its tasks and the keeper of its locks say to each other.

Theory of operation ------------------- `task.lock(name)` in user code asks the peer that runs the task.
That peer keeps a list of what its tasks claim (`mapreduce.lock_claims`) and tells it to the job's leader,
at whose side the keeper (`mapreduce.lock_keeper`) writes it into the job's lock register
(`membership.locks`), a table of queues. Only what that register has chosen counts: a token is told to
nobody before the majority has it.

=============  ==================  =====================================================================
message        from -> to          repeated until
=============  ==================  =====================================================================
WantLocks      tasks' peer ->      for ever, once a period, while there are claims: *all* claims of this
               leader's peer       peer in this job; and at once when they change. Renews their leases
HasLocks       leader's peer ->    said in answer, and when a claim becomes a lock: what this peer holds,
               tasks' peer         and what it held and has lost
=============  ==================  =====================================================================

Both are whole lists, not differences, so any of them may be lost, doubled, or late: a late `WantLocks` is
known by its number and dropped, and a `HasLocks` says what was true once, of claims that are made once.

How a lock is lost
------------------
=======================================  ===========================================================
what happens                             what ends the claim
=======================================  ===========================================================
the block ends, or the attempt does,     the peer's next list leaves it out
in whatever way
the peer dies                            membership says so; failing that, the lease runs out
the peer is cut off, and lives           the same; when it is back it hears that it lost the lock, and
                                         ends the attempt
the leader dies                          nothing: the table is in the register. The next leader reads it,
                                         and gives everybody in it a new lease
=======================================  ===========================================================

*Safety is the token's alone.* Whether a holder is dead is a guess, and so is every lease; a lock that was
taken from somebody who lives has a higher token at its next holder, and what the lock guards must refuse
the lower one. Within the register, no two claimants hold one lock, and tokens only grow.

*Waiting is bounded:* a task that has waited `lock_wait_s` fails with a line that says for what (two tasks may
wait for each other), and is tried again like any other. *Fairness:* claims queue in the order in which the
keeper hears of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from membership.view import NodeId

__all__ = [
    "AmendLocks",
    "HasLocks",
    "HeldLock",
    "LockClaim",
    "LockDenied",
    "LockGranted",
    "LockLost",
    "SayLocks",
    "TellLocks",
    "WantLocks",
    "lock_key_of",
]

NAME_BYTES = 12


def lock_key_of(name: str) -> str:
    """Return a lock's name as it travels and is stored: short, whatever the user calls it."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).hexdigest()


# -- messages -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LockClaim:
    """A task wants a lock, or holds it.

    Attributes:
        lock: `lock_key_of` its name.
        serial: counts the claims of one life of a peer.
        token: what the task was told that it holds the lock with; 0 while it waits.
    """

    lock: str
    serial: int
    token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantLocks:
    """All claims of my tasks in this job; `number` grows in this life, `session`, of my process."""

    job: str
    session: int
    number: int
    claims: tuple[LockClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLock:
    """A claim that is a lock now, and its token."""

    serial: int
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HasLocks:
    """Of the claims of your life `session`: which hold their locks, and which held one and lost it."""

    job: str
    session: int
    held: tuple[HeldLock, ...]
    lost: tuple[int, ...] = ()


# -- effects of the peer of the tasks -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SayLocks:
    """Tell the list to whoever leads its job."""

    message: WantLocks


@dataclass(frozen=True, slots=True, kw_only=True)
class LockGranted:
    """Let a task go on that asked by `ticket`: it holds the lock."""

    job: str
    attempt: int
    ticket: int
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockDenied:
    """Let a task fail that asked by `ticket`, for this reason."""

    job: str
    attempt: int
    ticket: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockLost:
    """End a task: it believes that it holds a lock, and does not."""

    job: str
    attempt: int
    reason: str


# -- effects of the keeper ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendLocks:
    """Propose `membership.locks.amend(claims, releases)` to the register, and report what comes of it."""

    claims: tuple[tuple[str, str], ...] = ()
    releases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TellLocks:
    """Send an answer to a peer."""

    to: NodeId
    message: HasLocks
