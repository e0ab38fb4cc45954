"""A pool of child processes that run user code.

⚙ Starts, feeds, watches and ends processes.

One thread, one `selectors` loop over the children's sockets and what they print (`mapreduce.child_process`).

A child works its orders off in turn, so of the orders it has not answered the oldest is the one it runs: if
it dies, that attempt failed, and the others were never begun.

An order belongs to a `Load` (`mapreduce.loads`), the job and the step that a child must hold to run it.  A
child is sent a load when its next order has another one than its last, so one pool can serve many jobs.

Nothing here waits for a child but `wait`: what a busy child does not take yet is kept until it does.  So an
engine with a loop of its own watches `fileno()` and calls `wait(0)`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mapreduce.child_output import Printed
from mapreduce.child_process import Child, how_it_ended
from mapreduce.loading import Code
from mapreduce.loads import Load, packed_code
from mapreduce.orders import (
    AnyOrder,
    LockAnswer,
    Report,
    StepSetup,
    TaskDone,
    TaskError,
    TaskLock,
    TaskProgress,
    unpack_report,
)

__all__ = ["ChildDied", "Event", "Executor"]

_LENGTH = struct.Struct("<I")
READ_BYTES = 1 << 18
MAX_MESSAGE_BYTES = 1 << 30
# A child that closed its socket is ending, of an exception perhaps that it has yet to print; so long it may.
CLOSE_GRACE_S = 0.5
CLOSED_POLL_S = 0.02
# An interrupt in the middle of an ending must not spare the child: it is ended in the next round.
CLOSE_ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildDied:
    """A child ended without being told to.

    Attributes:
        order: what it was running, if anything.
        unbegun: orders it was given and had not begun.
        reason: how it ended, in words.
        output: the last it printed.
    """

    order: AnyOrder | None
    unbegun: tuple[AnyOrder, ...]
    reason: str
    output: str


Event = Report | ChildDied | Printed


class Executor:
    """Runs orders in up to `workers` child processes.

    Args:
        code: the job, see `loading.Code`; None where each order is submitted with its load.
        workers: how many processes at the most; each is started when there is work for it.
        memory_limit_bytes: what each may allocate, 0 for no limit.
        task_timeout_s: a task that runs longer is ended; None for no limit.
    """

    def __init__(
        self,
        code: Code | None,
        *,
        workers: int,
        memory_limit_bytes: int = 0,
        task_timeout_s: float | None = None,
    ) -> None:
        self._code = packed_code(code) if code is not None else b""
        self._workers = workers
        self._memory_limit_bytes = memory_limit_bytes
        self._task_timeout_s = task_timeout_s
        self._load: Load | None = None
        self._selector = selectors.DefaultSelector()
        self.children: list[Child] = []
        self.cpu_s = 0.0
        self.peak_memory_bytes = 0

    def begin_step(self, setup: StepSetup) -> None:
        """Make all further orders belong to this step; no order may be outstanding."""
        self._load = Load(self._code, pickle.dumps(setup), setup.work_dir, self._task_timeout_s)

    def child_with_room(self, waiting: int, among: Sequence[Child] | None = None) -> Child | None:
        """Return the child that should have the next order, starting one if that helps; None if all are full.

        Args:
            waiting: how many orders wait, this one included: no child is started for which there is none.
            among: who may have it; default: all, and one that is started.
        """
        if among is None:
            idle = self.idle_child()
            if idle is not None:
                return idle
            if len(self.children) < self._workers and waiting > 0:
                return self.start()
            among = self.children
        open_ones = [child for child in among if child.closed_at is None]
        if not open_ones:
            return None
        child = min(open_ones, key=lambda one: len(one.orders))
        # Near the end of a stage a deep window would leave one child with all that is left.
        room = min(child.window, max(1, waiting // len(among)) + 1)
        return child if len(child.orders) < room else None

    def idle_child(self, code: bytes = b"") -> Child | None:
        """Return a child with nothing to do, by preference one that holds this code; None: all are busy."""
        idle = [child for child in self.children if not child.orders and child.closed_at is None]
        return next((child for child in idle if child.code is code), idle[0] if idle else None)

    def start(self) -> Child:
        """Start a child that waits for work, whatever `workers` is."""
        return self._start()

    def dismiss(self, child: Child) -> None:
        """End a child that has nothing to do, at once."""
        assert not child.orders, "a child at work is killed, and its orders come back"
        self._end(child)

    def submit(self, child: Child, order: AnyOrder, load: Load | None = None) -> None:
        """Give a child an order.

        Args:
            load: what the order belongs to; default: the step that was begun last.
        """
        load = load or self._load
        assert load is not None, "an order belongs to a step"
        if not child.orders:
            child.busy_since = time.monotonic()
        child.orders.append(order)
        child.loads.append(load)
        if child.code is not load.code:
            child.code, child.setup = load.code, b""
            self._send(child, load.code)
        if load.setup and child.setup is not load.setup:
            child.setup, child.work_dir = load.setup, load.work_dir
            self._send(child, load.setup)
        self._send(child, pickle.dumps(order))

    def answer(self, child: Child, answer: LockAnswer) -> None:
        """Answer a `TaskLock` of the task that a child runs."""
        self._send(child, pickle.dumps(answer))

    def kill(self, child: Child, reason: str) -> None:
        """End a child and all it has started; `wait` will give its orders back."""
        child.kill(reason)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `wait` has something to give at once."""
        return self._selector.fileno()

    def until_deadline(self, timeout_s: float) -> float:
        """Return how long a wait may last, no longer than `timeout_s`, for no task to overrun its time."""
        return self._until_deadline(timeout_s)

    def wait(self, timeout_s: float) -> Iterator[tuple[Child, Event]]:
        """Wait for something to happen and give what did.

        Args:
            timeout_s: how long to wait at the most.
        """
        ready: dict[int, Child] = {}
        for key, events in self._selector.select(self._until_deadline(timeout_s)):
            if events & selectors.EVENT_WRITE:
                self._flush(key.data)
            if events & selectors.EVENT_READ:
                ready[key.fd] = key.data
        touched = {id(child): child for child in ready.values()}
        for child in touched.values():
            # What a task printed comes before its report, so that it is counted as that task's.
            if child.output.fd in ready:
                yield from self._read_output(child)
            if child.channel.fileno() in ready:
                yield from self._read_reports(child)
        for child in list(self.children):
            yield from self._watch(child)

    def close(self) -> None:
        """End all children, with everything they started; a failure with one does not save the others."""
        failure: BaseException | None = None
        for _ in range(CLOSE_ROUNDS):
            for child in list(self.children):
                try:
                    self._end(child)
                except BaseException as error:
                    failure = failure or error
        self._selector.close()
        if failure is not None:
            raise failure

    # -- one child -------------------------------------------------------------------------------------

    def _start(self) -> Child:
        child = Child.start(self._memory_limit_bytes)
        self.children.append(child)
        try:
            child.begin_guard()
            self._selector.register(child.channel, selectors.EVENT_READ, child)
            self._selector.register(child.output.fd, selectors.EVENT_READ, child)
        except BaseException:
            self._end(child)
            raise
        return child

    def _send(self, child: Child, payload: bytes) -> None:
        child.outbox += _LENGTH.pack(len(payload))
        child.outbox += payload
        self._flush(child)

    def _flush(self, child: Child) -> None:
        """Send what the child takes now; the rest goes when it takes more."""
        try:
            while child.outbox:
                del child.outbox[: child.channel.send(child.outbox)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            child.outbox.clear()  # it died; _watch will find it and give its orders back
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.outbox else 0)
        key = self._selector.get_map().get(child.channel)
        if key is not None and key.events != wanted:
            self._selector.modify(child.channel, wanted, child)

    def _read_reports(self, child: Child) -> Iterator[tuple[Child, Event]]:
        try:
            data = child.channel.recv(READ_BYTES)
        except BlockingIOError:
            child.is_read_dry = True
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(child.channel)
            # It may still live, in a thread or an exit handler of user code: `_watch` will see to it.
            child.closed_at = time.monotonic()
            return
        inbox = child.inbox
        inbox += data
        start = 0
        while len(inbox) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(inbox, start)
            stop = start + _LENGTH.size + size
            if len(inbox) < stop and size <= MAX_MESSAGE_BYTES:
                break
            report = _unpacked(inbox[start + _LENGTH.size : stop])
            running = child.orders[0] if child.orders else None
            if report is None or not _answers(report, running):
                if isinstance(report, (TaskProgress, TaskLock)):
                    start = stop  # a thread of user code tells it late
                    continue
                self.kill(child, "it sent a report that answers none of its orders; did user code fork?")
                start = len(inbox)
                break
            start = stop
            if isinstance(report, (TaskDone, TaskError)):
                # The rest of what the task printed is in the pipe by now.
                yield from self._read_output(child)
                for printed in child.output.last_line():
                    yield child, printed
                child.answer_first(time.monotonic())
            yield child, report
        del inbox[:start]

    def _read_output(self, child: Child) -> Iterator[tuple[Child, Event]]:
        output = child.output
        for printed in output.read():
            yield child, printed
        if output.is_ended and output.fd in self._selector.get_map():
            self._selector.unregister(output.fd)
        if output.excess and not child.killed_for:
            self.kill(child, output.excess)

    def _watch(self, child: Child) -> Iterator[tuple[Child, Event]]:
        """Notice a child that died or has to."""
        limit_s = child.loads[0].task_timeout_s if child.loads else None
        if limit_s is not None and time.monotonic() - child.busy_since > limit_s:
            self.kill(child, f"it ran longer than {limit_s:g} s")
        if child.closed_at is not None and time.monotonic() - child.closed_at > CLOSE_GRACE_S:
            self.kill(child, child.killed_for or "it closed its connection and went on running")
        if not self._reap(child, os.WNOHANG):
            return
        child.kill_group()  # what it started must write no more
        yield from self._read_output(child)
        for printed in child.output.last_line():
            yield child, printed
        if child.channel in self._selector.get_map():
            yield from self._drain_reports(child)
        orders = list(child.orders)
        child.orders.clear()
        child.loads.clear()
        self._end(child)
        died = ChildDied(
            order=orders[0] if orders else None,
            unbegun=tuple(orders[1:]),
            reason=child.killed_for or how_it_ended(child.process.returncode),
            output="\n".join([*child.output.last_lines(), *child.last_frames()]),
        )
        yield child, died

    def _drain_reports(self, child: Child) -> Iterator[tuple[Child, Event]]:
        """Take the reports a child sent before it died: what is done is done."""
        # A process that user code started may hold the other end open: then there is never an end of file.
        child.is_read_dry = False
        while child.channel in self._selector.get_map() and not child.is_read_dry:
            yield from self._read_reports(child)

    def _end(self, child: Child) -> None:
        """End a child; once more does what an interrupt has kept from being done."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, child.peak_memory_bytes())
        child.kill_group()
        self._reap(child, 0)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.output.fd)
        child.close()
        self.children.remove(child)

    def _reap(self, child: Child, options: int) -> bool:
        """Take a dead child from the system, and count what it used; False when it lives."""
        usage = child.reap(options)
        if usage is not None:
            self.cpu_s += usage.ru_utime + usage.ru_stime
            if sys.platform == "darwin":
                self.peak_memory_bytes = max(self.peak_memory_bytes, usage.ru_maxrss)
        return child.process.returncode is not None

    def _until_deadline(self, timeout_s: float) -> float:
        limits = [
            child.busy_since + child.loads[0].task_timeout_s
            for child in self.children
            if child.loads and child.loads[0].task_timeout_s is not None
        ]
        if any(child.closed_at is not None for child in self.children):
            timeout_s = min(timeout_s, CLOSED_POLL_S)  # nothing wakes us when it ends
        if not limits:
            return timeout_s
        return max(0.0, min([timeout_s, *(limit - time.monotonic() for limit in limits)]))


def _unpacked(data: bytearray) -> Report | None:
    """Decode a report; None if it is none, for user code may have written to our socket."""
    try:
        return unpack_report(bytes(data))
    except Exception:
        return None


def _answers(report: Report, order: AnyOrder | None) -> bool:
    return order is not None and (report.task, report.attempt) == (order.task, order.attempt)
