"""A job's own modules travel with it, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mapreduce import bundling
from mapreduce.bundling import Bundle, bundle, digest, unbundle
from mapreduce.errors import EnvironmentFailed, JobDefinitionError
from mapreduce.finding import load
from mapreduce.loading import replace_job

ROOT = Path(__file__).parents[2]
MAPPER = "def mapper(line):\n    yield line, 1\n"

SCRIPT = f"""
import sys
sys.path.append({str(ROOT)!r})
import ring_helper
from mapreduce import Job
from mapreduce.bundling import bundle
from mapreduce.loading import pack

def mapper(line):
    import ring_late
    yield ring_helper.up(line), 1

print(*bundle(pack(Job(mapper=mapper))).files)
"""


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    replace_job()


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def bundled(directory: Path) -> Bundle:
    return bundle(load(str(directory / "job.py"), {})[1])


def test_a_job_file_alone_is_a_bundle_of_one(tmp_path: Path) -> None:
    write(tmp_path, job=MAPPER, unrelated="x = 1")
    packed = bundled(tmp_path)
    assert packed.file == "job.py"
    assert packed.files == {"job.py": MAPPER.encode()}


def test_imported_siblings_travel_and_theirs_too(tmp_path: Path) -> None:
    write(tmp_path, job="import ring_one\n" + MAPPER, ring_one="import ring_two", ring_two="", ring_three="")
    assert list(bundled(tmp_path).files) == ["job.py", "ring_one.py", "ring_two.py"]


def test_what_is_only_imported_inside_a_function_travels(tmp_path: Path) -> None:
    write(tmp_path, job="def mapper(line):\n    from ring_late import x\n    yield x, 1\n", ring_late="x = 1")
    assert "ring_late.py" in bundled(tmp_path).files


def test_what_was_imported_by_a_computed_name_travels(tmp_path: Path) -> None:
    write(
        tmp_path, job="import importlib\nimportlib.import_module('ring_' + 'plug')\n" + MAPPER, ring_plug=""
    )
    assert "ring_plug.py" in bundled(tmp_path).files


def test_a_package_travels_with_all_its_modules_but_not_its_caches(tmp_path: Path) -> None:
    write(
        tmp_path,
        job="import ring_pack.a\n" + MAPPER,
        ring_pack__a="",
        ring_pack__sub__b="import ring_beside",
        ring_beside="",
    )
    (tmp_path / "ring_pack" / "__init__.py").write_text("")
    (tmp_path / "ring_pack" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "ring_pack" / "__pycache__" / "stale.py").write_text("")
    (tmp_path / "ring_pack" / "data.bin").write_bytes(b"x")
    assert list(bundled(tmp_path).files) == [
        "job.py",
        "ring_beside.py",
        "ring_pack/__init__.py",
        "ring_pack/a.py",
        "ring_pack/sub/b.py",
    ]


def test_an_example_needs_no_files() -> None:
    packed = bundle(load("wordcount", {})[1])
    assert packed.files == {}
    assert packed.file is None


def test_a_job_by_module_brings_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ring_jobs__count="import ring_beside\n" + MAPPER, ring_beside="", ring_other="")
    monkeypatch.chdir(tmp_path)
    packed = bundle(load("ring_jobs.count", {})[1])
    assert packed.file is None
    assert list(packed.files) == ["ring_beside.py", "ring_jobs/count.py"]


def test_a_job_by_value_brings_the_modules_that_its_functions_name(tmp_path: Path) -> None:
    write(
        tmp_path, script=SCRIPT, ring_helper="def up(text): return text.upper()", ring_late="", ring_other=""
    )
    output = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=True
    ).stdout
    # The script itself comes along because its functions name the file they were written in.
    assert output.split() == ["ring_helper.py", "ring_late.py", "script.py"]


def test_the_digest_changes_with_the_job_and_not_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, job="import ring_helper\n" + MAPPER, ring_helper="x = 1")
    first = bundled(tmp_path)
    write(tmp_path, neighbour="x = 1")
    assert bundled(tmp_path).digest == first.digest
    write(tmp_path, ring_helper="x = 2")
    assert bundled(tmp_path).digest != first.digest


def test_the_digest_knows_where_one_part_ends() -> None:
    assert digest(b"ab", {}, None) != digest(b"a", {"b": b""}, None)
    assert digest(b"", {"a": b"b"}, None) != digest(b"", {"ab": b""}, None)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "MAX_FILES", 2)
    write(tmp_path, job="import ring_p.a\n" + MAPPER, ring_p__a="", ring_p__b="")
    with pytest.raises(JobDefinitionError, match="more than 2 files"):
        bundled(tmp_path)


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "MAX_BYTES", 100)
    write(tmp_path, job=MAPPER + "#" * 100)
    with pytest.raises(JobDefinitionError, match="install them on every peer"):
        bundled(tmp_path)


def test_a_bundle_runs_where_the_users_directory_is_not(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    write(
        home,
        job="import ring_words\ndef mapper(line):\n    yield ring_words.up(line), 1\n",
        ring_words="up = str.upper",
    )
    packed = bundled(home)
    for path in home.rglob("*.py"):
        path.unlink()
    code = unbundle(packed, str(away))
    script = (
        "import sys; from mapreduce.loading import Code, unpack\n"
        f"job = unpack({code!r})\n"
        "print(list(job.steps['job'].mapper('a')), [p for p in sys.path if 'home' in p])"
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (child.stdout.strip(), child.stderr) == ("[('A', 1)] []", "")


def test_a_damaged_bundle_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path, job=MAPPER)
    packed = bundled(tmp_path)
    with pytest.raises(JobDefinitionError, match="damaged"):
        unbundle(replace(packed, job=packed.job + b"x"), str(tmp_path / "away"))
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize("path", ["../x.py", "/etc/x.py", "a//x.py", "a/../../x.py", "", "./x.py", "a\0.py"])
def test_a_path_that_leads_outside_is_refused(tmp_path: Path, path: str) -> None:
    files = {path: b"x = 1"}
    evil = Bundle(job=b"", files=files, file=None, digest=digest(b"", files, None))
    with pytest.raises(JobDefinitionError, match="not allowed"):
        unbundle(evil, str(tmp_path / "away"))
    assert list(tmp_path.iterdir()) == []


def test_a_job_file_outside_is_refused(tmp_path: Path) -> None:
    evil = Bundle(job=b"", files={}, file="/etc/passwd", digest=digest(b"", {}, "/etc/passwd"))
    with pytest.raises(JobDefinitionError, match="not allowed"):
        unbundle(evil, str(tmp_path / "away"))


def test_a_place_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    write(tmp_path, job=MAPPER)
    (tmp_path / "away").write_text("a file")
    with pytest.raises(EnvironmentFailed, match="cannot write the job's files"):
        unbundle(bundled(tmp_path), str(tmp_path / "away"))
