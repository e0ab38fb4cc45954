"""A real swarm on this machine, for tests and notebooks.

    with LocalSwarm(peers=4) as swarm:
        handle = swarm.submit(job, inputs)
        print(dict(handle.result()))

The peers are processes of their own, with keys of their own in a temporary directory; they end with the
block, or with this process, however it ends.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from p2p.handles import Swarm
from p2p.swarm import LocalPeers, PeerProcess

__all__ = ["LocalSwarm"]


class LocalSwarm(Swarm):
    """Peers on this machine and a client of them.

    Args:
        peers: how many.
        slots: tasks at a time of each; default: the number of processors.
        data: a directory in which each peer gets one of its own, which stays; default: temporary ones.
        quiet: drop what they write to stderr.

    Raises:
        PeerStartFailed: one did not come up.
    """

    def __init__(
        self, peers: int = 3, *, slots: int | None = None, data: Path | None = None, quiet: bool = True
    ) -> None:
        self._directory = tempfile.mkdtemp(prefix="ringreduce-swarm-")
        self.keys_directory = keys = Path(self._directory) / "keys"
        options = ["--keys", str(keys), *(["--slots", str(slots)] if slots is not None else [])]
        self.local = LocalPeers(data=data or Path(self._directory), options=options, quiet=quiet)
        try:
            self.local.start(peers)
            super().__init__([peer.address for peer in self.local.peers], keys=keys)
        except BaseException:
            self._end()
            raise

    def add(self, count: int = 1) -> list[PeerProcess]:
        """Start further peers and wait until they are ready."""
        made = self.local.start(count)
        self.peers += [peer.address for peer in made]
        return made

    def kill(self, node: str) -> PeerProcess:
        """Kill a peer, by its node id or its address, without any warning; returns it."""
        peer = next(peer for peer in self.local.peers if node in (peer.id, peer.address))
        peer.process.send_signal(signal.SIGKILL)
        peer.process.wait()
        return peer

    def close(self) -> None:
        """Hang up, and let all peers leave."""
        super().close()
        self._end()

    def __enter__(self) -> LocalSwarm:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _end(self) -> None:
        self.local.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
