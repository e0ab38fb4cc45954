"""Datagrams between addresses, over links that misbehave as they are told.

A link is a pair (source, target) of addresses and carries datagrams in order, as a TCP connection does,
unless a fault says otherwise. The network never looks into a payload. Every fault counts itself when it
has *really* acted on a datagram; that a fault was configured proves nothing.

===========  ==========================================================================================
drop         the datagram never arrives
duplicate    it arrives twice, the second time later
reorder      it is held back and datagrams sent after it arrive before it (counted when one does)
delay        it and all behind it on the link arrive late
clog         a link holds everything back for a while, then delivers it at once and in order
one-way cut  one direction of a link swallows everything
partition    links between the groups swallow everything
late replay  a datagram seen long ago, perhaps from a former life of its sender, arrives once more
===========  ==========================================================================================
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from tools.simulation.kinds import Fault

__all__ = ["Conditions", "Datagram", "Network"]

MAX_REMEMBERED = 512  # datagrams kept for late replay; older ones are forgotten
MIN_REPLAY_AGE_S = 2.0


class Datagram(NamedTuple):
    """One message on its way. ``payload`` is bytes where a codec is in use, else the message itself."""

    source: str
    target: str
    payload: object
    sent_at: float


@dataclass(slots=True)
class Conditions:
    """How every link behaves, in probabilities per datagram and seconds; the faults change it while it is
    used."""

    latency_s: float = 0.0005
    jitter_s: float = 0.0005
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.1
    delay: float = 0.0
    delay_s: float = 0.5


class Network:
    """Says when, and how often, each datagram arrives."""

    def __init__(self, random: Random, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self.fired: Counter[Fault] = Counter()
        self.sent = 0
        self._random = random
        self._last_arrival: dict[tuple[str, str], float] = {}
        self._held_until: dict[tuple[str, str], float] = {}
        self._clogged_until: dict[tuple[str, str], float] = {}
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._partitions: list[frozenset[str]] = []
        self._seen: deque[Datagram] = deque(maxlen=MAX_REMEMBERED)

    def arrivals(self, datagram: Datagram) -> list[float]:
        """The times at which ``datagram`` arrives: none, one, or two."""
        self.sent += 1
        now, link = datagram.sent_at, (datagram.source, datagram.target)
        random, is_so = self._random, self.conditions
        if random.random() < 0.05:
            self._seen.append(datagram)
        if self._cuts[link]:
            self.fired[Fault.CUT] += 1
            return []
        if any((link[0] in side) != (link[1] in side) for side in self._partitions):
            self.fired[Fault.PARTITION] += 1
            return []
        if is_so.drop and random.random() < is_so.drop:
            self.fired[Fault.DROP] += 1
            return []
        transit_s = is_so.latency_s + is_so.jitter_s * random.random()
        if is_so.reorder and random.random() < is_so.reorder:
            # Held back beside the link's order: whoever is sent next may overtake it.
            held = now + transit_s + is_so.reorder_s * random.random()
            self._held_until[link] = held
            return [held]
        if is_so.delay and random.random() < is_so.delay:
            transit_s += is_so.delay_s * random.random()
            self.fired[Fault.DELAY] += 1
        arrival = self._in_order(link, now + transit_s)
        if self._held_until.get(link, 0.0) > arrival:
            self.fired[Fault.REORDER] += 1
            del self._held_until[link]
        if is_so.duplicate and random.random() < is_so.duplicate:
            self.fired[Fault.DUPLICATE] += 1
            return [arrival, arrival + is_so.reorder_s * random.random()]
        return [arrival]

    def replayed(self, now: float, count: int) -> list[Datagram]:
        """Up to ``count`` old datagrams, to be delivered once more; the caller counts those that arrive."""
        old = [datagram for datagram in self._seen if now - datagram.sent_at >= MIN_REPLAY_AGE_S]
        return self._random.sample(old, min(count, len(old)))

    def cut(self, source: str, target: str) -> None:
        """Swallow everything from ``source`` to ``target``; cuts of one link add up."""
        self._cuts[source, target] += 1

    def mend(self, source: str, target: str) -> None:
        """Undo one ``cut`` of this direction."""
        self._cuts[source, target] -= 1

    def partition(self, side: frozenset[str]) -> None:
        """Part the addresses in ``side`` from all others; several partitions may overlap."""
        self._partitions.append(side)

    def rejoin(self, side: frozenset[str]) -> None:
        """Undo one ``partition`` of this side."""
        self._partitions.remove(side)

    def clog(self, source: str, target: str, until: float) -> None:
        """Hold back what is sent from ``source`` to ``target`` until the time ``until``."""
        self._clogged_until[source, target] = until

    def heal(self) -> None:
        """Undo every fault. What was sent before stays lost or late."""
        calm = self.conditions
        calm.drop = calm.duplicate = calm.reorder = calm.delay = 0.0
        self._cuts.clear()
        self._partitions.clear()
        self._clogged_until.clear()

    def _in_order(self, link: tuple[str, str], arrival: float) -> float:
        """Not before what was sent on this link before, and not while it is clogged."""
        opens = self._clogged_until.get(link, 0.0)
        if opens > arrival:
            self.fired[Fault.CLOG] += 1
            arrival = opens
        arrival = max(arrival, self._last_arrival.get(link, 0.0))
        self._last_arrival[link] = arrival
        return arrival
