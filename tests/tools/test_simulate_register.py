"""Registers in the deterministic world: hundreds of seeds hold, and every planted mistake is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tools import simulate
from tools.simulation.planted_registers import PLANTS, Plant
from tools.simulation.register import MENU, RegisterScenario, register_maker
from tools.simulation.scenario import Outcome, never_fired, run_scenario
from tools.simulation.trace import Trace

SEEDS = 300
CHUNK = 50
PLANT_SEEDS = 1000
SAFETY = ("is not linearizable", "has two groups")


class Runs:
    """Outcomes of seeds, each run once, and what happened in them."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.events: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def run(self, seed: int) -> Outcome:
        if seed not in self.outcomes:
            made: list[RegisterScenario] = []

            def make(seed: int, trace: Trace) -> RegisterScenario:
                made.append(register_maker()(seed, trace))
                return made[0]

            self.outcomes[seed] = run_scenario(make, seed)
            self.events += made[0].events
            for register in made[0].registers:
                for history in register.histories.values():
                    self.operations["appends"] += history.appends
                    self.operations["looks"] += history.looks
                    self.operations["closed"] += history.closed
                self.operations["groups"] += len(register.groups)
                self.operations["generations"] += len(register.histories)
        return self.outcomes[seed]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Every seed is run once for all tests that look at it."""
    return Runs()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_registers_are_linearizable_under_faults_and_whole_again_after_them(first: int, runs: Runs) -> None:
    for seed in range(first, first + CHUNK):
        violation = runs.run(seed).violation
        assert violation is None, f"{violation}; replay: python -m tools.simulate register --replay {seed}"


def test_every_fault_that_seeds_turn_on_really_happens(runs: Runs) -> None:
    some = [runs.run(seed) for seed in range(100)]
    assert {fault for outcome in some for fault in outcome.enabled} == set(MENU)
    assert never_fired(some) == []


def test_the_seeds_live_through_everything_that_registers_can_do(runs: Runs) -> None:
    for seed in range(100):
        runs.run(seed)
    assert runs.operations["appends"] > 3_000
    assert runs.operations["looks"] > 2_000
    assert runs.operations["groups"] > 400
    assert runs.operations["generations"] > 150
    assert runs.operations["closed"] > 5
    assert runs.events["Leads"] > 250
    assert runs.events["Outbid"] > 70
    assert runs.events["QuorumLost"] > 150
    assert runs.events["QuorumRegained"] > 80


def _digests(hash_seed: str) -> str:
    code = (
        "from tools.simulation.register import register_maker\n"
        "from tools.simulation.scenario import run_scenario\n"
        "print(*(run_scenario(register_maker(), seed).trace_digest for seed in (1, 7, 8, 20)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment
    ).stdout


def test_the_same_seed_is_the_same_history_whatever_pythons_hash_seed() -> None:
    assert len({_digests(hash_seed) for hash_seed in ("0", "1", "4711")}) == 1


# -- what is broken is found -----------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_planted_mistake_breaks_safety_within_a_thousand_seeds(plant: Plant) -> None:
    make = register_maker(machine=plant.machine, process=plant.process, codec=False)
    for seed in range(PLANT_SEEDS):
        violation = run_scenario(make, seed).violation
        if violation is not None and any(promise in violation for promise in SAFETY):
            return
    raise AssertionError(f"nobody noticed: {plant.mistake}")


# -- the command -----------------------------------------------------------------------------------------


def test_the_command_runs_seeds_and_says_that_all_promises_were_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulate.main(["register", "--seeds", "0:3"]) == 0
    assert "0 of 3 seeds broke a promise" in capsys.readouterr().out


def test_the_command_shows_what_a_plant_breaks_and_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["register", "--seeds", "0:1", "--plant", "own-value"]) == 1
    out = capsys.readouterr().out
    assert "is not linearizable" in out
    assert "--replay 0 --plant own-value" in out
    assert simulate.main(["register", "--replay", "0", "--plant", "own-value"]) == 1
    assert "violation: " in capsys.readouterr().out


def test_an_unknown_plant_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        simulate.main(["register", "--plant", "oak"])
    assert refusal.value.code == 2
    assert "lease-read: A leader answers reads from memory" in capsys.readouterr().err
