"""What a fault is, and the list of all of them.

Theory
------
A *kind* of fault stands in the registry under its name: `--faults kill,stop,cut` chooses kinds.  Each time
the schedule decides to hurt the cluster it makes one `Fault` of a kind, starts it, lets it last for a while
and stops it.  Everything runs in one thread: `start` and `stop` return quickly (they change something, and do
not wait for its consequences), and nothing else happens to the cluster meanwhile.

How much may be broken at once is the cluster's to say, not the fault's: a fault asks
`cluster.spare(count, rng.choice)` for peers that may go down now, and gets none when R-1 are down already;
then `start` returns False and nothing has happened; the schedule tries again a little later.

Kinds that need another world than plain loopback (network namespaces, proxies, a small disk) name
`Surroundings`, made before the first peer starts and closed after the last has ended; of two kinds with
different surroundings one run takes only those that fit together (`surroundings_of`).

Modules register their kinds when they are imported; `load_all` imports those that exist.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from tools.chaos.cluster import Cluster

__all__ = [
    "KINDS",
    "Fault",
    "FaultKind",
    "FaultUnavailable",
    "Gradual",
    "Place",
    "Surroundings",
    "load_all",
    "register",
    "surroundings_of",
]

MODULES: Final = ("processes", "network", "proxies", "disk", "hostile_jobs", "failpoints")


class FaultUnavailable(Exception):
    """This machine, or this run, cannot do it; the text says what is missing."""


class Fault(Protocol):
    """One injury of the cluster."""

    name: str
    description: str

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Hurt the cluster; False if nothing could be spared now, and nothing was done.

        Raises:
            FaultUnavailable: it cannot be done here at all.
        """
        ...

    def stop(self) -> None:
        """Make good what `start` did; harmless when it did nothing, or twice."""
        ...


@runtime_checkable
class Gradual(Protocol):
    """A fault that also has something to do between `start` and `stop`, or after."""

    def step(self) -> bool:
        """Do what is due now, without waiting; False when nothing is left to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how one peer is started.

    Attributes:
        listen: ADDR for --listen; port 0 at the first start, and whatever it got from then on.
        advertise: for --advertise where others reach it by another address, else "".
        prefix: words before the command, as ("ip", "netns", "exec", "chaos-3").
        environment: further variables.
        options: further options of `ringreduce peer`.
        data: its data directory; None for one in the cluster's.
    """

    listen: str = "127.0.0.1:0"
    advertise: str = ""
    prefix: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    data: Path | None = None


class Surroundings(Protocol):
    """The world that a cluster's peers live in."""

    name: str

    def place(self, number: int) -> Place:
        """Return where peer `number` (from 0) lives; asked once for each peer, before its first start."""
        ...

    def client_prefix(self) -> tuple[str, ...]:
        """Return the words before a client's command, so that it reaches the peers; () for none."""
        ...

    def close(self) -> None:
        """Remove what was made; called after the last peer has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """A row of the registry.

    Attributes:
        name: as in --faults.
        description: one line for --help and the report.
        make: one fault, ready to start.
        lasts_s: from … to seconds between start and stop.
        every_s: mean time between two of them, when chosen.
        surroundings: makes the world it needs, given the cluster's directory and how many peers there will
            be at most; None where plain loopback will do.
        missing: what this machine lacks for it, "" if nothing.
        by_default: whether it belongs to a run that names no faults.
    """

    name: str
    description: str
    make: Callable[[], Fault]
    lasts_s: tuple[float, float] = (1.0, 10.0)
    every_s: float = 15.0
    surroundings: Callable[[Path, int], Surroundings] | None = None
    missing: Callable[[], str] = field(default=lambda: "")
    by_default: bool = False


KINDS: dict[str, FaultKind] = {}
"""All kinds by name, in the order of registration."""


def register(kind: FaultKind) -> FaultKind:
    """Enter a kind; a second one of the same name is a mistake of ours."""
    assert kind.name not in KINDS, f"two kinds of fault are called {kind.name}"
    KINDS[kind.name] = kind
    return kind


def load_all() -> None:
    """Import all modules that register kinds."""
    for name in MODULES:
        if importlib.util.find_spec(f"tools.chaos.{name}") is not None:
            importlib.import_module(f"tools.chaos.{name}")


def surroundings_of(kinds: Sequence[FaultKind]) -> Callable[[Path, int], Surroundings] | None:
    """Return what makes the world for these kinds, None for plain loopback.

    Raises:
        FaultUnavailable: they need two different worlds, or this machine lacks something.
    """
    for kind in kinds:
        if lacking := kind.missing():
            raise FaultUnavailable(f"fault {kind.name}: {lacking}")
    needed = {kind.name: kind.surroundings for kind in kinds if kind.surroundings is not None}
    if len(set(needed.values())) > 1:
        raise FaultUnavailable(f"one run cannot have all of {', '.join(needed)}: they need different worlds")
    return next(iter(needed.values()), None)
