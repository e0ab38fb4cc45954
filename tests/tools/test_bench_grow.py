"""The growth curves: an election costs the same in any swarm, figures and pictures say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import bench
from tools.benchmarks import plots
from tools.benchmarks.curves import Curves, curve_tables, curves_json, slope
from tools.benchmarks.grow_simulated import measure_takeover


def test_an_election_and_a_repair_cost_the_same_messages_and_time_in_any_swarm() -> None:
    few, many = (measure_takeover(nodes, seed=1) for nodes in (10, 100))
    assert few.election_messages == many.election_messages > 0
    assert few.repair_messages == many.repair_messages > 0
    assert few.sent_bytes == many.sent_bytes > 0
    assert few.election_s == pytest.approx(many.election_s)


def some_curves() -> Curves:
    return Curves(
        name="tasks",
        title="Empty tasks",
        grows_with="tasks",
        unit="a second",
        lines={"embedded": [(10, 1.0), (100, 2.5)], "swarm": [(100, 3.0)]},
        bound="Bound by nothing.",
    )


def test_a_curve_s_table_has_a_row_a_size_and_its_bound_below() -> None:
    title, table, bound = curve_tables([some_curves()], markdown=True).split("\n\n")
    assert title == "Empty tasks, a second"
    assert table.split("\n") == [
        "| tasks | embedded | swarm |",
        "|---|--:|--:|",
        "| 10 | 1 | – |",
        "| 100 | 2.5 | 3 |",
    ]
    assert bound == "Bound by nothing."
    assert json.loads(curves_json([some_curves()], {}))["curves"][0]["lines"]["swarm"] == [[100, 3.0]]


def test_the_slope_is_what_one_more_costs() -> None:
    assert slope([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx(2.0)
    assert slope([(5, 1.0)]) == 0.0


def test_the_command_measures_the_curves_that_are_asked_for_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "grown.json"
    place = ["--cache", str(tmp_path / "cache"), "--json", str(report)]
    assert bench.main(["grow", "--curves", "simulated", "--nodes", "8", *place]) == 0
    assert "Messages of an election and a repair" in capsys.readouterr().out
    names = [each["name"] for each in json.loads(report.read_text())["curves"]]
    assert names == [
        "gossip-load",
        "detection",
        "takeover-time",
        "takeover-messages",
        "job-messages",
        "job-bytes",
    ]


def test_pictures_without_matplotlib_are_refused_with_the_remedy_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda _: None)
    assert bench.main(["grow", "--plot", str(tmp_path / "plots"), "--cache", str(tmp_path)]) == 2
    assert "pip install 'ringreduce[bench]'" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--curves", "disk"], "'disk' is none of input"),
        (["--tasks", "10,0"], "whole number above 0"),
        (["--nodes", "1,2"], "8 or more"),
        (["--sizes", "1"], "not between"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["grow", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
