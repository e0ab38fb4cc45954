"""The storm: jobs again and again, faults at random, and what must hold all the while.

Theory
------
One loop, some twenty turns a second: see which peers became ready or ended, start and stop what the schedule
says, let every job go on as far as it can, look at what goes on.  Nothing in it waits for long.

*The schedule* is drawn from the seed: each kind of fault has a generator of its own, whose faults come as a
Poisson process with the kind's mean distance and last as long as it draws.  A fault that finds nothing to
spare is put off a little; of several that are due the one that came least often has the first try.  Real
processes on a real machine do not repeat themselves to the millisecond; the same seed gives the same jobs,
faults and times, which is mostly enough to see a failure again.

*The end*: faults stop, everybody comes back, jobs end; then the healed cluster has to agree on who is here,
forget what is over, and leave nothing behind.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from membership.view import Status
from tools.chaos import faults, proc
from tools.chaos.chaos_peer import PeerState
from tools.chaos.cluster import Cluster
from tools.chaos.faults import Fault, FaultKind, Gradual
from tools.chaos.invariants import Invariants
from tools.chaos.job_run import Bounds, JobRun, Phase, Style
from tools.chaos.journal import Incident, Journal
from tools.chaos.watching import Watching
from tools.chaos.workloads import Expected, Workload, expected_of, make_mix

__all__ = ["Settings", "Storm"]

TURN_S = 0.05
PUT_OFF_S = 0.3
SAY_EVERY_S = 5.0
AGREEMENT_S = 10.0
EXPIRY_GRACE_S = 30.0
READY_AGAIN_S = 40.0
DESCRIPTORS_A_PEER = 4  # control and bulk, each way: what a link to one more peer may hold
DESCRIPTORS_MORE = 16
SETTLING_MOST = 8  # jobs whose leftovers are looked at, beside those that run


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run.

    Attributes:
        seed: of all that is drawn.
        peers, replicas, slots: of the cluster.
        allowed_down: how many peers may be down at once.
        jobs: how many to run, and more until each kind of fault has come; 0: as many as fit into `minutes`.
        minutes: when to begin no more of them; 0: no such limit.
        lanes: how many jobs run at the same time.
        kinds: the faults.
        every_s: the mean distance between two faults of a kind, where it is not the kind's own.
        lasts_s: how long a fault of a kind lasts, where it is not the kind's own.
        workloads: names, see `tools.chaos.workloads`.
        size_bytes: of an input.
        bounds: see there.
        sees_expiry: wait at the end until results have expired, and look.
    """

    seed: int = 1
    peers: int = 5
    replicas: int = 2
    slots: int = 1
    allowed_down: int = -1
    jobs: int = 0
    minutes: float = 5.0
    lanes: int = 2
    kinds: tuple[FaultKind, ...] = ()
    every_s: dict[str, float] = field(default_factory=dict)
    lasts_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    workloads: tuple[str, ...] = ("wordcount", "index", "join", "sort", "pagerank", "map-only", "slow")
    size_bytes: int = 1_000_000
    bounds: Bounds = field(default_factory=Bounds)
    sees_expiry: bool = True


