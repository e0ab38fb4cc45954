"""Several local peers as child processes of one: for trying things out, for tests, for the demo.

The first peer is started alone, as its address is what the others join through; then all others at once.
They do not outlive whoever started them: each holds the reading end of a pipe that nobody writes to, and
stops when it ends; and on Linux the kernel kills them, too, should they be stopped or stuck at that
moment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2p.errors import PeerError

__all__ = ["LocalPeers", "PeerProcess", "PeerStartFailed"]

START_LIMIT_S = 30.0
STOP_LIMIT_S = 8.0
MAX_PEERS = 256
_OF_ONE_PEER = frozenset(
    f"RINGREDUCE_{name}" for name in ("ADVERTISE", "BULK_PORT", "DATA", "JOIN", "LISTEN", "TOKEN")
)


class PeerStartFailed(PeerError):
    """A peer ended, or said nothing, before it was ready; its own line on stderr says why."""


@dataclass(slots=True, eq=False)
class PeerProcess:
    """One peer of ours: where it is reached, its node id, its process."""

    address: str
    id: str
    process: subprocess.Popen[bytes]

    @property
    def stdout(self) -> int:
        """The descriptor of its stdout, which ends when it does."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


class LocalPeers:
    """Peers on this machine that end with this process.  Use it as a context manager.

    Args:
        data: a directory in which each peer gets one of its own, `peer-0` …; None for temporary ones.
        options: further options of `ringreduce peer` for each of them.
        quiet: drop what they write to stderr.
        holding: descriptors that each of them holds open for as long as it lives.
    """

    def __init__(
        self,
        *,
        data: Path | None = None,
        options: Sequence[str] = (),
        quiet: bool = False,
        holding: Sequence[int] = (),
    ) -> None:
        self.peers: list[PeerProcess] = []
        self._data = data
        self._options = list(options)
        self._quiet = quiet
        self._holding = tuple(holding)
        self._started: list[subprocess.Popen[bytes]] = []
        self._lifeline_read, self._lifeline_write = os.pipe()

    def __enter__(self) -> LocalPeers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, count: int, *, listen: str = "127.0.0.1:0") -> list[PeerProcess]:
        """Start peers and wait until each says that it is ready.

        Args:
            count: how many.
            listen: where the very first one listens; all others take any free port.

        Returns:
            Those that were started now; `peers` holds them all.

        Raises:
            PeerStartFailed: one did not come up in `START_LIMIT_S`.
        """
        if len(self.peers) + count > MAX_PEERS:
            raise PeerStartFailed(f"a local swarm has at most {MAX_PEERS} peers")
        deadline = time.monotonic() + START_LIMIT_S
        made: list[PeerProcess] = []
        if not self.peers and count > 0:
            made.append(_ready(self._spawn(["--listen", listen]), deadline))
            self.peers.append(made[0])
            count -= 1
        joins = [argument for peer in self.peers[:3] for argument in ("--join", peer.address)]
        spawned = [self._spawn(["--listen", "127.0.0.1:0", *joins]) for _ in range(count)]
        for process in spawned:
            made.append(_ready(process, deadline))
            self.peers.append(made[-1])
        return made

    def stop(self) -> None:
        """Let all peers leave, and end those that do not within `STOP_LIMIT_S`."""
        if self._lifeline_write < 0:
            return
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # one that is stopped could not obey
        deadline = time.monotonic() + STOP_LIMIT_S
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        os.close(self._lifeline_write)
        os.close(self._lifeline_read)
        self._lifeline_write = -1

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "p2p.cli", "peer", *self._options, *arguments]
        command += ["--lifeline", str(self._lifeline_read)]
        if threading.current_thread() is threading.main_thread():
            # The kernel watches the thread, not the process; another thread may end while the swarm lives.
            command.append("--die-with-parent")
        if self._data is not None:
            command += ["--data", str(self._data / f"peer-{len(self._started)}")]
        # What the environment says of one peer would be said of all of them: the same directory, the same
        # port.
        environment = {name: value for name, value in os.environ.items() if name not in _OF_ONE_PEER}
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if self._quiet else None,
            pass_fds=(self._lifeline_read, *self._holding),
            start_new_session=True,  # Ctrl-C goes to us, and we tell them
        )
        self._started.append(process)
        return process


def _ready(process: subprocess.Popen[bytes], deadline: float) -> PeerProcess:
    """Wait for a peer's `ready ADDR NODE-ID`."""
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"\n"):
        found, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not found:
            raise PeerStartFailed(
                f"peer with process id {process.pid} did not get ready in {START_LIMIT_S:g} s"
            )
        some = os.read(process.stdout.fileno(), 4_096)
        if not some:
            raise PeerStartFailed(f"peer ended with exit code {process.wait()} before it was ready")
        text += some
    word, address, node = text.decode("ascii", "replace").split()
    if word != "ready":
        raise PeerStartFailed(f"peer with process id {process.pid} said {word!r} instead of 'ready'")
    return PeerProcess(address, node, process)
