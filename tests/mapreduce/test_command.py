"""`ringreduce run`: what reaches the engine, what reaches stdout, and how it exits.  The engine is a fake."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

import mapreduce
from mapreduce.command import _copy_parts, check_report, run, summary, write_report
from mapreduce.errors import EnvironmentFailed, InputError, OutputError, TaskFailed
from mapreduce.loading import replace_job, unpack
from mapreduce.outputs import part_name
from mapreduce.progress import Progress

REPORT = {
    "job_id": "1",
    "state": "COMMITTED",
    "wall_s": 0.5,
    "cpu_s": 0.1,
    "input_bytes": 2048,
    "shuffle_bytes": 0,
    "replica_bytes": 0,
    "map_tasks": 2,
    "reduce_tasks": 1,
    "attempts": 3,
    "failed_attempts": 0,
    "maps_run_again": 0,
    "leader_changes": 0,
    "peers_lost": 0,
    "counters": {},
}

JOB = """
from mapreduce import Job

def mapper(line):
    yield line, 1

def reducer(key, values):
    yield key, sum(values)

job = Job(mapper=mapper, reducer=reducer, params={"rounds": 10})
"""


class FakeResult:
    """A finished job."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report
        self.closed = False

    def report(self) -> dict[str, Any]:
        return self._report

    def close(self) -> None:
        self.closed = True


@dataclass
class Engine:
    """Stands for `mapreduce.local`: remembers what it was asked, and does what it is told."""

    parent: Path
    does: Callable[[], None] = lambda: None
    parts: tuple[bytes, ...] = (b"a\t1\n", b"b\t2\n")
    report: dict[str, Any] = field(default_factory=lambda: dict(REPORT))
    asked: dict[str, Any] = field(default_factory=dict)
    work_directories: list[str] = field(default_factory=list)
    result: FakeResult | None = None

    def run(self, job: Any, inputs: list[str], *, output: str, **asked: Any) -> FakeResult:
        self.asked = {"job": job, "inputs": inputs, "output": output, **asked}
        self.does()
        os.makedirs(output)
        # Made backwards, so that an order of creation would show.
        for number, content in reversed(list(enumerate(self.parts))):
            Path(output, f"part-{number:05d}").write_bytes(content)
        Path(output, "_SUCCESS").touch()
        self.result = FakeResult(self.report)
        return self.result

    def work_directory(self, parent: str | None) -> Any:
        engine = self

        class WorkDirectory:
            path = str(engine.parent / f"work-{len(engine.work_directories)}")

            def __init__(self) -> None:
                self.parent = parent
                os.mkdir(self.path)
                engine.work_directories.append(self.path)

            def remove(self) -> None:
                shutil.rmtree(self.path)

        return WorkDirectory()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    fake = Engine(tmp_path)
    module = ModuleType("mapreduce.local")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setattr("mapreduce.work_directory.WorkDirectory", fake.work_directory)
    monkeypatch.setitem(sys.modules, "mapreduce.local", module)
    monkeypatch.setattr(mapreduce, "local", module, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("RINGREDUCE_"):
            monkeypatch.delenv(name)
    (tmp_path / "count.py").write_text(JOB)
    yield fake
    replace_job()
    assert [path for path in fake.work_directories if os.path.exists(path)] == [], "something was left behind"


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Outcome:
    return CliRunner().invoke(run, ["count.py", "in.txt", *arguments], env=env, prog_name="ringreduce run")


def refused(*arguments: str, code: int = 2, env: dict[str, str] | None = None) -> str:
    outcome = invoke(*arguments, env=env)
    assert outcome.exit_code == code, outcome.output
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    return outcome.stderr


# -- what reaches the engine --------------------------------------------------------------------------


def test_nothing_but_job_and_input_is_needed(engine: Engine) -> None:
    assert invoke().exit_code == 0
    asked = engine.asked
    assert asked["inputs"] == ["in.txt"]
    assert (asked["workers"], asked["partitions"], asked["memory_bytes"]) == (None, None, None)
    assert asked["split_bytes"] == 32 << 20
    assert asked["out_format"] == "text"
    assert asked["params"] == {}


def test_every_option_reaches_the_engine(engine: Engine) -> None:
    options = "-j 3 -r 5 --split-size 1KiB --out-format jsonl --memory 1G --temp-dir . --param rounds=3"
    assert invoke(*options.split()).exit_code == 0
    asked = engine.asked
    assert (asked["workers"], asked["partitions"]) == (3, 5)
    assert asked["split_bytes"] == 1024
    assert asked["out_format"] == "jsonl"
    assert asked["memory_bytes"] == 1 << 30
    assert asked["temp_dir"] == "."
    assert asked["params"] == {"rounds": 3}


def test_the_code_is_that_of_the_job(engine: Engine) -> None:
    invoke()
    replace_job()
    job = unpack(engine.asked["code"])
    assert list(next(iter(job.steps.values())).mapper("x")) == [("x", 1)]


def test_reading_and_bad_records_change_the_job_in_the_children_too(engine: Engine) -> None:
    assert invoke("--encoding", "latin-1", "--errors", "replace", "--on-bad-record", "skip:7").exit_code == 0
    for job in (engine.asked["job"], unpack(engine.asked["code"])):
        (step,) = job.steps.values()
        assert (step.reader.encoding, step.reader.errors) == ("latin-1", "replace")
        assert step.skip_limit == 7


def test_an_unknown_encoding_is_refused(engine: Engine) -> None:
    assert "utf-9" in refused("--encoding", "utf-9")


def test_a_reader_without_an_encoding_takes_none(engine: Engine, tmp_path: Path) -> None:
    reader = "from mapreduce import FixedLength\n"
    (tmp_path / "count.py").write_text(reader + JOB.replace("Job(", "Job(reader=FixedLength(4), "))
    assert "--encoding: the reader of step 'main' takes no encoding" in refused("--encoding", "utf-8")


# -- settings -----------------------------------------------------------------------------------------


def test_a_flag_outbids_the_environment_and_that_the_file(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "ringreduce.toml").write_text("[run]\nworkers = 1\npartitions = 2\nsplit-size = '3'\n")
    env = {"RINGREDUCE_WORKERS": "10", "RINGREDUCE_PARTITIONS": "20"}
    assert invoke("-j", "100", env=env).exit_code == 0
    asked = engine.asked
    assert (asked["workers"], asked["partitions"], asked["split_bytes"]) == (100, 20, 3)


def test_a_param_of_the_file_reaches_the_job(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "ringreduce.toml").write_text("[run]\nparam = { rounds = 4 }\n")
    assert invoke().exit_code == 0
    assert engine.asked["params"] == {"rounds": 4}


def test_a_bad_value_says_where_it_came_from(engine: Engine, tmp_path: Path) -> None:
    assert "(from RINGREDUCE_SPLIT_SIZE)" in refused(env={"RINGREDUCE_SPLIT_SIZE": "big"})
    (tmp_path / "ringreduce.toml").write_text("[run]\nworkers = 0\n")
    assert "(from ringreduce.toml)" in refused()


def test_a_misspelt_setting_in_the_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "ringreduce.toml").write_text("[run]\nworker = 1\n")
    assert "did you mean 'workers'?" in refused()


