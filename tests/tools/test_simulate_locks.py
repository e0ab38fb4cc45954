"""Named locks over hundreds of histories, and the mistakes that these histories would find."""

from __future__ import annotations

import pytest

from mapreduce.lock_keeper import KeeperEffect, LockKeeper
from mapreduce.locking import AmendLocks
from membership.locks import LockTable
from tools.simulation.locks import LockWorld
from tools.simulation.world import Violation


def test_a_hundred_histories_have_one_holder_at_a_time_and_end_with_nobody_waiting() -> None:
    granted = lost = 0
    for seed in range(100):
        world = LockWorld(seed)
        world.run()
        granted, lost = granted + world.granted, lost + world.lost
    assert granted > 1_000
    assert lost > 5  # locks were taken from the living, too


class NeverStrikesOff(LockKeeper):
    """Believes that whoever held a lock once holds it until it says otherwise."""

    def _is_over(self, claimant: str) -> bool:
        return claimant in self._leases and super()._is_over(claimant)


class TellsTooEarly(LockKeeper):
    """Says that a claim is a lock before the register has chosen it."""

    def _amend(self, now: float) -> list[KeeperEffect]:
        effects = super()._amend(now)
        for effect in effects:
            if isinstance(effect, AmendLocks) and effect.claims and self._table is not None:
                return [*effects, *self.on_chosen(_guessed(self._table, effect.claims), now)]
        return effects


def _guessed(table: LockTable, claims: tuple[tuple[str, str], ...]) -> LockTable:
    from membership.locks import Lock

    free = {name: claimant for name, claimant in claims if table.get(name) is None}
    new = [(name, Lock(table.last_token + 1 + n, (c,))) for n, (name, c) in enumerate(free.items())]
    return LockTable(table.last_token + len(new), tuple(sorted([*table.locks, *new])))


@pytest.mark.parametrize("plant", [NeverStrikesOff, TellsTooEarly])
def test_a_mistake_is_found(plant: type[LockKeeper]) -> None:
    assert any(violates(seed, plant) for seed in range(200))


def violates(seed: int, plant: type[LockKeeper]) -> bool:
    try:
        LockWorld(seed, keeper_type=plant).run()
    except Violation:
        return True
    return False
