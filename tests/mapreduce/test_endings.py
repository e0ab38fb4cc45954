"""However a task's process ends, the job goes on or ends with an error, and nothing is left behind.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapreduce import Job, task
from mapreduce.child_output import MAX_TASK_OUTPUT_BYTES
from mapreduce.errors import EnvironmentFailed, JobError, TaskFailed, UsageError
from tests.mapreduce.conftest import GONE_S, Place, line_of, once, ones, totals

PATIENCE_S = 30.0
NUMBERED = tuple(f"line {number}" for number in range(20))


# --- what becomes of the process ----------------------------------------------------------------------


def test_a_crash_shows_where_user_code_was(place: Place) -> None:
    def mapper(line: str) -> Any:
        print("about to crash")
        ctypes.string_at(0)  # here
        yield line, 1

    path = place.lines("a")
    error = place.failure(once(mapper), path)
    assert isinstance(error, TaskFailed)
    assert str(error) == (
        f"step 'main', task map-00000, attempt 1 of 1 at {path}, bytes 0 to 2: "
        "its process was killed by SIGSEGV"
    )
    assert error.details.startswith("the last it printed:\n")
    assert "about to crash" in error.details
    assert f'File "{__file__}", line {line_of(mapper)} in mapper' in error.details


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda: os._exit(3), "its process exited with code 3"),
        (lambda: os._exit(0), "its process exited with code 0"),
        (lambda: sys.exit(3), "user code called sys.exit(3)"),
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            "its process was killed by SIGKILL (perhaps the machine ran out of memory)",
        ),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "its process was killed by SIGTERM"),
        (os.abort, "its process was killed by SIGABRT"),
        (lambda: os.closerange(3, 256) or time.sleep(60), "it closed its connection and went on running"),
    ],
    ids=["_exit(3)", "_exit(0)", "sys.exit", "SIGKILL", "SIGTERM", "abort", "closed-descriptors"],
)
def test_a_process_that_ends_is_told_from_the_outside(
    place: Place, end: Callable[[], Any], reason: str
) -> None:
    error = place.failure(once(lambda line: end()), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert error.exit_code == 1
    assert str(error).startswith("step 'main', task map-00000, attempt 1 of 1 at ")
    assert reason in str(error)


def test_a_task_that_needs_too_much_memory_is_told_its_limit(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield line, len(bytearray(1 << 30))

    error = place.failure(once(mapper), place.lines("a"), memory_bytes=256 << 20)
    assert isinstance(error, TaskFailed)
    assert str(error).endswith(
        "MemoryError: the task needs more than its memory limit of 268,435,456 bytes (--memory)"
    )


def test_a_task_that_prints_without_end_is_ended(place: Place) -> None:
    def mapper(line: str) -> Any:
        for _ in range(MAX_TASK_OUTPUT_BYTES // 500_000):
            print("x" * 1_000_000)
        yield line, 1

    error = place.failure(once(mapper), place.lines("a"))
    assert "it printed more than 64 MiB in one task (results are yielded, not printed)" in str(error)
    assert sum(map(len, place.messages)) < 1 << 20, "only some of it is shown"


def test_a_task_that_prints_less_succeeds(place: Place) -> None:
    def mapper(line: str) -> Any:
        for _ in range(4):
            print("x" * 1_000_000)
        yield line, 1

    assert place.run(once(mapper), place.lines("a")).pairs == [("a", 1)]


def test_an_endless_loop_is_ended_when_its_time_is_over(place: Place) -> None:
    def mapper(line: str) -> Any:
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    error = place.failure(Job(mapper, totals(), task_timeout_s=0.2, max_attempts=2), place.lines("a"))
    assert "attempt 2 of 2" in str(error)
    assert str(error).endswith("it ran longer than 0.2 s")


def test_what_a_task_started_ends_with_it(place: Place) -> None:
    """The fixture looks for processes that are left."""

    def mapper(line: str) -> Any:
        if os.fork() == 0:
            time.sleep(600)
        subprocess.Popen(["sleep", "600"])
        yield line, 1

    assert place.run(Job(mapper, totals()), place.lines("a")).pairs == [("a", 1)]


def test_what_a_dying_task_started_neither_stays_nor_holds_up_the_job(place: Place) -> None:
    def mapper(line: str) -> Any:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(3)

    started = time.monotonic()
    assert "exited with code 3" in str(place.failure(once(mapper), place.lines("a")))
    assert time.monotonic() - started < 10


def test_what_user_code_writes_to_our_socket_is_not_believed(place: Place) -> None:
    def mapper(line: str) -> Any:
        for descriptor in range(3, 30):
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, b"\x05\0\0\0wrong")
            except OSError:
                continue
        yield line, 1

    error = place.failure(once(mapper), place.lines("a"))
    assert "it sent a report that answers none of its orders; did user code fork?" in str(error)


def test_threads_of_user_code_do_not_hold_up_the_end(place: Place) -> None:
    def mapper(line: str) -> Any:
        threading.Thread(target=time.sleep, args=(600,)).start()
        yield line, 1

    assert place.run(Job(mapper, totals()), place.lines("a")).pairs == [("a", 1)]


# --- retries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raise", "exit", "kill"])
def test_a_task_that_fails_at_first_is_tried_again(place: Place, how: str) -> None:
    flag = str(place.root / "flag")

    def mapper(line: str) -> Any:
        task.counters["mapped"] += 1
        if line == "line 13" and not os.path.exists(flag):
            open(flag, "w").close()
            if how == "raise":
                raise OSError("the disk was busy")
            if how == "exit":
                os._exit(1)
            os.kill(os.getpid(), signal.SIGKILL)
        yield line, task.attempt

    outcome = place.run(Job(mapper, totals()), place.lines(*NUMBERED), split_bytes=50, workers=2)
    assert len(outcome.pairs) == 20
    assert sum(attempt for _, attempt in outcome.pairs) > 20, "one task's lines are of its second attempt"
    assert outcome.counters == {"mapped": 20}, "the failed attempt counts nothing"
    assert outcome.report["failed_attempts"] == 1
    assert outcome.report["attempts"] == outcome.report["map_tasks"] + outcome.report["reduce_tasks"] + 1


def test_a_reducer_that_fails_at_first_is_tried_again(place: Place) -> None:
    flag = str(place.root / "flag")

    def reducer(key: str, values: Any) -> Any:
        task.counters["keys"] += 1
        if key == "b" and not os.path.exists(flag):
            open(flag, "w").close()
            raise OSError("the disk was busy")
        yield key, sum(values)

    outcome = place.run(Job(ones(), reducer), place.lines("a", "b", "a"))
    assert outcome.pairs == [("a", 2), ("b", 1)]
    assert outcome.counters == {"keys": 2}


def test_a_task_has_as_many_attempts_as_the_job_allows(place: Place) -> None:
    tried = place.root / "tried"

    def mapper(line: str) -> Any:
        with open(tried, "a") as file:
            file.write(f"{task.attempt} ")
        raise RuntimeError("never")

    error = place.failure(Job(mapper, totals(), max_attempts=4), place.lines("a"))
    assert "attempt 4 of 4" in str(error)
    assert tried.read_text() == "1 2 3 4 "


@pytest.mark.parametrize("mistake", ["key", "value", "shape"])
def test_what_would_go_wrong_again_is_not_tried_again(place: Place, mistake: str) -> None:
    tried = place.root / "tried"
    given = {"key": ([1], 1), "value": ("a", {1}), "shape": 7}[mistake]

    def mapper(line: str) -> Any:
        with open(tried, "a") as file:
            file.write(f"{task.attempt} ")
        return [given]

    place.failure(Job(mapper, totals()), place.lines("a"))
    assert set(tried.read_text().split()) == {"1"}


def test_an_output_that_fails_leaves_no_directory(place: Place) -> None:
    output = place.root / "deep" / "out"
    place.failure(once(lambda line: 1 / 0), place.lines("a"), output=str(output))
    assert not output.parent.exists()


# --- what becomes of the machine ----------------------------------------------------------------------


def test_a_temporary_directory_that_cannot_be_made_is_told(place: Place) -> None:
    path = place.lines("a")
    error = place.failure(Job(ones(), totals()), path, temp_dir=path)
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"cannot make a temporary directory in {path}: Not a directory; choose another with --temp-dir"
    )


def test_a_temporary_directory_that_is_not_there_is_not_made(place: Place) -> None:
    missing = place.root / "mistyped" / "deep"
    error = place.failure(Job(ones(), totals()), place.lines("a"), temp_dir=str(missing))
    assert isinstance(error, UsageError)
    assert "No such file or directory; choose another with --temp-dir" in str(error)
    assert not missing.parent.exists()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EROFS, UsageError), (errno.EACCES, UsageError), (errno.ENOSPC, EnvironmentFailed)],
)
def test_a_wrong_place_for_temporary_files_is_told_from_a_full_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[JobError]
) -> None:
    def mkdir(path: str, mode: int = 0o777) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr("mapreduce.work_directory.os.mkdir", mkdir)
    assert type(place.failure(Job(ones(), totals()), place.lines("a"))) is kind


def test_a_full_disk_is_not_the_users_mistake(place: Place) -> None:
    def setup() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    job = once(lambda line: [(number, "x") for number in range(10_000)], setup=setup)
    error = place.failure(job, place.lines("a"))
    assert isinstance(error, EnvironmentFailed)
    assert str(error).endswith(
        ": File too large: free some space or choose another place with --temp-dir or -o"
    )


def test_too_few_open_files_are_told_with_a_remedy(place: Place) -> None:
    script = """
        import resource
        from mapreduce import Job

        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
        Job(lambda line: [(line, 1)]).run("in.txt", workers=32, split_bytes=2, temp_dir="temp")
    """
    place.lines(*"abcdefghijklmnopqrstuvwxyz")
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=place.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr.splitlines()[-1] == (
        "mapreduce.errors.EnvironmentFailed: Too many open files: "
        "allow more open files (ulimit -n), or use fewer workers (-j)"
    )


SCRIPT = """
    import os, signal, subprocess, time
    from mapreduce import Job

    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored by what runs in the background

    def mapper(line):
        subprocess.Popen(["sleep", "600"])
        with open("told", "w") as pipe:
            pipe.write(line)
        {stuck}
        yield line, 1

    try:
        Job(mapper).run("in.txt", workers=2, temp_dir="temp", output={output!r})
    except KeyboardInterrupt:
        print("interrupted")
