"""A SIGKILL in the middle of a job: whom it hits, and how it is found.

*The worker* runs tasks of the job: of a swarm a peer that does not lead it, with all its children;
elsewhere the descendant that has worked most.  *The coordinator* knows what is done and what is not: of a
swarm the peer that leads the job; of Dask's local cluster and of our embedded engine the process of the
script itself, of Ray its global control store, of Spark the driver's virtual machine, which in local mode is
the worker too.

⚙ This module reads /proc and kills processes that the benchmark started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from p2p.errors import PeerError
from p2p.swarm import LocalPeers
from p2p.swarm_client import Swarm
from tools.bench_measure import Process, tree

WORKER, COORDINATOR = VICTIMS = ("worker", "coordinator")
POLL_S = 0.02
READY_LIMIT_S = 120.0
LEADER_LIMIT_S = 5.0


@dataclass(slots=True, kw_only=True)
class Strike:
    """One kill.

    Attributes:
        victim: one of `VICTIMS`.
        after_s: how long after the job has begun.
        struck: what was killed, "" as long as nothing was.
        began_s: when the job began, by `time.monotonic`.
    """

    victim: str
    after_s: float
    struck: str = ""
    began_s: float = 0.0
    _seen: dict[tuple[int, int], Process] = field(default_factory=dict)

    def hit_tree(
        self, root: int, *, worker: str, coordinator: str, is_ready: Callable[[], bool] = lambda: True
    ) -> None:
        """Kill a process of a tree, when it is time.

        Args:
            root: the process id of its root.
            worker: stands in the command line of workers.
            coordinator: stands in that of the coordinator; "" for the root itself.
            is_ready: the job has begun.
        """
        deadline_s = time.monotonic() + READY_LIMIT_S
        while not is_ready():
            if time.monotonic() > deadline_s or _is_over(root):
                return
            time.sleep(POLL_S)
        self.began_s = time.monotonic()
        time.sleep(self.after_s)
        processes = list(tree(root))
        self._seen = {(process.pid, process.began): process for process in processes}
        if _is_over(root):
            return
        if self.victim == COORDINATOR:
            found = [p for p in processes if (coordinator in _command_line(p.pid) if coordinator else True)]
            victim = next(iter(found), None)
        else:
            found = [p for p in processes if p.pid != root and worker in _command_line(p.pid)]
            victim = max(found, key=lambda process: process.own_cpu_s, default=None)
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                self.struck = f"process {victim.pid}"

    def hit_swarm(self, local: LocalPeers, keys: Path) -> None:
        """Kill a peer, when it is time."""
        self.began_s = time.monotonic()
        with Swarm([peer.address for peer in local.peers], keys=keys) as swarm:
            leader = ""
            # The job before this one has been warming the swarm up and is over.
            while not leader and time.monotonic() < self.began_s + self.after_s + LEADER_LIMIT_S:
                leader = _leader_of_running(swarm)
                time.sleep(POLL_S)
            time.sleep(max(0.0, self.began_s + self.after_s - time.monotonic()))
            leader = _leader_of_running(swarm)
        if not leader:
            return
        wanted = self.victim == COORDINATOR
        peer = next(peer for peer in local.peers if (peer.id == leader) is wanted)
        peer.process.send_signal(signal.SIGKILL)
        peer.process.wait()
        self.struck = f"peer {peer.id[:8]}"

    def clear_up(self) -> None:
        """End what outlived the root of its tree."""
        for (pid, began), _ in self._seen.items():
            if any(process.began == began for process in tree(pid) if process.pid == pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._seen.clear()


def _leader_of_running(swarm: Swarm) -> str:
    try:
        running = (row.leader for row in swarm.jobs() if not row.state.is_final)
        return str(next(running, ""))
    except PeerError:
        return ""


def _is_over(pid: int) -> bool:
    """Whether a child of ours has ended, though nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
