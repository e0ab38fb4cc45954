"""A job's files on a peer: what is said of them is said with the user's paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mapreduce.bundling import bundle
from mapreduce.loading import Code
from mapreduce.spec import JobCode, JobPlan, JobSpec, StepPlan
from p2p.job_files import JobFiles, OpenedJob

JOB = "ab" * 16


def opened(directory: Path, file: Path) -> OpenedJob:
    """Bundle a job file where it lies, and open it below another directory, as a peer does."""
    packed = bundle(Code(job=b"", file=str(file), sys_path=(str(file.parent),)))
    plan = JobPlan(name="one", steps=(StepPlan(name="one"),), split_bytes=100, python="3.11")
    code = JobCode(job=b"", files=packed.files, file=packed.file, digest=packed.digest, root=packed.root)
    return JobFiles(str(directory)).open(JOB, JobSpec(plan=plan, code=code))


def test_a_traceback_names_the_file_as_it_is_with_the_user(tmp_path: Path) -> None:
    file = tmp_path / "users" / "bad.py"
    file.parent.mkdir()
    file.write_text("def mapper(line):\n    yield 1 // 0\n")
    job = opened(tmp_path / "peer", file)
    private = tmp_path / "peer" / JOB / "code" / "bad.py"
    assert private.exists()
    assert job.as_users(f'  File "{private}", line 2, in mapper') == f'  File "{file}", line 2, in mapper'
    assert job.as_users("no such path") == "no such path"


def test_a_path_below_the_peers_own_directory_is_the_users_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "users" / "bad.py"
    file.parent.mkdir()
    file.write_text("import nowhere\n")
    job = opened(tmp_path / "peer", file)
    near = os.path.join("peer", JOB, "code", "bad.py")
    assert job.as_users(f"{near}, line 1: no module") == f"{file}, line 1: no module"
