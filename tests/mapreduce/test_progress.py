"""Progress is a bar on a terminal, a line a second elsewhere, and nothing when quiet."""

from __future__ import annotations

import io
import re

import pytest

from mapreduce.progress import Progress, Reporter, line, size_text


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def progress(done: int = 3, **more: object) -> Progress:
    return Progress(stage="map", step="main", done=done, total=12, **more)  # type: ignore[arg-type]


def visible(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_line_says_how_far_the_stage_is() -> None:
    told = progress(bytes_done=1 << 20, bytes_total=4 << 20, running=2, records=12345, status="busy")
    assert line(told, 7.4) == (
        "map main: 3/12 tasks, 25%, 1.0 MiB of 4.0 MiB, 12,345 records, 2 running, 7 s [busy]"
    )


def test_failed_attempts_are_told() -> None:
    assert "2 failed attempts" in line(progress(failed_attempts=2), 1.0)


def test_the_share_is_that_of_the_bytes_or_else_of_the_tasks() -> None:
    assert progress(bytes_done=1, bytes_total=4).fraction == 0.25
    assert progress().fraction == 0.25
    assert progress(bytes_done=9, bytes_total=4).fraction == 1.0
    assert Progress(stage="map", step="main", done=0, total=0).fraction == 1.0


def test_sizes_are_written_for_people() -> None:
    assert [size_text(n) for n in (0, 1023, 1024, 17 << 20, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "17.0 MiB",
        "3.0 GiB",
        "5.0 TiB",
    ]


def test_elsewhere_than_on_a_terminal_there_is_a_line_a_second() -> None:
    clock, stream = Clock(), io.StringIO()
    with Reporter(stream, clock=clock) as reporter:
        for tenth in range(35):
            clock.now_s = 100 + tenth / 10
            reporter.update(progress(done=tenth))
    assert [text.split(",")[0] for text in stream.getvalue().splitlines()] == [
        "map main: 10/12 tasks",
        "map main: 20/12 tasks",
        "map main: 30/12 tasks",
    ]


def test_a_message_is_shown_at_once_and_as_it_is() -> None:
    stream = io.StringIO()
    Reporter(stream, clock=Clock()).message("[bold]hello[/bold]\n")
    assert stream.getvalue() == "[bold]hello[/bold]\n"


def test_quiet_shows_nothing() -> None:
    clock, stream = Clock(), Terminal()
    with Reporter(stream, quiet=True, clock=clock) as reporter:
        clock.now_s += 10
        reporter.update(progress())
        reporter.message("hello")
    assert stream.getvalue() == ""


def test_a_short_job_on_a_terminal_needs_no_bar() -> None:
    clock, stream = Clock(), Terminal()
    with Reporter(stream, clock=clock) as reporter:
        clock.now_s += 0.2
        reporter.update(progress())
    assert stream.getvalue() == ""


def test_a_longer_job_on_a_terminal_has_a_bar_that_is_taken_down() -> None:
    clock, stream = Clock(), Terminal()
    with Reporter(stream, clock=clock) as reporter:
        clock.now_s += 0.5
        reporter.update(progress(status="[red]half-way[/red]"))
        assert "map main" in visible(stream)
        assert "25%" in visible(stream)
        assert "[red]half-way[/red]" in visible(stream)
        clock.now_s += 0.5
        reporter.update(Progress(stage="reduce", step="main", done=1, total=2))
        assert "reduce main" in visible(stream)
    assert stream.getvalue().rstrip().endswith("\x1b[2K"), "the last thing written erases the bar's line"


def test_a_message_stands_above_the_bar_on_a_line_of_its_own() -> None:
    clock, stream = Clock(), Terminal()
    with Reporter(stream, clock=clock) as reporter:
        clock.now_s += 0.5
        reporter.update(progress())
        reporter.message("a word [from] the mapper " + "x" * 200)
        reporter.update(progress(done=6))
    lines = [text.rsplit("\r", 1)[-1].rstrip() for text in visible(stream).splitlines()]
    assert "a word [from] the mapper " + "x" * 200 in lines


def test_after_the_bar_messages_are_plain_lines() -> None:
    clock, stream = Clock(), Terminal()
    reporter = Reporter(stream, clock=clock)
    clock.now_s += 0.5
    reporter.update(progress())
    reporter.close()
    stream.seek(0)
    stream.truncate()
    reporter.message("done")
    assert stream.getvalue() == "done\n"


def test_the_default_stream_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(clock=Clock()).message("to stderr")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "to stderr\n")
