"""What goes on in the cluster, seen from outside: who leads, which attempts run where.

Who leads is asked of the peers, in a thread of its own, because an answer may take seconds when peers are
hurt.  Attempts are seen by the files that they write, in each peer's work directories; looking there
several times a second costs little and takes no part in what is watched.  An attempt that lives for less than
the time between two looks may be missed.

⚙ This module reads directories and asks peers.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from p2p.errors import PeerError
from tools.chaos.cluster import Cluster

__all__ = ["Span", "Watching"]

LOOK_EVERY_S = 0.2
ASK_EVERY_S = 1.0
MAX_SPANS = 100_000


@dataclass(slots=True, eq=False)
class Span:
    """One attempt as it was seen: at which peer, of which job, from when until when."""

    peer: int
    job: str
    name: str
    began_s: float
    ended_s: float


class Watching:
    """Watches a cluster; `step` is called from its loop."""

    def __init__(self, cluster: Cluster) -> None:
        self.spans: list[Span] = []
        self.leaders: dict[str, str] = {}
        self._cluster = cluster
        self._open: dict[tuple[int, str, str], Span] = {}
        self._look_at = self._ask_at = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="watching")
        self._asked: Future[dict[str, str]] | None = None

    def step(self) -> None:
        """Look, and ask, if it is time."""
        now = time.monotonic()
        self.look()
        if self._asked is not None and self._asked.done():
            self.leaders = self._asked.result()
            self._asked = None
        if self._asked is None and now >= self._ask_at and self._cluster.serving():
            self._ask_at = now + ASK_EVERY_S
            self._asked = self._pool.submit(_leaders, self._cluster)

    def look(self) -> None:
        """Look which attempts run, if it is time; ask nobody."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self._look()

    def close(self) -> None:
        """Wait for the last answer."""
        self._pool.shutdown()

    def _look(self) -> None:
        now = self._cluster.journal.now_s()
        seen: set[tuple[int, str, str]] = set()
        for peer in self._cluster.peers:
            if not peer.serves:
                continue
            for job, name in _attempts(str(peer.data / "jobs")):
                key = (peer.number, job, name)
                seen.add(key)
                if key in self._open:
                    self._open[key].ended_s = now
                elif len(self.spans) < MAX_SPANS:
                    self._open[key] = Span(peer.number, job, name, now, now + LOOK_EVERY_S / 2)
                    self.spans.append(self._open[key])
        for key in [key for key in self._open if key not in seen]:
            del self._open[key]


def _attempts(directory: str) -> list[tuple[str, str]]:
    """Return (job, name of the file) of what attempts are writing below a peer's directory of jobs."""
    found: list[tuple[str, str]] = []
    for job in _names(directory):
        for stage in _names(f"{directory}/{job}/attempts"):
            found += [(job, f"{stage}/{name}") for name in _names(f"{directory}/{job}/attempts/{stage}")]
    return found


def _names(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


def _leaders(cluster: Cluster) -> dict[str, str]:
    """Ask any peer for {job: leader} of the jobs that run."""
    try:
        with cluster.jobs_client(timeout_s=2.0) as client:
            return {row.job: row.leader for row in client.jobs().jobs if not row.state.is_final}
    except PeerError:
        return {}
