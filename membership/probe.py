"""Is it there? One probe under way, and the probes we make on others' behalf.

SWIM, section 3.1, with Lifeguard's nacks:

    0               probe_timeout_s                          probe_period_s
    ping target ─────► no ack: ask k others to ping it ─────► still no ack: suspect it
                            │        nack_fraction · probe_timeout_s
                            └─────► relay: ping target ─────► no ack: tell the requester "nack"

All three are stretched by our own health. Where fewer than k others are there to be asked, we ping once more
ourselves: it costs one message, and a single lost packet between two peers that are alone then accuses
nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from membership.view import NodeId

__all__ = ["Probe", "Relay", "Relays"]


@dataclass(slots=True)
class Probe:
    """The probe under way.

    Attributes:
        number: acks and nacks bear it.
        target: who is probed.
        incarnation: the target's when the probe began; a target that has raised it meanwhile is not accused.
        accused: whether the target was a suspect already.
        direct_until_s: when others are asked; infinity once they are, or the answer is here.
        silent_relays: those asked who have sent neither ack nor nack.
        relays: how many were asked.
        answered_by: the target, or the first relay that said that the target had answered it; None so far.
    """

    number: int
    target: NodeId
    incarnation: int
    accused: bool
    direct_until_s: float
    relays: int = 0
    silent_relays: list[NodeId] = field(default_factory=list)
    answered_by: NodeId | None = None

    @property
    def answered(self) -> bool:
        """Whether the target answered, to whomever."""
        return self.answered_by is not None

    def answer(self, by: NodeId) -> None:
        """The target answered; its own word counts more than a relay's."""
        if self.answered_by is None or by == self.target:
            self.answered_by = by
        self.direct_until_s = inf

    def ill_health(self, is_alive: Callable[[NodeId], bool]) -> int:
        """Return how much the failed probe says about ourselves; see `membership.awareness`.

        That a suspect stays silent is no news, and neither is a relay that is accused itself by now: where
        many die at once, the survivors are well.
        """
        return int(not self.accused and (not self.relays or any(map(is_alive, self.silent_relays))))


@dataclass(frozen=True, slots=True)
class Relay:
    """A ping on somebody's behalf.

    Attributes:
        number: of the requester's probe.
        requester, reply_to: who asked, and the address for the answer.
        nack_at_s: when we say that the target is silent; infinity once we did. A later ack is still passed
            on.
        drop_at_s: when we forget it.
    """

    number: int
    requester: NodeId
    reply_to: str
    nack_at_s: float
    drop_at_s: float

    @property
    def next_s(self) -> float:
        """When something is due."""
        return min(self.nack_at_s, self.drop_at_s)


class Relays:
    """The pings on others' behalf under way, by the number of our own ping; oldest first.

    Args:
        relays_max: when so many are under way, further ones are refused.

    Attributes:
        deadline_s: when the next nack or dropping is due; infinity if there is none.
    """

    __slots__ = ("_by_number", "_relays_max", "deadline_s")

    def __init__(self, relays_max: int) -> None:
        self._relays_max = relays_max
        self._by_number: dict[int, Relay] = {}
        self.deadline_s = inf

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, number: int, relay: Relay) -> bool:
        """Begin a relayed ping; return False if there are too many."""
        if len(self._by_number) >= self._relays_max:
            return False
        self._by_number[number] = relay
        self.deadline_s = min(self.deadline_s, relay.next_s)
        return True

    def pop(self, number: int) -> Relay | None:
        """End the relayed ping with this number, if there is one, and return it."""
        relay = self._by_number.pop(number, None)
        if relay is not None:
            self._note_deadline()
        return relay

    def pop_silent(self, now: float) -> list[Relay]:
        """Return the relays whose nack is due now, and drop those whose time is over."""
        silent = []
        for number, relay in list(self._by_number.items()):
            if relay.nack_at_s <= now:
                silent.append(relay)
                self._by_number[number] = replace(relay, nack_at_s=inf)
            if relay.drop_at_s <= now:
                del self._by_number[number]
        self._note_deadline()
        return silent

    def postpone(self, by_s: float) -> None:
        """Move all deadlines: we were asleep, or our clock was set."""
        for number, relay in self._by_number.items():
            self._by_number[number] = replace(
                relay, nack_at_s=relay.nack_at_s + by_s, drop_at_s=relay.drop_at_s + by_s
            )
        self._note_deadline()

    def _note_deadline(self) -> None:
        self.deadline_s = min((relay.next_s for relay in self._by_number.values()), default=inf)
