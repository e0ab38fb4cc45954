"""One child process as its parent holds it: how it starts, what guards it, how it ends.

⚙ Starts and ends processes.

For each child there are a socket (orders out, reports in), a pipe with whatever it prints
(`mapreduce.child_output`), and a guard: a shell that waits at a pipe whose other end only we hold.  However
we end, the guard then kills the child's process group.  A thread of the child could not, while user code
keeps the interpreter lock; a death signal would reach the child alone, and not what it started.

A child leads a session of its own, so what it starts can be ended with it.  Its own side is
`mapreduce.child`; who gets which order, and when a child must end, is `mapreduce.executor`'s affair.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field

from mapreduce.child_output import ChildOutput
from mapreduce.loads import Load
from mapreduce.orders import AnyOrder, crash_path

__all__ = ["MAX_WINDOW", "Child", "how_it_ended"]

# However short its tasks, a child is not handed more than this at a time.
MAX_WINDOW = 64
WINDOW_S = 0.05
# A running mean of a child's task times gives so much weight to the last.
SMOOTHING = 0.3
MAX_CRASH_REPORT_BYTES = 64 << 10

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


@dataclass(slots=True, kw_only=True, eq=False)
class Child:
    """One process and what it has been asked to do.

    Attributes:
        orders: what it was given and has not answered, the one it runs first; `loads` of each.
        answered: the order of the report that is being given, after it has left `orders`.
        code, setup, work_dir: of the load that it holds.
        outbox, inbox: bytes it does not take yet, and the beginning of a report.
        is_read_dry: its socket had nothing more to read.
        busy_since: when it began with the first of its orders.
        killed_for: why we ended it, in words.
        closed_at: when it closed its end of the socket.
        task_s: a running mean of how long a task takes, to choose how many to hand out at a time.
        took_s: how long the last one took.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    output: ChildOutput
    guard: subprocess.Popen[bytes] | None = None
    orders: deque[AnyOrder] = field(default_factory=deque)
    loads: deque[Load] = field(default_factory=deque)
    answered: AnyOrder | None = None
    code: bytes = b""
    setup: bytes = b""
    work_dir: str = ""
    outbox: bytearray = field(default_factory=bytearray)
    is_read_dry: bool = False
    inbox: bytearray = field(default_factory=bytearray)
    busy_since: float = 0.0
    killed_for: str = ""
    closed_at: float | None = None
    task_s: float = 1.0
    took_s: float = 0.0

    @classmethod
    def start(cls, memory_limit_bytes: int) -> Child:
        """Start a child that waits for orders; it is yet to be guarded.

        Args:
            memory_limit_bytes: what it may allocate, 0 for no limit.

        Raises:
            OSError: there is no room for another process or descriptor; nothing is left behind.
        """
        with contextlib.ExitStack() as passed_on, contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            passed_on.callback(theirs.close)
            output_read, output_write = os.pipe()
            undo.callback(os.close, output_read)
            passed_on.callback(os.close, output_write)
            # If we end before somebody has it in hand, it ends at the end of its socket.
            process = _process(theirs.fileno(), output_write, memory_limit_bytes)
            child = cls(process=process, channel=ours, output=ChildOutput(output_read))
            undo.pop_all()
        return child

    def begin_guard(self) -> None:
        """Have the child ended, with all it has started, however this process ends."""
        self.guard = subprocess.Popen(
            [*_GUARD, str(self.process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.channel.setblocking(False)
        os.set_blocking(self.output.fd, False)

    @property
    def window(self) -> int:
        """How many orders it may have at a time, so that short tasks do not wait for the next one."""
        return max(2, min(MAX_WINDOW, int(WINDOW_S / max(self.task_s, 1e-4))))

    def answer_first(self, now: float) -> None:
        """The order it ran is answered, and it goes on with the next."""
        self.took_s = now - self.busy_since
        self.task_s = (1 - SMOOTHING) * self.task_s + SMOOTHING * self.took_s
        self.busy_since = now
        self.answered = self.orders.popleft()
        self.loads.popleft()
        self.output.begin_task()

    def kill(self, reason: str) -> None:
        """End it and all it has started, and remember why."""
        self.killed_for = reason
        self.kill_group()

    def kill_group(self) -> None:
        """End it and all it has started; nothing happens to what is gone."""
        # PermissionError: macOS says so of a group of which only a zombie is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self, options: int) -> resource.struct_rusage | None:
        """Take it from the system when it is dead.

        Args:
            options: `os.WNOHANG`, or 0 to wait until it is.

        Returns:
            What it used; None while it lives, and when it was taken before.
        """
        if self.process.returncode is not None:
            return None
        pid, status, usage = os.wait4(self.process.pid, options)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage

    def close(self) -> None:
        """Let go of socket, pipe and guard; once more does what an interrupt has kept from being done."""
        self.channel.close()
        self.output.close()
        if self.guard is not None:
            self.guard.kill()
            self.guard.communicate()  # closes the pipe once it is dead

    def peak_memory_bytes(self) -> int:
        """Return the most that it has held, while it lives; 0 where the system does not tell.

        Linux counts in `ru_maxrss` of a child what its parent held when it forked.
        """
        try:
            with open(f"/proc/{self.process.pid}/status", "rb") as file:
                for line in file:
                    if line.startswith(b"VmHWM:"):
                        return int(line.split()[1]) << 10
        except OSError:
            pass
        return 0

    def last_frames(self) -> list[str]:
        """Return where user code was when the process crashed, if Python could tell."""
        try:
            with open(crash_path(self.work_dir, self.process.pid), errors="replace") as file:
                lines = file.read(MAX_CRASH_REPORT_BYTES).splitlines()
        except FileNotFoundError:  # it crashed before its first order, or the job is gone
            return []
        return [line for line in lines if not _OUR_FRAME.search(line)]


def _process(orders_fd: int, output_fd: int, memory_limit_bytes: int) -> subprocess.Popen[bytes]:
    boot = _BOOT.format(root=_PACKAGE_ROOT, orders=orders_fd, memory=memory_limit_bytes)
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
