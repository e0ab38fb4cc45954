"""The comparison is fair: a wrong answer ends it, a missing engine is told in a line, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import bench
from tools.bench_inputs import InputSpec, make
from tools.bench_measure import CommandFailed, TookTooLong
from tools.benchmarks import strikes
from tools.benchmarks.compare import AnswersDiffer, compare, difference_of, last_words
from tools.benchmarks.environments import Engine, EngineMissing, interpreter_of
from tools.benchmarks.questions import QUESTIONS, Question
from tools.benchmarks.results import Recovery, Results, as_json, line_of, read
from tools.benchmarks.sides import ByHand, Embedded, Run, Side, parse_swarm
from tools.benchmarks.strikes import Strike
from tools.benchmarks.tables import HEADINGS, tables


def run_of(job_s: float, start_s: float = 0.0) -> Run:
    return Run(
        start_s=start_s, job_s=job_s, cpu_s=2 * job_s, peak_process_bytes=1_000_000, peak_tree_bytes=2_000_000
    )


class Teller:
    """A side that writes what it is told to."""

    packs_records = False
    is_foreign = False
    victims: tuple[str, ...] = ()

    def __init__(self, name: str, text: str, cannot: Sequence[str] = (), *, fails: bool = False) -> None:
        self.name = name
        self.cannot = frozenset(cannot)
        self._text = text
        self._fails = fails

    def answer(
        self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
    ) -> Run:
        out.mkdir()
        (out / "part-00000").write_text(self._text)
        if strike is not None:
            strike.struck, strike.began_s = "process 1", 0.0
            if self._fails:
                raise CommandFailed("python x ended with -9:\n")
        return run_of(2.0)


def asked(name: str, tmp_path: Path, *sides: Side, kill: bool = False) -> Results:
    results = Results()
    try:
        compare(name, [tmp_path / "input"], sides, 2, tmp_path / "out", results, lambda _: None, kill=kill)
    finally:
        assert not (tmp_path / "out").exists()
    return results


# --- answers ----------------------------------------------------------------------------------------


def test_sides_that_agree_take_turns_and_one_that_cannot_answer_is_passed_over(tmp_path: Path) -> None:
    results = asked(
        "wordcount", tmp_path, Teller("a", "x\t1\n"), Teller("b", "x\t1\n"), Teller("c", "", ["wordcount"])
    )
    assert {side: len(runs) for side, runs in results.runs["wordcount"].items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("name", ["wordcount", "sort", "pagerank"])
def test_a_side_that_gives_another_answer_ends_the_comparison(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnswersDiffer, match="liar and honest differ"):
        asked(name, tmp_path, Teller("honest", "x\t1\n"), Teller("liar", "x\t2\n"))


def test_numbers_may_differ_in_their_last_digits_and_no_further() -> None:
    assert difference_of({"a": 0.1 + 0.2}, {"a": 0.3}) == ""
    assert "'a' has 0.3001" in difference_of({"a": 0.3}, {"a": 0.3001})
    assert "'b' is in one of them only" in difference_of({"a": 1.0}, {"a": 1.0, "b": 1.0})


@pytest.mark.parametrize("name", ["join", "pagerank"])
def test_the_scripts_by_hand_and_our_engine_agree_on_the_join_and_pagerank(tmp_path: Path, name: str) -> None:
    inputs = make(InputSpec(kind=QUESTIONS[name].kind, size_bytes=20_000), tmp_path)
    results = Results()
    sides = [ByHand("single"), ByHand("pair"), Embedded()]
    compare(name, inputs, sides, 1, tmp_path / "out", results, lambda _: None)
    assert [line.side for line in results.lines()] == ["single", "pair", "embedded"]


def test_another_engine_that_fails_or_takes_too_long_is_left_out_and_the_rounds_go_on(tmp_path: Path) -> None:
    class Hopeless(Teller):
        is_foreign = True

        def answer(
            self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
        ) -> Run:
            out.mkdir()
            raise TookTooLong("python x was not done within 9 s")

    results = asked("wordcount", tmp_path, Hopeless("slow", ""), Teller("a", "x\t1\n"))
    assert {side: len(runs) for side, runs in results.runs["wordcount"].items()} == {"a": 2}
    assert results.left_out == ["slow is left out of word count, a pair a word: not done within 9 s"]


# --- kills ------------------------------------------------------------------------------------------


def test_a_job_that_was_lost_costs_the_time_until_then_and_the_whole_job_again() -> None:
    common = {"question": "sort", "side": "dask", "victim": "coordinator", "undisturbed_s": 10.0}
    assert Recovery(**common, wall_s=4.0, survived=False).lost_s == 4.0
    assert Recovery(**common, wall_s=13.0, survived=True).lost_s == 3.0
    assert Recovery(**common, wall_s=9.0, survived=True).lost_s == 0.0


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_kill_cost_is_told_whether_the_job_survived_or_not(tmp_path: Path, fails: bool) -> None:
    side = Teller("a", "x\t1\n", fails=fails)
    side.victims = strikes.VICTIMS
    first, second = asked("wordcount", tmp_path, side, kill=True).recoveries
    assert (first.victim, second.victim) == ("worker", "coordinator")
    assert first.survived is not fails
    assert first.note == ("it ended with -9" if fails else "")


def test_a_side_that_fails_by_itself_is_no_recovery(tmp_path: Path) -> None:
    class Failing(Teller):
        victims = strikes.VICTIMS

        def answer(
            self, question: Question, inputs: Sequence[Path], out: Path, strike: Strike | None = None
        ) -> Run:
            if strike is not None:
                raise CommandFailed("python x ended with 1:\nno memory")
            return super().answer(question, inputs, out)

    with pytest.raises(CommandFailed, match="no memory"):
        asked("wordcount", tmp_path, Failing("a", "x\t1\n"), kill=True)


def test_the_last_line_that_a_failed_command_printed_is_its_reason() -> None:
    assert last_words(CommandFailed("python x ended with 1:\nmuch\nno memory\n")) == "no memory"


# --- tables and files -------------------------------------------------------------------------------


def some_results() -> Results:
    results = Results(settings={"machine": {"cpus": 2}, "size_bytes": 1}, left_out=["spark is left out: x"])
    for job_s in (9.0, 1.0, 2.0):
        results.add("sort", "swarm-2x2", run_of(job_s, start_s=0.5))
    results.add("sort", "single", run_of(4.0))
    results.add("join", "single", run_of(1.0))
    results.recoveries.append(
        Recovery(
            question="sort",
            side="swarm-2x2",
            victim="worker",
            undisturbed_s=2.0,
            wall_s=3.0,
            survived=True,
        )
    )
    return results


def test_a_line_has_medians_spread_and_the_ratio_to_one_thread() -> None:
    line = line_of("sort", "swarm-2x2", [run_of(9), run_of(1), run_of(2)], [run_of(4)])
    assert (line.job_s, line.fastest_s, line.slowest_s, line.cpu_s, line.ratio) == (2, 1, 9, 4, 0.5)
    assert line_of("sort", "x", [run_of(9)], []).ratio is None


def test_every_markdown_table_has_as_many_cells_in_each_row_as_headings() -> None:
    results = some_results()
    results.add("startup", "swarm-2x2", run_of(0.2, start_s=0.5))
    ratios, memory, startup, recoveries, lines, left_out = tables(results, markdown=True).split("\n\n")
    for table in (ratios, memory, startup, recoveries, lines):
        assert len({row.count("|") for row in table.split("\n")}) == 1
    assert ratios.split("\n")[0] == "|  | total sort | join of two tables |"
    assert ratios.split("\n")[2:] == ["| swarm-2x2 | 0.50 | – |", "| single | 4.00 s | 1.00 s |"]
    assert memory.split("\n")[2] == "| swarm-2x2 | 2 MB | – |"
    assert startup.split("\n")[2] == "| swarm-2x2 | 0.50 s | 0.20 s | 0.70 s |"
    assert "| 1.00 s |" in recoveries
    assert lines.split("\n")[0].count("|") == len(HEADINGS) + 1
    assert left_out == "spark is left out: x"


def test_files_of_several_calls_are_put_together_and_no_run_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    for file in files:
        file.write_text(as_json(some_results()))
    together = read(files)
    assert len(together.runs["sort"]["swarm-2x2"]) == 6
    assert (len(together.recoveries), together.left_out) == (2, ["spark is left out: x"])
    assert bench.main(["table", *map(str, files), "--markdown"]) == 0
    assert "| swarm-2x2 | 0.50 | – |" in capsys.readouterr().out


def test_files_of_other_machines_or_other_programs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.json").write_text(as_json(some_results()))
    content = json.loads((tmp_path / "1.json").read_text())
    content["settings"]["machine"]["cpus"] = 64
    (tmp_path / "2.json").write_text(json.dumps(content))
    assert bench.main(["table", str(tmp_path / "1.json"), str(tmp_path / "2.json")]) == 2
    assert "another machine" in capsys.readouterr().err
    (tmp_path / "3.json").write_text("[]")
    assert bench.main(["table", str(tmp_path / "3.json")]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_what_was_measured_before_a_side_failed_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Run:
        raise CommandFailed("python x ended with 1:\nno memory")

    monkeypatch.setattr(ByHand, "answer", fail)
    report = tmp_path / "report.json"
    asked = ["--rows", "startup", "--sides", "embedded,single", "--swarm", "none", "--rounds", "1"]
    place = ["--cache", str(tmp_path / "cache"), "--json", str(report)]
    assert bench.main(["compare", *asked, *place]) == 1
    assert "no memory" in capsys.readouterr().err
    assert list(json.loads(report.read_text())["runs"]["startup"]) == ["embedded"]


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "not PEERSxREPLICAS"),
        ("2x3", "cannot hold 3 replicas"),
        ("99x2", "at most"),
        ("0x1", "not PEERS"),
    ],
)
def test_a_swarm_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_swarm(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--rows", "sort,nothing"], "'nothing' is none of"),
        (["compare", "--swarm", "2x3"], "2 peers cannot hold 3 replicas"),
        (["compare", "--with", "hadoop"], "'hadoop' is none of dask"),
        (["compare", "--size", "many"], "not a size"),
        (["compare", "--rounds", "0"], "whole number above 0"),
        (["table"], "required"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_engine_whose_program_is_missing_is_left_out_with_the_reason_in_a_line(tmp_path: Path) -> None:
    engine = Engine(name="spark", requirements=("x==1",), programs=("no-such-program",))
    with pytest.raises(EngineMissing, match="spark is left out: it needs the program 'no-such-program'"):
        interpreter_of(engine, tmp_path)
    assert not any(tmp_path.iterdir())
