"""A swarm of real peers that may be hurt, and the books about it.

Theory
------
Each peer is a `ringreduce peer` process with a data directory and a log of its own, started and signalled
by its process id.  A peer's *state* is what we did to it, not what others believe: up, stopped (SIGSTOP),
down (killed), left (SIGTERM).  A peer that is started again keeps its address; with its data it is the same
node, without it a new one.

`spare(count)` keeps the promise that a run is about: at most `allowed_down` peers may be unable to serve at
one time.  Not only those that are down or stopped count: a peer that came back without its data is no copy
yet, one that was cut off or has lost segments is none either, so faults say by `burden` which peer they
weigh on, and `unburden` when that is over; a wiped peer weighs until `heal_s` after it came back.

Everything lies in one directory, which `close` removes; processes hold a lifeline to this one, and are
ended by their process ids.

⚙ This module starts processes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2p.client import Client
from p2p.errors import PeerError
from p2p.job_client import JobClient
from p2p.key_source import KeySource
from p2p.questions import AskMembers, MembersAre
from tools.chaos import proc
from tools.chaos.chaos_peer import ChaosPeer, PeerState, PeerWouldNotStart
from tools.chaos.faults import Place, Surroundings
from tools.chaos.journal import Journal

__all__ = ["NO_FILE", "Cluster", "Mark", "mark_of"]

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
LEAVE_LIMIT_S = 20.0
LOG_TAIL_BYTES = 8_192
MAX_PEERS = 64
MAX_LIVES = 10_000  # of one peer: starts within one run

Mark = tuple[int, int]
NO_FILE: Mark = (0, 0)


@dataclass(slots=True, eq=False)
class Cluster:
    """Peers of one run.  Use it as a context manager.

    Args:
        directory: an empty directory, for everything; removed at the end unless `keep` is set.
        journal: where all that is done to peers is written down.
        replicas: R of the jobs; R-1 peers may be down.
        allowed_down: another number, where that is asked for.
        slots: of each peer.
        surroundings: the world they live in; None: this machine's loopback.
        heal_s: how long a peer that came back without its data still counts as down.
        keep: leave the directory where it is at the end.

    Attributes:
        peers: all that were ever started, by number.
        favourites: node ids of those that lead jobs or took their submissions, as far as is known.
        joiners: those of `peers` that were not there from the beginning.
        expected_to_end: numbers of peers that a fault has told to end themselves; no others may.
        would_not_leave: numbers of peers that had to be killed after a SIGTERM.
        hurt_segments: the files of peers' stores that a fault has damaged, each with the mark of what it left
            there.
    """

    directory: Path
    journal: Journal
    replicas: int = 2
    allowed_down: int = -1
    slots: int = 1
    surroundings: Surroundings | None = None
    heal_s: float = 8.0
    keep: bool = False
    peers: list[ChaosPeer] = field(default_factory=list)
    favourites: list[str] = field(default_factory=list)
    joiners: list[ChaosPeer] = field(default_factory=list)
    expected_to_end: set[int] = field(default_factory=set)
    would_not_leave: list[int] = field(default_factory=list)
    hurt_segments: dict[Path, Mark] = field(default_factory=dict)
    _burdens: Counter[int] = field(default_factory=Counter)
    _healing: dict[int, float] = field(default_factory=dict)  # peer: when it counts as a copy again
    _lifeline: tuple[int, int] = (-1, -1)

    def __post_init__(self) -> None:
        """Make the directory, and the pipe that ends with us."""
        if self.allowed_down < 0:
            self.allowed_down = self.replicas - 1
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lifeline = os.pipe()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keys(self) -> Path:
        """The directory of the cluster's keys."""
        return self.directory / "keys"

    # ---- starting and ending ---------------------------------------------------------------------------

    def start(self, count: int) -> list[ChaosPeer]:
        """Start new peers and wait until all of them are ready.

        Raises:
            PeerWouldNotStart: one did not get ready.
        """
        made: list[ChaosPeer] = []
        for _ in range(count):
            peer = self._place_one()
            made.append(peer)
            self._spawn(peer)
            if peer.number == 0:
                self.await_ready([peer])  # its address is what the others join through
        self.await_ready(made)
        return made

    def join(self) -> ChaosPeer:
        """Start one more peer; returns at once, `poll` sees when it is ready."""
        peer = self._place_one()
        self.joiners.append(peer)
        self.journal.instant("join", peer.number)
        self._spawn(peer)
        return peer

    def restart(self, peer: ChaosPeer, *, wipe: bool = False) -> None:
        """Start a peer that is down; returns at once, `poll` sees when it is ready.

        Args:
            wipe: without its data directory: a new node at the same address, with empty hands.
        """
        assert peer.state in (PeerState.DOWN, PeerState.LEFT), f"peer {peer.number} is {peer.state.value}"
        if wipe:
            shutil.rmtree(peer.data, ignore_errors=True)
            peer.id = ""
            self._healing[peer.number] = time.monotonic() + START_LIMIT_S
        self.journal.instant("wiped" if wipe else "restart", peer.number)
        self._spawn(peer)

    def await_ready(self, peers: Sequence[ChaosPeer]) -> None:
        """Return when these peers are ready.

        Raises:
            PeerWouldNotStart: one is not, in `START_LIMIT_S`, or has ended.
        """
        deadline = time.monotonic() + START_LIMIT_S
        while waiting := [peer for peer in peers if peer.state is PeerState.STARTING]:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise PeerWouldNotStart(self._why(waiting[0], f"said nothing in {START_LIMIT_S:g} s"))
            streams = [peer.process.stdout for peer in waiting if peer.process and peer.process.stdout]
            select.select(streams, [], [], min(0.2, left_s))
            self.poll()

    def poll(self) -> list[ChaosPeer]:
        """Look which peers have become ready, and which have ended by themselves.

        Returns:
            Those that ended and were not expected to.

        Raises:
            PeerWouldNotStart: one ended before it was ready.
        """
        ended: list[ChaosPeer] = []
        for peer in self.peers:
            if peer.process is None or peer.state in (PeerState.DOWN, PeerState.LEFT):
                continue
            if peer.state is PeerState.STARTING:
                self._listen(peer)
            code = peer.process.poll()
            if code is None:
                self._hurry(peer)
                continue
            if peer.state is PeerState.STARTING:
                raise PeerWouldNotStart(self._why(peer, f"ended with exit code {code} before it was ready"))
            if peer.state is PeerState.LEAVING:
                self._gone(peer, PeerState.LEFT)
                continue
            self._gone(peer, PeerState.DOWN)
            self.journal.instant("ended", peer.number, f"by itself, with exit code {code}")
            if peer.number in self.expected_to_end:
                self.expected_to_end.discard(peer.number)
            else:
                ended.append(peer)
        return ended

    def close(self) -> None:
        """End all peers, if they were not ended yet; remove the directory."""
        self.end()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def end(self) -> None:
        """End all peers, gracefully where they can; the directory stays to be looked at."""
        if self._lifeline[0] < 0:
            return
        for peer in self.peers:
            if peer.process is not None and peer.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(peer.pid, signal.SIGTERM)
                    os.kill(peer.pid, signal.SIGCONT)
        deadline = time.monotonic() + STOP_LIMIT_S
        for peer in self.peers:
            if peer.process is None:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                peer.process.wait(max(0.0, deadline - time.monotonic()))
            if peer.process.poll() is None:
                self.would_not_leave.append(peer.number)
                peer.process.kill()
                peer.process.wait()
            self._gone(peer, PeerState.DOWN)
        for descriptor in self._lifeline:
            os.close(descriptor)
        self._lifeline = (-1, -1)
        if self.surroundings is not None:
            self.surroundings.close()

    # ---- hurting ---------------------------------------------------------------------------------------

    def kill(self, peer: ChaosPeer, why: str = "") -> None:
        """SIGKILL; returns when the process is gone."""
        self.journal.instant("kill", peer.number, why)
        if peer.process is not None:
            peer.process.kill()
            peer.process.wait()
        self._gone(peer, PeerState.DOWN)

    def kill_together(self, peers: Sequence[ChaosPeer], why: str = "") -> None:
        """SIGKILL for several before any is waited for."""
        for peer in peers:
            if peer.process is not None:
                peer.process.kill()
        for peer in peers:
            self.kill(peer, why)

    def leave(self, peer: ChaosPeer) -> None:
        """SIGTERM: let it leave in good order; returns at once, `poll` sees when it is gone.

        One that is not gone after `LEAVE_LIMIT_S` is killed, and noted in `would_not_leave`.
        """
        self.journal.instant("leave", peer.number)
        assert peer.process is not None
        peer.process.terminate()
        peer.state, peer.began_at = PeerState.LEAVING, time.monotonic()

    def stop(self, peer: ChaosPeer) -> None:
        """SIGSTOP for the peer; its children run on, as they would on a machine whose peer is stuck."""
        self.journal.instant("stop", peer.number)
        os.kill(peer.pid, signal.SIGSTOP)
        peer.state = PeerState.STOPPED

    def cont(self, peer: ChaosPeer) -> None:
        """SIGCONT; harmless for a peer that is not stopped."""
        if peer.state is PeerState.STOPPED:
            self.journal.instant("continue", peer.number)
            os.kill(peer.pid, signal.SIGCONT)
            peer.state = PeerState.UP

    # ---- how much may be broken ------------------------------------------------------------------------

    def weighing(self) -> set[int]:
        """Return the numbers of the peers that cannot be counted on now."""
        now = time.monotonic()
        down = {peer.number for peer in self.peers if not peer.serves and peer.state is not PeerState.LEFT}
        healing = {number for number, until in self._healing.items() if now < until}
        return down | healing | {number for number, count in self._burdens.items() if count}

    def spare(self, count: int, rng_choice: Callable[[Sequence[ChaosPeer]], ChaosPeer]) -> list[ChaosPeer]:
        """Choose peers that may be hurt now.

        Args:
            count: how many at once.
            rng_choice: picks one of several, as `random.Random.choice`.

        Returns:
            So many peers that serve, or none if that would be more than `allowed_down`.
        """
        weighing = self.weighing()
        if len(weighing) + count > self.allowed_down:
            return []
        sound = [peer for peer in self.peers if peer.serves and peer.number not in weighing]
        chosen: list[ChaosPeer] = []
        while sound and len(chosen) < count:
            chosen.append(rng_choice(sound))
            sound.remove(chosen[-1])
        return chosen if len(chosen) == count else []

    def burden(self, peer: ChaosPeer) -> None:
        """Count a peer as one that cannot be counted on, until `unburden`."""
        self._burdens[peer.number] += 1

    def unburden(self, peer: ChaosPeer, *, heals_in_s: float = 0.0) -> None:
        """Take back one `burden`; with `heals_in_s` it weighs so much longer."""
        self._burdens[peer.number] = max(0, self._burdens[peer.number] - 1)
        if heals_in_s:
            self._healing[peer.number] = time.monotonic() + heals_in_s

    def unseen_damage(self, job: str) -> dict[Path, ChaosPeer]:
        """Return the damaged segments of a job that still lie, or lack, as the fault has left them.

        Nobody has read them since, and so nobody knows that a copy is missing.
        """
        serving = self.serving()
        return {
            path: peer
            for path, mark in self.hurt_segments.items()
            if path.parent.name == job and mark_of(path) == mark
            for peer in serving
            if path.is_relative_to(peer.segments)
        }

    # ---- looking ---------------------------------------------------------------------------------------

    def serving(self) -> list[ChaosPeer]:
        """Return the peers that should answer."""
        return [peer for peer in self.peers if peer.serves]

    def by_id(self, node: str) -> ChaosPeer | None:
        """Return the peer with this node id, or one that begins so."""
        return next((peer for peer in self.peers if node and peer.id.startswith(node)), None)

    def addresses(self) -> list[str]:
        """Return where the peers that should answer are reached."""
        return [peer.address for peer in self.serving()]

    def members(self, peer: ChaosPeer, timeout_s: float = 3.0) -> MembersAre | None:
        """Return the ring as a peer sees it, None if it does not answer."""
        keys = KeySource(directory=self.keys).load().keys
        try:
            with Client(keys, (peer.address,), timeout_s=timeout_s) as client:
                return client.ask(AskMembers(number=0), MembersAre)
        except PeerError:
            return None

    def jobs_client(self, timeout_s: float = 3.0) -> JobClient:
        """Return a connection for questions about jobs, to the peers that should answer."""
        return JobClient(KeySource(directory=self.keys).load().keys, self.addresses(), timeout_s=timeout_s)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `ringreduce` with these arguments, run where it reaches the peers."""
        prefix = self.surroundings.client_prefix() if self.surroundings is not None else ()
        return [*prefix, sys.executable, "-m", "p2p.cli", *arguments]

    def environment(self, more: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
        """Return the variables for peers and clients: ours, without any settings, with the keys."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RINGREDUCE_")}
        # All temporary files of the run lie below its directory: what is left there, was left behind.
        return {**kept, "RINGREDUCE_KEYS": str(self.keys), "TMPDIR": str(self.temporary()), **dict(more)}

    def temporary(self) -> Path:
        """Return the directory for temporary files of all processes of the run."""
        path = self.directory / "tmp"
        path.mkdir(exist_ok=True)
        return path

    def log_tail(self, peer: ChaosPeer) -> str:
        """Return the end of what a peer has written."""
        try:
            with peer.log.open("rb") as file:
                file.seek(max(0, peer.log.stat().st_size - LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def processes(self) -> list[int]:
        """Return the ids of all processes that belong to the run, whoever is their parent by now.

        They are known by their environment, which names the directory of the run's keys.
        """
        return proc.with_variable(f"RINGREDUCE_KEYS={self.keys}")

    # ---- inside ----------------------------------------------------------------------------------------

    def _place_one(self) -> ChaosPeer:
        number = len(self.peers)
        assert number < MAX_PEERS
        place = self.surroundings.place(number) if self.surroundings is not None else Place()
        data = place.data or self.directory / f"peer-{number}"
        peer = ChaosPeer(number=number, place=place, data=data, log=self.directory / f"peer-{number}.log")
        self.peers.append(peer)
        return peer

    def _spawn(self, peer: ChaosPeer) -> None:
        assert peer.lives < MAX_LIVES
        listen = peer.place.listen
        if peer.address and not peer.place.advertise and listen.endswith(":0"):
            listen = peer.address
        options = ["--listen", listen, "--data", str(peer.data), "--keys", str(self.keys)]
        options += ["--slots", str(self.slots), "--lifeline", str(self._lifeline[0]), "--die-with-parent"]
        if peer.place.advertise:
            options += ["--advertise", peer.place.advertise]
        joins = [other.address for other in self.peers if other is not peer and other.address][:8]
        options += [word for address in joins for word in ("--join", address)]
        command = [*peer.place.prefix, sys.executable, "-m", "p2p.cli", "peer", *options, *peer.place.options]
        with peer.log.open("ab") as log:
            peer.process = subprocess.Popen(
                command,
                env=self.environment(peer.place.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(self._lifeline[0],),
                start_new_session=True,
            )
        peer.lives += 1
        peer.state, peer.said, peer.began_at = PeerState.STARTING, b"", time.monotonic()

    def _hurry(self, peer: ChaosPeer) -> None:
        """End a peer that takes too long to leave."""
        if peer.state is PeerState.LEAVING and time.monotonic() - peer.began_at > LEAVE_LIMIT_S:
            self.would_not_leave.append(peer.number)
            self.kill(peer, "would not leave")
            peer.state = PeerState.LEFT

    def _listen(self, peer: ChaosPeer) -> None:
        """Read a starting peer's `ready ADDR NODE-ID`, as far as it is there."""
        assert peer.process is not None
        assert peer.process.stdout is not None
        while select.select([peer.process.stdout], [], [], 0)[0]:
            some = os.read(peer.process.stdout.fileno(), 4_096)
            if not some:
                return
            peer.said += some
            if not peer.said.endswith(b"\n"):
                continue
            word, address, node = peer.said.decode("ascii", "replace").split()
            if word != "ready":
                raise PeerWouldNotStart(self._why(peer, f"said {word!r} instead of 'ready'"))
            peer.address, peer.id, peer.state = address, node, PeerState.UP
            peer.life = self.journal.begin("life", peer.number, node)
            if peer.number in self._healing:
                self._healing[peer.number] = time.monotonic() + self.heal_s
            return

    def _gone(self, peer: ChaosPeer, state: PeerState) -> None:
        peer.state = state
        if peer.process is not None and peer.process.stdout is not None:
            peer.process.stdout.close()
        if peer.life is not None:
            self.journal.end(peer.life)

    def _why(self, peer: ChaosPeer, what: str) -> str:
        return f"peer {peer.number} {what}; the end of its log:\n{self.log_tail(peer)}"


def mark_of(path: Path) -> Mark:
    """Return what tells the file that lies there from another in its place; `NO_FILE` if none does."""
    try:
        found = path.stat()
    except OSError:
        return NO_FILE
    return found.st_ino, found.st_ctime_ns  # the number alone may be given again
