"""What the tasks of one peer claim of their jobs' locks: the side of `mapreduce.locking` that asks.

A claim lives from the task's question to the end of its block, of its attempt, or of the job. As long as a
job has claims here, its leader is told all of them once a period.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from mapreduce.config import JobsConfig
from mapreduce.locking import (
    HasLocks,
    LockClaim,
    LockDenied,
    LockGranted,
    LockLost,
    SayLocks,
    WantLocks,
    lock_key_of,
)

__all__ = ["ClaimsEffect", "LockClaims"]

MAX_CLAIMS = 1_024  # of one job at one peer; further ones are denied

ClaimsEffect = SayLocks | LockGranted | LockDenied | LockLost


@dataclass(slots=True)
class _Claim:
    attempt: int
    ticket: int
    name: str
    since: float
    token: int = 0


@dataclass(slots=True)
class _Job:
    """A job's claims by serial, in order."""

    claims: dict[int, _Claim] = field(default_factory=dict)
    say_at: float = inf


class LockClaims:
    """All claims of one life of a peer.

    Args:
        session: of its process.
        config: `lock_renew_s`, `lock_wait_s`.
    """

    def __init__(self, *, session: int, config: JobsConfig) -> None:
        self._session = session
        self._config = config
        self._jobs: dict[str, _Job] = {}
        self._serial = 0
        self._number = 0

    def want(self, job: str, attempt: int, ticket: int, name: str, now: float) -> list[ClaimsEffect]:
        """A task asks for a lock.

        Args:
            job, attempt: which task.
            ticket: what the answer will bear.
            name: the lock's.
            now: in seconds.
        """
        mine = self._jobs.setdefault(job, _Job())
        if len(mine.claims) >= MAX_CLAIMS:
            reason = f"the tasks of this peer hold or wait for {MAX_CLAIMS:,} locks already"
            return [LockDenied(job=job, attempt=attempt, ticket=ticket, reason=reason)]
        self._serial += 1
        mine.claims[self._serial] = _Claim(attempt, ticket, name, now)
        return self._say(job, now)

    def release(self, job: str, attempt: int, ticket: int, now: float) -> list[ClaimsEffect]:
        """A task lets go of what it asked for by `ticket`."""
        return self._strike(job, now, lambda claim: (claim.attempt, claim.ticket) == (attempt, ticket))

    def attempt_ended(self, job: str, attempt: int, now: float) -> list[ClaimsEffect]:
        """An attempt is over, in whatever way."""
        return self._strike(job, now, lambda claim: claim.attempt == attempt)

    def drop_job(self, job: str) -> None:
        """The job is over, and its locks with it."""
        self._jobs.pop(job, None)

    def receive(self, message: HasLocks) -> list[ClaimsEffect]:
        """Take what the keeper says."""
        job = message.job
        mine = self._jobs.get(job)
        if mine is None or message.session != self._session:
            return []
        out: list[ClaimsEffect] = []
        for held in message.held:
            claim = mine.claims.get(held.serial)
            if claim is not None and not claim.token:
                claim.token = held.token
                granted = LockGranted(job=job, attempt=claim.attempt, ticket=claim.ticket, token=held.token)
                out.append(granted)
        for serial in message.lost:
            claim = mine.claims.get(serial)
            if claim is not None and claim.token:
                reason = f"it lost the lock {claim.name!r}: its peer was taken for dead"
                out.append(LockLost(job=job, attempt=claim.attempt, reason=reason))
        return out

    def tick(self, now: float) -> list[ClaimsEffect]:
        """Say again what is claimed; end what has waited too long."""
        out: list[ClaimsEffect] = []
        for job, mine in list(self._jobs.items()):
            late = [
                serial
                for serial, claim in mine.claims.items()
                if not claim.token and now - claim.since >= self._config.lock_wait_s
            ]
            for serial in late:
                claim = mine.claims.pop(serial)
                reason = f"waited {now - claim.since:.0f} s for the lock {claim.name!r}, which others hold"
                out.append(LockDenied(job=job, attempt=claim.attempt, ticket=claim.ticket, reason=reason))
            if late or mine.say_at <= now:
                out += self._say(job, now)
        return out

    def next_deadline(self) -> float:
        """When to be ticked again (seconds)."""
        return min((mine.say_at for mine in self._jobs.values()), default=inf)

    def _strike(self, job: str, now: float, is_over: Callable[[_Claim], bool]) -> list[ClaimsEffect]:
        mine = self._jobs.get(job)
        over = [] if mine is None else [serial for serial, claim in mine.claims.items() if is_over(claim)]
        if mine is None or not over:
            return []
        for serial in over:
            del mine.claims[serial]
        return self._say(job, now)

    def _say(self, job: str, now: float) -> list[ClaimsEffect]:
        mine = self._jobs[job]
        self._number += 1
        claims = tuple(
            [
                LockClaim(lock=lock_key_of(claim.name), serial=serial, token=claim.token)
                for serial, claim in mine.claims.items()
            ]
        )
        if claims:
            mine.say_at = now + self._config.lock_renew_s
        else:
            del self._jobs[job]  # should this last list get lost, the leases end
        message = WantLocks(job=job, session=self._session, number=self._number, claims=claims)
        return [SayLocks(message)]
