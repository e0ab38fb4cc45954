"""A real swarm on this machine, for tests and notebooks.

    with LocalSwarm(peers=4) as swarm:
        handle = swarm.submit(job, inputs)
        print(dict(handle.result()))

The peers are processes of their own, with keys of their own in a temporary directory; they end with the
block, or with this process, however it ends.  So does the directory: a shell waits at a pipe that this
process and all its peers hold open, and removes it when the last of them is gone, be it by SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from p2p.swarm import LocalPeers, PeerProcess
from p2p.swarm_client import Swarm

__all__ = ["LocalSwarm"]


class LocalSwarm(Swarm):
    """Peers on this machine and a client of them.

    Args:
        peers: how many.
        slots: tasks at a time of each; default: the number of processors.
        data: a directory in which each peer gets one of its own, which stays; default: temporary ones.
        quiet: drop what they write to stderr.

    Raises:
        TypeError, ValueError: `peers` is no number from 1 on.
        PeerStartFailed: one did not come up.
    """

    def __init__(
        self, peers: int = 3, *, slots: int | None = None, data: Path | None = None, quiet: bool = True
    ) -> None:
        if not isinstance(peers, int) or isinstance(peers, bool):
            raise TypeError(f"peers: expected how many, got {peers!r}")
        if peers < 1:
            raise ValueError(f"peers: expected at least 1, got {peers}")
        self._directory = tempfile.mkdtemp(prefix="ringreduce-swarm-")
        self._guard, self._held = _guarded(self._directory)
        self.keys_directory = keys = Path(self._directory) / "keys"
        options = ["--keys", str(keys), *(["--slots", str(slots)] if slots is not None else [])]
        self.local = LocalPeers(
            data=data or Path(self._directory), options=options, quiet=quiet, holding=(self._held,)
        )
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
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
            self._guard.kill()  # what it waits for is done
            self._guard.wait()


def _guarded(directory: str) -> tuple[subprocess.Popen[bytes], int]:
    """Have a directory removed when nobody holds a descriptor any more; returns who does it, and that."""
    waited_for, held = os.pipe()
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; rm -rf -- "$0"', directory],
            stdin=waited_for,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C, and what else is meant for us, must not end it
        )
    finally:
        os.close(waited_for)
    return guard, held
