"""One peer of a cluster that is hurt: where it lives, its process, and what we did to it last."""

from __future__ import annotations

import enum
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.chaos.faults import Place
from tools.chaos.journal import Incident

__all__ = ["ChaosPeer", "PeerState", "PeerWouldNotStart"]


class PeerWouldNotStart(Exception):
    """A peer ended, or said nothing, before it was ready; the text holds the end of its log."""


class PeerState(enum.Enum):
    """What we did to a peer last."""

    STARTING = "starting"
    UP = "up"
    STOPPED = "stopped"
    DOWN = "down"
    LEAVING = "leaving"
    LEFT = "left"


@dataclass(slots=True, eq=False)
class ChaosPeer:
    """One peer of the cluster.

    Attributes:
        number: its place in `Cluster.peers`.
        place: where and how it is started.
        address: what clients connect to, once it was ready for the first time.
        id: its node id.
        log: the file with all it has written to stderr, in all its lives.
        lives: how often it was started.
        said: what it has written to stdout until it was ready.
    """

    number: int
    place: Place
    data: Path
    log: Path
    address: str = ""
    id: str = ""
    state: PeerState = PeerState.DOWN
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    life: Incident | None = None
    began_at: float = 0.0
    said: bytes = b""

    @property
    def pid(self) -> int:
        """The process id of its present life.

        Raises:
            ProcessLookupError: it has none.
        """
        if self.process is None:
            raise ProcessLookupError(f"peer {self.number} was not started")
        return self.process.pid

    @property
    def serves(self) -> bool:
        """Whether it could answer, as far as we have not hurt it."""
        return self.state is PeerState.UP

    @property
    def segments(self) -> Path:
        """The directory of its store."""
        return self.data / "segments"
