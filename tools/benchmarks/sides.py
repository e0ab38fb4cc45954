"""Who answers: one thread by hand, a pair by hand, our embedded engine, swarms of ours, other engines.

*What is timed.*  A side's *job* is the time from asking to the whole answer on disk.  For the scripts and the
embedded engine that is a whole process, from a cold interpreter on.  For a swarm it is a whole
`ringreduce submit` process: it loads the job, hands it in, follows it and fetches the result; the peers stand
already, and what it took to start them until each sees all others is told apart as the *start*.  Engines
with workers of their own start them within their script; the script writes down when they were ready and
when the answer was complete, and start and job are told apart by that, so that they too are measured as if
they had been standing.

*Two processors, whoever uses them.*  Peers get so many slots that together they run as many tasks at a time
as there are processors, at least one each; the others get as many workers as there are processors.

*Every swarm is new*, so that none carries what an earlier job left; a job of ten lines goes before, so that
the children that a standing peer keeps warm are warm.

⚙ This module starts processes and reads and writes files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from p2p.questions import AskMembers, MembersAre
from p2p.swarm import LocalPeers
from p2p.swarm_client import Swarm
from tools.bench_measure import CommandFailed, Usage, measure
from tools.benchmarks.by_hand import SINGLE
from tools.benchmarks.environments import Engine
from tools.benchmarks.questions import Question
from tools.benchmarks.strikes import VICTIMS, Strike

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}
AGREEMENT_LIMIT_S = 30.0
AGREEMENT_POLL_S = 0.01
RUN_LIMIT_S = 1800.0
MAX_PEERS = 64
# Where an engine's script writes when its workers were ready and when the answer was complete.
MARKS = "RINGREDUCE_BENCH_MARKS"
NOTHING: frozenset[str] = frozenset()
_SWARM = re.compile(r"([1-9]\d?)x([1-8])")

TEN_LINE_JOB = """\
from mapreduce import Job

def mapper(line):
    for word in line.split():
        yield word.lower(), 1

def reducer(word, counts):
    yield word, sum(counts)

job = Job(mapper=mapper, combiner=reducer, reducer=reducer)
"""
TEN_LINES = "a few words, and a few more\n" * 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one answer took.

    Attributes:
        start_s: until the side's own system stood; 0 where it has none.
        job_s: from asking to the whole answer.
        cpu_s: of the job, the standing system's included; of engines that start in their script, all of it.
        peak_process_bytes: of the largest process.
        peak_tree_bytes: of all processes together.
    """

    start_s: float
    job_s: float
    cpu_s: float
    peak_process_bytes: int
    peak_tree_bytes: int


class Side(Protocol):
    """One that answers questions."""

    @property
    def name(self) -> str:
        """What it is called in tables and on the command line."""

    @property
    def packs_records(self) -> bool:
        """Whether it writes sorted records as the keys of msgpack pairs."""

    @property
    def is_foreign(self) -> bool:
        """Whether it is another engine, without which the comparison goes on."""

    @property
    def cannot(self) -> frozenset[str]:
        """What it knows no way to answer."""

    @property
    def victims(self) -> tuple[str, ...]:
        """Whom of it `--kill` kills: those whose loss anybody says it survives."""

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        """Answer into the directory `out`, which does not exist.

        Args:
            question: which.
            inputs: its files, all in one directory.
            out: see above.
            strike: kill a process on the way; one of `victims`.

        Raises:
            CommandFailed: a process did not end well.
        """


def script_command(side: str, question: Question, inputs: Sequence[Path], out: Path) -> list[str]:
    """Return the command of one of the two sides by hand; it runs in the directory of the inputs."""
    names = [path.name for path in inputs]
    module = "tools.benchmarks.by_hand" if question.asked in SINGLE else "tools.bench_scripts"
    return [sys.executable, "-m", module, side, question.asked, str(out), *names]


@dataclass(frozen=True, slots=True)
class ByHand:
    """`single` or `pair`: what a careful person writes without any engine."""

    name: str
    packs_records = False
    is_foreign = False
    cannot = NOTHING
    victims = ()

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        """See `Side`."""
        assert strike is None
        return _alone(script_command(self.name, question, inputs, out), inputs[0].parent)