"""


def start(
    place: Place, *, stuck: str = "time.sleep(600)", output: str | None = None
) -> subprocess.Popen[str]:
    """Start a script whose job never ends, and wait until its mapper runs."""
    place.lines("a")
    os.mkfifo(place.root / "told")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT).format(stuck=stuck, output=output)],
        cwd=place.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (place.root / "told").read_text() == "a"
    return process


def test_an_interrupted_job_leaves_nothing(place: Place) -> None:
    process = start(place, output="out")
    interrupted = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S)[0] == "interrupted\n"
    assert time.monotonic() - interrupted < GONE_S
    assert place.processes() == []
    assert not (place.root / "out").exists()


@pytest.mark.parametrize(
    "stuck",
    [
        "time.sleep(600)",
        "sum(range(10**15))",  # keeps the interpreter lock
        "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)",
    ],
    ids=["asleep", "keeping the lock", "ignoring signals"],
)
def test_what_a_killed_run_started_ends_and_the_next_run_sweeps_its_files(place: Place, stuck: str) -> None:
    process = start(place, stuck=stuck)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    place.await_ends(GONE_S)
    assert place.processes() == []
    assert list(place.temp.glob("*/run-*")) != []
    place.run(Job(ones(), totals()), place.lines("b"))  # the fixture sees that nothing is left


def test_a_run_leaves_the_files_of_another_that_lives(place: Place) -> None:
    process = start(place)
    (others,) = place.temp.glob("*/run-*")
    place.run(Job(ones(), totals()), place.lines("b"))
    assert list(place.temp.glob("*/run-*")) == [others]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
