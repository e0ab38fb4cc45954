"""`ringreduce swarm`: local peers under one foreground process."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from p2p.addresses import DEFAULT_PORT
from p2p.process import Wakeup, stop_signals
from p2p.swarm import LocalPeers

__all__ = ["run_swarm"]

INTERRUPTED = 130


def run_swarm(count: int, *, data: Path | None, port: int | None, options: Sequence[str], quiet: bool) -> int:
    """Start peers, print a `ready` line for each, and wait to be stopped.

    A peer that ends is reported and the others go on; when the last one has ended, so do we.

    Args:
        count: how many peers.
        data: a directory for theirs, None for temporary ones.
        port: of the first peer; None for the usual one if that is free.
        options: of `ringreduce peer`, for each.
        quiet: drop what they write to stderr.

    Returns:
        The exit code.

    Raises:
        PeerStartFailed: one did not come up.
    """
    if port is None:
        port = DEFAULT_PORT if _is_free(DEFAULT_PORT) else 0
    received: list[int] = []
    with (
        contextlib.closing(Wakeup()) as wakeup,
        LocalPeers(data=data, options=options, quiet=quiet) as local,
        stop_signals(received),
        wakeup.on_signals(),
    ):
        for made in local.start(count, listen=f"127.0.0.1:{port}"):
            print(f"ready {made.address} {made.id}", flush=True)
        alive = {peer.stdout: peer for peer in local.peers}
        while alive and not received:
            # A peer's stdout is silent after `ready`; that it can be read means that it has ended.
            readable, _, _ = select.select([wakeup.fileno(), *alive], [], [])
            wakeup.drain()
            for stdout in readable:
                peer = alive.pop(stdout, None)
                if peer is not None:
                    how = _how(peer.process.wait())
                    print(f"peer {peer.id} at {peer.address} ended: {how}", file=sys.stderr, flush=True)
    return INTERRUPTED if signal.SIGINT in received else 0


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
