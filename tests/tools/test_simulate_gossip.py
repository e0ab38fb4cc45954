"""The gossip experiment: what it measures is there, and its verdicts can come out either way."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from membership.config import LAN
from tools import simulate
from tools.simulation import gossip_plot
from tools.simulation.fleet import Fleet, FleetConfig
from tools.simulation.gossip import Calm, Rough, measure_calm, measure_rough, verdicts, without_lifeguard


@pytest.fixture(scope="module")
def calm() -> list[Calm]:
    return [measure_calm(nodes, seed=0) for nodes in (32, 128)]


# -- what is measured --------------------------------------------------------------------------------


def test_an_idle_node_sends_one_ping_and_one_ack_a_period_whatever_the_size(calm: list[Calm]) -> None:
    for each in calm:
        assert each.messages_per_node_s == pytest.approx(2.0 / LAN.probe_period_s, rel=0.05)
        assert 50 < each.bytes_per_node_s < 400
        assert each.busiest_over_mean < 2.5


def test_a_rumour_reaches_everybody_within_logarithmic_rounds_and_a_second(calm: list[Calm]) -> None:
    for each in calm:
        assert 1 < each.spread_rounds_median <= each.spread_rounds_last
        assert 0 < each.spread_last_s < 1.0
    assert {verdict.claim: verdict.holds for verdict in verdicts(calm, [])} == {
        verdict.claim: True for verdict in verdicts(calm, [])
    }


def test_killed_nodes_are_suspected_in_constant_time_and_buried_when_the_suspicion_is_over(
    calm: list[Calm],
) -> None:
    for each in calm:
        shortest_s = LAN.suspicion_min_s(each.nodes)
        assert each.first_suspected_s < 3.1 * LAN.probe_period_s
        assert shortest_s < each.first_dead_s < each.last_dead_s < shortest_s + 5 * LAN.probe_period_s


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second = (replace(measure_calm(40, seed=3), wall_s=0.0) for _ in range(2))
    assert first == second
    assert first != replace(measure_calm(40, seed=4), wall_s=0.0)


def test_lifeguard_protects_the_healthy_from_the_sick() -> None:
    """Lifeguard, section V: without it, nodes whose messages are held bury others that are well."""
    with_it, without = (
        measure_rough(60, seed=0, lifeguard=lifeguard, sick_share=0.1) for lifeguard in (True, False)
    )
    assert without.deaths_of_healthy >= 10
    assert 10 * with_it.deaths_of_healthy <= without.deaths_of_healthy


def test_one_percent_loss_buries_nobody() -> None:
    rough = measure_rough(60, seed=0, lifeguard=True, loss=0.01)
    assert rough.deaths_of_healthy == 0
    assert rough.condition == "1% loss"


def test_a_sick_node_gets_its_messages_in_bursts_and_the_others_at_once() -> None:
    config = FleetConfig(nodes=20, seed=1, swim=LAN, sick_share=0.1)
    fleet = Fleet(config, lambda *_: None)
    assert len(fleet.sick) == 2
    sick = min(fleet.sick)
    well = next(index for index in range(20) if index not in fleet.sick)
    released = {round(fleet._released(sick, at / 10), 6) for at in range(2000)}
    waits = [fleet._released(sick, at / 10) - at / 10 for at in range(2000)]
    assert max(waits) == pytest.approx(config.blocked_s, abs=0.2)
    assert sum(wait > 0 for wait in waits) / 2000 == pytest.approx(20 / 21, abs=0.02)
    assert len(released) < 200
    assert fleet._released(well, 12.3) == 12.3


def test_plain_swim_is_the_same_machine_without_lifeguards_parts() -> None:
    plain = without_lifeguard(LAN)
    assert (plain.awareness_max, plain.suspicion_max_mult, plain.suspicion_confirmations) == (0, 1.0, 0)
    assert plain.suspicion_min_s(100) == LAN.suspicion_min_s(100)


# -- verdicts ----------------------------------------------------------------------------------------


def numbers(nodes: int, **changed: float) -> Calm:
    row = Calm(
        nodes=nodes,
        spread_rounds_median=3,
        spread_rounds_last=6,
        spread_last_s=0.3,
        first_suspected_s=1.6,
        first_dead_s=9.0,
        last_dead_s=9.5,
        messages_per_node_s=2.0,
        bytes_per_node_s=120.0,
        busiest_over_mean=1.2,
        events=1,
        wall_s=1.0,
    )
    return replace(row, nodes=nodes, **changed)


@pytest.mark.parametrize(
    ("worse", "claim"),
    [
        ({"messages_per_node_s": 20.0}, "load per node"),
        ({"first_suspected_s": 12.0}, "first detection"),
        ({"spread_rounds_last": 100.0}, "logarithmic"),
    ],
)
def test_a_claim_that_the_numbers_do_not_bear_out_is_said_not_to_hold(
    worse: dict[str, float], claim: str
) -> None:
    good = verdicts([numbers(100), numbers(1000)], [])
    bad = verdicts([numbers(100), numbers(1000, **worse)], [])
    assert [verdict.holds for verdict in good] == [True, True, True]
    assert [claim in verdict.claim for verdict in bad if not verdict.holds] == [True]


def test_lifeguards_claim_is_judged_by_both_runs() -> None:
    rough = Rough(
        nodes=100,
        condition="5% sick",
        lifeguard=True,
        minutes=1.0,
        suspicions=9,
        deaths_of_healthy=3,
        deaths_of_sick=4,
        wall_s=1.0,
    )
    plain = replace(rough, lifeguard=False, deaths_of_healthy=29)
    assert [verdict.holds for verdict in verdicts([], [rough, plain])] == [False]
    assert [verdict.holds for verdict in verdicts([], [rough, replace(plain, deaths_of_healthy=30)])] == [
        True
    ]
    nothing = [replace(each, deaths_of_healthy=0) for each in (rough, plain)]
    assert "nothing to tell apart" in verdicts([], nothing)[0].because


# -- the command -------------------------------------------------------------------------------------


def test_the_command_prints_both_tables_and_a_verdict_for_each_claim(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulate.main(["gossip", "--nodes", "24,48"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("holds: ", "DOES NOT HOLD: ")) for line in lines) == 6
    assert sum("plain SWIM" in line for line in lines if not line.startswith(("holds", "DOES"))) == 6


def test_a_plot_without_matplotlib_is_refused_in_one_line_that_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert simulate.main(["gossip", "--nodes", "24", "--plot", str(tmp_path / "p.png")]) == 2
    captured = capsys.readouterr()
    assert "pip install 'ringreduce[bench]'" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_a_plot_into_a_directory_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "does not exist" in str(gossip_plot.why_not(tmp_path / "no" / "p.png"))
    assert gossip_plot.why_not(tmp_path / "p.png") is None


def test_the_plot_is_written_where_matplotlib_is_installed(tmp_path: Path, calm: list[Calm]) -> None:
    pytest.importorskip("matplotlib")
    rough = [measure_rough(24, seed=0, lifeguard=lifeguard, loss=0.01) for lifeguard in (True, False)]
    gossip_plot.draw(tmp_path / "p.png", calm, rough)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