@dataclass(frozen=True, slots=True)
class Embedded:
    """`ringreduce run`."""

    name: str = "embedded"
    packs_records = True
    is_foreign = False
    cannot = NOTHING
    victims = VICTIMS

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        """See `Side`."""
        command = ringreduce("run", question, [path.name for path in inputs], out)
        hit = None
        if strike is not None:
            hit = partial(strike.hit_tree, worker="mapreduce.child", coordinator="")
        return _alone(command, inputs[0].parent, hit)


def ringreduce(verb: str, question: Question, names: Sequence[str], out: Path) -> list[str]:
    """Return a command of ours that answers a question."""
    job = question.job if "/" not in question.job else str(REPOSITORY / question.job)
    command = [sys.executable, "-m", "p2p.cli", verb, job, *names, "-o", str(out), "--quiet"]
    return [*command, *question.options]


@dataclass(frozen=True, slots=True)
class OurSwarm:
    """`ringreduce submit` to standing peers.

    Attributes:
        peers: how many.
        replicas: of each intermediate output and each part.
        directory: below which the peers keep their data: the disk that answers are written to.
    """

    peers: int
    replicas: int
    directory: Path
    packs_records = True
    is_foreign = False
    cannot = NOTHING

    @property
    def victims(self) -> tuple[str, ...]:
        """See `Side`."""
        return VICTIMS if self.replicas > 1 and self.peers >= 2 * self.replicas - 1 else ()

    @property
    def name(self) -> str:
        """See `Side`."""
        return f"swarm-{self.peers}x{self.replicas}"

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        """See `Side`."""
        with standing(self.peers, self.directory) as swarm:
            command = ringreduce("submit", question, [path.name for path in inputs], out)
            hit = None if strike is None else partial(_hit_swarm, strike, swarm)
            usage = measure(
                [*command, *swarm.options, "--replicas", str(self.replicas)],
                environment=ENVIRONMENT,
                directory=inputs[0].parent,
                limit_s=RUN_LIMIT_S,
                beside=swarm.pids,
                meanwhile=hit,
            )
        return _run(usage, start_s=swarm.start_s)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another engine, in its own virtual environment.

    Attributes:
        engine: which.
        python: its interpreter.
        limit_s: for one answer, its start included.
    """

    engine: Engine
    python: Path
    limit_s: float = RUN_LIMIT_S
    packs_records = False
    is_foreign = True

    @property
    def name(self) -> str:
        """See `Side`."""
        return self.engine.name

    @property
    def cannot(self) -> frozenset[str]:
        """See `Side`."""
        return self.engine.cannot

    @property
    def victims(self) -> tuple[str, ...]:
        """See `Side`."""
        return VICTIMS if self.engine.worker else ()

    def command(self, question: Question, names: Sequence[str], out: Path) -> list[str]:
        """Return the command line that answers a question; it runs in the directory of the inputs."""
        script = REPOSITORY / "tools" / "benchmarks" / "engines" / f"{self.engine.name}_forms.py"
        return [str(self.python), str(script), question.asked, str(out), *names]

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        """See `Side`."""
        with tempfile.TemporaryDirectory(prefix="ringreduce-bench-") as directory:
            marks = Path(directory) / "marks.json"
            hit = None
            if strike is not None:
                hit = partial(
                    strike.hit_tree,
                    worker=self.engine.worker,
                    coordinator=self.engine.coordinator,
                    is_ready=marks.exists if self.engine.standing else lambda: True,
                )
            began_s = time.monotonic()
            usage = measure(
                self.command(question, [path.name for path in inputs], out),
                environment={**ENVIRONMENT, MARKS: str(marks)},
                directory=inputs[0].parent,
                limit_s=self.limit_s,
                meanwhile=hit,
            )
            if not self.engine.standing:
                return _run(usage)
            told = json.loads(marks.read_text())
        start_s = told["ready_s"] - began_s
        return _run(usage, start_s=start_s, job_s=told["complete_s"] - told["ready_s"])


# --- swarms -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Peers that stand, agree on who is here, and have run a job.

    Attributes:
        local: their processes.
        keys: the directory of the cluster's keys.
        start_s: until they agreed.
    """

    local: LocalPeers
    keys: Path
    start_s: float

    @property
    def pids(self) -> list[int]:
        """The process ids of the peers."""
        return [peer.pid for peer in self.local.peers]

    @property
    def options(self) -> list[str]:
        """What a command of ours needs to reach them."""
        addresses = ",".join(peer.address for peer in self.local.peers)
        return ["--peer", addresses, "--keys", str(self.keys)]

    def client(self) -> Swarm:
        """Return a client of all of them; close it."""
        return Swarm([peer.address for peer in self.local.peers], keys=self.keys)


