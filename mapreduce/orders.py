"""What an engine asks of a process that runs user code, and what it hears back.

Orders go to the child as pickles: both ends are one program of one user, joined by a private socket.
Reports come back as msgpack, never as pickle, because user code runs on the sending side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mapreduce.plan import Split
from mapreduce.run_files import RunRange


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSetup:
    """What all tasks of a step share; sent to a child before its first order of the step.

    Attributes:
        step: the step's name.
        partitions: number of reduce tasks.
        borders: keys between partitions for a `TotalOrder`, else None.
        params: the job's parameters.
        side_files: {name: local path}.
        work_dir: where outputs and spills of attempts go.
        out_format: "text", "jsonl" or "msgpack" in the job's last step; None: a run for the next step.
        split_bytes: how large the next step's splits are to be.
        memory_bytes: what a task may use, as a guide for when to spill.
        asks_for_locks: named locks are given by whoever gives the orders; otherwise they are files in
            `work_dir`, which exclude all tasks on this machine.
        head_bytes: left free at the beginning of each file that holds the output of one attempt alone.
    """

    step: str
    partitions: int
    borders: tuple[Any, ...] | None
    params: Mapping[str, Any]
    side_files: Mapping[str, str]
    work_dir: str
    out_format: str | None
    split_bytes: int
    memory_bytes: int
    asks_for_locks: bool = False
    head_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOrder:
    """Run one attempt of a map task; `out_path` is where the part of a map-only step goes.

    `number`, of any order, is what user code sees as its attempt; 0: that is `attempt` itself.
    """

    task: int
    attempt: int
    split: Split
    out_path: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceOrder:
    """Run one attempt of a reduce task over the runs of its partition, given in map task order."""

    task: int
    attempt: int
    runs: tuple[RunRange, ...]
    out_path: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOrder:
    """Map the beginning of a split and report at most `keys` of the keys it gives."""

    task: int
    attempt: int
    split: Split
    keys: int
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """Load the job's code and do nothing with it: is there all that it needs?

    Attributes:
        inputs: files that must be here, and their sizes in bytes.
    """

    task: int = 0
    attempt: int = 0
    inputs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAnswer:
    """What became of a `TaskLock`: the token, or why there is none. Goes to the child between orders."""

    ticket: int
    token: int = 0
    reason: str = ""


Order = MapOrder | ReduceOrder | SampleOrder
AnyOrder = Order | CheckOrder


def task_kind(order: Order) -> str:
    """Return "map", "reduce" or "sample"."""
    match order:
        case MapOrder():
            return "map"
        case ReduceOrder():
            return "reduce"
        case SampleOrder():
            return "sample"


def task_name(kind: str, task: int) -> str:
    """Return a task's name, such as "map-00012"."""
    return f"{kind}-{task:05d}"


def crash_path(work_dir: str, pid: int) -> str:
    """Return the file in which a child that crashes leaves its stack."""
    return f"{work_dir}/crash.{pid}"


@dataclass(slots=True, kw_only=True)
class TaskDone:
    """An attempt succeeded; its files are complete.

    Attributes:
        ranges: of a map task: (partition, run) for each partition that holds something.
        digest: of a part: xxh3-128 of its bytes.
        cuts: of a part that a later step reads: where its splits begin and end, in bytes.
        sample: of a sample task: a packed column of keys and its form.
        cpu_s: processor time the attempt took, user and system.
    """

    task: int
    attempt: int
    path: str = ""
    digest: bytes = b""
    ranges: list[tuple[int, RunRange]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    sample: tuple[int, bytes] = (0, b"")
    counters: dict[str, int] = field(default_factory=dict)
    records_in: int = 0
    records_out: int = 0
    bytes_out: int = 0
    spilled_bytes: int = 0
    bad_records: int = 0
    cpu_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class TaskError:
    """An attempt failed by an exception.

    Attributes:
        kind: name of a class in `mapreduce.errors`, or "UserCode".
        message: one line.
        position: where in the input, or at which key.
        traceback: the user's own frames.
    """

    task: int
    attempt: int
    kind: str
    message: str
    position: str = ""
    traceback: str = ""


@dataclass(slots=True, kw_only=True)
class TaskProgress:
    """A sign of life of the running attempt: bytes of input read so far, and what user code says it does."""

    task: int
    attempt: int
    bytes_read: int = 0
    status: str | None = None


@dataclass(slots=True, kw_only=True)
class TaskLock:
    """The running attempt wants a named lock, or lets go of it.

    Attributes:
        ticket: names this claim; `LockAnswer` repeats it.
        name: the lock's; "" to let go.
    """

    task: int
    attempt: int
    ticket: int
    name: str = ""
    is_wanted: bool = True


Report = TaskDone | TaskError | TaskProgress | TaskLock
_TAGS: tuple[type[Report], ...] = (TaskDone, TaskError, TaskProgress, TaskLock)


def pack_report(report: Report) -> bytes:
    """Encode a report."""
    import msgpack

    fields = {name: getattr(report, name) for name in type(report).__slots__}
    if isinstance(report, TaskDone):
        fields["ranges"] = [
            (partition, run.path, run.offset, run.length, run.keys, run.values, run.is_sorted)
            for partition, run in report.ranges
        ]
    packed: bytes = msgpack.packb([_TAGS.index(type(report)), fields], unicode_errors="surrogatepass")
    return packed


def unpack_report(data: bytes) -> Report:
    """Decode what `pack_report` made."""
    import msgpack

    tag, fields = msgpack.unpackb(data, unicode_errors="surrogatepass")
    if _TAGS[tag] is TaskDone:
        fields["ranges"] = [
            (
                partition,
                RunRange(
                    path=path, offset=offset, length=length, keys=keys, values=values, is_sorted=is_sorted
                ),
            )
            for partition, path, offset, length, keys, values, is_sorted in fields["ranges"]
        ]
        fields["sample"] = tuple(fields["sample"])
    report: Report = _TAGS[tag](**fields)
    return report
