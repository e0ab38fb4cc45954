"""Runs attempts in child processes, beside the peer's loop.

Theory
------
The worker (`mapreduce.worker`) says which attempts to run, and for no more of them than there are slots, or a
few more where tasks are short.  They wait here until a child has room; children stay when a job is over, so
the next one finds them warm.  `pump` asks the children what is new, without waiting, and is called whenever
`fileno` is readable.

*Checks* of jobs that are submitted do not wait for tasks, which may take long: where all children are busy
one more is started, up to `MAX_CHECKERS` at a time, and ends with its check.  It is no slot: no more than
`slots` children have tasks, since each task may use its share of the machine.

What a child is told is `p2p.task_orders`' to say; what it wrote, `p2p.task_outputs`' to keep; and if it could
not read its input, `p2p.input_checks` finds out why before the failure is told.

A child's report is believed in as far as it concerns its own attempt; that its bytes are what they should be
is checked wherever they are read.

⚙ This module starts processes and reads files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapreduce.child_output import Printed
from mapreduce.child_process import Child
from mapreduce.effects import RunTask, TaskOutput
from mapreduce.errors import EnvironmentFailed
from mapreduce.executor import ChildDied, Executor
from mapreduce.failpoints import failpoint
from mapreduce.failures import INPUT_GONE
from mapreduce.loads import Load
from mapreduce.messages import HeldGroup
from mapreduce.orders import AnyOrder, CheckOrder, LockAnswer, TaskDone, TaskError, TaskLock, TaskProgress
from mapreduce.pieces import BlockDamaged, BlockNotHere
from mapreduce.record import Failure
from membership.view import NodeId
from p2p.input_checks import CHECK_PAUSE_S, InputChecks
from p2p.job_files import JobFiles, OpenedJob
from p2p.job_logs import JobLogs
from p2p.segments import Source
from p2p.store import Store
from p2p.task_orders import CannotBegin, TaskOrders, position
from p2p.task_outputs import TaskOutputs

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

CHECK_TIMEOUT_S = 60.0
# Checks that wait for a child; who asked for the oldest has given up by the time that there are more.
MAX_CHECKERS = 4
MAX_CHECKS = 256


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
class _Run:
    """An order on its way; `task` is None for a check."""

    job: str
    order: AnyOrder
    load: Load
    task: RunTask | None
    is_cancelled: bool = False


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
        self._files = files
        self._executor = Executor(None, workers=slots, memory_limit_bytes=memory_bytes)
        self._waiting: deque[_Run] = deque()
        self._unchecked: deque[_Run] = deque(maxlen=MAX_CHECKS)
        self._under_way: dict[int, _Run] = {}  # by id of the order, which stays alive here
        self._orders = TaskOrders(memory_bytes=memory_bytes, files=files, store=store)
        self._outputs = TaskOutputs(store)
        self._checks = InputChecks(store)
        self._events: list[RunnerEvent] = []
        self._logs = JobLogs()

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

        It does not wait for tasks of other jobs.  Of more than `MAX_CHECKS` that wait for a child nothing is
        told of the oldest.
        """
        order = CheckOrder(inputs=inputs)
        load = Load(opened.code, task_timeout_s=CHECK_TIMEOUT_S)
        self._unchecked.append(_Run(job, order, load, None))
        self._hand_out()

    def run(self, effect: RunTask, more_blocks: Collection[int] = ()) -> None:
        """Run an attempt as soon as a child has room.

        Args:
            more_blocks: of a file of the ring, besides those in which the split lies and their neighbours.
        """
        try:
            order, load = self._orders.make(effect, more_blocks)
        except CannotBegin as error:
            self._fail(effect, error.kind, str(error), missing=error.missing)
        except EnvironmentFailed as error:
            self._fail(effect, "EnvironmentFailed", str(error))
        except OSError as error:
            self._fail(effect, "EnvironmentFailed", error.strerror or str(error))
        else:
            self._waiting.append(_Run(effect.setup.job, order, load, effect))
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
        self._checks.drop(job, attempt)
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
        return bool(self._waiting or self._unchecked or self._under_way or self._checks)

    # -- outputs ---------------------------------------------------------------------------------------

    def sources(self, job: str, group: HeldGroup) -> list[Source] | None:
        """See `TaskOutputs.sources`."""
        return self._outputs.sources(job, group)

    def release(self, job: str, attempts: Iterable[int]) -> None:
        """See `TaskOutputs.release`."""
        self._outputs.release(job, attempts)

    def drop(self, job: str, stages: Sequence[int]) -> None:
        """Remove what attempts of some stages have written."""
        self._outputs.drop(job, stages)
        self._orders.forget(job, stages)
        self._files.drop(job, stages)

    def drop_job(self, job: str) -> None:
        """End what runs of a job and remove all its files but the log."""
        for waiting in (self._waiting, self._unchecked):
            for run in [one for one in waiting if one.job == job]:
                waiting.remove(run)
        for child in self._executor.children:
            if child.orders and (held := self._under_way.get(id(child.orders[0]))) and held.job == job:
                self._executor.kill(child, "its job is over")
        for held in self._under_way.values():
            held.is_cancelled = held.is_cancelled or held.job == job
        self._checks.drop(job)
        self._outputs.drop_job(job)
        self._orders.forget_job(job)
        self._files.drop_job(job)

    def log(self, job: str) -> str:
        """Return what user code of a job has printed here, the end of it."""
        return self._logs.text(job)

    def close(self) -> None:
        """End all children."""
        self._checks.close()
        self._executor.close()

    # -- orders, inside --------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        executor = self._executor
        while self._unchecked:
            child = executor.idle_child(self._unchecked[0].load.code)
            if child is None and len(executor.children) < self._slots + MAX_CHECKERS:
                child = executor.start()
            if child is None:
                break
            self._submit(child, self._unchecked.popleft())
        while self._waiting and (child := self._child_for_task(self._waiting[0].load.code)) is not None:
            self._submit(child, self._waiting.popleft())
        while len(executor.children) > self._slots and (idle := executor.idle_child()) is not None:
            executor.dismiss(idle)

    def _child_for_task(self, code: bytes) -> Child | None:
        executor, waiting = self._executor, len(self._waiting)
        if len(executor.children) > self._slots:
            at_work = [child for child in executor.children if self._has_task(child)]
            if len(at_work) >= self._slots:
                return executor.child_with_room(waiting, at_work)
        return executor.idle_child(code) or executor.child_with_room(waiting)

    def _has_task(self, child: Child) -> bool:
        runs = (self._under_way.get(id(order)) for order in child.orders)
        return any(run is not None and run.task is not None for run in runs)

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
        output = self._outputs.take(run.task, done, took_s)
        self._events.append(TaskFinished(run.job, run.task.attempt, output))

    def _failed(self, run: _Run, error: TaskError) -> None:
        opened = self._files.get(run.job)
        if opened is not None:
            error = replace(
                error,
                message=opened.as_users(error.message),
                traceback=opened.as_users(error.traceback),
            )
        if run.task is None:
            self._events.append(Checked(run.job, error))
            return
        if error.kind == BlockNotHere.__name__:
            self._events.append(InputLacks(run.task, int(error.message)))
            return
        if error.kind in (EnvironmentFailed.__name__, BlockDamaged.__name__):
            self._checks.begin(run.task, run.order, error)
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
        verdict = self._checks.go_on()
        if verdict is not None:
            effect, error = verdict.effect, verdict.error
            if error.kind == BlockDamaged.__name__:
                self._events.append(InputLacks(effect, -1))
                return
            failure = self._failure(INPUT_GONE if verdict.is_innocent else error.kind, error)
            self._events.append(TaskFailed(effect.setup.job, effect.attempt, failure, verdict.missing))

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
                        position=position(event.order),
                        traceback=event.output,
                    ),
                )
        for order in reversed(event.unbegun):
            run = self._under_way.pop(id(order), None)
            if run is not None and not run.is_cancelled:
                (self._waiting if run.task is not None else self._unchecked).appendleft(run)

    def _print(self, child: Child, text: str) -> None:
        order: Any = child.orders[0] if child.orders else child.answered
        run = self._under_way.get(id(order))
        if run is not None:
            self._logs.add(run.job, text)

    def _fail(self, effect: RunTask, kind: str, message: str, *, missing: tuple[int, ...] = ()) -> None:
        failure = Failure(kind=kind, message=message, node=self._me)
        self._events.append(TaskFailed(effect.setup.job, effect.attempt, failure, missing))
