"""SWIM with Lifeguard as one pure machine (interface; see each method)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from membership.config import SwimConfig
from membership.effects import Effect
from membership.history import WhyEntry
from membership.messages import Message
from membership.view import Member, NodeId, View

__all__ = ["Swim"]


class Swim:
    """One peer's membership.

    Args:
        me: our own record. `incarnation` and `session` come from the shell: persisted values + 1 (session: at least
            the wall clock in ms, so that of two processes the younger has the greater).
        config: settings, the same at all peers of a cluster.
        rng: the only source of randomness.
        seeds: addresses "host:port" to join through; may be down, may contain our own.
        known: members known from the start; pass one shared `MemberTable` to many machines of a simulation.
    """

    def __init__(
        self,
        *,
        me: Member,
        config: SwimConfig,
        rng: random.Random,
        seeds: Sequence[str] = (),
        known: Iterable[Member] = (),
    ) -> None: ...

    def start(self, now: float) -> list[Effect]:
        """Begin: ask the seeds, schedule the first probe."""
        raise NotImplementedError

    def receive(self, message: Message, sender: NodeId, now: float) -> list[Effect]:
        """Take a message from an authenticated sender."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        raise NotImplementedError

    def next_deadline(self) -> float:
        """Return when to be ticked again; infinity when never."""
        raise NotImplementedError

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye; `has_left` turns true when it has spread or timed out."""
        raise NotImplementedError

    def observe_lag(self, lag_s: float, now: float) -> None:
        """Count the shell's own delay as ill health."""
        raise NotImplementedError

    def update_self(
        self,
        now: float,
        *,
        address: str | None = None,
        zone: str | None = None,
        weight: int | None = None,
        slots: int | None = None,
        meta: tuple[tuple[str, str], ...] | None = None,
    ) -> list[Effect]:
        """Change our own record and tell everybody (raises our incarnation)."""
        raise NotImplementedError

    @property
    def me(self) -> Member:
        """Our own record."""
        raise NotImplementedError

    @property
    def view(self) -> View:
        """Everybody as we see them; built when asked for, and again only after a change."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """Grows with every change of the view; cheap."""
        raise NotImplementedError

    @property
    def health(self) -> int:
        """Our own ill health: 0 is well, `config.awareness_max` is worst."""
        raise NotImplementedError

    @property
    def has_left(self) -> bool:
        """Whether our goodbye has spread, or timed out."""
        raise NotImplementedError

    @property
    def stopped(self) -> bool:
        """Whether we have left or our identity was refused; nothing more will come from this machine."""
        raise NotImplementedError

    def why(self, node: NodeId) -> tuple[WhyEntry, ...]:
        """Return who suspected, confirmed and refuted a node, and when; oldest first, bounded."""
        raise NotImplementedError
