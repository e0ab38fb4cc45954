"""Faults of the network between peers: partitions of several shapes, slow and delayed links, resets.

    partition   some peers are cut off from all others, both ways
    oneway      one peer speaks to nobody, or hears nobody, and the other direction works
    bridge      as a partition, but one of the others still hears and reaches both sides
    swizzle     one peer after the other is cut off, then they come back in another order (FoundationDB)
    slow        all that goes to or from a peer is slow
    latency     … is late (proxies)
    resets      all connections of a peer break, again and again (proxies)

Who is cut off is spared as one that is down would be: at most R-1 peers at a time.  With R = 3 and five peers
these are halves.

Where this process is root the network is one of namespaces (`tools.chaos.namespaces`), elsewhere one of
proxies (`tools.chaos.proxies`); `RINGREDUCE_CHAOS_NETWORK` names another choice.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from tools.chaos import namespaces, proxies
from tools.chaos.chaos_peer import ChaosPeer
from tools.chaos.cluster import Cluster
from tools.chaos.faults import Fault, FaultKind, FaultUnavailable, Surroundings, register
from tools.chaos.links import Links

__all__ = ["CHOICE", "Latency", "Resets", "Shape", "Slow", "Swizzle", "network", "pairs_of"]

CHOICE: Final = "RINGREDUCE_CHAOS_NETWORK"
HEALS_IN_S: Final = 6.0  # until those who were cut off are believed to be alive, and have their copies
SLOW_BYTES_PER_S: Final = (50_000, 2_000_000)
LATENCY_S: Final = (0.02, 0.3)
RESET_EVERY_S: Final = 0.7
NEXT_OF_SWIZZLE_S: Final = 0.8

Pair = tuple[int, int]


@cache
def choice() -> str:
    """Return "namespaces" or "proxies": what this run's network is made of."""
    return os.environ.get(CHOICE) or ("proxies" if namespaces.why_not() else "namespaces")


def network(directory: Path, peers: int) -> Surroundings:  # noqa: ARG001 - both grow as peers are added
    """Make the network.

    Raises:
        FaultUnavailable: it cannot be made here.
    """
    match choice():
        case "namespaces":
            return namespaces.Namespaces(directory)
        case "proxies":
            return proxies.Proxies()
        case other:
            raise FaultUnavailable(f"{CHOICE} is {other!r}: it is namespaces or proxies")


def _missing() -> str:
    return {"namespaces": namespaces.why_not, "proxies": proxies.why_not}.get(choice(), str)()


def _missing_proxies() -> str:
    return _missing() if choice() == "proxies" else f"only proxies can: set {CHOICE}=proxies"


def links_of(cluster: Cluster) -> Links:
    """Return the links of a cluster, which know it from now on.

    Raises:
        FaultUnavailable: it has none that could be hurt.
    """
    links = cluster.surroundings
    if not isinstance(links, Links):
        raise FaultUnavailable("the peers share plain loopback, whose links cannot be hurt")
    links.meet(cluster)
    return links


def pairs_of(shape: str, apart: Sequence[int], others: Sequence[int], rng: random.Random) -> list[Pair]:
    """Return the ordered pairs between which nothing passes.

    Args:
        shape: `partition`, `oneway` or `bridge`.
        apart: the peers that are cut off.
        others: all others; a bridge is one of them.
        rng: chooses the direction, or the bridge.
    """
    if shape == "bridge" and len(others) > 1:
        bridge = rng.choice(list(others))
        others = [number for number in others if number != bridge]
    out = [(a, b) for a in apart for b in others]
    back = [(b, a) for a in apart for b in others]
    if shape == "oneway":
        return rng.choice([out, back])
    return out + back


