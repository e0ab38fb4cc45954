"""A pool of child processes that run user code.

⚙ Starts, feeds, watches and ends processes.

One thread, one `selectors` loop.  For each child there are a socket (orders out, reports in), a pipe with
whatever it prints, and a guard: a shell that waits at a pipe whose other end only we hold.  However we end,
the guard then kills the child's process group.  A thread of the child could not, while user code keeps the
interpreter lock; a death signal would reach the child alone, and not what it started.

A child works its orders off in turn, so of the orders it has not answered the oldest is the one it runs: if
it dies, that attempt failed, and the others were never begun.

An order belongs to a `Load`, the job and the step that a child must hold to run it.  A child is sent a load
when its next order has another one than its last, so one pool can serve many jobs.

Nothing here waits for a child but `wait`: what a busy child does not take yet is kept until it does.  So an
engine with a loop of its own watches `fileno()` and calls `wait(0)`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mapreduce.loading import Code
from mapreduce.orders import (
    AnyOrder,
    LockAnswer,
    Report,
    StepSetup,
    TaskDone,
    TaskError,
    TaskLock,
    TaskProgress,
    crash_path,
    unpack_report,
)

_LENGTH = struct.Struct("<I")
READ_BYTES = 1 << 18
# A task that prints more than this is stuck or mistaken; its output would fill somebody's disk.
MAX_TASK_OUTPUT_BYTES = 64 << 20
KEPT_OUTPUT_BYTES = 16 << 10
# Of one task, so much is passed on for people to see.
SHOWN_OUTPUT_BYTES = 256 << 10
MAX_MESSAGE_BYTES = 1 << 30
# A child that closed its socket is ending, of an exception perhaps that it has yet to print; so long it may.
CLOSE_GRACE_S = 0.5
CLOSED_POLL_S = 0.02
# An interrupt in the middle of an ending must not spare the child: it is ended in the next round.
CLOSE_ROUNDS = 2
MAX_LINE_CHARS = 200
# However short its tasks, a child is not handed more than this at a time.
MAX_WINDOW = 64
WINDOW_S = 0.05

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A line of a crash report that is none of the user's.
_OUR_FRAME = re.compile(rf'File "({re.escape(_PACKAGE_ROOT)}/mapreduce/(?!examples/)|<string>")')
_BOOT = (
    "import sys; sys.path.append({root!r}) if {root!r} not in sys.path else None; "
    "from mapreduce.child import main; main({orders}, {memory})"
)
# Takes a process group as its argument.
_GUARD = ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0"']
if not os.path.exists(_GUARD[0]):
    _GUARD = [sys.executable, "-ISc", "import os, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), 9)"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """Something user code printed, for people to see."""

    text: str


Event = Report | ChildDied | Printed


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What a child must hold to run an order; compared by identity, so make one and use it for all.

    Attributes:
        code: the packed job, see `packed_code`.
        setup: the packed step; empty for what needs none.
        work_dir: the step's.
        task_timeout_s: a task that runs longer is ended; None for no limit.
    """

    code: bytes
    setup: bytes = b""
    work_dir: str = ""
    task_timeout_s: float | None = None


def packed_code(code: Code) -> bytes:
    """Return a job's code as children take it; one object for all loads of a job."""
    return pickle.dumps(pickle.dumps(code))