@contextmanager
def standing(peers: int, directory: Path, *, slots: int | None = None) -> Iterator[Standing]:
    """Start a swarm, and end it with the block.

    Args:
        peers: how many.
        directory: below which their data go; made if need be, and left as it was.
        slots: of each peer; default: see the head of this file.

    Raises:
        CommandFailed: they did not agree in time, or did not run a first job.
        PeerStartFailed: one did not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="swarm-", dir=directory))
    keys = data / "keys"
    if slots is None:
        slots = max(1, (os.cpu_count() or 1) // peers)
    try:
        began_s = time.monotonic()
        options = ["--keys", str(keys), "--slots", str(slots)]
        with LocalPeers(data=data, options=options, quiet=True) as local:
            local.start(peers)
            _await_agreement(local, keys)
            stands = Standing(local, keys, time.monotonic() - began_s)
            warm(stands, data)
            yield stands
    finally:
        shutil.rmtree(data, ignore_errors=True)


def warm(stands: Standing, directory: Path) -> None:
    """Run a job of ten lines."""
    command = startup_command("submit", directory)
    measure([*command, *stands.options], environment=ENVIRONMENT, directory=directory)
    shutil.rmtree(directory / "out")


def startup_command(verb: str, directory: Path) -> list[str]:
    """Write a job of ten lines and its input into a directory; return the command that runs it there."""
    (directory / "job.py").write_text(TEN_LINE_JOB)
    (directory / "input.txt").write_text(TEN_LINES)
    return [sys.executable, "-m", "p2p.cli", verb, "job.py", "input.txt", "-o", "out", "--quiet"]


def _await_agreement(local: LocalPeers, keys: Path) -> None:
    deadline_s = time.monotonic() + AGREEMENT_LIMIT_S
    for peer in local.peers:
        with Swarm(peer.address, keys=keys) as swarm, swarm.client() as client:
            while len(client.ask(AskMembers(number=0), MembersAre).members) < len(local.peers):
                if time.monotonic() > deadline_s:
                    raise CommandFailed(f"{peer.address} does not see all peers in {AGREEMENT_LIMIT_S:g} s")
                time.sleep(AGREEMENT_POLL_S)


def parse_swarm(text: str) -> tuple[int, int]:
    """Return the peers and replicas of "3x2".

    Raises:
        ValueError: it is not of that form, or asks for more replicas than peers.
    """
    match = _SWARM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not PEERSxREPLICAS, such as 3x2")
    peers, replicas = int(match[1]), int(match[2])
    if peers > MAX_PEERS:
        raise ValueError(f"{text}: a swarm on one machine has at most {MAX_PEERS} peers")
    if replicas > peers:
        raise ValueError(f"{text}: {peers} peers cannot hold {replicas} replicas")
    return peers, replicas


# --- usage ------------------------------------------------------------------------------------------


def _alone(command: Sequence[str], directory: Path, meanwhile: Callable[[int], None] | None = None) -> Run:
    usage = measure(
        command, environment=ENVIRONMENT, directory=directory, limit_s=RUN_LIMIT_S, meanwhile=meanwhile
    )
    return _run(usage)


def _hit_swarm(strike: Strike, swarm: Standing, _: int) -> None:
    strike.hit_swarm(swarm.local, swarm.keys)


def _run(usage: Usage, *, start_s: float = 0.0, job_s: float | None = None) -> Run:
    return Run(
        start_s=start_s,
        job_s=usage.wall_s if job_s is None else job_s,
        cpu_s=usage.cpu_s,
        peak_process_bytes=usage.peak_process_bytes,
        # A process may have come and gone between two looks at the tree.
        peak_tree_bytes=max(usage.peak_tree_bytes, usage.peak_process_bytes),
    )
