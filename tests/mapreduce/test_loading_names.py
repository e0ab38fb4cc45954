"""Files beside a job that have the names of other modules: ours and the standard library's come first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
def mapper(line):
    for word in line.split():
        yield word, 1

reducer = lambda word, ones: [(word, sum(ones))]  # carried by value, for which string is imported late
"""


def ringreduce(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "p2p.cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["string", "msgpack", "zmq", "json"])
def test_a_file_beside_the_job_hides_no_module_that_we_import_late(tmp_path: Path, name: str) -> None:
    (tmp_path / "count.py").write_text(JOB)
    (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the module that was meant')")
    (tmp_path / "in.txt").write_text("a b\nb\n")
    done = ringreduce(tmp_path, "run", "count.py", "in.txt", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\t1\nb\t2\n", "")


def test_a_helper_with_the_name_of_a_standard_module_is_told_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(f"from calendar import words\n{JOB}")
    (tmp_path / "calendar.py").write_text("words = str.split")
    (tmp_path / "in.txt").write_text("a b\n")
    done = ringreduce(tmp_path, "run", "count.py", "in.txt", "-q")
    assert done.returncode == 2
    assert "count.py, line 1" in done.stderr
    assert "calendar.py beside the job" in done.stderr
    assert done.stderr.count("\n") == 1


def test_paths_of_the_command_line_count_from_where_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(f"import os\nos.chdir('/')\n{JOB}")
    (tmp_path / "in.txt").write_text("a\n")
    done = ringreduce(tmp_path, "run", "count.py", "in.txt", "-q", "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "_SUCCESS").exists()