@dataclass(slots=True, kw_only=True)
class Child:
    """One process and what it has been asked to do."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    output_fd: int
    guard: subprocess.Popen[bytes] | None = None
    orders: deque[AnyOrder] = field(default_factory=deque)
    loads: deque[Load] = field(default_factory=deque)
    # The order of the report that is being given, after it has left `orders`.
    answered: AnyOrder | None = None
    code: bytes = b""
    setup: bytes = b""
    work_dir: str = ""
    outbox: bytearray = field(default_factory=bytearray)
    is_read_dry: bool = False
    inbox: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    printed_bytes: int = 0
    # What it printed since its last whole line.
    unfinished: bytes = b""
    busy_since: float = 0.0
    killed_for: str = ""
    # When it closed its end of the socket.
    closed_at: float | None = None
    # A running mean of how long a task takes, to choose how many to hand out at a time.
    task_s: float = 1.0
    # How long the last one took.
    took_s: float = 0.0

    @property
    def window(self) -> int:
        """How many orders it may have at a time, so that short tasks do not wait for the next one."""
        return max(2, min(MAX_WINDOW, int(WINDOW_S / max(self.task_s, 1e-4))))


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

    def child_with_room(self, waiting: int) -> Child | None:
        """Return the child that should have the next order, starting one if that helps; None if all are full.

        Args:
            waiting: how many orders wait, this one included: no child is started for which there is none.
        """
        idle = self.idle_child()
        if idle is not None:
            return idle
        if len(self.children) < self._workers and waiting > 0:
            return self.start()
        open_ones = [child for child in self.children if child.closed_at is None]
        if not open_ones:
            return None
        child = min(open_ones, key=lambda one: len(one.orders))
        # Near the end of a stage a deep window would leave one child with all that is left.
        room = min(child.window, max(1, waiting // len(self.children)) + 1)
        return child if len(child.orders) < room else None

    def idle_child(self, code: bytes = b"") -> Child | None:
        """Return a child with nothing to do, by preference one that holds this code; None: all are busy."""
        idle = [child for child in self.children if not child.orders and child.closed_at is None]
        return next((child for child in idle if child.code is code), idle[0] if idle else None)

    def start(self) -> Child:
        """Start a child that waits for work, whatever `workers` is."""
        return self._start()

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
        child.killed_for = reason
        _kill_group(child)

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
            if child.output_fd in ready:
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
        with contextlib.ExitStack() as passed_on, contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            passed_on.callback(theirs.close)
            output_read, output_write = os.pipe()
            undo.callback(os.close, output_read)
            passed_on.callback(os.close, output_write)
            # If we end before it is one of `children`, it ends at the end of its socket.
            process = self._process(theirs.fileno(), output_write)
            child = Child(process=process, channel=ours, output_fd=output_read)
            undo.pop_all()
            self.children.append(child)
        try:
            child.guard = subprocess.Popen(
                [*_GUARD, str(process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            ours.setblocking(False)
            os.set_blocking(output_read, False)
            self._selector.register(ours, selectors.EVENT_READ, child)
            self._selector.register(output_read, selectors.EVENT_READ, child)
        except BaseException:
            self._end(child)
            raise
        return child

    def _process(self, orders_fd: int, output_fd: int) -> subprocess.Popen[bytes]:
        boot = _BOOT.format(root=_PACKAGE_ROOT, orders=orders_fd, memory=self._memory_limit_bytes)
        return subprocess.Popen(
            # -P: a file of the user's called socket.py must not become the standard library's.
            [sys.executable, "-P", "-c", boot],
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=(orders_fd,),
            start_new_session=True,
            # Sets and dicts of strings in user code iterate alike in every attempt and every run.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

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
                yield from self._last_line(child)
                self._next_order(child)
            yield child, report
        del inbox[:start]

    def _next_order(self, child: Child) -> None:
        now = time.monotonic()
        child.took_s = now - child.busy_since
        child.task_s = 0.7 * child.task_s + 0.3 * child.took_s
        child.busy_since = now
        child.answered = child.orders.popleft()
        child.loads.popleft()
        child.printed_bytes = 0

    def _read_output(self, child: Child) -> Iterator[tuple[Child, Event]]:
        while True:
            try:
                data = os.read(child.output_fd, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                if child.output_fd in self._selector.get_map():
                    self._selector.unregister(child.output_fd)
                return
            child.printed_bytes += len(data)
            child.printed += data
            del child.printed[:-KEPT_OUTPUT_BYTES]
            if child.printed_bytes > MAX_TASK_OUTPUT_BYTES:
                if not child.killed_for:
                    self.kill(
                        child,
                        f"it printed more than {MAX_TASK_OUTPUT_BYTES >> 20} MiB in one task "
                        "(results are yielded, not printed)",
                    )
                return
            yield from self._whole_lines(child, data)

    def _whole_lines(self, child: Child, data: bytes) -> Iterator[tuple[Child, Event]]:
        """Pass on what was printed, a whole number of lines at a time, up to a bound a task."""
        shown_before = child.printed_bytes - len(data)
        if shown_before > SHOWN_OUTPUT_BYTES:
            return
        lines, newline, child.unfinished = (child.unfinished + data).rpartition(b"\n")
        if child.printed_bytes > SHOWN_OUTPUT_BYTES:
            lines += b"\n(this task prints more than is shown)"
            child.unfinished = b""
        if newline:
            yield child, Printed(text=lines.decode(errors="replace"))

    def _last_line(self, child: Child) -> Iterator[tuple[Child, Event]]:
        if child.unfinished:
            yield child, Printed(text=child.unfinished.decode(errors="replace"))
            child.unfinished = b""

    def _watch(self, child: Child) -> Iterator[tuple[Child, Event]]:
        """Notice a child that died or has to."""
        limit_s = child.loads[0].task_timeout_s if child.loads else None
        if limit_s is not None and time.monotonic() - child.busy_since > limit_s:
            self.kill(child, f"it ran longer than {limit_s:g} s")
        if child.closed_at is not None and time.monotonic() - child.closed_at > CLOSE_GRACE_S:
            self.kill(child, child.killed_for or "it closed its connection and went on running")
        if not self._reap(child, os.WNOHANG):
            return
        _kill_group(child)  # what it started must write no more
        yield from self._read_output(child)
        yield from self._last_line(child)
        if child.channel in self._selector.get_map():
            yield from self._drain_reports(child)
        orders = list(child.orders)
        child.orders.clear()
        child.loads.clear()
        self._end(child)
        output = bytes(child.printed[-4096:]).decode(errors="replace").strip()
        lines = [line[:MAX_LINE_CHARS] for line in output.splitlines()[-20:]]
        died = ChildDied(
            order=orders[0] if orders else None,
            unbegun=tuple(orders[1:]),
            reason=child.killed_for or how_it_ended(child.process.returncode),
            output="\n".join([*lines, *self._last_frames(child)]),
        )
        yield child, died

    def _last_frames(self, child: Child) -> list[str]:
        """Return where user code was when the process crashed, if Python could tell."""
        try:
            with open(crash_path(child.work_dir, child.process.pid), errors="replace") as file:
                lines = file.read(64 << 10).splitlines()
        except FileNotFoundError:  # it crashed before its first order, or the job is gone
            return []
        return [line for line in lines if not _OUR_FRAME.search(line)]

    def _drain_reports(self, child: Child) -> Iterator[tuple[Child, Event]]:
        """Take the reports a child sent before it died: what is done is done."""
        # A process that user code started may hold the other end open: then there is never an end of file.
        child.is_read_dry = False
        while child.channel in self._selector.get_map() and not child.is_read_dry:
            yield from self._read_reports(child)

    def _end(self, child: Child) -> None:
        """End a child; once more does what an interrupt has kept from being done."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(child.process.pid))
        _kill_group(child)
        self._reap(child, 0)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.output_fd)
        child.channel.close()
        output_fd, child.output_fd = child.output_fd, -1  # first: it must not be closed twice
        if output_fd >= 0:
            os.close(output_fd)
        if child.guard is not None:
            child.guard.kill()
            child.guard.communicate()  # closes the pipe once it is dead
        self.children.remove(child)

    def _reap(self, child: Child, options: int) -> bool:
        """Take a dead child from the system, and count what it used; False when it lives."""
        process = child.process
        if process.returncode is None:
            pid, status, usage = os.wait4(process.pid, options)
            if pid == 0:
                return False
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s += usage.ru_utime + usage.ru_stime
            if sys.platform == "darwin":
                self.peak_memory_bytes = max(self.peak_memory_bytes, usage.ru_maxrss)
        return True

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


def _kill_group(child: Child) -> None:
    # PermissionError: macOS says so of a group of which only a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)


def _unpacked(data: bytearray) -> Report | None:
    """Decode a report; None if it is none, for user code may have written to our socket."""
    try:
        return unpack_report(bytes(data))
    except Exception:
        return None


def _answers(report: Report, order: AnyOrder | None) -> bool:
    return order is not None and (report.task, report.attempt) == (order.task, order.attempt)


def _peak_memory_bytes(pid: int) -> int:
    """Return the most that a living process has held; 0 where the system does not tell.

    Linux counts in `ru_maxrss` of a child what its parent held when it forked.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def how_it_ended(code: int) -> str:
    """Say in words what an exit code means."""
    if code >= 0:
        return f"its process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (perhaps the machine ran out of memory)" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
