"""Measure what membership promises, on real peers of this machine.

    python -m tools.measure_membership --peers 16
    python -m tools.measure_membership --peers 32 --loaded 300

Starts peers (`p2p.swarm.LocalPeers`), watches the events of all of them at once, does something to one of
them, and prints a table with a line for each promise: what was measured, what was promised, and whether it
holds.  The exit code is 1 if one does not hold.  Processor time and memory are read from /proc, so Linux
only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from membership.view import NodeId, Status
from p2p.errors import WireError
from p2p.gate import Gate
from p2p.key_source import KeySource
from p2p.keys import KeySet
from p2p.protocol import wire_format
from p2p.questions import AskMembers, MembersAre
from p2p.ring_questions import Happened, Watch
from p2p.roles import Role
from p2p.swarm import LocalPeers, PeerProcess
from p2p.wire import Envelope
from p2p.zmq_transport import ZmqTransport

LEASE_S = 30.0
RENEWAL_S = 10.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Watchtower:
    """Sees the views and hears the events of many peers at once.

    Args:
        keys: of the cluster.
        peers: whom to watch; those added later are watched from then on.
    """

    def __init__(self, keys: KeySet, peers: list[PeerProcess]) -> None:
        self.peers = peers
        self.events: list[tuple[float, int, Happened]] = []  # when, index of the peer that told it, what
        self._wire = wire_format()
        self._cluster = keys.cluster
        self._gate = Gate(self._wire, keys.cluster)
        self._transport = ZmqTransport(keys)
        self._name = NodeId(f"watch-{secrets.token_hex(4)}")
        self._views: dict[int, MembersAre] = {}
        self._renewed_at = float("-inf")

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def look(self, duration_s: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Collect events until a condition holds (True) or the time has passed (False)."""
        deadline = time.monotonic() + duration_s
        while not until():
            now = time.monotonic()
            if now >= deadline:
                return False
            if now - self._renewed_at > RENEWAL_S:
                self._renewed_at = now
                for index in range(len(self.peers)):
                    self._send(index, Watch(number=index, lease_s=LEASE_S))
            self._collect(min(0.05, deadline - now))
        return True

    def watch_all(self) -> None:
        """Return when every peer has confirmed that it is watched."""
        confirmed: set[int] = set()

        def all_confirmed() -> bool:
            confirmed.update(index for _, index, event in self.events if event.event == "watching")
            return len(confirmed) == len(self.peers)

        self._renewed_at = float("-inf")
        if not self.look(10.0, all_confirmed):
            raise SystemExit("not all peers can be watched")
        self.events.clear()

    def views(self, timeout_s: float = 2.0) -> dict[int, MembersAre]:
        """What each peer believes now; those that do not answer in time are missing."""
        self._views.clear()
        for index, peer in enumerate(self.peers):
            if peer.process.poll() is None:
                self._send(index, AskMembers(number=index))
        deadline = time.monotonic() + timeout_s
        while len(self._views) < len(self.peers) and time.monotonic() < deadline:
            self._collect(0.005)
        return dict(self._views)

    def agree(self) -> bool:
        """Whether all peers see the same ring, in which exactly the watched ones are, all alive."""
        views = self.views().values()
        wanted = {peer.id for peer in self.peers}
        seen = [{m.id for m in view.members if m.status is Status.ALIVE} for view in views]
        digests = {view.ring_digest for view in views}
        return len(seen) == len(self.peers) and all(some == wanted for some in seen) and len(digests) == 1

    def await_agreement(self, timeout_s: float) -> float:
        """Wait until the peers agree, and return how long it took.

        Raises:
            TimeoutError: they did not in time.
        """
        began = time.monotonic()
        while not self.agree():
            if time.monotonic() - began > timeout_s:
                raise TimeoutError(f"the peers do not agree within {timeout_s:g} s")
        return time.monotonic() - began

    def _send(self, index: int, message: Any) -> None:
        envelope = Envelope(
            cluster=self._cluster, ring_digest=b"", sender=self._name, incarnation=0, message=message
        )
        self._transport.send(self.peers[index].address, self._wire.encode(envelope))

    def _collect(self, timeout_s: float) -> None:
        self._transport.wait(timeout_s)
        now = time.monotonic()
        self._transport.maintain(now)
        for arrival in self._transport.receive(1_000):
            try:
                message = self._gate.admit(arrival.frame, Role.PEER).message
            except WireError as error:
                raise SystemExit(f"{arrival.remote}: {error}") from None
            if isinstance(message, Happened):
                self.events.append((now, message.number, message))
            elif isinstance(message, MembersAre):
                self._views[message.number] = message


