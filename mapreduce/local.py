"""The embedded engine: a job on this machine's cores, without any peer.

`run` checks what is asked, packs the job, and gives it to `mapreduce.embedded` with a private directory
for everything between input and output (`mapreduce.work_directory`).  What goes wrong with the machine
becomes an error that says so; whatever goes wrong, nothing of the output is left.

⚙ Files, processes.
"""

from __future__ import annotations

import os
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mapreduce.embedded import Engine
from mapreduce.errors import EnvironmentFailed, InputError, UsageError, told
from mapreduce.inputs import expand
from mapreduce.job import Job
from mapreduce.loading import Code, pack
from mapreduce.outputs import FORMATS, OutputDirectory
from mapreduce.plan import DEFAULT_SPLIT_BYTES
from mapreduce.progress import Progress
from mapreduce.records import Pair
from mapreduce.runs import read_blocks
from mapreduce.work_directory import WorkDirectory

MIN_MEMORY_BYTES = 256 << 20
# Of what the machine has left, tasks together may take this share.
MEMORY_SHARE = 0.8
MAX_WORKERS = 1024

_T = TypeVar("_T")


class Result:
    """A finished job's output: iterate it for (key, value) pairs, in part and key order.

    The pairs of a job that ran without `output=` lie in a temporary directory, which goes when the result
    is closed or no longer used.

    Attributes:
        counters: {name: value}, summed over all tasks; `bad_records` is among them when any was left out.
        output: the output directory, None when there is none.
    """

    def __init__(
        self, report: dict[str, Any], parts: Sequence[str], work: WorkDirectory, output: str | None
    ) -> None:
        self._report = report
        self._parts = list(parts)
        self.counters: dict[str, int] = dict(report["counters"])
        self.output = output
        self._clean_up = weakref.finalize(self, work.remove)
        if output is not None:
            self._clean_up()

    def __iter__(self) -> Iterator[Pair]:
        if self.output is not None:
            raise UsageError(f"the output was written to {self.output}; run without output= to iterate it")
        for path in self._parts:
            if not self._clean_up.alive:
                raise UsageError("the result was closed and its pairs are gone; iterate it before that")
            with open(path, "rb") as file:
                for keys, _, values in read_blocks(file, 0, os.path.getsize(path)):
                    yield from zip(keys, values, strict=True)

    def report(self) -> dict[str, Any]:
        """Return what the job did and cost, as `--report` writes it."""
        return dict(self._report)

    def close(self) -> None:
        """Remove the temporary files."""
        self._clean_up()

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    job: Job,
    inputs: Sequence[str],
    *,
    workers: int | None = None,
    partitions: int | None = None,
    split_bytes: int = DEFAULT_SPLIT_BYTES,
    params: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    out_format: str = "text",
    memory_bytes: int | None = None,
    temp_dir: str | os.PathLike[str] | None = None,
    code: Code | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Result:
    """Run a job in child processes on this machine.

    Args:
        job: what to run.
        inputs: files, directories, globs, fsspec URLs, or "-" for standard input.
        workers: number of processes; default: the cores this process may use.
        partitions: number of reduce tasks of every step that does not say; default: follows from the input.
        split_bytes: about how much input a map task reads.
        params: values for `task.params`, laid over the job's defaults.
        output: a directory for the parts; None keeps them for iterating the result.
        out_format: "text", "jsonl" or "msgpack".
        memory_bytes: what one task may use; default: a fair share of what the machine has left.
        temp_dir: where intermediate files go; default: the system's temporary directory.
        code: the job as it travels to children; default: packed here.
        on_progress: called about ten times a second.
        on_message: called with each text that user code prints, and with warnings.

    Returns:
        The finished job's result.

    Raises:
        JobError: anything that went wrong; nothing of the output is left then.
        TypeError: an option is not of the type that it is to have.
    """
    _check_types(
        {
            "workers": workers,
            "partitions": partitions,
            "split_bytes": split_bytes,
            "memory_bytes": memory_bytes,
        },
        {"output": output, "temp_dir": temp_dir},
        {"on_progress": on_progress, "on_message": on_message},
        params,
    )
    if workers is None:
        workers = usable_cores()
    _check_options(workers, partitions, split_bytes, out_format)
    if memory_bytes is None:
        memory_bytes = max(MIN_MEMORY_BYTES, int(available_memory_bytes() * MEMORY_SHARE) // workers)
    elif memory_bytes < MIN_MEMORY_BYTES:
        raise UsageError(
            f"{memory_bytes:,} bytes of memory are too few for a task: give it {MIN_MEMORY_BYTES >> 20} MiB"
        )
    job.check_inputs()
    if not inputs:
        raise InputError("a job needs at least one input; - reads standard input")
    side_files = _side_files(job)
    target = None
    if output is not None:
        target = OutputDirectory(output)
        target.check()
    if code is None:
        code = pack(job)
    work = WorkDirectory(temp_dir)
    try:
        engine = Engine(
            job=job,
            work=work.path,
            workers=workers,
            partitions=partitions,
            split_bytes=split_bytes,
            params={**job.params, **(params or {})},
            side_files=side_files,
            target=target,
            out_format=out_format if output is not None else None,
            memory_bytes=memory_bytes,
            code=code,
            on_progress=_apart(on_progress or (lambda _: None)),
            on_message=_apart(on_message or (lambda text: print(text, file=sys.stderr))),
        )
        sources = expand(inputs, stdin_path=_spool_stdin(work.path) if "-" in inputs else None)
        report, parts = engine.run(sources)
        return Result(report, parts, work, None if output is None else os.fspath(output))
    except _CallerFailed as failed:
        work.remove()
        raise failed.error from None
    except OSError as error:
        work.remove()
        raise EnvironmentFailed(told(error)) from error
    except BaseException:
        work.remove()
        raise


class _CallerFailed(Exception):
    """A function that the caller gave us could not do its work."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _apart(function: Callable[[_T], None]) -> Callable[[_T], None]:
    """Keep errors of the caller's function apart from those of our own files."""

    def told(about: _T) -> None:
        try:
            function(about)
        except OSError as error:
            raise _CallerFailed(error) from error

    return told


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Return how much memory can be had without swapping, 2 GiB where the system does not tell."""
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 2 << 30


def _check_types(
    numbers: Mapping[str, Any], paths: Mapping[str, Any], functions: Mapping[str, Any], params: Any
) -> None:
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(f"{name}={value!r}: expected a whole number")
    for name, value in paths.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise TypeError(f"{name}={value!r}: expected a path")
    for name, value in functions.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name}={value!r}: expected a function")
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f"params={params!r}: expected a dict")


def _check_options(workers: int, partitions: int | None, split_bytes: int, out_format: str) -> None:
    if not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"{workers} workers: choose 1 to {MAX_WORKERS}")
    if partitions is not None and not 1 <= partitions <= 100_000:
        raise UsageError(f"{partitions} partitions: choose 1 to 100,000")
    if split_bytes < 1:
        raise UsageError(f"a split of {split_bytes} bytes is too small: choose at least 1 byte")
    if out_format not in FORMATS:
        raise UsageError(f"no output format {out_format!r}; there are: {', '.join(FORMATS)}")


def _side_files(job: Job) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in job.side_files.items():
        if not os.path.isfile(path):
            raise InputError(f"side file {name}: no such file: {path}")
        found[name] = os.path.abspath(path)
    return found


def _spool_stdin(directory: str) -> str:
    """Copy standard input to a file: children read it by ranges, and perhaps more than once."""
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("-: standard input is closed; pipe something into it, or name a file")
    path = os.path.join(directory, "stdin")
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return path
