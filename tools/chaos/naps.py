"""A swarm that runs one small job again and again: what the drills of this script have in common.

The job (`tools.chaos.napping`) counts words; its tasks sleep, so there is time to hurt somebody, and many can
run side by side on a small machine.  Clients are `ringreduce` commands in processes of their own.

⚙ This module starts processes.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2p.errors import PeerError
from p2p.job_questions import JobView
from tools.chaos.cluster import Cluster
from tools.chaos.faults import Surroundings
from tools.chaos.journal import Journal

__all__ = ["PARTITIONS", "TASKS", "NapSwarm", "parts_in"]

TASKS: Final = 12
PARTITIONS: Final = 4
START_LIMIT_S: Final = 20.0
EMBEDDED_LIMIT_S: Final = 120.0
VOCABULARY: Final = 3_000
WORDS_A_FILE: Final = 4_000
WORDS_A_LINE: Final = 10
HERE: Final = Path(__file__).parent


class NapSwarm:
    """Peers, the job's inputs, and its right answer.  Use it as a context manager.

    Args:
        directory: an empty one, removed at the end.
        surroundings: the world of the peers, None for plain loopback.
        peers: how many.
        replicas: R of the jobs.
        partitions: of the jobs.
        seed: of the inputs, and of what a drill draws from `rng`.
        variables: further ones for clients.

    Raises:
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(
        self,
        directory: Path,
        surroundings: Surroundings | None = None,
        *,
        peers: int,
        replicas: int,
        seed: int,
        partitions: int = PARTITIONS,
        variables: Sequence[tuple[str, str]] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.rng = random.Random(seed)
        self.replicas = replicas
        self._partitions = partitions
        self._variables = tuple(variables)
        self._inputs = self._write_inputs()
        self.cluster = Cluster(directory, Journal(), replicas=replicas, surroundings=surroundings)
        try:
            self.cluster.start(peers)
            self._reference = self._embedded()
            self.settled_after_s(START_LIMIT_S)
        except BaseException:
            self.cluster.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.close()

    # ---- clients ---------------------------------------------------------------------------------------

    def submit(self, nap_s: float, addresses: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Hand the job in, detached: stdout will hold its id.

        Args:
            nap_s: how long each task sleeps.
            addresses: whom to ask; default: all peers that serve.
        """
        words = ["submit", str(HERE / "napping.py"), str(self._inputs), "--detach"]
        words += ["-r", str(self._partitions)]
        words += ["--replicas", str(self.replicas), "--param", f"nap_s={nap_s}"]
        return self.client(words, addresses)

    def submitted(self, nap_s: float, wrong: list[str], limit_s: float) -> str:
        """Submit a job and wait until it is born.

        Args:
            nap_s: how long each task sleeps.
            wrong: takes what is to be said if it is refused.
            limit_s: the most to wait.

        Returns:
            The job's id; "" if it was refused.

        Raises:
            subprocess.TimeoutExpired: nothing was said within the limit.
        """
        client = self.submit(nap_s)
        told, _ = client.communicate(timeout=limit_s)
        if client.returncode:
            wrong.append(f"submit ended with code {client.returncode}: {told.decode()[-300:]}")
            return ""
        return told.decode().split()[-1]

    def attach(
        self, job: str, output: Path, report: Path, addresses: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Follow a job, and fetch its result and its report."""
        words = ["attach", job, "-q", "-o", str(output), "--report", str(report)]
        return self.client(words, addresses)

    def client(self, words: Sequence[str], addresses: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start `ringreduce` with these words, and whom to ask."""
        peers = ",".join(addresses or self.cluster.addresses())
        return subprocess.Popen(
            self.cluster.command(*words, "--peer", peers),
            env=self.cluster.environment(self._variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    # ---- looking ---------------------------------------------------------------------------------------

    def view(self, job: str) -> JobView | None:
        """Return how a job is, None if nobody says."""
        try:
            with self.cluster.jobs_client(1.0) as client:
                return client.view(job)
        except PeerError:
            return None

    def settled_after_s(self, limit_s: float) -> float:
        """Wait until every peer sees every peer alive; returns how long that took, negative if never.

        Raises:
            PeerWouldNotStart: one that was just started has ended.
        """
        began_at = time.monotonic()
        everybody = {peer.id for peer in self.cluster.peers}
        while time.monotonic() - began_at < limit_s:
            self.cluster.poll()
            if all(self._seen_by(number) == everybody for number in range(len(self.cluster.peers))):
                return time.monotonic() - began_at
            time.sleep(0.1)
        return -1.0

    def _seen_by(self, number: int) -> set[str]:
        answer = self.cluster.members(self.cluster.peers[number], 1.0)
        return {row.id for row in answer.members if row.status == "alive"} if answer else set()

    # ---- the right answer ------------------------------------------------------------------------------

    def mistakes(self, output: Path, report: Path) -> Iterator[str]:
        """Yield in what a fetched result is not the embedded engine's."""
        parts, counters = self._reference
        if parts_in(output) != parts:
            yield "the result's bytes are not the embedded engine's"
        told = json.loads(report.read_text())["counters"] if report.exists() else None
        if told != counters:
            yield f"counters are {told}, not {counters}"

    def _write_inputs(self) -> Path:
        directory = self.directory / "inputs"
        directory.mkdir()
        for number in range(TASKS):
            words = [f"w{self.rng.randrange(VOCABULARY)}" for _ in range(WORDS_A_FILE)]
            lines = [" ".join(words[at : at + WORDS_A_LINE]) for at in range(0, WORDS_A_FILE, WORDS_A_LINE)]
            (directory / f"{number:02d}.txt").write_text("\n".join(lines) + "\n")
        return directory

    def _embedded(self) -> tuple[dict[str, bytes], dict[str, int]]:
        output, report = self.directory / "reference", self.directory / "reference.json"
        words = ["run", str(HERE / "napping.py"), str(self._inputs), "-q", "-j", "1"]
        words += ["-r", str(self._partitions), "-o", str(output), "--report", str(report)]
        # It keeps an empty directory of the user's among the temporary ones, which is not the swarm's doing.
        environment = self.cluster.environment((("TMPDIR", str(self.directory)),))
        subprocess.run(self.cluster.command(*words), env=environment, check=True, timeout=EMBEDDED_LIMIT_S)
        counters: dict[str, int] = json.loads(report.read_text())["counters"]
        return parts_in(output), counters


def parts_in(directory: Path) -> dict[str, bytes]:
    """Return the names and bytes of an output directory; nothing of one that is not there."""
    return (
        {path.name: path.read_bytes() for path in sorted(directory.iterdir())} if directory.is_dir() else {}
    )
