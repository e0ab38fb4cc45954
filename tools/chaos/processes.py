"""Faults of whole processes: killed, stopped, sent away, started again, joined by others.

Whoever leads a job, or took its submission, is hurt as often as all others together: that is where the
interesting moments are.

*A zombie leader* is one that is stopped while its successor commits, and wakes: `stop` lasts long enough
for a takeover more often than not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from tools.chaos.chaos_peer import ChaosPeer, PeerState
from tools.chaos.cluster import Cluster
from tools.chaos.faults import Fault, FaultKind, register

__all__ = ["Join", "Kill", "Leave", "Rolling", "Stop", "Wipe", "victim_of"]

MAX_JOINERS = 4
NEXT_OF_ROLLING_S = 2.0  # between the restarts of two peers of a rolling restart


def victim_of(rng: random.Random, cluster: Cluster) -> ChaosPeer | None:
    """Choose one peer that may be hurt now, by preference one that matters; None if none can be spared."""
    favourites = set(cluster.favourites)
    wants_favourite = bool(favourites) and rng.random() < 0.5

    def choice(peers: Sequence[ChaosPeer]) -> ChaosPeer:
        special = [peer for peer in peers if peer.id in favourites]
        return rng.choice(special) if wants_favourite and special else rng.choice(peers)

    chosen = cluster.spare(1, choice)
    return chosen[0] if chosen else None


class _OneVictim:
    """What faults have in common that hurt one peer; `_cluster` and `_peer` are set while they do."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._peer: ChaosPeer | None = None

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Hurt one peer that can be spared; False if none can."""
        self._cluster, self._peer = cluster, victim_of(rng, cluster)
        if self._peer is None:
            return False
        self._hurt(cluster, self._peer)
        return True

    def _hurt(self, cluster: Cluster, peer: ChaosPeer) -> None:
        raise NotImplementedError


class Kill(_OneVictim):
    """SIGKILL; started again with its data at the end."""

    name = "kill"
    description = "killed, restarted with its data"
    wipes = False

    def _hurt(self, cluster: Cluster, peer: ChaosPeer) -> None:
        cluster.kill(peer)

    def stop(self) -> None:
        """Start it again."""
        if self._cluster is not None and self._peer is not None and self._peer.state is PeerState.DOWN:
            self._cluster.restart(self._peer, wipe=self.wipes)
        self._peer = None


class Wipe(Kill):
    """SIGKILL; a new peer is started at its address, without its data."""

    name = "wipe"
    description = "killed, restarted without its data"
    wipes = True


class Stop(_OneVictim):
    """SIGSTOP, and SIGCONT at the end: a process that knows nothing of the time that has passed."""

    name = "stop"
    description = "stopped (SIGSTOP), and continued"

    def _hurt(self, cluster: Cluster, peer: ChaosPeer) -> None:
        cluster.stop(peer)

    def stop(self) -> None:
        """Let it go on."""
        if self._cluster is not None and self._peer is not None:
            self._cluster.cont(self._peer)
            # It may have been given up meanwhile: it comes back with its data, but is no copy at once.
            self._cluster.burden(self._peer)
            self._cluster.unburden(self._peer, heals_in_s=2.0)
        self._peer = None


class Leave(_OneVictim):
    """SIGTERM: it leaves in good order, and comes back with its data at the end."""

    name = "leave"
    description = "sent away with SIGTERM, restarted with its data"

    def __init__(self) -> None:
        super().__init__()
        self._comes_back = False

    def _hurt(self, cluster: Cluster, peer: ChaosPeer) -> None:
        cluster.leave(peer)
        cluster.burden(peer)

    def stop(self) -> None:
        """Start it again as soon as it is gone."""
        self._comes_back = True
        self.step()

    def step(self) -> bool:
        """Do what is due; False when nothing is left to do."""
        if self._comes_back and self._cluster is not None and self._peer is not None:
            if self._peer.state is PeerState.LEAVING:
                return True
            self._cluster.unburden(self._peer)
            if self._peer.state is PeerState.LEFT:
                self._cluster.restart(self._peer)
            self._peer = None
        return self._peer is not None


class Join:
    """A further peer comes, and leaves in good order at the end."""

    name = "join"
    description = "a further peer joins, and leaves with SIGTERM"

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._peer: ChaosPeer | None = None

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Start a peer, an earlier joiner or a new one; False if there are enough of them."""
        idle = [peer for peer in cluster.joiners if peer.state in (PeerState.LEFT, PeerState.DOWN)]
        self._cluster = cluster
        if idle:
            self._peer = rng.choice(idle)
            cluster.restart(self._peer, wipe=True)
        elif len(cluster.joiners) < MAX_JOINERS:
            self._peer = cluster.join()
        return self._peer is not None

    def stop(self) -> None:
        """Let it leave; one that was hurt by another fault meanwhile stays as it is."""
        if self._cluster is not None and self._peer is not None and self._peer.state is PeerState.UP:
            self._cluster.leave(self._peer)
        self._peer = None


class Rolling:
    """Every peer in turn is sent away and started again, as when a new version is rolled out."""

    name = "rolling"
    description = "each peer in turn leaves with SIGTERM and is started again"

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._waiting: list[ChaosPeer] = []
        self._away: ChaosPeer | None = None
        self._next_at = 0.0

    def start(self, cluster: Cluster, rng: random.Random) -> bool:
        """Begin with a random peer."""
        self._cluster = cluster
        self._waiting = [peer for peer in cluster.peers if peer.serves]
        rng.shuffle(self._waiting)
        self.step()
        return True

    def step(self) -> bool:
        """Restart the one that has left; send the next away if it is time and one can be spared."""
        cluster = self._cluster
        if cluster is None:
            return False
        if self._away is not None:
            if self._away.state is PeerState.LEFT:
                cluster.restart(self._away)
                self._next_at = time.monotonic() + NEXT_OF_ROLLING_S
            if self._away.state is not PeerState.LEAVING:
                self._away = None
        while self._waiting and not self._waiting[0].serves:
            self._waiting.pop(0)
        is_time = self._away is None and time.monotonic() >= self._next_at
        if self._waiting and is_time and len(cluster.weighing()) < cluster.allowed_down:
            self._away = self._waiting.pop(0)
            cluster.leave(self._away)
        return bool(self._waiting) or self._away is not None

    def stop(self) -> None:
        """Let those that did not have their turn be."""
        self._waiting = []


# What, made by what, for people, from ... to so long, on average so far apart; all but the last by default.
_ROWS: Final[tuple[tuple[str, Callable[[], Fault], str, tuple[float, float], float], ...]] = (
    ("kill", Kill, "SIGKILL for one peer, restarted with its data after 1-6 s", (1.0, 6.0), 4.0),
    ("wipe", Wipe, "SIGKILL for one peer, restarted without its data, as a new one", (1.0, 6.0), 20.0),
    ("stop", Stop, "SIGSTOP for one peer, SIGCONT after 1-60 s", (1.0, 60.0), 20.0),
    ("leave", Leave, "SIGTERM for one peer, restarted with its data", (1.0, 6.0), 30.0),
    ("join", Join, f"a further peer joins for a while, up to {MAX_JOINERS} at a time", (10.0, 40.0), 25.0),
    ("rolling", Rolling, "all peers in turn leave and are started again", (60.0, 90.0), 120.0),
)

for _name, _make, _text, _lasts_s, _every_s in _ROWS:
    register(
        FaultKind(
            name=_name,
            description=_text,
            make=_make,
            lasts_s=_lasts_s,
            every_s=_every_s,
            by_default=_name != "rolling",
        )
    )
