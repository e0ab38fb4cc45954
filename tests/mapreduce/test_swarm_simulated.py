"""Jobs in the deterministic world: hundreds of seeds keep every promise, every planted mistake is found."""

from __future__ import annotations

from collections import Counter

import pytest

from mapreduce.record import JobStatus, Totals
from tools import simulate
from tools.simulation.jobs import JobsScenario, jobs_maker
from tools.simulation.jobs_misfortunes import ROUGH
from tools.simulation.jobs_store import JobFault
from tools.simulation.jobs_workloads import NAMES
from tools.simulation.planted_jobs import PLANTS, Plant
from tools.simulation.scenario import Outcome, run_scenario
from tools.simulation.trace import Trace

SEEDS = 320
CHUNK = 40
PLANT_SEEDS = 300


class Runs:
    """Outcomes of seeds, each run once, and what happened in them."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.happened: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.totals: list[tuple[bool, Totals]] = []

    def run(self, seed: int) -> Outcome:
        if seed not in self.outcomes:
            outcome, scenario = run(seed)
            self.outcomes[seed] = outcome
            self.happened += scenario.swarm.happened
            self.faults.update({str(fault): count for fault, count in outcome.fired.items()})
            self.faults.update({str(fault): count for fault, count in scenario.fired.items()})
            for job in scenario.jobs:
                self.names[job.name] += job.register.record.status is JobStatus.COMMITTED
                self.totals.append((scenario.gentle, job.register.record.totals))
        return self.outcomes[seed]

    def run_all(self) -> None:
        for seed in range(SEEDS):
            self.run(seed)


def run(seed: int, plant: Plant | None = None, *, calm: bool = False) -> tuple[Outcome, JobsScenario]:
    made: list[JobsScenario] = []

    def make(seed: int, trace: Trace) -> JobsScenario:
        if plant is None:
            made.append(jobs_maker(calm=calm)(seed, trace))
        else:
            maker = jobs_maker(
                leader=plant.leader, worker=plant.worker, process=plant.process, apply=plant.apply
            )
            made.append(maker(seed, trace))
        return made[0]

    return run_scenario(make, seed), made[0]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Every seed is run once for all tests that look at it."""
    return Runs()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_jobs_give_the_embedded_engines_bytes_whatever_happens_to_the_peers(first: int, runs: Runs) -> None:
    for seed in range(first, first + CHUNK):
        outcome = runs.run(seed)
        assert outcome.violation is None, f"seed {seed} ({outcome.title}): {outcome.violation}"


def test_every_fault_really_happened(runs: Runs) -> None:
    runs.run_all()
    assert [fault for fault in (*ROUGH, *JobFault) if not runs.faults[str(fault)]] == []


def test_what_leaders_and_workers_do_in_need_really_happened(runs: Runs) -> None:
    runs.run_all()
    rare = ["again", "copied", "failed", "lost", "missing", "quorum", "replanned", "restarted", "warning"]
    rare += ["AskFate", "CopyOrder", "DropOutputs", "Missing", "Returned", "Revoke"]
    assert [what for what in rare if not runs.happened[what]] == []
    assert sum(totals.leader_changes for _, totals in runs.totals) > SEEDS / 4
    assert sum(totals.speculated for _, totals in runs.totals) > 0
    assert sum(totals.parts_run_again for _, totals in runs.totals) > 0


def test_every_kind_of_job_was_run(runs: Runs) -> None:
    runs.run_all()
    assert [name for name in NAMES if not runs.names[name]] == []


def test_no_map_is_run_again_where_at_most_r_minus_one_peers_are_down_at_once(runs: Runs) -> None:
    runs.run_all()
    gentle = [totals for is_gentle, totals in runs.totals if is_gentle]
    assert sum(totals.peers_lost for totals in gentle) > 50
    assert sum(totals.maps_run_again + totals.parts_run_again for totals in gentle) == 0


def test_a_seed_repeats_to_the_bit() -> None:
    seed = 17
    assert run(seed)[0].trace_digest == run(seed)[0].trace_digest


def test_in_calm_each_task_is_tried_once_and_nothing_is_repaired() -> None:
    for seed in range(12):
        outcome, scenario = run(seed, calm=True)
        assert outcome.violation is None
        for job in scenario.jobs:
            totals, record = job.register.record.totals, job.register.record
            tasks = sum(stage.tasks for stage in record.stages)
            assert totals.attempts - totals.speculated == tasks
            assert (totals.failed_attempts, totals.maps_run_again, totals.leader_changes) == (0, 0, 0)


@pytest.mark.parametrize("plant", PLANTS.values(), ids=lambda plant: plant.name)
def test_every_planted_mistake_is_found(plant: Plant) -> None:
    for seed in range(plant.first_seed, plant.first_seed + PLANT_SEEDS):
        if run(seed, plant)[0].violation is not None:
            return
    pytest.fail(f"{PLANT_SEEDS} seeds did not find: {plant.mistake}")


def test_the_command_runs_seeds_and_says_how_to_replay_what_broke(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["jobs", "--seeds", "0:2"]) == 0
    assert "0 of 2 seeds broke a promise" in capsys.readouterr().out
    assert simulate.main(["jobs", "--seeds", "0:1", "--plant", "commit-before-ack"]) == 1
    said = capsys.readouterr().out
    assert "1 of 1 seeds broke a promise" in said
    assert "python -m tools.simulate jobs --replay 0 --plant commit-before-ack" in said
    assert simulate.main(["jobs", "--replay", "0"]) == 0
    assert "no violation" in capsys.readouterr().out
