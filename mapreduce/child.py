"""The process that runs user code: reads orders from a socket, runs them, reports.

⚙ Everything here touches the process itself: descriptors, limits, signals, standard streams.

A child lives in its own session; the parent ends the whole process group, so nothing that user code started
stays behind.

Whatever user code does to the process (prints, exits, crashes, swallows exceptions) the parent learns
from the outside; nothing is trusted to run at exit.
"""

from __future__ import annotations

import _thread
import gc
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, cast

from mapreduce.attempt import Attempt
from mapreduce.errors import BadKey, EnvironmentFailed, JobError, TaskFailed, TooManyBadRecords, told
from mapreduce.job import Job
from mapreduce.order_stream import OrderStream
from mapreduce.orders import (
    CheckOrder,
    Order,
    Report,
    StepSetup,
    TaskDone,
    TaskError,
    TaskProgress,
    crash_path,
    pack_report,
)
from mapreduce.runs import DamagedRun
from mapreduce.streams import is_url, one_line
from mapreduce.task_files import SharedRuns, stay_one
from mapreduce.user_frames import begins_users, frames_of, is_users

_LENGTH = struct.Struct("<I")
# The default thresholds make a collection of every 700th new container; grouping makes millions that
# all stay alive.
_GC_THRESHOLDS = (100_000, 20, 100)
# Of an exception that quotes half of its input, so much is shown.
MAX_MESSAGE_CHARS = 500
MAX_LINE_CHARS = 1000
_USERS_FAULT = ("UserCode", TooManyBadRecords.__name__)
# Raised by none of the functions and iterators of C that user code may give us: without a frame of the user's
# they are ours.
_OUR_MISTAKES = (AssertionError, NameError)
_sending = _thread.allocate_lock()