# -- bad usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split-size", "0"), "less than one byte"),
        (("--split-size", "many"), "not a size"),
        (("-j", "0"), "0 is not in the range"),
        (("-r", "0"), "0 is not in the range"),
        (("--out-format", "xml"), "'xml' is not one of"),
        (("--param", "rounds"), "'rounds' is not of the form NAME=VALUE"),
        (("--param", "=3"), "not of the form"),
        (("--param", "rounds=x"), "expected a whole number"),
        (("--param", "round=3"), "did you mean 'rounds'?"),
        (("--on-bad-record", "ignore"), "neither 'fail' nor 'skip:N'"),
        (("--no-such-option",), "No such option"),
        (("--report", "."), "that is a directory"),
        (("--report", "missing/report.json"), "there is no directory missing"),
    ],
)
def test_bad_usage_is_one_message_and_exit_code_2(
    engine: Engine, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(*arguments)
    assert engine.asked == {}, "nothing may start"


def test_without_a_job_the_examples_are_shown(engine: Engine) -> None:
    outcome = CliRunner().invoke(run, [])
    assert outcome.exit_code == 2
    assert "wordcount" in outcome.stderr
    assert "How often every word occurs" in outcome.stderr


def test_without_an_input_standard_input_is_explained(engine: Engine) -> None:
    outcome = CliRunner().invoke(run, ["count.py"])
    assert outcome.exit_code == 2
    assert "INPUT is missing" in outcome.stderr
    assert "- reads standard input" in outcome.stderr


def test_an_unwritable_report_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked of os.access, because the tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="not writable"):
        check_report(str(tmp_path / "report.json"))


# -- results ------------------------------------------------------------------------------------------


def test_without_a_directory_all_parts_go_to_stdout_in_order(engine: Engine) -> None:
    outcome = invoke()
    assert outcome.stdout == "a\t1\nb\t2\n"
    assert engine.result is not None
    assert engine.result.closed