class _Cutting:
    """What faults that cut pairs have in common; each pair is open again at the end."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._links: Links | None = None
        self._victims: list[ChaosPeer] = []
        self._cut: list[Pair] = []

    def _spare(self, cluster: Cluster, rng: random.Random, most: int) -> bool:
        """Choose victims, as many as can be spared, and weigh them."""
        for count in range(min(most, cluster.allowed_down), 0, -1):
            self._victims = cluster.spare(count, rng.choice)
            if self._victims:
                break
        self._cluster, self._links = cluster, links_of(cluster)
        for peer in self._victims:
            cluster.burden(peer)
            cluster.journal.instant("cut off", peer.number)
        return bool(self._victims)

    def _others(self) -> list[int]:
        assert self._cluster is not None
        apart = {peer.number for peer in self._victims}
        return [peer.number for peer in self._cluster.peers if peer.number not in apart]

    def _block(self, pairs: Iterable[Pair]) -> None:
        assert self._links is not None
        for pair in pairs:
            self._links.block(*pair)
            self._cut.append(pair)

    def _unblock(self, pairs: Iterable[Pair]) -> None:
        assert self._links is not None
        for pair in list(pairs):
            self._links.unblock(*pair)
            self._cut.remove(pair)

    def _release(self) -> None:
        """Give the victims back."""
        for peer in self._victims:
            assert self._cluster is not None
            self._cluster.journal.instant("healed", peer.number)
            self._cluster.unburden(peer, heals_in_s=HEALS_IN_S)
        self._victims = []


class Shape(_Cutting):
    """A cut of one shape, all at once: `partition`, `oneway` or `bridge`."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.name = shape
        self.description = _TEXTS[shape]

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Cut."""
        if not self._spare(cluster, rng, 1 if self.name == "oneway" else cluster.allowed_down):
            return False
        self._block(pairs_of(self.name, [peer.number for peer in self._victims], self._others(), rng))
        return True

    def stop(self) -> None:
        """Heal."""
        self._unblock(self._cut)
        self._release()


class Swizzle(_Cutting):
    """One after the other is cut off; then one after the other, in another order, comes back."""

    name = "swizzle"
    description = "cut off one after the other, back in another order"

    def __init__(self) -> None:
        super().__init__()
        self._rng = random.Random(0)
        self._waiting: list[int] = []
        self._next_at = 0.0
        self._is_over = False

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Choose who, and cut off the first."""
        if not self._spare(cluster, rng, cluster.allowed_down):
            return False
        self._rng = random.Random(rng.random())
        self._waiting = [peer.number for peer in self._victims]
        self.step()
        return True

    def step(self) -> bool:
        """Cut off the next one, or let the next one back."""
        if time.monotonic() >= self._next_at and self._waiting:
            self._next_at = time.monotonic() + NEXT_OF_SWIZZLE_S
            number = self._waiting.pop()
            if self._is_over:
                self._unblock([pair for pair in self._cut if number in pair])
            else:
                self._block(self._pairs_of(number))
        if self._is_over and not self._waiting:
            self._unblock(self._cut)
            self._release()
            return False
        return True

    def stop(self) -> None:
        """Begin to let them back."""
        if self._is_over or self._cluster is None:
            return
        self._is_over = True
        self._waiting = [peer.number for peer in self._victims]
        self._rng.shuffle(self._waiting)
        self._next_at = 0.0

    def _pairs_of(self, number: int) -> list[Pair]:
        assert self._cluster is not None
        others = [peer.number for peer in self._cluster.peers if peer.number != number]
        pairs = pairs_of("partition", [number], others, self._rng)
        return [pair for pair in pairs if pair not in self._cut]


class _Links:
    """What faults of one peer's links have in common; it may be held for dead meanwhile, and so it weighs."""

    name = ""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._links: Links | None = None
        self._number = -1

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Hurt the links of one peer that can be spared."""
        if not self._choose(cluster, cluster.spare(1, rng.choice), rng):
            return False
        self._cluster = cluster
        cluster.burden(cluster.peers[self._number])
        return True

    def stop(self) -> None:
        """Make the links good again."""
        if self._links is not None:
            self._mend(self._links)
            self._links = None
        if self._cluster is not None:
            self._cluster.unburden(self._cluster.peers[self._number], heals_in_s=HEALS_IN_S)
            self._cluster = None

    def _choose(self, cluster: Cluster, chosen: Sequence[ChaosPeer], rng: random.Random) -> bool:
        if not chosen:
            return False
        self._links, self._number = links_of(cluster), chosen[0].number
        self._hurt(self._links, rng)
        cluster.journal.instant(self.name, self._number)
        return True

    def _hurt(self, links: Links, rng: random.Random) -> None:
        """Begin."""

    def _mend(self, links: Links) -> None:
        """End."""


class Slow(_Links):
    """Little passes to and from one peer."""

    name = "slow"
    description = "all that goes to or from a peer is slow"

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Slow any peer's links; it is not held for dead, so nobody has to be spared."""
        serving = cluster.serving()
        return self._choose(cluster, [rng.choice(serving)] if serving else [], rng)

    def _hurt(self, links: Links, rng: random.Random) -> None:
        links.slow(self._number, rng.randint(*SLOW_BYTES_PER_S))

    def _mend(self, links: Links) -> None:
        links.slow(self._number, 0)


class Latency(_Links):
    """All that goes to or from one peer is late."""

    name = "latency"
    description = "all that goes to or from a peer is late"

    def _hurt(self, links: Links, rng: random.Random) -> None:
        links.delay(self._number, rng.uniform(*LATENCY_S))

    def _mend(self, links: Links) -> None:
        links.delay(self._number, 0.0)


class Resets(_Links):
    """All connections of one peer break, again and again."""

    name = "resets"
    description = "all connections of a peer break, again and again"

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def step(self) -> bool:
        """Break them when it is time to."""
        if self._links is not None and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + RESET_EVERY_S
            self._links.reset(self._number)
        return self._links is not None


_TEXTS: Final = {
    "partition": "some peers are cut off from the others, both ways",
    "oneway": "a peer speaks to nobody, or hears nobody",
    "bridge": "a partition, but for one peer that is on both sides",
}

_LONG_S: Final = (3.0, 12.0)  # who is cut off has to be held for dead before it comes back
_BRIEF_S: Final = (1.0, 10.0)

# What, made by what, for people, from ... to so long, what may be missing.
_ROWS: Final[tuple[tuple[str, Callable[[], Fault], str, tuple[float, float], Callable[[], str]], ...]] = (
    *((shape, partial(Shape, shape), text, _LONG_S, _missing) for shape, text in _TEXTS.items()),
    ("swizzle", Swizzle, Swizzle.description, _LONG_S, _missing),
    ("slow", Slow, Slow.description, _BRIEF_S, _missing),
    ("latency", Latency, Latency.description, _BRIEF_S, _missing_proxies),
    ("resets", Resets, Resets.description, _BRIEF_S, _missing_proxies),
)

for _name, _make, _text, _lasts_s, _lacks in _ROWS:
    register(
        FaultKind(
            name=_name,
            description=_text,
            make=_make,
            lasts_s=_lasts_s,
            surroundings=network,
            missing=_lacks,
        )
    )
