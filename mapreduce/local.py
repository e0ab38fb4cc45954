"""The embedded engine: a job on this machine's cores, without any peer.

⚙ Files, processes, the clock.

For each step, in order: splits -> (sample) -> map tasks -> runs -> reduce tasks -> parts.  The parts of a
step are the splits of the steps that read it.  Everything between input and output lies in one private
directory, locked for as long as its owner lives, so that a later run can remove what a killed one left.

Only the engine's renames make anything visible: an attempt writes under a name of its own, a task's first
finished attempt wins, and `_SUCCESS` is written when every part is in its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mapreduce.errors import (
    EnvironmentFailed,
    InputError,
    JobError,
    TaskFailed,
    TooManyBadRecords,
    UsageError,
    from_record,
)
from mapreduce.executor import Child, ChildDied, Executor, Printed
from mapreduce.inputs import Source, expand, plan_splits
from mapreduce.job import Job, Step, TotalOrder
from mapreduce.loading import Code, pack
from mapreduce.orders import (
    CheckOrder,
    MapOrder,
    Order,
    ReduceOrder,
    SampleOrder,
    StepSetup,
    TaskDone,
    TaskError,
    TaskProgress,
    task_kind,
    task_name,
)
from mapreduce.outputs import FORMATS, OutputDirectory
from mapreduce.plan import (
    DEFAULT_SPLIT_BYTES,
    SAMPLE_SPLIT_BYTES,
    SAMPLE_SPLITS,
    Split,
    default_partitions,
    execution_order,
)
from mapreduce.progress import Progress
from mapreduce.records import Pair, unpack_column
from mapreduce.runs import read_blocks
from mapreduce.shuffle import RunRange, borders_of
from mapreduce.tasks import TaskTable

MIN_MEMORY_BYTES = 256 << 20
# Of what the machine has left, tasks together may take this share.
MEMORY_SHARE = 0.8
POLL_S = 0.2
PROGRESS_INTERVAL_S = 0.1
MAX_WORKERS = 1024
MAX_DIRECTORIES_TRIED = 10
OWNER = "owner"
# A directory without an owner is being made, or was by somebody who was killed; making one takes no time.
UNOWNED_S = 3600.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Totals:
    """What a job did, summed over its committed attempts."""

    counters: Counter[str] = field(default_factory=Counter)
    input_bytes: int = 0
    shuffle_bytes: int = 0
    output_bytes: int = 0
    output_records: int = 0
    spilled_bytes: int = 0
    map_tasks: int = 0
    reduce_tasks: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    bad_records: int = 0


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


class WorkDirectory:
    """A private directory for one job's intermediate files, removed with everything in it."""

    def __init__(self, parent: str | None) -> None:
        base = parent or tempfile.gettempdir()
        try:
            # Absolute, because user code may change the working directory of its process.
            root = os.path.abspath(os.path.join(base, f"ringreduce-{os.getuid()}"))
            os.makedirs(root, mode=0o700, exist_ok=True)
            if os.stat(root).st_uid != os.getuid():
                raise PermissionError(13, "it belongs to somebody else", root)
            _sweep(root)
            self.path, self._lock = _locked_directory(root)
        except OSError as error:
            raise EnvironmentFailed(
                f"cannot make a temporary directory in {base}: {error.strerror or error}; "
                "choose another with --temp-dir"
            ) from error

    def remove(self) -> None:
        """Remove the directory; harmless when it is gone."""
        if self._lock >= 0:
            _remove_directory(self.path)
            lock, self._lock = self._lock, -1
            os.close(lock)


