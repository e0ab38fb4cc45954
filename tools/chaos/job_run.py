"""One job on the swarm, from its submission to the last check.

A run goes through *phases*, and `step` moves it on as far as it can without waiting:

==============  ==========================================  ================================================
phase           what goes on                                ends with
==============  ==========================================  ================================================
SUBMITTING      `ringreduce submit`, followed or detached   its exit code
APART           a detached job is left alone                the seconds drawn for that
ATTACHING       `ringreduce attach` through another peer    its exit code; output and report are checked
SETTLING        replicas and leftovers are looked at        all is as it should be, or the bound has passed
ENDED           -                                           -
==============  ==========================================  ================================================

The commands are those that users have, in processes of their own; what lies on the peers' disks is read from
the disks, so that no peer can flatter itself.

⚙ This module starts processes and reads files.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from p2p.segments import SPEC_STAGE, DamagedSegment, read_covers
from tools.chaos.chaos_peer import ChaosPeer
from tools.chaos.cluster import Cluster
from tools.chaos.invariants import Invariants, difference
from tools.chaos.workloads import Expected, Workload, parts_of

__all__ = ["Bounds", "JobRun", "Phase", "Style", "copies_of"]

ASKED_PEERS = 3
LOG_SLACK_S = 1.0


class Phase(enum.Enum):
    """Where a run stands."""

    SUBMITTING = "submitting"
    APART = "apart"
    ATTACHING = "attaching"
    SETTLING = "settling"
    ENDED = "ended"


class Style(enum.Enum):
    """How the job is handed in: followed by the command, or detached and come back to."""

    FOLLOWED = "followed"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long things may take, and how often they may happen.

    Attributes:
        job_s: from submission to the result.
        settle_s: until replicas are back and leftovers gone, after the result was there.
        maps_again: how often committed map tasks may run again; 0 unless more than R-1 may be down.
        ttl_s: time to live of results.
        apart_s: from … to so long a detached job is left alone.
    """

    job_s: float = 240.0
    settle_s: float = 40.0
    maps_again: int = 0
    ttl_s: float = 60.0
    apart_s: tuple[float, float] = (0.2, 4.0)

    def __post_init__(self) -> None:
        if self.settle_s >= self.ttl_s:
            raise ValueError(
                f"settle_s ({self.settle_s:g}) must be below ttl_s ({self.ttl_s:g}): "
                "copies that are looked at after their time to live are gone"
            )