@dataclass(slots=True, eq=False)
class _Course:
    """The faults of one kind."""

    kind: FaultKind
    rng: random.Random
    every_s: float
    lasts_s: tuple[float, float]
    next_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Active:
    """A fault that was started."""

    fault: Fault
    until: float
    incident: Incident
    is_stopped: bool = False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Storm:
    """One run.

    Args:
        settings: see there.
        directory: an empty one for everything; see `Cluster`.
        say: takes a line of progress.
    """

    def __init__(self, settings: Settings, directory: Path, say: Callable[[str], None] = _say) -> None:
        self.settings = settings
        self.journal = Journal()
        self.invariants = Invariants()
        self.runs: list[JobRun] = []
        self.started: Counter[str] = Counter()
        self.cluster = Cluster(
            directory,
            self.journal,
            replicas=settings.replicas,
            allowed_down=settings.allowed_down,
            slots=settings.slots,
            surroundings=self._surroundings(directory),
        )
        self.watching = Watching(self.cluster)
        self._rng = random.Random(f"{settings.seed} jobs")
        self._courses = [self._course(kind) for kind in settings.kinds]
        self._active: list[_Active] = []
        self._mix: list[tuple[Workload, Expected]] = []
        self._say = say
        self._say_at = 0.0
        self._warm_descriptors = 0

    # ---- the run ---------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run it; tells whether everything held."""
        try:
            self._prepare()
            self._rage()
            self._heal()
            self._look_at_the_end()
        finally:
            self._calm()
            for run in self.runs:
                run.close()
            self.watching.close()
            self.cluster.end()
        self._look_behind()
        return self.invariants.holds

    def _prepare(self) -> None:
        settings = self.settings
        self._say("making inputs, and what is right")
        directory = self.cluster.directory
        mix = make_mix(settings.workloads, directory / "inputs", settings.size_bytes, settings.seed)
        (directory / "expected").mkdir()
        environment = self.cluster.environment()
        self._mix = [
            (workload, expected_of(workload, directory / "expected", environment)) for workload in mix
        ]
        self._say(f"starting {settings.peers} peers")
        self.cluster.start(settings.peers)
        self._await_agreement(30.0)
        self._warm_up()

    def _warm_up(self) -> None:
        """Run a job in each lane: only then peers have children, and connections for data to each other."""
        for _ in range(self.settings.lanes):
            self._submit_one()
        while any(run.phase not in (Phase.SETTLING, Phase.ENDED) for run in self.runs):
            self._turn()
        self._warm_descriptors = max(proc.descriptors(peer.pid) for peer in self.cluster.peers)

    def _rage(self) -> None:
        now = time.monotonic()
        ends_at = now + self.settings.minutes * 60 if self.settings.minutes else float("inf")
        for course in self._courses:
            course.next_at = now + course.rng.expovariate(1 / course.every_s)
        while True:
            now = time.monotonic()
            # A storm without a fault shows nothing: there are more jobs until each kind has come.
            enough_seen = len(self.runs) >= self.settings.jobs and len(self.started) >= len(self._courses)
            in_time = now < ends_at and not (self.settings.jobs and enough_seen)
            running = [run for run in self.runs if run.phase not in (Phase.SETTLING, Phase.ENDED)]
            settling = [run for run in self.runs if run.phase is Phase.SETTLING]
            enough = len(running) >= self.settings.lanes or len(settling) >= SETTLING_MOST
            if in_time and not enough and len(self.cluster.serving()) > 0:
                self._submit_one()
            elif not in_time and not running:
                return
            self._hurt(now)
            self._turn()

    def _heal(self) -> None:
        """Stop all faults, let everybody come back, let the last jobs settle."""
        self._say("healing")
        self._calm()
        deadline = time.monotonic() + READY_AGAIN_S
        while time.monotonic() < deadline:
            self._turn()
            self._bring_back()
            is_back = all(peer.state in (PeerState.UP, PeerState.LEFT) for peer in self.cluster.peers)
            if is_back and not self._active:
                break
        back_at = time.monotonic()
        took_s = self._await_agreement(AGREEMENT_S)
        problem = "" if took_s >= 0 else f"not after {time.monotonic() - back_at:.1f} s: {self._views()}"
        self.invariants.check("agreement", problem)
        while any(run.phase is not Phase.ENDED for run in self.runs):
            self._turn()

    def _turn(self) -> None:
        for peer in self.cluster.poll():
            self.invariants.check(
                "alive", f"peer {peer.number} ended by itself:\n{self.cluster.log_tail(peer)[-1_500:]}"
            )
        for run in self.runs:
            known = len(run.problems)
            run.step()
            for problem in run.problems[known:]:
                self._say(f"{self.journal.now_s():6.1f} s  WRONG {run.title}: {problem}")
        self.cluster.favourites = [
            *self.watching.leaders.values(),
            *(run.taken_by.id for run in self.runs if run.phase is not Phase.ENDED and run.taken_by),
        ]
        self.watching.step()
        self._report_progress()
        time.sleep(TURN_S)

    # ---- jobs ------------------------------------------------------------------------------------------

    def _submit_one(self) -> None:
        workload, expected = self._mix[self._rng.randrange(len(self._mix))]
        run = JobRun(
            len(self.runs) + 1,
            workload,
            expected,
            self.cluster,
            self.invariants,
            random.Random(f"{self.settings.seed} job {len(self.runs)}"),
            self.settings.bounds,
            style=self._rng.choice((Style.FOLLOWED, Style.FOLLOWED, Style.DETACHED)),
        )
        self.runs.append(run)
        run.begin()

    # ---- faults ----------------------------------------------------------------------------------------

    def _surroundings(self, directory: Path) -> faults.Surroundings | None:
        directory.mkdir(parents=True, exist_ok=True)
        make = faults.surroundings_of(self.settings.kinds)
        return make(directory, self.settings.peers + 4) if make is not None else None

    def _course(self, kind: FaultKind) -> _Course:
        return _Course(
            kind,
            random.Random(f"{self.settings.seed} {kind.name}"),
            self.settings.every_s.get(kind.name, kind.every_s),
            self.settings.lasts_s.get(kind.name, kind.lasts_s),
        )

    def _hurt(self, now: float) -> None:
        # The rarest first: where few may be down at once, one kind would leave no room for the others.
        for course in sorted(self._courses, key=lambda course: self.started[course.kind.name]):
            if now < course.next_at:
                continue
            fault = course.kind.make()
            if not fault.start(self.cluster, course.rng):
                course.next_at = now + PUT_OFF_S
                continue
            self.started[course.kind.name] += 1
            until = now + course.rng.uniform(*course.lasts_s)
            incident = self.journal.begin(f"fault {course.kind.name}", -1, fault.description)
            self._active.append(_Active(fault, until, incident))
            course.next_at = now + course.rng.expovariate(1 / course.every_s)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        for active in list(self._active):
            if not active.is_stopped and now >= active.until:
                active.fault.stop()
                active.is_stopped = True
                self.journal.end(active.incident)
            goes_on = active.fault.step() if isinstance(active.fault, Gradual) else not active.is_stopped
            if active.is_stopped and not goes_on:
                self._active.remove(active)

    def _calm(self) -> None:
        """End all faults."""
        for active in self._active:
            active.until = 0.0
        self._go_on(time.monotonic())

    def _bring_back(self) -> None:
        self._go_on(time.monotonic())
        for peer in self.cluster.peers:
            if peer.state is PeerState.DOWN and not self._active:
                self.cluster.restart(peer)
            elif peer.state is PeerState.STOPPED:
                self.cluster.cont(peer)

    # ---- the end ---------------------------------------------------------------------------------------

    def _look_at_the_end(self) -> None:
        left = list(self.cluster.would_not_leave)
        self.invariants.check("alive", f"peers {left} did not leave in time" if left else "")
        if self.settings.sees_expiry:
            self._say("waiting until results have expired")
            deadline = time.monotonic() + self.settings.bounds.ttl_s + EXPIRY_GRACE_S
            while (kept := self._kept()) and time.monotonic() < deadline:
                time.sleep(0.5)
                self.cluster.poll()
            self.invariants.check("expired", "; ".join(kept[:8]))
        allowed = (
            self._warm_descriptors
            + DESCRIPTORS_A_PEER * (len(self.cluster.peers) - self.settings.peers)
            + DESCRIPTORS_MORE
        )
        for peer in self.cluster.serving():
            have = proc.descriptors(peer.pid)
            problem = f"peer {peer.number} has {have}, {allowed} may be" if have > allowed else ""
            self.invariants.check("descriptors", problem)

    def _look_behind(self) -> None:
        (self.cluster.directory / "journal.txt").write_text("\n".join(self.journal.lines()) + "\n")
        late = list(self.cluster.would_not_leave)
        self.invariants.check("alive", f"peers {late} had to be killed at the end" if late else "")
        deadline = time.monotonic() + 3.0
        while (running := self.cluster.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.invariants.check("processes", f"processes {running} are left" if running else "")
        # The embedded engine's root for scratch directories stays, empty.
        root = f"ringreduce-{os.getuid()}"
        left = [
            path for path in self.cluster.temporary().iterdir() if path.name != root or any(path.iterdir())
        ]
        files = sorted(path.name for path in left)
        self.invariants.check("files", f"left: {files[:10]}" if files else "")

    def _kept(self) -> list[str]:
        """A line for each store that still holds something of a job.

        A peer that was started after the end of a job may not have heard of it; what it finds in its store
        and nobody claims it keeps for an hour, and so that is not looked at.
        """
        ended = {run.id: run.over_s for run in self.runs if run.wall_s}
        found: list[str] = []
        for peer in self.cluster.serving():
            since_s = peer.life.began_s if peer.life is not None else 0.0
            for directory in sorted(peer.segments.iterdir()) if peer.segments.is_dir() else ():
                names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
                if names and since_s < ended.get(directory.name, since_s):
                    found.append(f"peer {peer.number} has {len(names)} segments of {directory.name[:12]}")
        return found

    def _await_agreement(self, limit_s: float) -> float:
        """Wait until all peers that serve see the same members; returns how long, negative if never."""
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if self._is_agreed():
                return time.monotonic() - began
            self._turn()
        return -1.0

    def _is_agreed(self) -> bool:
        serving = self.cluster.serving()
        wanted = {peer.id for peer in serving}
        for peer in serving:
            answer = self.cluster.members(peer, timeout_s=1.0)
            if answer is None:
                return False
            if {m.id for m in answer.members if m.status is Status.ALIVE} != wanted:
                return False
        return True

    def _views(self) -> str:
        lines: list[str] = [f"serving are {sorted(peer.id for peer in self.cluster.serving())}"]
        for peer in self.cluster.serving():
            answer = self.cluster.members(peer, timeout_s=1.0)
            told = sorted(f"{m.id} {m.status.value}" for m in answer.members) if answer else "no answer"
            lines.append(f"peer {peer.number} sees {told}")
        return "\n".join(lines)

    def _report_progress(self) -> None:
        if time.monotonic() < self._say_at:
            return
        self._say_at = time.monotonic() + SAY_EVERY_S
        done = sum(run.phase is Phase.ENDED for run in self.runs)
        wrong = sum(bool(run.problems) for run in self.runs)
        states = Counter(peer.state.value for peer in self.cluster.peers)
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        what = ", ".join(f"{count} {name}" for name, count in self.started.items())
        jobs = f"{done} done, {len(self.runs) - done} under way, {wrong} wrong"
        faults_so_far = what or "none yet"
        self._say(f"{self.journal.now_s():6.1f} s  jobs: {jobs}  peers: {told}  faults: {faults_so_far}")
