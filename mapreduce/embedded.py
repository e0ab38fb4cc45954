"""One job's run on this machine: its steps, their stages, and what becomes of attempts.

For each step, in order: splits -> (sample) -> map tasks -> runs -> reduce tasks -> parts.  The parts of a
step are the splits of the steps that read it.

Only renames made here make anything visible: an attempt writes under a name of its own, a task's first
finished attempt wins, and `_SUCCESS` is written when every part is in its place.

⚙ Files, processes, the clock.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mapreduce.child_output import Printed
from mapreduce.child_process import Child
from mapreduce.columns import unpack_column
from mapreduce.errors import (
    EnvironmentFailed,
    InputError,
    JobError,
    TaskFailed,
    TooManyBadRecords,
    from_record,
)
from mapreduce.executor import ChildDied, Executor
from mapreduce.inputs import Source, plan_splits
from mapreduce.job import Job, Step, TotalOrder
from mapreduce.loading import Code
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
from mapreduce.outputs import OutputDirectory
from mapreduce.partitioner import borders_of
from mapreduce.plan import (
    SAMPLE_SPLIT_BYTES,
    SAMPLE_SPLITS,
    Split,
    default_partitions,
    execution_order,
)
from mapreduce.progress import Progress
from mapreduce.run_files import RunRange
from mapreduce.tasks import TaskTable

POLL_S = 0.2
PROGRESS_INTERVAL_S = 0.1


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


class Engine:
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
        self._cpu_before_s = 0.0  # what this process had used when the job began
        self._sources: list[Source] = []
        # Of each finished step that another reads: its parts as splits.
        self._splits_of: dict[str, list[Split]] = {}

    def run(self, sources: list[Source]) -> tuple[dict[str, Any], list[str]]:
        """Run all steps; gives the report and the paths of the parts."""
        started, self._cpu_before_s = time.monotonic(), time.process_time()
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
            "job_id": os.urandom(16).hex(),
            "job": self._job.name,
            "state": "COMMITTED",
            "wall_s": round(wall_s, 6),
            "cpu_s": round(self._executor.cpu_s + time.process_time() - self._cpu_before_s, 6),
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