def main(orders_fd: int, memory_limit_bytes: int) -> None:
    """Serve orders until the parent closes the socket.

    Args:
        orders_fd: a stream socket to the parent.
        memory_limit_bytes: what the process may allocate, 0 for no limit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_memory(memory_limit_bytes)
    gc.set_threshold(*_GC_THRESHOLDS)
    os.set_inheritable(orders_fd, False)  # what user code starts must not keep it open
    with socket.socket(fileno=orders_fd) as channel:
        _serve(channel)


def send(channel: socket.socket, payload: bytes) -> None:
    """Send one length-prefixed message."""
    with _sending:  # a thread of user code may tell its status at any time
        channel.sendall(_LENGTH.pack(len(payload)) + payload)


def _serve(channel: socket.socket) -> None:
    job: Job | JobError | None = None
    with channel.makefile("rb", buffering=1 << 16) as stream, ExitStack() as crash:
        place = _Place(crash)
        orders = OrderStream(cast(BinaryIO, stream), lambda report: send(channel, report))
        while (message := orders.next()) is not None:
            if isinstance(message, StepSetup):
                place.setup = message
            elif isinstance(message, bytes):
                job = _load(message)
            elif isinstance(message, CheckOrder):
                send(channel, pack_report(_check(job, message)))
            else:
                assert job is not None
                send(channel, _run(channel, job, place, message, orders))


class _Place:
    """Where the tasks of a step write; made by the first of them, which can tell if that fails."""

    def __init__(self, crash: ExitStack) -> None:
        self.setup: StepSetup | None = None
        self._made_for: StepSetup | None = None
        self._shared: SharedRuns | None = None
        self._crash = crash
        self._count = 0

    def shared(self) -> SharedRuns:
        """Return the file for small outputs of this step."""
        assert self.setup is not None, "an order belongs to a step"
        if self._shared is None or self._made_for is not self.setup:
            former, self._shared = self._shared, None
            if former is not None:
                former.close()
            self._crash.close()
            shared = SharedRuns(self.setup.work_dir, self.setup.step, self._count)
            self._count += 1
            self._crash.enter_context(_tell_crashes(self.setup.work_dir))
            self._shared, self._made_for = shared, self.setup
        return self._shared


@contextmanager
def _tell_crashes(work_dir: str) -> Iterator[None]:
    """Have a segmentation fault leave the stack of Python behind, for the parent to read."""
    import faulthandler

    with open(crash_path(work_dir, os.getpid()), "w") as file:
        faulthandler.enable(file, all_threads=False)
        yield
        faulthandler.disable()


def _check(job: Job | JobError | None, order: CheckOrder) -> Report:
    if isinstance(job, JobError):
        return TaskError(task=order.task, attempt=order.attempt, kind=type(job).__name__, message=str(job))
    missing = [path for path, size_bytes in order.inputs if not _is_there(path, size_bytes)]
    if missing:
        message, paths = f"{missing[0]}: it cannot be read here, or is another file", "\n".join(missing)
        kind = "InputNotHere"
        return TaskError(task=order.task, attempt=order.attempt, kind=kind, message=message, traceback=paths)
    return TaskDone(task=order.task, attempt=order.attempt)


def _is_there(path: str, size_bytes: int) -> bool:
    if is_url(path):
        return _is_reachable(path)
    try:
        return os.stat(path).st_size == size_bytes and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False


def _is_reachable(url: str) -> bool:
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
        return bool(system.exists(path))
    except Exception:
        return False  # whatever a file system's client library raises: this machine cannot read it


def _load(packed: bytes) -> Job | JobError:
    from mapreduce.loading import unpack

    try:
        return unpack(pickle.loads(packed))
    except JobError as error:
        return error  # told in answer to the first order


def _run(
    channel: socket.socket, job: Job | JobError, place: _Place, order: Order, orders: OrderStream
) -> bytes:
    """Run an order; gives the report, packed."""
    if isinstance(job, JobError):
        kind, message = type(job).__name__, str(job)
        return pack_report(TaskError(task=order.task, attempt=order.attempt, kind=kind, message=message))
    setup = place.setup
    assert setup is not None, "an order belongs to a step"

    def tell(progress: TaskProgress) -> None:
        send(channel, pack_report(progress))

    attempt: Attempt | None = None
    try:
        attempt = Attempt(job, setup, order, place.shared(), tell, partial(orders.lock, order))
        return pack_report(attempt.run())
    except BaseException as error:
        stay_one()
        return pack_report(_describe(attempt, setup, order, error))
    finally:
        _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # user code closed or replaced it


def _describe(attempt: Attempt | None, setup: StepSetup, order: Order, error: BaseException) -> TaskError:
    """Say whose fault an exception is, and where it happened."""
    users = _users_part(error.__traceback__)
    kind = "UserCode"
    message = ": ".join(
        filter(None, (type(error).__name__, _quietly(lambda: one_line(error)[:MAX_MESSAGE_CHARS])))
    )
    where = _quietly(attempt.position) if attempt is not None else ""
    if isinstance(error, JobError):
        kind, message = type(error).__name__, str(error)
        if isinstance(error, BadKey) and attempt is not None:
            line = _quietly(attempt.yield_line)
            message = f"{message}; yielded at {line}" if line else message
        if isinstance(error, TaskFailed) and error.__cause__ is not None:
            error, where = error.__cause__, ""  # its message says where
            users = _users_part(error.__traceback__)
    elif isinstance(error, DamagedRun):
        kind, message = EnvironmentFailed.__name__, f"damaged data: {error}"
    elif isinstance(error, MemoryError):
        limit = f"{setup.memory_bytes:,} bytes"
        message = f"MemoryError: the task needs more than its memory limit of {limit} (--memory)"
    elif isinstance(error, OSError) and users is None:
        kind = EnvironmentFailed.__name__
        message = told(error)
    elif isinstance(error, _OUR_MISTAKES) and users is None:
        kind, message = JobError.__name__, f"a bug in ringreduce: {message}"
    elif isinstance(error, SystemExit):
        message = f"user code called sys.exit({error.code!r})"
    return TaskError(
        task=order.task,
        attempt=order.attempt,
        kind=kind,
        message=message,
        position=where,
        traceback=_quietly(lambda: _format(error, users)) if kind in _USERS_FAULT else "",
    )


def _quietly(function: Any) -> str:
    """Return a text that only explains; failing to explain must not hide what is to be explained."""
    try:
        return str(function())
    except Exception:
        return ""


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in user code, None if it never gets there."""
    return next((part for part in frames_of(trace) if begins_users(part.tb_frame.f_code.co_filename)), None)


def _format(error: BaseException, users: TracebackType | None) -> str:
    import traceback

    # A user's exception may be raised in a function of ours, task.side_file for one.
    formatted = traceback.TracebackException(type(error), error, users)
    shown: traceback.TracebackException | None = formatted
    while shown is not None:
        shown.stack = traceback.StackSummary.from_list([f for f in shown.stack if is_users(f.filename)])
        shown = shown.__cause__ or shown.__context__
    lines = "".join(formatted.format()).splitlines()
    return "\n".join(line[:MAX_LINE_CHARS] for line in lines) + "\n"


def _limit_memory(limit_bytes: int) -> None:
    if limit_bytes:
        import resource

        # RLIMIT_DATA counts what is allocated, RLIMIT_AS would count mapped files and reserved space too.
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
        except (ValueError, OSError):
            pass  # a stricter limit is already in force
