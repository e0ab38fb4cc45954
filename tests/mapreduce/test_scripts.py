"""A script that runs its own job: by its file where that gives the same job, by value where it does not."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mapreduce import Job
from mapreduce.errors import JobDefinitionError
from mapreduce.finding import load_own
from mapreduce.loading import Code, replace_job, unpack

HEAD = """
from mapreduce import Job

def mapper(line):
    yield line, FACTOR

FACTOR = 3
"""

GUARD = "if __name__ == '__main__':\n"
MAKE = "def make(n):\n    return Job(mapper=lambda x: [(x, n)])\n"

Script = Callable[..., Job]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Run a text as the process's main module, and give what it called `job`."""

    def run(text: str, *, name: str | None = None) -> Job:
        path = tmp_path / "script.py"
        path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
        main = ModuleType("__main__")
        main.__file__ = str(path)
        if name is not None:
            main.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), vars(main))
        job = vars(main)["job"]
        assert isinstance(job, Job)
        return job

    yield run
    replace_job()


def mapped(code: Code) -> list[object]:
    return list(next(iter(unpack(code).steps.values())).mapper("x"))


def test_a_job_at_module_level_goes_by_file(script: Script, tmp_path: Path) -> None:
    _, code, _ = load_own(script("job = Job(mapper=mapper)"), {})
    assert code.file == str(tmp_path / "script.py")
    assert mapped(code) == [("x", 3)]


def test_its_params_get_their_types(script: Script) -> None:
    job = script("job = Job(mapper=mapper, params={'rounds': 10})")
    assert load_own(job, {"rounds": "4"})[2] == {"rounds": 4}
    with pytest.raises(JobDefinitionError, match="did you mean 'rounds'"):
        load_own(job, {"round": "4"})


@pytest.mark.parametrize(
    "text",
    [
        GUARD + "    job = Job(mapper=mapper)",
        "job = Job(mapper=mapper)\n" + GUARD + "    job = Job(steps={'other': job.steps['main']})",
        "job = Job(mapper=mapper)\n" + GUARD + "    job = Job(mapper=lambda x: [(x, FACTOR)])",
        MAKE + "job = make(3)\n" + GUARD + "    job = make(5)",
    ],
    ids=["guarded", "other-step", "other-function", "other-closure"],
)
def test_a_job_that_its_file_does_not_give_goes_by_value(script: Script, text: str) -> None:
    job = script(text)
    loaded, code, _ = load_own(job, {})
    assert loaded is job
    assert code.file is None
    replace_job()
    assert mapped(code) == list(next(iter(job.steps.values())).mapper("x"))


def test_a_job_in_a_notebook_goes_by_value(script: Script) -> None:
    job = script("job = Job(mapper=mapper)")
    del sys.modules["__main__"].__file__
    assert load_own(job, {})[1].file is None


def test_a_module_run_with_m_goes_by_its_module_name(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ring_scripts").mkdir()
    monkeypatch.chdir(tmp_path)
    job = script("job = Job(mapper=mapper)", name="ring_scripts.count")
    (tmp_path / "ring_scripts" / "count.py").write_text((tmp_path / "script.py").read_text())
    loaded, code, _ = load_own(job, {})
    assert code.file is None
    assert next(iter(loaded.steps.values())).mapper.__module__ == "ring_scripts.count"
    assert mapped(code) == [("x", 3)]
