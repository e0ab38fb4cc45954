"""Keepers of locks with one mistake each, to show that the histories of `locks` find it."""

from __future__ import annotations

from dataclasses import dataclass

from mapreduce.lock_keeper import KeeperEffect, LockKeeper
from mapreduce.locking import AmendLocks
from membership.locks import Lock, LockTable

__all__ = ["PLANTS", "LockPlant"]


@dataclass(frozen=True, slots=True)
class LockPlant:
    """One mistake: its name, what it is, what makes it."""

    name: str
    mistake: str
    keeper: type[LockKeeper]


class _NeverStrikesOff(LockKeeper):
    def _is_over(self, claimant: str) -> bool:
        return claimant in self._leases and super()._is_over(claimant)


class _TellsTooEarly(LockKeeper):
    def _amend(self, now: float) -> list[KeeperEffect]:
        effects = super()._amend(now)
        for effect in effects:
            if isinstance(effect, AmendLocks) and effect.claims and self._table is not None:
                return [*effects, *self.on_chosen(_guessed(self._table, effect.claims), now)]
        return effects


def _guessed(table: LockTable, claims: tuple[tuple[str, str], ...]) -> LockTable:
    free = {name: claimant for name, claimant in claims if table.get(name) is None}
    new = [(name, Lock(table.last_token + 1 + n, (c,))) for n, (name, c) in enumerate(free.items())]
    return LockTable(table.last_token + len(new), tuple(sorted([*table.locks, *new])))


class _KeepsTheClaimsOfTheDead(LockKeeper):
    def peer_is_gone(self, *_: object) -> list[KeeperEffect]:
        return []

    def _amend(self, now: float) -> list[KeeperEffect]:
        self._leases = dict.fromkeys(self._leases, now + self._config.lock_lease_s)
        return super()._amend(now)


PLANTS: dict[str, LockPlant] = {
    plant.name: plant
    for plant in (
        LockPlant(
            "never-struck-off", "whoever held a lock once holds it until it says otherwise", _NeverStrikesOff
        ),
        LockPlant("told-too-early", "a claim is told to be a lock before that is chosen", _TellsTooEarly),
        LockPlant("dead-holders", "the claims of the dead are kept for ever", _KeepsTheClaimsOfTheDead),
    )
}
