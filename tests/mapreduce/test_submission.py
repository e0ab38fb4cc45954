"""What a submission says of a job besides its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mapreduce.bundling import bundle
from mapreduce.inputs import expand
from mapreduce.job import Job
from mapreduce.loading import name_of, pack
from mapreduce.submission import spec_of


def words(line: str) -> Any:
    yield line, 1


@pytest.mark.parametrize(
    ("own", "told", "shown"),
    [("", "", "job"), ("", "count", "count"), ("mine", "count", "mine"), ("mine", "", "mine")],
)
def test_a_job_is_shown_by_its_own_name_or_else_by_its_files(
    tmp_path: Path, own: str, told: str, shown: str
) -> None:
    (tmp_path / "in").write_text("a\n")
    job = Job(mapper=words, name=own or None)
    spec = spec_of(job, bundle(pack(job)), expand([str(tmp_path / "in")]), name=told)
    assert spec.plan.name == shown


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("count.py", "count"),
        ("/somewhere/else/count.py", "count"),
        ("jobs/count.py:fast", "count"),
        ("top_words", "top_words"),
        ("package.module:job", "package.module"),
        ("C:odd name!.py", "C_odd_name_"),
        ("_.py", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_job_without_a_name_of_its_own_is_called_as_its_file_or_module(place: str, name: str) -> None:
    assert name_of(place) == name