@dataclass(slots=True, eq=False)
class JobRun:
    """One job.

    Args:
        number: of the run, from 1.
        workload, expected: what to run and what is right.
        cluster: where.
        invariants: the table to enter what was found.
        rng: decides how and through which peers.
        bounds: see there.

    Attributes:
        id: the job's, as soon as it is known.
        report: what `--report` wrote.
        wall_s: from submission to the result.
        problems: what was wrong with it.
    """

    number: int
    workload: Workload
    expected: Expected
    cluster: Cluster
    invariants: Invariants
    rng: random.Random
    bounds: Bounds = field(default_factory=Bounds)
    style: Style = Style.FOLLOWED
    phase: Phase = Phase.SUBMITTING
    id: str = ""
    taken_by: ChaosPeer | None = None
    report: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0
    settled_after_s: float = 0.0
    _began_at: float = 0.0
    _phase_at: float = 0.0
    _apart_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _has_copies: bool = False
    _is_tidy: bool = False

    def begin(self) -> None:
        """Hand it in."""
        self._directory.mkdir(parents=True)
        self._began_at = self._phase_at = time.monotonic()
        self.began_s = self.cluster.journal.now_s()
        peers = [peer for peer in self.cluster.peers if peer.serves]
        self.rng.shuffle(peers)
        self.taken_by = peers[0]
        words = [
            "submit", self.workload.job, *self.workload.inputs, *self.workload.options,
            "--peer", ",".join(peer.address for peer in peers[:ASKED_PEERS]),
            "--replicas", str(self.cluster.replicas), "--ttl", f"{self.bounds.ttl_s:g}",
        ]  # fmt: skip
        if self.style is Style.DETACHED:
            words.append("--detach")
            self._apart_s = self.rng.uniform(*self.bounds.apart_s)
        else:
            words += self._wanted()
        self._start(words)

    def step(self) -> None:
        """Go on as far as that is possible now."""
        late = time.monotonic() - self._began_at > self.bounds.job_s
        match self.phase:
            case Phase.SUBMITTING | Phase.ATTACHING:
                assert self._process is not None
                code = self._process.poll()
                if code is not None:
                    self._command_ended(code)
                elif late:
                    self._give_up()
            case Phase.APART:
                if time.monotonic() - self._phase_at >= self._apart_s:
                    self._attach()
            case Phase.SETTLING:
                self._settle()
            case Phase.ENDED:
                pass

    def close(self) -> None:
        """End its command, if one runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def over_s(self) -> float:
        """When it had ended, by the last entry of its log: a client may come back for it later."""
        events = self.report.get("events", ())
        last = max((event["time"] for event in events), default=0.0)
        return last - self.cluster.journal.began_wall_s - LOG_SLACK_S

    @property
    def title(self) -> str:
        """The job in a few words."""
        return f"job {self.number} ({self.workload.name}, {self.style.value}, {self.id[:12] or 'no id'})"

    # ---- commands --------------------------------------------------------------------------------------

    @property
    def _directory(self) -> Path:
        return self.cluster.directory / "jobs" / str(self.number)

    def _wanted(self) -> list[str]:
        return ["-o", str(self._directory / "out"), "--report", str(self._directory / "report.json")]

    def _start(self, words: list[str]) -> None:
        with (
            open(self._directory / "stderr", "ab") as told,
            open(self._directory / "stdout", "wb") as result,
        ):
            self._process = subprocess.Popen(
                self.cluster.command(*words),
                env=self.cluster.environment(),
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=told,
            )

    def _attach(self) -> None:
        peers = [peer for peer in self.cluster.peers if peer.serves]
        self.rng.shuffle(peers)
        self.phase, self._phase_at = Phase.ATTACHING, time.monotonic()
        where = ",".join(peer.address for peer in peers[:ASKED_PEERS])
        self._start(["attach", self.id, "--peer", where, *self._wanted()])

    def _command_ended(self, code: int) -> None:
        if code:
            self._fail("ended", f"exit code {code}: {self._told()}")
        elif self.phase is Phase.SUBMITTING and self.style is Style.DETACHED:
            self.id = (self._directory / "stdout").read_text().strip()
            self.phase, self._phase_at = Phase.APART, time.monotonic()
        else:
            self._check_result()

    def _give_up(self) -> None:
        self.close()
        self._fail("ended", f"no result after {self.bounds.job_s:g} s: {self._told()}")

    def _fail(self, row: str, text: str) -> None:
        self._check(row, text)
        self._end()

    def _told(self) -> str:
        try:
            return (self._directory / "stderr").read_text(errors="replace")[-1_500:].strip()
        except OSError:
            return ""

    # ---- checks ----------------------------------------------------------------------------------------

    def _check(self, row: str, problem: str) -> None:
        if not self.invariants.check(row, f"{self.title}: {problem}" if problem else ""):
            self.problems.append(problem)

    def _check_result(self) -> None:
        self.wall_s = time.monotonic() - self._began_at
        self.report = json.loads((self._directory / "report.json").read_text())
        self.id = self.report["job_id"]
        right, told = self.expected, self.report
        self._check("ended", "" if told["state"] == "COMMITTED" else f"it is {told['state']}")
        self._check("bytes", difference(parts_of(self._directory / "out"), right))
        counted = told["counters"]
        self._check("counters", "" if counted == right.counters else f"{counted} and not {right.counters}")
        wanted = (right.map_tasks, right.reduce_tasks, right.output_records)
        had = (told["map_tasks"], told["reduce_tasks"], told["output_records"])
        self._check("once", "" if had == wanted else f"maps, reduces, pairs: {had} and not {wanted}")
        again = told["maps_run_again"]
        allowed = self.bounds.maps_again
        problem = f"{again} ran again, {allowed} may: {self._log_of_job()}" if again > allowed else ""
        self._check("maps again", problem)
        self.phase, self._phase_at = Phase.SETTLING, time.monotonic()

    def _log_of_job(self) -> str:
        shown = [e for e in self.report.get("events", ()) if e["kind"] not in ("committed", "copied")]
        return "\n".join(f"{e['time']:.2f} {e['kind']} {e['node']} {e['text']}" for e in shown)

    def _settle(self) -> None:
        """Look whether R copies of each part are there, and nothing else."""
        copies, others = copies_of(self.id, self.cluster)
        parts = [
            number
            for number, name in enumerate(sorted(self.expected.parts)[1:])  # without _SUCCESS
            if self.expected.parts[name]
        ]
        wanted = min(self.cluster.replicas, len(self.cluster.serving()))
        # An attempt that did not win may have left copies, too; they go with the result.
        have = {part: _most_of_one(copies.get(part, {}).values()) for part in parts}
        # A copy that was damaged is missed by nobody before somebody reads it.
        unseen = len({peer.number for peer in self.cluster.unseen_damage(self.id).values()})
        lacking = {part: copies.get(part, {}) for part, count in have.items() if count + unseen < wanted}
        is_late = time.monotonic() - self._phase_at > self.bounds.settle_s
        # Each was well once it has been seen well: in a storm the next peer goes down at any moment.
        if not self._has_copies and (is_late or not lacking):
            text = f"of {wanted} copies there are (part: peer: attempts) {lacking}" if lacking else ""
            self._check("replicas", text)
            self._has_copies = True
        if not self._is_tidy and (is_late or not others):
            self._check("intermediates", "; ".join(others[:5]))
            self._is_tidy = True
        if not (self._has_copies and self._is_tidy):
            return
        self.settled_after_s = time.monotonic() - self._phase_at
        self._end()

    def _end(self) -> None:
        self.phase = Phase.ENDED
        self.ended_s = self.cluster.journal.now_s()
        if not self.problems:
            with contextlib.suppress(OSError):
                for path in sorted((self._directory / "out").iterdir()):
                    path.unlink()


def _most_of_one(held: Iterable[Iterable[int]]) -> int:
    """Return how many copies there are of the attempt that has most, of the attempts that each peer holds."""
    return max(Counter(chain.from_iterable(held)).values(), default=0)


def copies_of(job: str, cluster: Cluster) -> tuple[dict[int, dict[int, set[int]]], list[str]]:
    """Read from the disks of the peers that serve what they hold of a job that has ended.

    Returns:
        {part: {number of the peer: attempts}} of its last stage, and a line for everything else that is
        there but its spec, and what a fault has damaged unseen.
    """
    held: list[tuple[ChaosPeer, int, Mapping[int, int]]] = []
    others: list[str] = []
    unseen = cluster.unseen_damage(job)
    for peer in cluster.serving():
        directory = peer.segments / job
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path in unseen:
                continue
            if path.suffix != ".seg":
                others.append(f"peer {peer.number} has {path.name}")
                continue
            try:
                stage, covers = read_covers(str(path))
            except (OSError, DamagedSegment):
                continue  # it has just gone; one that is damaged is no copy
            if stage != SPEC_STAGE:
                held.append((peer, stage, dict(zip(covers.tasks, covers.attempts, strict=True))))
        attempts = peer.data / "jobs" / job / "attempts"
        if attempts.is_dir() and any(os.scandir(attempts)):
            left = sorted(path.name for path in attempts.iterdir())
            others.append(f"peer {peer.number} has {left} in attempts/")
    last = max((stage for _, stage, _ in held), default=-1)
    copies: dict[int, dict[int, set[int]]] = {}
    for peer, stage, outputs in held:
        if stage != last:
            others.append(f"peer {peer.number} has outputs of stage {stage}")
            continue
        for task, attempt in outputs.items():
            copies.setdefault(task, {}).setdefault(peer.number, set()).add(attempt)
    return copies, others
