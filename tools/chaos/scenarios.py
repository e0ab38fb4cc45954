"""One job, one loss, one figure: what the death of a peer at a chosen moment costs.

Theory
------
A *trial* is a job on a fresh swarm whose peers are killed with SIGKILL when so many of the job's tasks are
committed; `leader`, `submission` and `worker` say who.  The moment is a share of the tasks, not of the time,
so that it is the same on a fast machine and on a slow one.  The job is handed in with the real command, which
has to find its way when the peer it talks to dies; who leads and how far it is, is asked of another peer.

*Recovery* is how much longer the command took than undisturbed, measured the same way, before the first
trial and again after every few: a machine is not equally fast all day.

⚙ This module starts processes and reads clocks.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p.errors import PeerError
from p2p.job_questions import JobView, StageView
from p2p.swarm_client import Swarm
from tools.chaos.chaos_peer import ChaosPeer
from tools.chaos.cluster import Cluster
from tools.chaos.invariants import difference
from tools.chaos.journal import Journal
from tools.chaos.recovery import percentile
from tools.chaos.watching import Span, Watching
from tools.chaos.workloads import Expected, Workload, parts_of

__all__ = ["VICTIMS", "Blow", "Result", "Setup", "Trial", "run_trials", "share_done", "shortfall", "table"]

VICTIMS = ("leader", "submission", "worker")
TRIAL_LIMIT_S = 900.0
BORN_LIMIT_S = 60.0
LOOK_S = 0.02
BASELINE_EVERY = 6  # trials
DETECTION_S = 2.0
TAKEOVER_S = 2.0
SLACK = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Who is killed when: all `victims` at the same instant.

    Attributes:
        at: the share of the job's tasks that are committed, 0 … 1.
        victims: each one of `VICTIMS`.
    """

    at: float
    victims: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of the job; no blows: undisturbed."""

    blows: tuple[Blow, ...] = ()

    @property
    def text(self) -> str:
        """What happens in it."""
        told = (f"{'+'.join(blow.victims)} at {100 * blow.at:.0f} %" for blow in self.blows)
        return ", ".join(told) or "undisturbed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all trials share.

    Attributes:
        workload, expected: what to run and what is right.
        peers, replicas, slots: of each swarm.
        maps_again: how many map tasks may run again.
        seed: decides which worker is killed.
    """

    workload: Workload
    expected: Expected
    peers: int
    replicas: int
    slots: int = 1
    maps_again: int = 0
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of a trial.

    Attributes:
        wall_s: of the submitting command.
        undisturbed_s: the same without blows, as it was measured last.
        bound_s: what recovery may take at most.
        problems: what was wrong; empty if all was right.
        missed: a blow came too late: the job was over.
        began_s, ended_s: of the command, in the journal's time.
    """

    number: int
    trial: Trial
    wall_s: float = 0.0
    undisturbed_s: float = 0.0
    bound_s: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missed: bool = False
    journal: Journal = field(default_factory=Journal)
    spans: list[Span] = field(default_factory=list)
    peers: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def recovery_s(self) -> float:
        """How much longer it took than undisturbed."""
        return self.wall_s - self.undisturbed_s

    @property
    def is_in_time(self) -> bool:
        """Whether it took no longer than it may."""
        return self.recovery_s <= self.bound_s


def run_trials(
    setup: Setup, trials: Sequence[Trial], say: Callable[[str], None], *, keep: Path | None = None
) -> list[Result]:
    """Run trials one after another, with undisturbed ones between them.

    Args:
        say: takes a line for each.
        keep: where to leave the logs of trials that went wrong, and the reports, with their events, of those
            that took too long; None: nowhere.

    Returns:
        All results, the undisturbed ones first among them.
    """
    results: list[Result] = []
    undisturbed: list[float] = []
    tasks = setup.expected.tasks
    for place, trial in enumerate(trials):
        if place % BASELINE_EVERY == 0 and trial.blows:
            calm = _run(setup, Trial(), len(results) + 1, keep)
            calm.undisturbed_s = calm.wall_s
            results.append(calm)
            undisturbed.append(calm.wall_s)
            say(_line(calm))
        result = _run(setup, trial, len(results) + 1, keep)
        result.undisturbed_s = statistics.median(undisturbed[-3:]) if undisturbed else result.wall_s
        one_task_s = result.undisturbed_s * setup.peers * setup.slots / max(1, tasks)
        losses = max(1, len(trial.blows))
        result.bound_s = losses * (DETECTION_S + TAKEOVER_S + one_task_s) + SLACK * result.undisturbed_s
        if keep is not None and result.report and not result.is_in_time:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{result.number}-late.json").write_text(json.dumps(result.report, indent=1))
        results.append(result)
        say(_line(result))
    return results


def table(results: Sequence[Result]) -> list[str]:
    """Return the table of all results, and what can be said of all together."""
    lines = [HEADER, *map(_line, results)]
    hurt = [result for result in results if result.trial.blows and not result.missed]
    right = sum(not result.problems for result in hurt)
    if hurt:
        took = sorted(result.recovery_s for result in hurt)
        in_time = sum(result.is_in_time for result in hurt)
        lines.append(
            f"{right} of {len(hurt)} right; recovery p50 {percentile(took, 50):.1f} s, "
            f"p99 {percentile(took, 99):.1f} s, worst {took[-1]:.1f} s; {in_time} of {len(hurt)} within "
            f"detection + takeover + one task + {100 * SLACK:.0f} %"
        )
    if missed := sum(result.missed for result in results):
        lines.append(f"{missed} blows came too late to hit anything")
    return lines


def share_done(stages: Sequence[StageView], tasks: int) -> float:
    """Return which share of a job's `tasks` is committed, 0 … 1.

    How many there are is known from the embedded engine.  The swarm itself does not know yet what stages have
    that are not open: of those it has told, 80 % are done long before the first reduce.
    """
    return min(1.0, sum(stage.done for stage in stages) / tasks) if tasks else 0.0


def shortfall(results: Sequence[Result]) -> str:
    """Return why the results do not show what they are to show; "" if they do."""
    if wrong := sum(bool(result.problems) for result in results):
        return f"{wrong} of {len(results)} runs went wrong"
    if all(result.missed for result in results if result.trial.blows):
        return "nobody was hit: every job was over too soon (a larger --size makes it last)"
    return ""


HEADER = (
    f"{'run':>4}  {'what':<34} {'wall s':>7} {'calm s':>7} {'recovery s':>10} {'bound s':>8} {'again':>5} "
    f"{'takeovers':>9} {'lost':>4}  verdict"
)


def _line(result: Result) -> str:
    told = result.report
    verdict = "missed" if result.missed else "; ".join(result.problems)[:200] or "right"
    if result.trial.blows and not result.is_in_time:
        verdict += ", late"
    recovery = f"{result.recovery_s:10.1f}" if result.trial.blows else " " * 10
    return (
        f"{result.number:>4}  {result.trial.text:<34} {result.wall_s:7.1f} {result.undisturbed_s:7.1f} "
        f"{recovery} {result.bound_s:8.1f} {told.get('maps_run_again', '?'):>5} "
        f"{told.get('leader_changes', '?'):>9} {told.get('peers_lost', '?'):>4}  {verdict}"
    )


# ---- one trial -------------------------------------------------------------------------------------------


def _run(setup: Setup, trial: Trial, number: int, keep: Path | None) -> Result:
    result = Result(number=number, trial=trial, peers=setup.peers)
    directory = Path(tempfile.mkdtemp(prefix="ringreduce-trial-"))
    cluster = Cluster(
        directory,
        result.journal,
        replicas=setup.replicas,
        allowed_down=setup.peers,
        slots=setup.slots,
        keep=True,
    )
    watching = Watching(cluster)
    try:
        with cluster:
            cluster.start(setup.peers)
            _await_agreement(cluster)
            _take_place(setup, trial, cluster, watching, result)
    finally:
        watching.close()
        result.spans = watching.spans
        if result.problems and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in directory.iterdir():
                if path.suffix in (".log", ".json") or path.name == "stderr":
                    shutil.copy(path, keep / f"{number}-{path.name}")
        shutil.rmtree(directory, ignore_errors=True)
    return result


def _take_place(setup: Setup, trial: Trial, cluster: Cluster, watching: Watching, result: Result) -> None:
    rng = random.Random(f"{setup.seed} {result.number}")
    submission, *others = cluster.peers
    told = cluster.directory / "stderr"
    words = [
        "submit", setup.workload.job, *setup.workload.inputs, *setup.workload.options,
        "--peer", ",".join(peer.address for peer in cluster.peers), "--replicas", str(setup.replicas),
        "-o", str(cluster.directory / "out"), "--report", str(cluster.directory / "report.json"),
    ]  # fmt: skip
    began, result.began_s = time.monotonic(), result.journal.now_s()
    with told.open("wb") as stderr:
        process = subprocess.Popen(
            cluster.command(*words),
            env=cluster.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        if trial.blows:
            # Asked of a peer that is not killed for having taken the submission.
            with Swarm([peer.address for peer in others], keys=cluster.keys) as swarm:
                result.missed = not _strike(
                    swarm, trial, setup.expected.tasks, cluster, submission, process, watching, rng
                )
        while process.poll() is None and time.monotonic() - began < TRIAL_LIMIT_S:
            watching.look()
            time.sleep(LOOK_S)
    finally:
        if process.poll() is None:
            process.kill()
            result.problems.append(f"no result after {TRIAL_LIMIT_S:g} s")
        code = process.wait()
    result.wall_s, result.ended_s = time.monotonic() - began, result.journal.now_s()
    if code:
        result.problems.append(f"exit code {code}: {told.read_text(errors='replace')[-600:]}")
        return
    _check(setup, cluster, result)


def _check(setup: Setup, cluster: Cluster, result: Result) -> None:
    result.report = json.loads((cluster.directory / "report.json").read_text())
    if differs := difference(parts_of(cluster.directory / "out"), setup.expected):
        result.problems.append(differs)
    had = (result.report["counters"], result.report["map_tasks"], result.report["reduce_tasks"])
    right = (dict(setup.expected.counters), setup.expected.map_tasks, setup.expected.reduce_tasks)
    if had != right:
        result.problems.append(f"counters, maps, reduces: {had} and not {right}")
    if result.report["maps_run_again"] > setup.maps_again:
        result.problems.append(f"{result.report['maps_run_again']} maps ran again")


def _strike(
    swarm: Swarm,
    trial: Trial,
    tasks: int,
    cluster: Cluster,
    submission: ChaosPeer,
    process: subprocess.Popen[bytes],
    watching: Watching,
    rng: random.Random,
) -> bool:
    """Kill whom the trial names, when it is time; False if the job was over before."""
    job = _born(swarm, process)
    if job is None:
        return False
    waiting = list(trial.blows)
    with swarm.job(job) as handle:
        for event in handle.events(TRIAL_LIMIT_S):
            watching.look()
            done = share_done(event.view.stages, tasks) if event.view is not None else 0.0
            if event.view is None or not waiting or done < waiting[0].at:
                continue
            if event.view.state.is_final:
                break
            if not all(cluster.by_id(member) in cluster.serving() for member in event.view.members):
                continue  # losses one after another are promised to do no harm if the ring heals between them
            victims = _victims(waiting.pop(0).victims, event.view, cluster, submission, rng)
            cluster.kill_together(victims, f"at {100 * done:.0f} % of the tasks")
            if not waiting:
                return True
    return False


def _victims(
    kinds: Sequence[str], view: JobView, cluster: Cluster, submission: ChaosPeer, rng: random.Random
) -> list[ChaosPeer]:
    leader = cluster.by_id(view.leader)
    chosen: list[ChaosPeer] = []
    for kind in kinds:
        candidates = {"leader": leader, "submission": submission}
        victim = candidates.get(kind)
        if victim is None or not victim.serves or victim in chosen:
            plain = [p for p in cluster.serving() if p not in (leader, submission, *chosen)]
            victim = rng.choice(plain or [p for p in cluster.serving() if p not in chosen])
        chosen.append(victim)
    return chosen


def _born(swarm: Swarm, process: subprocess.Popen[bytes]) -> str | None:
    """Wait for the job's id; None if the command ends before."""
    deadline = time.monotonic() + BORN_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if rows := swarm.jobs():
                return rows[0].job
        except PeerError:
            pass  # asked again
        time.sleep(LOOK_S)
    return None


def _await_agreement(cluster: Cluster) -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        views = [cluster.members(peer) for peer in cluster.peers]
        if all(view is not None and len(view.members) == len(cluster.peers) for view in views):
            break
    time.sleep(1.0)  # until children wait for work
