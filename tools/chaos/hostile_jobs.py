"""Jobs whose code does the worst, beside one that is innocent: `python -m tools.chaos hostile`.

For each way (`tools.chaos.jobs.hostile`) one bad job runs on a real swarm, and an innocent one beside it.
What must hold: the bad job ends in time, with an error that says what its code did, after no more attempts
than allowed and each on another peer, or, where no harm was done to its own process, with its result; the
peers are the same processes as before, and small; the innocent job's bytes are right; of the bad job no
process and no file is left.

⚙ This module starts processes.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.chaos import proc
from tools.chaos.cluster import Cluster
from tools.chaos.journal import Journal

__all__ = ["EXPECTED", "Finding", "Hostilities"]

HERE: Final = Path(__file__).parent
MAX_ATTEMPTS: Final = 3
JOB_LIMIT_S: Final = 60.0
GONE_LIMIT_S: Final = 15.0
PEER_BYTES: Final = 200 << 20
TASKS: Final = 6
# Those that wait for work in one slot: one that ran tasks, one that looked whether a job can run, each with
# its guard; and a pair that is on its way out.
MAX_CHILDREN: Final = 6

# The exit code, and what the error must say; 0: the job must succeed.
EXPECTED: Final[dict[str, tuple[int, str]]] = {
    "segfault": (1, "SIGSEGV"),
    "os-exit": (1, "exited with code 3"),
    "endless-loop": (1, "longer than 3 s"),
    "recursion": (1, "RecursionError"),
    "fork-bomb": (1, "longer than 3 s"),
    "gigabyte": (1, "printed more than"),
    "sys-exit": (1, "sys.exit(5)"),
    "keyboard-interrupt": (1, "KeyboardInterrupt"),
    "swallowed-interrupt": (1, "longer than 3 s"),
    "thread": (0, ""),
    "unpicklable-exception": (1, "Unpicklable"),
    "closed-descriptors": (1, "exited with code"),
    "unpicklable-result": (2, "lock cannot be sent"),
    "exit-in-repr": (2, "Rude cannot be sent"),
}


@dataclass(slots=True, kw_only=True)
class Finding:
    """How one way ended.

    Attributes:
        said: the error's first line.
        took_s: until the bad job had ended.
        wrong: every claim that did not hold.
    """

    way: str
    said: str = ""
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        return f"{self.way}, {self.took_s:.1f} s: {verdict} | {self.said or 'succeeded'}"


class Hostilities:
    """A swarm for bad jobs.  Use it as a context manager.

    Args:
        directory: an empty one; removed at the end.
        peers: how many.

    Raises:
        PeerWouldNotStart: one did not come up.
    """

    def __init__(self, directory: Path, *, peers: int = 4) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.cluster = Cluster(directory, Journal())
        self._inputs = directory / "inputs"
        self._inputs.mkdir()
        for number in range(TASKS):
            words = "\n".join(f"w{(number * 7 + n) % 50} again" for n in range(2_000))
            bad = "hostile\n" if number == TASKS // 2 else ""
            (self._inputs / f"{number}.txt").write_text(f"{bad}{words}\n")
        try:
            self.cluster.start(peers)
            self._right = self._embedded()
        except BaseException:
            self.cluster.close()
            raise

    def __enter__(self) -> Hostilities:
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    def run(self, way: str) -> Finding:
        """Run one way; nothing is raised for what goes wrong in it."""
        finding = Finding(way=way)
        lives = [peer.pid for peer in self.cluster.peers]
        log = self._directory / f"{way}.log"
        log.touch()
        began_at = time.monotonic()
        innocent = self._client(["submit", str(HERE / "napping.py"), "--param", "nap_s=0.2"], "innocent")
        bad = self._client(
            ["submit", str(HERE / "jobs" / "hostile.py"), "--param", f"how={way}", "--param", f"log={log}"],
            "bad",
        )
        code, told = self._ended(bad, JOB_LIMIT_S)
        finding.took_s = time.monotonic() - began_at
        finding.wrong += self._judge(finding, code, told)
        finding.wrong += self._attempts(log, lives)
        code, told = self._ended(innocent, JOB_LIMIT_S)
        if code != 0 or _parts(self._directory / "innocent") != self._right:
            finding.wrong.append(f"the innocent job: exit code {code}: {told[-200:]}")
        for name in ("innocent", "bad"):
            shutil.rmtree(self._directory / name, ignore_errors=True)
        self.cluster.poll()
        if [peer.pid for peer in self.cluster.serving()] != lives:
            finding.wrong.append("a peer has ended")
        finding.wrong += self._leftovers(lives)
        return finding

    # ---- claims ----------------------------------------------------------------------------------------

    def _judge(self, finding: Finding, code: int, told: str) -> Iterator[str]:
        wanted_code, wanted = EXPECTED[finding.way]
        errors = [line for line in told.splitlines() if line.startswith("error")]
        finding.said = errors[0][:220] if errors else ""
        if code == -1:
            yield f"it did not end in {JOB_LIMIT_S:g} s"
        elif code != wanted_code:
            yield f"exit code {code} and not {wanted_code}: {told[-300:]}"
        elif code == 0 and _parts(self._directory / "bad").keys() != self._right.keys():
            yield "it succeeded without a result"
        elif wanted not in told:
            yield f"the error does not say {wanted!r}: {told[-400:]}"

    def _attempts(self, log: Path, lives: Sequence[int]) -> Iterator[str]:
        pids = [int(line) for line in log.read_text().split()]
        # Beside those that failed, one more may run as a backup, which an error then overtakes.
        if not 1 <= len(pids) <= MAX_ATTEMPTS + 1:
            yield f"{len(pids)} attempts"
        if len(set(pids)) != len(pids):
            yield f"attempts were on peers {[lives.index(pid) if pid in lives else pid for pid in pids]}"

    def _leftovers(self, lives: Sequence[int]) -> Iterator[str]:
        """Wait until peers are small and have no more children than slots, each with no child of its own."""
        deadline = time.monotonic() + GONE_LIMIT_S
        while (left := list(self._left(lives))) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield from left

    def _left(self, lives: Sequence[int]) -> Iterator[str]:
        known = set(lives)
        for peer in self.cluster.peers:
            children = proc.descendants(peer.pid)
            known.update(children)
            if len(children) > MAX_CHILDREN:
                yield f"peer {peer.number} has {len(children)} children"
            size = proc.resident_bytes(peer.pid)
            if size > PEER_BYTES:
                yield f"peer {peer.number} takes {size >> 20} MB"
        strangers = set(self.cluster.processes()) - known
        if strangers:
            yield f"processes {sorted(strangers)} are left"
        for path in self.cluster.temporary().iterdir():
            yield f"temporary {path.name} is left"

    # ---- clients ---------------------------------------------------------------------------------------

    def _client(self, words: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        addresses = ",".join(self.cluster.addresses())
        command = self.cluster.command(*words, str(self._inputs), "--peer", addresses)
        with (self._directory / f"{name}.told").open("wb") as told:
            return subprocess.Popen(
                [*command, "-r", "2", "-o", str(self._directory / name)],
                env=self.cluster.environment(),
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
            )

    def _ended(self, client: subprocess.Popen[bytes], limit_s: float) -> tuple[int, str]:
        """Wait for a client; its exit code, -1 if it had to be killed, and what it said."""
        try:
            code = client.wait(limit_s)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
            code = -1
        name = "bad" if "hostile.py" in " ".join(map(str, client.args)) else "innocent"  # type: ignore[arg-type]
        return code, (self._directory / f"{name}.told").read_text(errors="replace")

    def _embedded(self) -> dict[str, bytes]:
        output = self._directory / "right"
        command = self.cluster.command("run", str(HERE / "napping.py"), str(self._inputs), "-q", "-r", "2")
        environment = self.cluster.environment((("TMPDIR", str(self._directory)),))
        subprocess.run([*command, "-o", str(output)], env=environment, check=True, timeout=60)
        return _parts(output)


def _parts(directory: Path) -> dict[str, bytes]:
    return (
        {path.name: path.read_bytes() for path in sorted(directory.iterdir())} if directory.is_dir() else {}
    )
