"""Named locks over hundreds of histories, and the mistakes that these histories would find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapreduce.console import UNREAD
from tools import simulate
from tools.simulation.locks import FAULTS, LockWorld
from tools.simulation.planted_locks import PLANTS, LockPlant
from tools.simulation.world import Violation


def test_a_hundred_histories_have_one_holder_at_a_time_and_end_with_nobody_waiting() -> None:
    granted = lost = 0
    for seed in range(100):
        world = LockWorld(seed)
        world.run()
        granted, lost = granted + world.granted, lost + world.lost
    assert granted > 1_000
    assert lost > 5  # locks were taken from the living, too


@pytest.mark.parametrize("plant", PLANTS.values(), ids=lambda plant: plant.name)
def test_a_mistake_is_found(plant: LockPlant) -> None:
    assert any(violates(seed, plant) for seed in range(200))


def violates(seed: int, plant: LockPlant) -> bool:
    try:
        LockWorld(seed, keeper_type=plant.keeper).run()
    except Violation:
        return True
    return False


def test_the_command_runs_seeds_and_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["locks", "--seeds", "0:20"]) == 0
    said = capsys.readouterr().out
    assert "0 of 20 seeds broke a promise" in said
    for fault in FAULTS:
        (line,) = [line for line in said.splitlines() if line.startswith(fault)]
        assert not line.endswith(" 0")


def test_the_command_says_how_to_replay_what_broke_and_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["locks", "--seeds", "0:1", "--plant", "told-too-early"]) == 1
    again = "python -m tools.simulate locks --replay 0 --plant told-too-early"
    assert again in capsys.readouterr().out
    assert simulate.main(again.split()[3:]) == 1
    shown = capsys.readouterr().out
    assert "wants" in shown
    assert "which was not chosen for it" in shown
    assert simulate.main(["locks", "--replay", "3"]) == 0
    assert "chosen: " in capsys.readouterr().out


def test_the_command_ends_without_a_verdict_and_quietly_when_nobody_reads_on() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "tools.simulate", "locks", "--replay", "3"]
        root = Path(__file__).parents[2]
        done = subprocess.run(
            command, cwd=root, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (UNREAD, "")