def _locked_directory(root: str) -> tuple[str, int]:
    """Make a directory whose file "owner" is locked, which tells others that its owner lives."""
    import fcntl

    for _ in range(MAX_DIRECTORIES_TRIED):
        path = tempfile.mkdtemp(prefix="run-", dir=root)
        owner = os.path.join(path, OWNER)
        lock = os.open(owner, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(owner):
            return path, lock
        os.close(lock)  # before the lock was ours another run took it for a dead one's, and removed it
    raise OSError(errno.EBUSY, "other runs remove what is made there", root)


def _sweep(root: str) -> None:
    """Remove what runs left that were killed: their locks are free."""
    import fcntl

    for name in os.listdir(root):
        path = os.path.join(root, name)
        try:
            owner = os.open(os.path.join(path, OWNER), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime > UNOWNED_S:
                    _remove_directory(path)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_directory(path)
        except OSError:
            pass  # its owner lives
        finally:
            os.close(owner)


def _remove_directory(path: str) -> None:
    """Remove a run's directory; its owner file goes last, for who is killed meanwhile is then found dead."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != OWNER:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    shutil.rmtree(path, ignore_errors=True)


def run(
    job: Job,
    inputs: Sequence[str],
    *,
    workers: int | None = None,
    partitions: int | None = None,
    split_bytes: int = DEFAULT_SPLIT_BYTES,
    params: Mapping[str, Any] | None = None,
    output: str | None = None,
    out_format: str = "text",
    memory_bytes: int | None = None,
    temp_dir: str | None = None,
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
    """
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
        engine = _Engine(
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
        return Result(report, parts, work, output)
    except _CallerFailed as failed:
        work.remove()
        raise failed.error from None
    except OSError as error:
        work.remove()
        where = f" ({error.filename})" if error.filename else ""
        raise EnvironmentFailed(f"{error.strerror or error}{where}") from error
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


class _Engine:
    """One job's run; see the module's theory."""

    def __init__(
        self,
        *,
        job: Job,
        work: str,
        workers: int,
        partitions: int | None,
        split_bytes: int,
        params: Mapping[str, Any],
        side_files: Mapping[str, str],
        target: OutputDirectory | None,
        out_format: str | None,
        memory_bytes: int,
        code: Code,
        on_progress: Callable[[Progress], None],
        on_message: Callable[[str], None],
    ) -> None:
        self._job = job
        self._work = work
        self._partitions = partitions
        self._split_bytes = split_bytes
        self._params = params
        self._side_files = side_files
        self._target = target
        self._out_format = out_format
        self._memory_bytes = memory_bytes
        self._on_progress = on_progress
        self._on_message = on_message
        self._executor = Executor(
            code, workers=workers, memory_limit_bytes=memory_bytes, task_timeout_s=job.task_timeout_s
        )
        self._totals = Totals()
        self._sources: list[Source] = []
        # Of each finished step that another reads: its parts as splits.
        self._splits_of: dict[str, list[Split]] = {}

    def run(self, sources: list[Source]) -> tuple[dict[str, Any], list[str]]:
        """Run all steps; gives the report and the paths of the parts."""
        started = time.monotonic()
        self._sources = sources
        parts: list[str] = []
        try:
            if self._target is not None:
                self._target.prepare()
            try:
                for name in execution_order(self._job.steps):
                    parts = self._run_step(name, self._job.steps[name])
            finally:
                self._executor.close()
            if self._target is not None:
                self._target.finish()
        except BaseException:
            if self._target is not None:
                self._target.abort()
            raise
        return self._report(time.monotonic() - started), parts

    # -- steps and stages ------------------------------------------------------------------------------

    def _run_step(self, name: str, step: Step) -> list[str]:
        splits = self._splits(step)
        if not step.after:
            self._totals.input_bytes += sum(split.size_bytes for split in splits)
        last = name == self._job.last_step
        setup = StepSetup(
            step=name,
            partitions=self._partitions_of(step, splits),
            borders=None,
            params=self._params,
            side_files=self._side_files,
            work_dir=self._work,
            out_format=self._out_format if last else None,
            split_bytes=self._split_bytes,
            memory_bytes=self._memory_bytes,
        )
        if isinstance(step.partitioner, TotalOrder):
            setup = self._with_borders(setup, step, step.partitioner, splits)
        self._executor.begin_step(setup)
        orders: list[Order] = [
            MapOrder(task=i, attempt=0, split=split, out_path="") for i, split in enumerate(splits)
        ]
        mapped = self._run_stage(setup, orders)
        self._totals.map_tasks += len(orders)
        self._drop_splits_read_by(name)
        if step.map_only:
            return self._finish_step(setup, mapped)
        runs: list[list[RunRange]] = [[] for _ in range(setup.partitions)]
        for done in mapped:
            for partition, run in done.ranges:
                runs[partition].append(run)
                self._totals.shuffle_bytes += run.length
        orders = [ReduceOrder(task=i, attempt=0, runs=tuple(of), out_path="") for i, of in enumerate(runs)]
        reduced = self._run_stage(setup, orders)
        self._totals.reduce_tasks += len(orders)
        for path in {done.path for done in mapped}:
            _remove(path)
        return self._finish_step(setup, reduced)

    def _splits(self, step: Step) -> list[Split]:
        if step.after:
            return [split for before in step.after for split in self._splits_of[before]]
        from mapreduce.readers import Text

        return plan_splits(self._sources, step.reader or Text(), self._split_bytes)

    def _partitions_of(self, step: Step, splits: list[Split]) -> int:
        if step.map_only:
            return 1
        asked = step.partitions or self._partitions
        return asked or default_partitions(sum(split.size_bytes for split in splits))

    def _with_borders(
        self, setup: StepSetup, step: Step, order: TotalOrder, splits: list[Split]
    ) -> StepSetup:
        """Look at some keys from evenly spread places of the input, whatever the splits are."""
        if setup.partitions == 1:
            return setup
        if not step.after:
            from mapreduce.readers import Text

            splits = plan_splits(self._sources, step.reader or Text(), SAMPLE_SPLIT_BYTES)
        count = min(len(splits), SAMPLE_SPLITS)
        chosen = [splits[i * len(splits) // count] for i in range(count)]
        self._executor.begin_step(setup)
        orders: list[Order] = [
            SampleOrder(task=i, attempt=0, split=split, keys=-(-order.sample // count))
            for i, split in enumerate(chosen)
        ]
        keys: list[Any] = []
        for done in self._run_stage(setup, orders):
            keys += unpack_column(*done.sample)
        return replace(setup, borders=tuple(borders_of(keys, setup.partitions)))

    def _out_path(self, setup: StepSetup, part: int, attempt: int) -> str:
        """Where an attempt writes its part."""
        if setup.step == self._job.last_step and self._target is not None:
            return os.path.abspath(self._target.attempt_path(part, attempt))
        return os.path.join(self._work, f"{setup.step}.part-{part:05d}.{attempt}")

    def _finish_step(self, setup: StepSetup, done: list[TaskDone]) -> list[str]:
        if setup.step == self._job.last_step:
            for report in done:
                self._totals.output_bytes += report.bytes_out
                self._totals.output_records += report.records_out
            if self._target is not None:
                for part, report in enumerate(done):
                    self._target.commit(part, report.attempt)
            return [report.path for report in done]
        self._splits_of[setup.step] = [
            Split(
                path=report.path,
                name=f"{setup.step}/part-{part:05d}",
                start=start,
                end=end,
                size_bytes=end - start,
            )
            for part, report in enumerate(done)
            for start, end in zip(report.cuts, report.cuts[1:], strict=False)
        ]
        return []

    def _drop_splits_read_by(self, name: str) -> None:
        """Remove the parts of steps that nothing reads any more."""
        order = execution_order(self._job.steps)
        later = {b for n in order[order.index(name) + 1 :] for b in self._job.steps[n].after}
        for before in self._job.steps[name].after:
            if before not in later:
                for path in {split.path for split in self._splits_of.pop(before, [])}:
                    _remove(path)

    # -- one stage -------------------------------------------------------------------------------------

    def _run_stage(self, setup: StepSetup, orders: list[Order]) -> list[TaskDone]:
        """Run orders until all are done; gives their reports in task order."""
        if not orders:
            return []
        stage = _Stage(setup, orders, self._job.max_attempts)
        told_at = time.monotonic()
        while not stage.table.all_done:
            self._hand_out(stage)
            for child, event in self._executor.wait(POLL_S):
                self._take(stage, child, event)
            now = time.monotonic()
            if now - told_at >= PROGRESS_INTERVAL_S:
                told_at = now
                self._tell_progress(stage)
        self._tell_progress(stage)
        self._totals.attempts += stage.table.attempts
        reports = [done for done in stage.reports if done is not None]
        for done in reports:
            self._totals.counters.update(done.counters)
            self._totals.spilled_bytes += done.spilled_bytes
            self._totals.bad_records += done.bad_records
        limit = self._job.steps[setup.step].skip_limit
        if stage.kind == "map" and sum(done.bad_records for done in reports) > limit > 0:
            raise TooManyBadRecords(f"step {setup.step!r}: more than {limit} bad records")
        return reports

    def _tell_progress(self, stage: _Stage) -> None:
        running = sum(1 for child in self._executor.children if child.orders)
        self._on_progress(stage.progress(running, self._totals.failed_attempts))

    def _hand_out(self, stage: _Stage) -> None:
        while stage.table.waiting_count:
            child = self._executor.child_with_room(stage.table.waiting_count)
            if child is None:
                return
            taken = stage.table.take(child.process.pid, others=len(self._executor.children) > 1)
            if taken is None:
                # All that waits failed on this very child before: somebody else may take it, or it may
                # have it again when it is alone.
                taken = stage.table.take(child.process.pid)
                assert taken is not None
            task, attempt = taken
            out_path = self._out_path(stage.setup, task, attempt)
            self._executor.submit(child, stage.order(task, attempt, out_path))

    def _take(self, stage: _Stage, child: Child, event: object) -> None:
        match event:
            case TaskDone():
                if stage.table.done(event.task):
                    stage.reports[event.task] = event
                    stage.bytes_of.pop(event.task, None)
            case TaskProgress():
                if event.status is not None:
                    stage.status = event.status
                stage.bytes_of[event.task] = event.bytes_read
            case TaskError():
                self._failed(stage, child, event)
            case ChildDied():
                for order in reversed(event.unbegun):
                    stage.table.give_back(order.task)
                if event.order is not None and not isinstance(event.order, CheckOrder):
                    error = TaskError(
                        task=event.order.task,
                        attempt=event.order.attempt,
                        kind="Died",
                        message=event.reason,
                        position=stage.describe(event.order),
                        traceback=event.output,
                    )
                    self._failed(stage, child, error)
            case Printed():
                self._on_message(event.text)

    def _failed(self, stage: _Stage, child: Child, error: TaskError) -> None:
        self._totals.failed_attempts += 1
        may_retry = error.kind in ("UserCode", "Died", EnvironmentFailed.__name__)
        if stage.table.failed(error.task, child.process.pid, may_retry=may_retry):
            return
        raise _final_error(stage, error, self._job.max_attempts)

    # -- the end ---------------------------------------------------------------------------------------

    def _report(self, wall_s: float) -> dict[str, Any]:
        totals = self._totals
        counters = dict(sorted(totals.counters.items()))
        if totals.bad_records:
            counters["bad_records"] = totals.bad_records
        return {
            "job_id": uuid.uuid4().hex,
            "job": self._job.name,
            "state": "COMMITTED",
            "wall_s": round(wall_s, 6),
            "cpu_s": round(self._executor.cpu_s + time.process_time(), 6),
            "peak_task_memory_bytes": self._executor.peak_memory_bytes,
            "input_bytes": totals.input_bytes,
            "shuffle_bytes": totals.shuffle_bytes,
            "spilled_bytes": totals.spilled_bytes,
            "output_bytes": totals.output_bytes,
            "output_records": totals.output_records,
            "replica_bytes": 0,
            "map_tasks": totals.map_tasks,
            "reduce_tasks": totals.reduce_tasks,
            "attempts": totals.attempts,
            "failed_attempts": totals.failed_attempts,
            "maps_run_again": 0,
            "leader_changes": 0,
            "peers_lost": 0,
            "counters": counters,
        }


class _Stage:
    """One stage while it runs."""

    def __init__(self, setup: StepSetup, orders: list[Order], max_attempts: int) -> None:
        self.setup = setup
        self.orders = orders
        self.kind = task_kind(orders[0])
        self.table = TaskTable(len(orders), max_attempts)
        self.reports: list[TaskDone | None] = [None] * len(orders)
        self.bytes_of: dict[int, int] = {}
        self.status = ""
        self.sizes = [_size(order) for order in orders]
        self.bytes_total = sum(self.sizes)

    def order(self, task: int, attempt: int, out_path: str) -> Order:
        """Return the order for one attempt; where it writes is its own."""
        order = self.orders[task]
        match order:
            case SampleOrder():
                return replace(order, attempt=attempt)
            case MapOrder() | ReduceOrder():
                return replace(order, attempt=attempt, out_path=out_path)

    def describe(self, order: Order) -> str:
        """Say what an order reads."""
        if isinstance(order, ReduceOrder):
            return f"partition {order.task}"
        split = order.split
        return split.name if split.end < 0 else f"{split.name}, bytes {split.start:,} to {split.end:,}"

    def progress(self, running: int, failed_attempts: int) -> Progress:
        """Return how far the stage is."""
        done = sum(size for size, report in zip(self.sizes, self.reports, strict=True) if report is not None)
        return Progress(
            stage=self.kind,
            step=self.setup.step,
            done=self.table.done_count,
            total=self.table.count,
            bytes_done=min(self.bytes_total, done + sum(self.bytes_of.values())),
            bytes_total=self.bytes_total,
            running=running,
            failed_attempts=failed_attempts,
            records=sum(report.records_in for report in self.reports if report is not None),
            status=self.status,
        )


def _size(order: Order) -> int:
    match order:
        case ReduceOrder():
            return sum(run.length for run in order.runs)
        case MapOrder() | SampleOrder():
            return order.split.size_bytes


def _final_error(stage: _Stage, error: TaskError, max_attempts: int) -> JobError:
    """Make of a task's last failure the error that ends the job."""
    where = f"step {stage.setup.step!r}, task {task_name(stage.kind, error.task)}"
    at = f" at {error.position}" if error.position else ""
    if error.kind in ("UserCode", "Died"):
        tried = f", attempt {error.attempt} of {max_attempts}"
        details = error.traceback
        if error.kind == "Died" and details:
            details = "the last it printed:\n" + details
        return TaskFailed(f"{where}{tried}{at}: {error.message}", details)
    if error.kind == InputError.__name__:
        return InputError(error.message)  # it names file and place itself
    message = f"{where}{at}: {error.message}"
    return from_record({"type": error.kind, "message": message, "details": error.traceback})


def _remove(path: str) -> None:
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # a job that failed half-way has removed the directory
