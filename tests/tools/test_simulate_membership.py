"""Membership in the deterministic world: hundreds of seeds hold, and what is broken on purpose is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

import membership.beliefs
from membership.config import LAN, LOCAL
from membership.effects import Effect, Send
from membership.messages import Ack, Ping
from membership.swim import Swim
from membership.view import Member, NodeId, Status, supersedes
from tools import simulate
from tools.simulation.kinds import Fault
from tools.simulation.membership import healing_limit_s, membership_maker
from tools.simulation.scenario import Outcome, never_fired, run_scenario
from tools.simulation.trace import Trace

SEEDS = 300
CHUNK = 50


def run_seeds(seeds: Iterable[int], machine: type[Swim] = Swim) -> list[Outcome]:
    make = membership_maker(machine=machine)
    return [run_scenario(make, seed) for seed in seeds]


# -- what is right holds -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes() -> dict[int, Outcome]:
    """Every seed is run once for all tests that look at it."""
    return {}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_of_membership_is_kept_under_faults(first: int, outcomes: dict[int, Outcome]) -> None:
    for outcome in run_seeds(range(first, first + CHUNK)):
        outcomes[outcome.seed] = outcome
        assert outcome.violation is None, (
            f"{outcome.violation}; replay: python -m tools.simulate membership --replay {outcome.seed}"
        )


def test_every_fault_that_seeds_turn_on_really_happens(outcomes: dict[int, Outcome]) -> None:
    for seed in range(100):
        if seed not in outcomes:
            outcomes[seed] = run_seeds([seed])[0]
    some = [outcomes[seed] for seed in range(100)]
    assert {fault for outcome in some for fault in outcome.enabled} == set(Fault)
    assert never_fired(some) == []


def test_a_fault_that_is_turned_on_and_never_happens_is_reported() -> None:
    outcome = run_seeds([0])[0]
    lying = replace(outcome, enabled=(*outcome.enabled, Fault.WIPE), fired=outcome.fired - outcome.fired)
    assert Fault.WIPE in never_fired([lying])


def test_the_stated_time_to_agree_grows_with_the_cluster_and_is_short_on_one_machine() -> None:
    assert healing_limit_s(LOCAL, 9) < 90
    assert healing_limit_s(LAN, 3) < healing_limit_s(LAN, 9) < 260


# -- determinism ---------------------------------------------------------------------------------------

_DIGESTS = """
import sys
sys.path[:0] = {path!r}
from tools.simulation.membership import membership_maker
from tools.simulation.scenario import run_scenario
from {module} import {machine}
make = membership_maker(machine={machine})
print(*[run_scenario(make, seed).trace_digest for seed in range({count})])
"""


def digests_under_three_hash_seeds(module: str, machine: str, count: int) -> set[str]:
    found = set()
    for hash_seed in ("0", "1", "4711"):
        program = _DIGESTS.format(
            path=[*filter(None, sys.path), os.path.dirname(__file__)],
            module=module,
            machine=machine,
            count=count,
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    return found


def test_a_seed_gives_the_same_trace_under_three_hash_seeds() -> None:
    digests = digests_under_three_hash_seeds("membership.swim", "Swim", 8)
    assert len(digests) == 1
    assert len(set(digests.pop().split())) == 8


def test_an_order_taken_from_a_set_is_caught_by_the_trace() -> None:
    assert len(digests_under_three_hash_seeds("planted_faults", "GossipsInTheOrderOfASet", 1)) > 1


# -- what is broken on purpose is found ----------------------------------------------------------------


class NeverRefutes(Swim):
    """Hears that it is accused and says nothing."""

    def _hear_of_me(self, *_: object) -> None:
        return


class DeniesItsFormerLives(Swim):
    """Takes an accusation above its own incarnation for somebody else's, as after the loss of its disk."""

    def _hear_of_me(
        self, record: Member, accusers: tuple[NodeId, ...], now: float, out: list[Effect]
    ) -> None:
        if record.incarnation <= self.me.incarnation:
            super()._hear_of_me(record, accusers, now, out)


class NeverBuries(Swim):
    """Suspects, and never comes to a verdict."""

    def tick(self, now: float) -> list[Effect]:
        self._beliefs.suspicions.postpone(10.0)
        return super().tick(now)


class NeverKnocks(Swim):
    """Gives up the dead, so that islands stay islands."""

    def _knock(self, now: float, out: list[Effect]) -> None:
        self._knock_at = now + 10.0


class PingsWhoeverAnswers(Swim):
    """Two peers that never let each other have the last word."""

    def _on_ack(self, ack: Ack, sender: NodeId, now: float, out: list[Effect]) -> None:
        super()._on_ack(ack, sender, now, out)
        known = self.get(sender)
        if known is not None:
            ping = Ping(number=ack.number, target=sender, reply_to=self.me.address)
            out.append(Send(known.address, sender, ping))


