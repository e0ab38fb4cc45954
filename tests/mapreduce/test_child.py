"""The process that runs user code: whose fault it says an exception is, and what it survives."""

from __future__ import annotations

import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mapreduce.attempt
from mapreduce.child import _describe
from mapreduce.loading import pack
from mapreduce.loads import Load, packed_code
from mapreduce.orders import TaskDone, TaskError
from tests.mapreduce.conftest import Place, ones
from tests.mapreduce.test_executor import Pool

OURS = mapreduce.attempt.__file__


def raised(source: str, file: str) -> BaseException:
    """Return what a piece of code raises, with its own frames only."""
    try:
        exec(compile(source, file, "exec"), {})
    except BaseException as error:
        trace = error.__traceback__
        assert trace is not None
        return error.with_traceback(trace.tb_next)
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize(
    ("source", "file", "kind"),
    [
        ("assert False", OURS, "JobError"),
        ("assert False", "/home/user/job.py", "UserCode"),
        ("nowhere", OURS, "JobError"),
        ("list(map(int, ['x']))", OURS, "UserCode"),  # an iterator that user code gave us
        ("import shutil; shutil.copyfile('/no/where', '/no/copy')", OURS, "EnvironmentFailed"),
        ("import shutil; shutil.copyfile('/no/where', '/no/copy')", "/home/user/job.py", "UserCode"),
    ],
    ids=[
        "our assertion",
        "the users",
        "our name",
        "an iterator",
        "the library for us",
        "the library for them",
    ],
)
def test_whose_fault_an_exception_is(place: Place, source: str, file: str, kind: str) -> None:
    with Pool(place, ones()) as pool:
        report = _describe(None, pool.setup(), pool.order(0), raised(source, file))
        assert report.kind == kind
        assert report.message.startswith("a bug in ringreduce: ") == (kind == "JobError")
        assert ("job.py" in report.traceback) == (file != OURS)


def test_a_step_whose_place_is_missing_is_told_and_the_child_goes_on(place: Place) -> None:
    with Pool(place, ones()) as pool:
        child = pool.executor.start()
        nowhere = str(place.root / "nowhere")
        setup = pickle.dumps(replace(pool.setup(), work_dir=nowhere))
        pool.executor.submit(child, pool.order(0))
        for number in (1, 2):
            pool.executor.submit(child, pool.order(number), Load(packed_code(pack(pool.job)), setup, nowhere))
        errors = pool.until(TaskError, 2)
        assert [error.kind for error in errors] == ["EnvironmentFailed"] * 2
        assert errors[0].message.startswith(f"No such file or directory ({nowhere}/")
        pool.executor.submit(child, pool.order(3))
        assert [report.task for report in pool.until(TaskDone, 2)] == [0, 3]


def test_a_report_that_cannot_be_packed_is_the_failure_of_its_task(place: Place) -> None:
    def mapper(line: str) -> Any:
        from mapreduce import child

        packed = vars(child)["pack_report"]

        def refuse(report: Any) -> Any:
            if hasattr(report, "ranges"):
                raise TypeError("cannot be packed")
            return packed(report)

        vars(child)["pack_report"] = refuse

    with Pool(place, mapper) as pool:
        child = pool.executor.start()
        for number in range(2):  # the first finds the function as it was
            pool.executor.submit(child, pool.order(number))
        (error,) = pool.until(TaskError)
        assert (error.task, error.message) == (1, "TypeError: cannot be packed")


def test_what_user_code_starts_does_not_inherit_the_connection(place: Place) -> None:
    def mapper(line: str) -> Any:
        listed = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], check=True, close_fds=False, capture_output=True
        )
        Path(line).write_bytes(listed.stdout)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no list of open files")
    listing = place.root / "listing"
    with Pool(place, mapper) as pool:
        pool.executor.submit(pool.executor.start(), pool.order(0, f"{listing}\n"))
        pool.until(TaskDone)
        assert "/dev/null" in listing.read_text()
        assert "socket:" not in listing.read_text()
