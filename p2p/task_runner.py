"""Runs attempts in child processes, beside the peer's loop, and keeps what they wrote until it is pushed.

Theory
------
The worker (`mapreduce.worker`) says which attempts to run, and for no more of them than there are slots, or a
few more where tasks are short.  They wait here until a child has room; children stay when a job is over, so
the next one finds them warm.  `pump` asks the children what is new, without waiting, and is called whenever
`fileno` is readable.

What an attempt wrote is an *output*: files in the job's work directory and where in them each partition
lies.  It is the source of pushes until the leader has settled the attempt (`release`); then a file of its own
is removed, and what lies in a file that several attempts share goes with the stage.

A child's report is believed in as far as it concerns its own attempt; that its bytes are what they should be
is checked wherever they are read.

⚙ This module starts processes and reads files.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from mapreduce.columns import unpack_column
from mapreduce.effects import RunTask, StageSetup, TaskOutput
from mapreduce.errors import EnvironmentFailed
from mapreduce.executor import Child, ChildDied, Executor, Load, Printed
from mapreduce.failpoints import failpoint
from mapreduce.failures import INPUT_GONE, NOT_BEGUN
from mapreduce.messages import HeldGroup
from mapreduce.orders import (
    AnyOrder,
    CheckOrder,
    LockAnswer,
    MapOrder,
    Order,
    ReduceOrder,
    SampleOrder,
    StepSetup,
    TaskDone,
    TaskError,
    TaskLock,
    TaskProgress,
)
from mapreduce.pieces import BlockDamaged, BlockNotHere, pieces_path
from mapreduce.plan import Split
from mapreduce.record import Failure, StageKind
from mapreduce.shuffle import RunRange
from mapreduce.spec import PackedColumn
from membership.view import NodeId
from p2p.blocks import RingPath
from p2p.input_checks import damaged_inputs
from p2p.job_files import JobFiles, OpenedJob
from p2p.job_questions import MAX_LOG_BYTES
from p2p.ring_inputs import pieces_here
from p2p.segments import WHOLE, Entry, Located, Source
from p2p.store import Store

__all__ = [
    "Checked",
    "InputLacks",
    "LockAsked",
    "RunnerEvent",
    "Status",
    "TaskFailed",
    "TaskFinished",
    "TaskRunner",
]

READ_BYTES = 1 << 20
# What failed attempts have read is checked so many megabytes in a turn of the loop, a few milliseconds.
CHECK_STEPS = 4
CHECK_PAUSE_S = 0.001
CHECK_TIMEOUT_S = 60.0
MAX_LOGS = 64


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """An attempt succeeded."""

    job: str
    attempt: int
    output: TaskOutput


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """An attempt failed; `missing` are map tasks whose outputs were not here."""

    job: str
    attempt: int
    failure: Failure
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """What user code says it does."""

    job: str
    text: str


@dataclass(frozen=True, slots=True)
class InputLacks:
    """A task reads a file of the ring, and the block of this byte is not here; -1: it read a damaged one."""

    task: RunTask
    offset: int


@dataclass(frozen=True, slots=True)
class Checked:
    """The end of a `check`; None: the job can run here."""

    job: str
    error: TaskError | None


@dataclass(frozen=True, slots=True)
class LockAsked:
    """A task wants a named lock, or (`is_wanted` is False) lets go of what it asked for by this ticket."""

    job: str
    attempt: int
    ticket: int
    name: str
    is_wanted: bool


RunnerEvent = TaskFinished | TaskFailed | InputLacks | Status | Checked | LockAsked


@dataclass(slots=True)
class _Output:
    """What an attempt wrote; `path` is a file of its own, or ""."""

    stage: int
    sources: dict[int, Source]
    path: str = ""


@dataclass(slots=True)
class _Run:
    """An order on its way; `task` is None for a check."""

    job: str
    order: AnyOrder
    load: Load
    task: RunTask | None
    is_cancelled: bool = False


@dataclass(slots=True)
class _Check:
    """An attempt that failed, perhaps because of what it read; `steps` end with whose outputs are damaged."""

    run: _Run
    effect: RunTask
    error: TaskError
    steps: Generator[None, None, tuple[int, ...]]


@dataclass(slots=True)
class _Log:
    """What a job's user code printed, the end of it."""

    lines: deque[str] = field(default_factory=deque)
    size: int = 0

    def add(self, text: str) -> None:
        self.lines.append(text)
        self.size += len(text) + 1
        while self.size > MAX_LOG_BYTES and self.lines:
            self.size -= len(self.lines.popleft()) + 1


