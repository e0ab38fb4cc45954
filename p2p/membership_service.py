"""Membership as a service of the loop: `membership.swim.Swim`, and nothing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from membership.effects import Event
from membership.messages import Message
from membership.swim import Swim
from p2p.service import Effect, Origin

__all__ = ["MembershipService"]


class MembershipService:
    """Lets a `Swim` stand in the loop."""

    handles = frozenset(get_args(Message))

    def __init__(self, swim: Swim) -> None:
        self._swim = swim

    def start(self, now: float) -> Sequence[Effect]:
        """See `Service.start`."""
        return self._swim.start(now)

    def receive(self, message: Any, origin: Origin, now: float) -> Sequence[Effect]:
        """See `Service.receive`."""
        return self._swim.receive(message, origin.node, now)

    def hear(self, _event: Event, _now: float) -> Sequence[Effect]:
        """See `Service.hear`; these events are its own."""
        return ()

    def tick(self, now: float) -> Sequence[Effect]:
        """See `Service.tick`."""
        return self._swim.tick(now)

    def next_deadline(self) -> float:
        """See `Service.next_deadline`."""
        return self._swim.next_deadline()