def test_with_a_directory_nothing_goes_to_stdout(engine: Engine, tmp_path: Path) -> None:
    outcome = invoke("-o", "out")
    assert outcome.stdout == ""
    assert "-> out" in outcome.stderr
    assert engine.asked["output"] == "out"
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_what_a_job_file_prints_stays_out_of_the_results(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text("print('loading')\n" + JOB)
    outcome = invoke()
    assert outcome.stdout == "a\t1\nb\t2\n"
    assert "loading" in outcome.stderr


def test_what_user_code_prints_goes_to_stderr(engine: Engine) -> None:
    engine.does = lambda: engine.asked["on_message"]("hello from a mapper")
    outcome = invoke()
    assert "hello from a mapper\n" in outcome.stderr
    assert "hello" not in outcome.stdout


def test_quiet_leaves_stderr_empty(engine: Engine) -> None:
    def does() -> None:
        engine.asked["on_message"]("hello")
        engine.asked["on_progress"](Progress(stage="map", step="main", done=1, total=2))

    engine.does = does
    outcome = invoke("--quiet")
    assert outcome.stderr == ""
    assert outcome.stdout == "a\t1\nb\t2\n"


def test_the_last_lines_sum_the_job_up(engine: Engine) -> None:
    engine.report["counters"] = {"bad lines": 1234}
    assert invoke().stderr == (
        "count.py: 2.0 KiB in 0.50 s, 2 map tasks, 1 reduce task\n  bad lines = 1,234\n"
    )


def test_a_summary_shows_only_so_many_counters() -> None:
    report = {**REPORT, "attempts": 9, "failed_attempts": 2, "counters": {f"c{n:02}": n for n in range(30)}}
    lines = summary("job", report, None).splitlines()
    assert "1 reduce task, 2 failed attempts" in lines[0]
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more counters, in --report"


def test_parts_are_copied_in_the_order_of_their_numbers(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for number in (10_000, 10_001, 100_000):
        (tmp_path / part_name(number)).write_text(f"{number}\n")
    _copy_parts(str(tmp_path))
    assert capfdbinary.readouterr().out == b"10000\n10001\n100000\n"


# -- report -------------------------------------------------------------------------------------------


def test_the_report_is_what_the_engine_tells(engine: Engine, tmp_path: Path) -> None:
    assert invoke("--report", "report.json").exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count.py", "report.json"]


def test_a_failed_job_leaves_the_last_report_alone(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    engine.does = fails_with(TaskFailed("no"))
    refused("--report", "report.json", code=1)
    assert (tmp_path / "report.json").read_text() == "{}"


def test_a_report_can_go_to_a_device(tmp_path: Path) -> None:
    check_report("/dev/null")
    write_report("/dev/null", REPORT)
    assert not os.path.isfile("/dev/null")


def test_a_report_that_cannot_be_written_after_all_leaves_no_half(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="cannot write the report"):
        write_report(str(tmp_path / "gone" / "report.json"), REPORT)


# -- how it ends --------------------------------------------------------------------------------------


def fails_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_mistake_in_the_input_is_one_line_and_2(engine: Engine) -> None:
    engine.does = fails_with(InputError("in.txt: no such file"))
    assert refused() == "error: in.txt: no such file\n"


def test_a_failed_task_shows_the_users_traceback_and_exits_1(engine: Engine) -> None:
    engine.does = fails_with(TaskFailed("task map-00001 failed", "  File count.py, line 5\nValueError: x\n"))
    outcome = invoke()
    assert outcome.exit_code == 1
    assert outcome.stderr == "error: task map-00001 failed\n  File count.py, line 5\nValueError: x\n"
    assert outcome.stdout == ""


def test_an_exception_while_loading_shows_the_users_frames(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text("x = 1 / 0\n")
    outcome = invoke()
    assert outcome.exit_code == 2
    first, *rest = outcome.stderr.splitlines()
    assert first == "error: count.py, line 1: ZeroDivisionError: division by zero"
    assert rest[0] == "Traceback (most recent call last):"
    assert "loading.py" not in outcome.stderr


def test_an_interrupted_job_exits_with_130(engine: Engine) -> None:
    engine.does = fails_with(KeyboardInterrupt())
    assert refused(code=130).strip() == "interrupted"


def test_a_termination_signal_is_an_interruption(engine: Engine) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    engine.does = lambda: signal.raise_signal(signal.SIGTERM)
    assert refused(code=130).strip() == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_does_not_disturb_the_winding_up(engine: Engine) -> None:
    import signal

    wound_up = []

    def does() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            wound_up.append(True)

    engine.does = does
    refused(code=130)
    assert wound_up == [True]


def test_a_full_disk_is_not_our_bug(engine: Engine) -> None:
    engine.does = fails_with(OSError(errno.ENOSPC, "No space left on device", "part-00000"))
    message = refused(code=1)
    assert "No space left on device" in message
    assert "bug" not in message


def test_our_own_mistake_says_so_and_shows_its_place_only_when_asked(engine: Engine) -> None:
    engine.does = fails_with(ZeroDivisionError("oops"))
    message = refused(code=1)
    assert "error: ZeroDivisionError: oops" in message
    assert "bug in ringreduce" in message
    for outcome in (invoke("--traceback"), invoke(env={"RINGREDUCE_DEBUG": "1"})):
        assert outcome.exit_code == 1
        assert "Traceback (most recent call last)" in outcome.stderr


def test_a_reader_that_leaves_early_is_no_error(engine: Engine) -> None:
    engine.does = fails_with(BrokenPipeError())
    outcome = invoke()
    assert (outcome.exit_code, outcome.output) == (0, "")


def test_help_says_what_job_and_input_are() -> None:
    text = CliRunner().invoke(run, ["--help"]).output
    for word in ("JOB INPUT", "--split-size SIZE", "--traceback", "--on-bad-record fail|skip:N"):
        assert word in text