class TaskRunner:
    """Children, orders, outputs.

    Args:
        me: this peer, named in failures.
        slots: how many attempts run at a time.
        memory_bytes: what each may use.
        files: the jobs' files.
        store: where the inputs of reduce tasks and of later steps lie.
    """

    def __init__(self, *, me: NodeId, slots: int, memory_bytes: int, files: JobFiles, store: Store) -> None:
        self._me = me
        self._slots = slots
        self._memory_bytes = memory_bytes
        self._files = files
        self._store = store
        self._executor = Executor(None, workers=slots, memory_limit_bytes=memory_bytes)
        self._waiting: deque[_Run] = deque()
        self._under_way: dict[int, _Run] = {}  # by id of the order, which stays alive here
        self._loads: dict[tuple[str, int], tuple[StageSetup, Load]] = {}
        self._outputs: dict[str, dict[int, _Output]] = {}
        self._checks: deque[_Check] = deque()
        self._events: list[RunnerEvent] = []
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._executor.fileno()

    def warm(self) -> bool:
        """Start one child that waits for work; False if there are as many as slots."""
        if len(self._executor.children) >= self._slots:
            return False
        self._executor.start()
        return True

    # -- orders ----------------------------------------------------------------------------------------

    def check(self, opened: OpenedJob, job: str, inputs: tuple[tuple[str, int], ...]) -> None:
        """Have a child load a job's code and look for its inputs; `Checked` tells the end of it.

        It does not wait for tasks of other jobs: a child more is started if all are busy.
        """
        order = CheckOrder(inputs=inputs)
        run = _Run(job, order, Load(opened.code, task_timeout_s=CHECK_TIMEOUT_S), None)
        child = self._executor.idle_child(opened.code) or self._executor.start()
        self._submit(child, run)

    def run(self, effect: RunTask, more_blocks: Collection[int] = ()) -> None:
        """Run an attempt as soon as a child has room.

        Args:
            more_blocks: of a file of the ring, besides those in which the split lies and their neighbours.
        """
        setup = effect.setup
        opened = self._files.get(setup.job)
        if opened is None:
            self._fail(effect, NOT_BEGUN, "the job's code is not here")
            return
        try:
            load = self._load(setup, opened)
            order = self._order(effect, load, more_blocks)
        except EnvironmentFailed as error:
            self._fail(effect, "EnvironmentFailed", str(error))
            return
        except OSError as error:
            self._fail(effect, "EnvironmentFailed", error.strerror or str(error))
            return
        if order is not None:
            self._waiting.append(_Run(setup.job, order, load, effect))
            self._hand_out()

    def cancel(self, job: str, attempt: int) -> None:
        """End an attempt, whatever it does, and remove what it wrote; nothing is told of it."""
        for run in [one for one in self._waiting if one.job == job and one.order.attempt == attempt]:
            self._waiting.remove(run)
        for child in self._executor.children:
            for place, order in enumerate(child.orders):
                held = self._under_way.get(id(order))
                if held is None or held.task is None or held.job != job or order.attempt != attempt:
                    continue
                held.is_cancelled = True
                if place == 0:
                    self._executor.kill(child, "its attempt is not wanted any more")
        self._uncheck(lambda run: run.job == job and run.order.attempt == attempt)
        self.release(job, (attempt,))

    def answer_lock(self, job: str, attempt: int, answer: LockAnswer) -> None:
        """Tell a running attempt what became of its claim."""
        child = self._running(job, attempt)
        if child is not None:
            self._executor.answer(child, answer)

    def end(self, job: str, attempt: int, reason: str) -> None:
        """Have a running attempt fail, for this reason."""
        child = self._running(job, attempt)
        if child is not None:
            self._executor.kill(child, reason)

    def _running(self, job: str, attempt: int) -> Child | None:
        for child in self._executor.children:
            held = self._under_way.get(id(child.orders[0])) if child.orders else None
            if held is not None and (held.job, held.order.attempt) == (job, attempt):
                return child
        return None

    def pump(self) -> list[RunnerEvent]:
        """Take what is new, give out what waits."""
        for child, event in self._executor.wait(0.0):
            self._take(child, event)
        self._hand_out()
        self._check_on()
        events, self._events = self._events, []
        return events

    def until_deadline(self, most_s: float) -> float:
        """Return when `pump` is due at the latest, in seconds from now."""
        if self._events:
            return 0.0
        return self._executor.until_deadline(min(most_s, CHECK_PAUSE_S) if self._checks else most_s)

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits to run."""
        return bool(self._waiting or self._under_way or self._checks)

    # -- outputs ---------------------------------------------------------------------------------------

    def sources(self, job: str, group: HeldGroup) -> list[Source] | None:
        """Return where outputs lie that are to be pushed; None if one of the attempts is not here."""
        found: list[Source] = []
        for attempt in group.attempts:
            output = self._outputs.get(job, {}).get(attempt)
            if output is not None:
                wanted = group.partitions or sorted(output.sources)
                found += [output.sources[p] for p in wanted if p in output.sources]
                continue
            stored = self._store.sources(job, group.stage, (attempt,), group.partitions)
            if stored is None:
                if not self._store.holds(job, group.stage, attempt):
                    return None
                stored = []
            found += stored
        return found

    def release(self, job: str, attempts: Iterable[int]) -> None:
        """These attempts need not be pushed any more."""
        outputs = self._outputs.get(job, {})
        for attempt in attempts:
            output = outputs.pop(attempt, None)
            if output is not None and output.path:
                _remove(output.path)

    def drop(self, job: str, stages: Sequence[int]) -> None:
        """Remove what attempts of some stages have written."""
        outputs = self._outputs.get(job, {})
        for attempt in [a for a, output in outputs.items() if output.stage in stages]:
            del outputs[attempt]
        for stage in stages:
            self._loads.pop((job, stage), None)
        self._files.drop(job, stages)

    def drop_job(self, job: str) -> None:
        """End what runs of a job and remove all its files but the log."""
        for run in [one for one in self._waiting if one.job == job]:
            self._waiting.remove(run)
        for child in self._executor.children:
            if child.orders and (held := self._under_way.get(id(child.orders[0]))) and held.job == job:
                self._executor.kill(child, "its job is over")
        for held in self._under_way.values():
            held.is_cancelled = held.is_cancelled or held.job == job
        self._uncheck(lambda run: run.job == job)
        self._outputs.pop(job, None)
        for key in [key for key in self._loads if key[0] == job]:
            del self._loads[key]
        self._files.drop_job(job)

    def log(self, job: str) -> str:
        """Return what user code of a job has printed here, the end of it."""
        log = self._logs.get(job)
        return "\n".join(log.lines) if log is not None else ""

    def close(self) -> None:
        """End all children."""
        self._uncheck(lambda _: True)
        self._executor.close()

    # -- orders, inside --------------------------------------------------------------------------------

    def _load(self, setup: StageSetup, opened: OpenedJob) -> Load:
        known = self._loads.get((setup.job, setup.stage))
        if known is not None and known[0] == setup:
            return known[1]
        borders = None
        if setup.borders is not None:
            borders = tuple(unpack_column(setup.borders.form, setup.borders.data))
        work_dir = self._files.work_directory(setup.job, setup.stage)
        step = StepSetup(
            step=setup.step_name,
            partitions=setup.partitions,
            borders=borders,
            params=opened.params,
            side_files=opened.side_files,
            work_dir=work_dir,
            out_format=setup.out_format or None,
            split_bytes=opened.plan.split_bytes,
            memory_bytes=self._memory_bytes,
            asks_for_locks=True,
        )
        load = Load(opened.code, pickle.dumps(step), work_dir, opened.plan.task_timeout_s)
        self._loads[setup.job, setup.stage] = (setup, load)
        return load

    def _order(self, effect: RunTask, load: Load, more_blocks: Collection[int]) -> Order | None:
        """Make the order; None, and a failure is told, if what it reads is not here."""
        task, attempt, number = effect.task, effect.attempt, effect.number
        out_path = os.path.join(load.work_dir, f"part-{task:05d}.{attempt}")
        if effect.setup.kind is StageKind.REDUCE:
            runs = self._runs(effect)
            if runs is None:
                return None
            return ReduceOrder(task=task, attempt=attempt, number=number, runs=runs, out_path=out_path)
        split = self._split(effect, more_blocks)
        if split is None:
            return None
        if effect.setup.kind is StageKind.SAMPLE:
            return SampleOrder(
                task=task, attempt=attempt, number=number, split=split, keys=effect.sample_keys
            )
        return MapOrder(task=task, attempt=attempt, number=number, split=split, out_path=out_path)

    def _split(self, effect: RunTask, more_blocks: Collection[int]) -> Split | None:
        if effect.split is not None:
            given = effect.split
            path, ring_path = given.path, RingPath.parse(given.path)
            if ring_path is not None:
                pieces = pieces_here(self._store, ring_path, given.start, given.end, more_blocks)
                path = pieces_path(pieces, ring_path.size_bytes, ring_path.name)
            return Split(
                path=path,
                name=given.name,
                start=given.start,
                end=given.end,
                size_bytes=given.size_bytes,
            )
        piece = effect.piece
        assert piece is not None, "a map task reads a split or a piece"
        located = self._found(effect.setup.job, piece.stage, piece.attempt)
        if located is None:
            self._fail(effect, INPUT_GONE, f"{piece.name} is not here")
            return None
        return Split(
            path=located.path,
            name=piece.name,
            start=located.offset + piece.start,
            end=located.offset + piece.end,
            size_bytes=piece.end - piece.start,
        )

    def _runs(self, effect: RunTask) -> tuple[RunRange, ...] | None:
        """The runs of a partition, in map task order."""
        job, stage, partition = effect.setup.job, effect.read_stage, effect.task
        runs: list[RunRange] = []
        missing: list[int] = []
        for task, attempt in enumerate(effect.reads):
            if not attempt:
                continue
            located = self._found(job, stage, attempt, partition)
            if located is not None:
                runs.append(_run_range(located))
            elif not self._store.holds(job, stage, attempt, partition):
                missing.append(task)
        if missing:
            text = f"{len(missing)} map outputs of partition {partition} are not here"
            self._fail(effect, INPUT_GONE, text, missing=tuple(missing))
            return None
        return tuple(runs)

    def _found(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> Located | None:
        """Where an output lies that a child shall read; one in whose place another lies is removed."""
        while located := self._store.find(job, stage, attempt, partition):
            if self._store.is_own(located.path):
                return located
            self._store.remove_segment(located.path)
        return None

    def _hand_out(self) -> None:
        while self._waiting:
            run = self._waiting[0]
            child = self._executor.idle_child(run.load.code)
            child = child or self._executor.child_with_room(len(self._waiting))
            if child is None:
                return
            self._waiting.popleft()
            self._submit(child, run)

    def _submit(self, child: Child, run: _Run) -> None:
        failpoint("task.begin")
        self._under_way[id(run.order)] = run
        self._executor.submit(child, run.order, run.load)

    # -- what children say -----------------------------------------------------------------------------

    def _take(self, child: Child, event: object) -> None:
        match event:
            case TaskDone():
                run = self._answered(child)
                if run is not None:
                    self._done(run, event, child.took_s)
            case TaskError():
                run = self._answered(child)
                if run is not None:
                    self._failed(run, event)
            case TaskProgress():
                run = self._under_way.get(id(child.orders[0])) if child.orders else None
                if run is not None and event.status is not None:
                    self._events.append(Status(run.job, event.status))
            case TaskLock():
                run = self._under_way.get(id(child.orders[0])) if child.orders else None
                if run is not None and not run.is_cancelled:
                    ticket, name = event.ticket, event.name
                    self._events.append(LockAsked(run.job, run.order.attempt, ticket, name, event.is_wanted))
            case ChildDied():
                self._died(event)
            case Printed():
                self._print(child, event.text)

    def _answered(self, child: Child) -> _Run | None:
        """The run whose report this is, unless nobody wants it any more."""
        run = self._under_way.pop(id(child.answered), None)
        return None if run is None or run.is_cancelled else run

    def _done(self, run: _Run, done: TaskDone, took_s: float) -> None:
        if run.task is None:
            self._events.append(Checked(run.job, None))
            return
        failpoint("task.done")
        setup = run.task.setup
        is_part = setup.kind is StageKind.REDUCE or setup.map_only
        digest = b""
        is_empty = not done.ranges
        if setup.kind is not StageKind.SAMPLE:
            try:
                if is_part:
                    is_empty = not (done.bytes_out if setup.out_format else done.records_out)
                    digest = _digest(done.path)
                self._keep(run.task, done, is_part=is_part)
            except OSError as error:
                self._fail(run.task, "EnvironmentFailed", error.strerror or str(error))
                return
        sample = PackedColumn(form=done.sample[0], data=done.sample[1])
        output = TaskOutput(
            partitions=tuple([partition for partition, _ in done.ranges]),
            is_empty=is_empty,
            digest=digest,
            size_bytes=done.bytes_out,
            records=done.records_out,
            cuts=tuple(done.cuts),
            counters=tuple(sorted(done.counters.items())),
            sample=sample if setup.kind is StageKind.SAMPLE else None,
            spilled_bytes=done.spilled_bytes,
            bad_records=done.bad_records,
            took_s=took_s,
            cpu_s=done.cpu_s,
        )
        self._events.append(TaskFinished(run.job, run.task.attempt, output))

    def _keep(self, effect: RunTask, done: TaskDone, *, is_part: bool) -> None:
        sources: dict[int, Source] = {}
        if is_part:
            entry = Entry(
                task=effect.task, attempt=effect.attempt, partition=WHOLE, offset=0, length=done.bytes_out
            )
            sources[WHOLE] = Source(entry=entry, path=done.path, offset=0)
        for partition, found in done.ranges:
            entry = Entry(
                task=effect.task,
                attempt=effect.attempt,
                partition=partition,
                offset=0,
                length=found.length,
                keys=found.keys,
                values=found.values,
                is_sorted=found.is_sorted,
            )
            sources[partition] = Source(entry=entry, path=found.path, offset=found.offset)
        own = "" if done.path.endswith(".runs") else done.path
        outputs = self._outputs.setdefault(effect.setup.job, {})
        outputs[effect.attempt] = _Output(effect.setup.stage, sources, own)

    def _failed(self, run: _Run, error: TaskError) -> None:
        if run.task is None:
            self._events.append(Checked(run.job, error))
            return
        if error.kind == BlockNotHere.__name__:
            self._events.append(InputLacks(run.task, int(error.message)))
            return
        if error.kind == BlockDamaged.__name__:
            if self._store.holds_path(error.message):
                self._store.verify(error.message)  # it goes, and is fetched again
            self._events.append(InputLacks(run.task, -1))
            return
        if error.kind == EnvironmentFailed.__name__:
            steps = damaged_inputs(self._store, run.task)
            self._checks.append(_Check(run, run.task, error, steps))
            return
        failure = self._failure(error.kind, error)
        self._events.append(TaskFailed(run.job, run.task.attempt, failure))

    def _failure(self, kind: str, error: TaskError) -> Failure:
        return Failure(
            kind=kind,
            message=error.message,
            details=error.traceback,
            position=error.position,
            node=self._me,
        )

    def _check_on(self) -> None:
        """Check a little more of what a failed attempt has read; tell of it when all is checked."""
        if not self._checks:
            return
        check = self._checks[0]
        try:
            for _ in range(CHECK_STEPS):
                next(check.steps)
        except StopIteration as end:
            self._checks.popleft()
            missing: tuple[int, ...] = end.value
            # Another task may have found the same damage a moment ago, and the segment is gone since.
            is_innocent = bool(missing) or not self._reads_what_is_here(check.run.order)
            failure = self._failure(INPUT_GONE if is_innocent else check.error.kind, check.error)
            self._events.append(TaskFailed(check.run.job, check.effect.attempt, failure, missing))

    def _uncheck(self, is_unwanted: Callable[[_Run], bool]) -> None:
        """Nothing is to be told of these attempts any more."""
        for check in [one for one in self._checks if is_unwanted(one.run)]:
            check.steps.close()
            self._checks.remove(check)

    def _reads_what_is_here(self, order: AnyOrder) -> bool:
        """Whether everything that an attempt was to read is still in the store."""
        if not isinstance(order, ReduceOrder):
            return True
        return all(self._store.holds_path(path) for path in {found.path for found in order.runs})

    def _died(self, event: ChildDied) -> None:
        if event.order is not None:
            run = self._under_way.pop(id(event.order), None)
            if run is not None and not run.is_cancelled:
                self._failed(
                    run,
                    TaskError(
                        task=event.order.task,
                        attempt=event.order.attempt,
                        kind="Died",
                        message=event.reason,
                        position=_position(event.order),
                        traceback=event.output,
                    ),
                )
        for order in reversed(event.unbegun):
            run = self._under_way.pop(id(order), None)
            if run is not None and not run.is_cancelled:
                self._waiting.appendleft(run)

    def _print(self, child: Child, text: str) -> None:
        order: Any = child.orders[0] if child.orders else child.answered
        run = self._under_way.get(id(order))
        if run is None:
            return
        log = self._logs.setdefault(run.job, _Log())
        self._logs.move_to_end(run.job)
        if len(self._logs) > MAX_LOGS:
            self._logs.popitem(last=False)
        log.add(text)

    def _fail(self, effect: RunTask, kind: str, message: str, *, missing: tuple[int, ...] = ()) -> None:
        failure = Failure(kind=kind, message=message, node=self._me)
        self._events.append(TaskFailed(effect.setup.job, effect.attempt, failure, missing))


def _run_range(located: Located) -> RunRange:
    entry = located.entry
    return RunRange(
        path=located.path,
        offset=located.offset,
        length=located.length,
        keys=entry.keys,
        values=entry.values,
        is_sorted=entry.is_sorted,
    )


def _position(order: AnyOrder) -> str:
    """Say what an order reads, as the embedded engine does."""
    match order:
        case ReduceOrder():
            return f"partition {order.task}"
        case MapOrder() | SampleOrder():
            split = order.split
            return split.name if split.end < 0 else f"{split.name}, bytes {split.start:,} to {split.end:,}"
        case CheckOrder():
            return ""


def _digest(path: str) -> bytes:
    """Return the digest of a part, by which a client knows that it has got the part's own bytes."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.digest()


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # its stage was dropped
