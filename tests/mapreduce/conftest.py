"""A place to run jobs in, which looks afterwards whether anything was left behind; pieces of jobs."""

from __future__ import annotations

import inspect
import os
import select
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mapreduce import Job
from mapreduce.errors import JobError

KIB = 1 << 10
MARK = "RINGREDUCE_TEST_PLACE"
# How long a killed process may take to disappear.
GONE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished job gave."""

    pairs: list[tuple[Any, Any]]
    counters: dict[str, int]
    report: dict[str, Any]
    messages: list[str]


@dataclass(slots=True)
class Place:
    """A directory for inputs and outputs, beside one for temporary files.

    Every process that a job starts here carries the place's mark in its environment.
    """

    root: Path
    mark: str
    messages: list[str] = field(default_factory=list)

    @property
    def temp(self) -> Path:
        return self.root / "temp"

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def lines(self, *lines: str) -> str:
        """Write lines to a file of their own and return its path."""
        return self.write("in.txt", "".join(f"{line}\n" for line in lines))

    def run(self, job: Job, *inputs: str, **options: Any) -> Outcome:
        """Run a job to its end."""
        self.messages.clear()
        with job.run(inputs, **self._options(options)) as result:
            return Outcome(
                pairs=list(result),
                counters=result.counters,
                report=result.report(),
                messages=list(self.messages),
            )

    def parts(self, job: Job, *inputs: str, **options: Any) -> dict[str, bytes]:
        """Run a job into an output directory of its own; return the files it has made."""
        output = self.root / f"out-{uuid.uuid4().hex}"
        job.run(inputs, **self._options(options), output=str(output)).close()
        return {path.name: path.read_bytes() for path in sorted(output.iterdir())}

    def failure(self, job: Job, *inputs: str, **options: Any) -> JobError:
        """Run a job that must fail and return why."""
        with pytest.raises(JobError) as failed:
            job.run(inputs, **self._options(options))
        return failed.value

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"workers": 1, "temp_dir": str(self.temp), "on_message": self.messages.append, **options}

    def processes(self) -> list[str]:
        """Return the command lines of the processes that jobs have started here and that still live."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{entry.name} {command}")
            except OSError:  # it ended, or is another user's
                continue
        return found

    def await_ends(self, limit_s: float) -> None:
        """Wait until the processes that are here now have ended, `limit_s` seconds for all of them."""
        deadline = time.monotonic() + limit_s
        for command in self.processes():
            try:
                end = os.pidfd_open(int(command.split()[0]))
            except ProcessLookupError:
                continue
            select.select([end], [], [], max(0.0, deadline - time.monotonic()))
            os.close(end)

    def assert_nothing_is_left(self) -> None:
        """Look for processes, after a moment, and for files of the engine."""
        self.await_ends(GONE_S)
        assert self.processes() == [], "processes were left behind"
        files = [path for path in self.temp.rglob("*") if path.name != f"ringreduce-{os.getuid()}"]
        assert files == [], "temporary files were left behind"
        assert list(self.root.glob("**/_temporary")) == [], "an unfinished output was left behind"


@pytest.fixture
def place(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """Where a test runs jobs; fails if they leave a process or a file behind."""
    (tmp_path / "temp").mkdir()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Hundreds of children should not compile the same modules each for itself.
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.getbasetemp() / "pycache"))
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    place = Place(tmp_path, mark)
    yield place
    place.assert_nothing_is_left()


# --- a text, and pieces of jobs ------------------------------------------------------------------------


def text_of(words: int, seed: int = 1) -> str:
    """Return a text of many different words in lines of many lengths."""
    random = Random(seed)
    chosen = [f"w{int(random.expovariate(0.02))}" for _ in range(words)]
    lines = []
    while chosen:
        count = random.randint(0, 12)
        lines.append(" ".join(chosen[:count]))
        del chosen[:count]
    return "".join(f"{line}\n" for line in lines)


TEXT = text_of(1500)
COUNTS = Counter(TEXT.split())


def line_of(function: Callable[..., Any]) -> int:
    """Return the number of the line of a function that bears the mark "# here"."""
    source, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(source) if line.rstrip().endswith("# here"))


def words() -> Any:
    """Return a mapper that yields the words of a line."""
    return lambda line: [(word, 1) for word in line.split()]


def ones() -> Any:
    """Return a mapper of lines."""
    return lambda line: [(line, 1)]


def totals() -> Any:
    """Return a reducer that sums."""
    return lambda key, values: [(key, sum(values))]


def once(mapper: Callable[..., Any], reducer: Any = None, **more: Any) -> Job:
    """Make a job whose tasks are tried once, and that sums by default."""
    return Job(mapper, reducer or totals(), max_attempts=1, **more)