class DiesInItsOwnEyes(Swim):
    """Believes what others say about it."""

    def _hear_of_me(
        self, record: Member, accusers: tuple[NodeId, ...], now: float, out: list[Effect]
    ) -> None:
        if supersedes(record, self.me):
            self._beliefs.members.put(record)


def seeds_until_caught(make_outcomes: Callable[[int], Outcome], at_most: int) -> tuple[int, str]:
    for seed in range(at_most):
        violation = make_outcomes(seed).violation
        if violation:
            return seed, violation
    pytest.fail(f"the planted fault survived {at_most} seeds")


@pytest.mark.parametrize(
    ("machine", "at_most", "verdict"),
    [
        (NeverRefutes, 10, ""),
        (DeniesItsFormerLives, 60, "after healing"),
        (NeverBuries, 20, "but it does not run"),
        (NeverKnocks, 40, "after healing"),
        (PingsWhoeverAnswers, 5, "did not come to an end"),
        (DiesInItsOwnEyes, 10, "sees itself as"),
    ],
)
def test_a_planted_fault_is_caught(machine: type[Swim], at_most: int, verdict: str) -> None:
    make = membership_maker(machine=machine)
    _, violation = seeds_until_caught(lambda seed: run_scenario(make, seed), at_most)
    assert verdict in violation


def test_the_resurrection_that_others_shipped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Dead@1 → Dead@10 → Alive@2``: an accusation of the dead must count."""

    def with_the_hole(new: Member, old: Member | None) -> bool:
        if old is not None and old.status is Status.DEAD and new.status is not Status.ALIVE:
            return False
        return supersedes(new, old)

    monkeypatch.setattr(membership.beliefs, "supersedes", with_the_hole)
    _, violation = seeds_until_caught(lambda seed: run_seeds([seed])[0], 40)
    assert "heard" in violation


# -- the command ---------------------------------------------------------------------------------------


def test_the_command_says_what_happened_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["membership", "--seeds", "0:3", "--nodes", "4"]) == 0
    output = capsys.readouterr().out
    assert "3 seeds in" in output
    assert "seeds/s" in output
    assert "late replay" in output
    assert "0 of 3 seeds broke a promise" in output


def test_a_failing_seed_is_named_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_broken = membership_maker(machine=DiesInItsOwnEyes)
    monkeypatch.setattr("tools.simulation.membership.membership_maker", lambda **_: make_broken)
    assert simulate.main(["membership", "--seeds", "0:10", "--no-codec"]) == 1
    output = capsys.readouterr().out
    assert "python -m tools.simulate membership --replay" in output
    assert "--no-codec" in output
    seed = output.split("--replay ")[1].split()[0]
    assert simulate.main(["membership", "--replay", seed, "--no-codec"]) == 1
    assert "violation: " in capsys.readouterr().out


def test_a_replay_prints_the_whole_trace_and_the_same_hash_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = []
    for _ in range(2):
        assert simulate.main(["membership", "--replay", "5"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert run_seeds([5])[0].trace_digest in outputs[0]
    assert "receive  n1 from" in outputs[0]
    assert "  heal" in outputs[0]


def test_codec_and_objects_run_the_same_history() -> None:
    """The wire changes nothing that a machine can see."""
    for seed in range(5):
        with_wire, without = (run_scenario(membership_maker(codec=codec), seed) for codec in (True, False))
        assert (with_wire.events, with_wire.fired) == (without.events, without.fired)


@pytest.mark.parametrize(
    "arguments", [["--seeds", "5:5"], ["--seeds", "x"], ["--nodes", "1"], ["--nodes", "many"], ["--what"]]
)
def test_bad_usage_ends_with_code_2_and_a_line_that_says_what(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        simulate.main(["membership", *arguments])
    assert ended.value.code == 2
    assert arguments[-1].lstrip("-") in capsys.readouterr().err


def test_an_interrupted_run_reports_what_it_has_and_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_seeds([0])[0]

    def run_until_interrupted(_: object, seed: int) -> Outcome:
        if seed == 2:
            raise KeyboardInterrupt
        return replace(done, seed=seed)

    monkeypatch.setattr(simulate, "run_scenario", run_until_interrupted)
    assert simulate.main(["membership", "--seeds", "0:50"]) == 130
    assert "2 seeds in" in capsys.readouterr().out


# -- a host of two processes -------------------------------------------------------------------------


def test_of_two_processes_with_one_id_one_is_left_in_the_end() -> None:
    """Seeds with no other fault: the double is refused, and nobody else notices."""
    refused = 0
    for seed in range(40):
        trace = Trace(keep_lines=True)
        make = membership_maker(menu=[Fault.DOUBLE])
        outcome = run_scenario(make, seed, trace)
        assert outcome.violation is None
        started = outcome.fired[Fault.DOUBLE]
        stopped = sum("  refused  " in line for line in trace.lines)
        assert stopped == started
        refused += stopped
        assert all("10.0.1." in line for line in trace.lines if "  refused  " in line), "the elder had to go"
    assert refused >= 10