@dataclass(slots=True)
class Report:
    """The table of what was measured."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, what: str, measured: str, promised: str, holds: bool) -> None:
        """Add a line, and show it at once."""
        self.rows.append((what, measured, promised, holds))
        print(f"{what:<58} {measured:<34} {promised:<18} {'ok' if holds else 'MISSED'}", flush=True)


# ---- the measurements
# ----------------------------------------------------------------------------------------


def measure_agreement(tower: Watchtower, ready_at: float, report: Report) -> None:
    """How long after the last `ready` all peers see all others alive."""
    count = len(tower.peers)
    tower.await_agreement(30.0)
    took_s = time.monotonic() - ready_at
    report.add(f"{count} peers agree after the last start", f"{took_s:.2f} s", "<= 3 s", took_s <= 3.0)


def measure_idle(peers: Sequence[PeerProcess], duration_s: float, report: Report) -> None:
    """Processor time and memory of peers that have nothing to do."""
    before = [_cpu_s(peer.pid) for peer in peers]
    began = time.monotonic()
    time.sleep(duration_s)
    wall_s = time.monotonic() - began
    shares = [(_cpu_s(peer.pid) - cpu) / wall_s * 100 for peer, cpu in zip(peers, before, strict=True)]
    resident = [_resident_mb(peer.pid) for peer in peers]
    measured = f"median {statistics.median(shares):.2f} %, worst {max(shares):.2f} %"
    report.add(f"an idle peer of {len(peers)}, share of a core", measured, "<= 1 %", max(shares) <= 1.0)
    measured = f"median {statistics.median(resident):.1f} MB, worst {max(resident):.1f} MB"
    report.add(f"an idle peer of {len(peers)}, resident memory", measured, "<= 45 MB", max(resident) <= 45.0)


def measure_kill(local: LocalPeers, tower: Watchtower, rounds: int, report: Report) -> None:
    """How long it takes until a peer killed with SIGKILL is dead in the views of all others."""
    everywhere_s: list[float] = []
    falsely: set[str] = set()
    for _ in range(rounds):
        victim = tower.peers[-1]
        count = len(tower.peers)
        tower.watch_all()
        victim.process.kill()
        killed_at = time.monotonic()
        tellers: dict[int, float] = {}

        def dead_everywhere(
            victim: PeerProcess = victim, tellers: dict[int, float] = tellers, count: int = count
        ) -> bool:
            for when, index, event in tower.events:
                if event.event == "died" and event.node == victim.id:
                    tellers.setdefault(index, when)
                elif event.event == "died":
                    falsely.add(event.node)
            return len(tellers) == count - 1

        tower.look(30.0, dead_everywhere)
        everywhere_s.append(max(tellers.values(), default=float("inf")) - killed_at)
        victim.process.wait()
        tower.peers.remove(victim)
        local.peers.remove(victim)
        tower.peers.extend(local.start(1))
        tower.await_agreement(30.0)
    median_s = statistics.median(everywhere_s)
    measured = f"median {median_s:.2f} s, worst {max(everywhere_s):.2f} s of {rounds}"
    report.add("SIGKILL: dead in all views", measured, "median <= 2 s", median_s <= 2.0)
    report.add("SIGKILL: others falsely dead", str(len(falsely)), "0", not falsely)


def measure_stop(tower: Watchtower, duration_s: float, report: Report) -> None:
    """Whether a peer that was stopped for a while comes back as the same member, and nobody else is hurt."""
    tower.watch_all()
    victim = tower.peers[len(tower.peers) // 2]
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        tower.look(duration_s)
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    continued_at = time.monotonic()
    others = [peer for peer in tower.peers if peer is not victim]

    def back() -> bool:
        views = tower.views()
        rows = [m for view in views.values() for m in view.members if m.id == victim.id]
        return len(rows) == len(tower.peers) and all(row.status is Status.ALIVE for row in rows)

    deadline = time.monotonic() + 30.0
    while not (came_back := back()) and time.monotonic() < deadline:
        pass
    took_s = time.monotonic() - continued_at
    tower.look(3.0)  # what the stopped one believed of the others meanwhile shows soon after
    hurt = {event.node for _, _, event in tower.events if event.event == "died"} - {victim.id}
    suspected = {e.node for _, _, e in tower.events if e.event == "suspected"} - {victim.id}
    what = f"SIGSTOP {duration_s:g} s: back as the same member in all views"
    report.add(what, f"{took_s:.2f} s" if came_back else "no", "yes", came_back)
    report.add("SIGSTOP: others falsely dead", str(len(hurt)), "0", not hurt)
    report.add("SIGSTOP: others suspected", f"{len(suspected)} of {len(others)}", "(for information)", True)


def measure_loaded(tower: Watchtower, duration_s: float, report: Report) -> None:
    """Whether peers suspect each other while every processor is fully loaded by other work."""
    cores = os.cpu_count() or 1
    with _burning(cores):
        tower.watch_all()
        tower.look(duration_s)
    suspected = [event.node for _, _, event in tower.events if event.event == "suspected"]
    died = [event.node for _, _, event in tower.events if event.event == "died"]
    count = len(tower.peers)
    what = f"{count} peers, {cores} cores fully loaded for {duration_s:g} s: "
    report.add(what + "suspicions", str(len(suspected)), "0", not suspected)
    report.add(what + "deaths", str(len(died)), "0", not died)


# ---- helpers
# -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _burning(count: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=int, default=16, help="how many (16)")
    parser.add_argument(
        "--idle", type=float, default=10.0, metavar="S", help="seconds of idling (10); 0: skip"
    )
    parser.add_argument("--kill", type=int, default=5, metavar="N", help="rounds of SIGKILL (5); 0: skip")
    parser.add_argument(
        "--stop", type=float, default=10.0, metavar="S", help="seconds of SIGSTOP (10); 0: skip"
    )
    parser.add_argument("--loaded", type=float, default=0.0, metavar="S", help="seconds under load (0: skip)")
    parser.add_argument("--verbose", action="store_true", help="show what the peers write to stderr")
    chosen = parser.parse_args(arguments)
    report = Report()
    with contextlib.ExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringreduce-measure-")))
        local = stack.enter_context(LocalPeers(options=["--keys", str(keys)], quiet=not chosen.verbose))
        local.start(chosen.peers)
        ready_at = time.monotonic()
        tower = Watchtower(KeySource(directory=keys).load().keys, list(local.peers))
        stack.callback(tower.close)
        measure_agreement(tower, ready_at, report)
        if chosen.idle:
            measure_idle(tower.peers, chosen.idle, report)
        if chosen.kill:
            measure_kill(local, tower, chosen.kill, report)
        if chosen.stop:
            measure_stop(tower, chosen.stop, report)
        if chosen.loaded:
            measure_loaded(tower, chosen.loaded, report)
    return 0 if all(holds for *_, holds in report.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
