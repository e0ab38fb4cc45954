"""What a submitted job is, as plain values that any peer can read without running anything of the user's.

Theory of operation
-------------------
A submission has two halves.  The *plan* (`JobPlan`) is everything that leaders and workers compute with:
the steps in execution order, the splits of the job's inputs, how many replicas.  The *cargo* is what only a
child process ever opens: the pickled job with its source files (`JobCode`), the parameters, the side files.
Machines hold the plan; the cargo lies in a segment beside it and is looked at by nobody but its digest.

The plan is made by the client, which sees the inputs: splits and samples follow from job and input alone,
never from how many peers there are, so a job on a swarm has the tasks that the embedded engine would give it
and can be compared with it byte for byte.

Every number that somebody else may have chosen is checked when a value is built (`__post_init__`), so a plan
that exists is a plan that can be run.  What the wire refuses (types, lengths) is said in `p2p.job_protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from mapreduce.plan import Split

__all__ = [
    "MAX_PARTITIONS",
    "MAX_REPLICAS",
    "MAX_SIDE_BYTES",
    "MAX_STEPS",
    "MAX_TASKS",
    "InputSplit",
    "JobCode",
    "JobPlan",
    "JobSpec",
    "PackedColumn",
    "StepPlan",
    "job_id_of",
    "unique_prefix",
]

# A stage's tasks are listed in one record, and a record fits into one message of the register.
MAX_TASKS = 16_384
MAX_PARTITIONS = 16_384
MAX_STEPS = 256
MAX_REPLICAS = 8
MAX_ATTEMPTS = 100
MAX_PRIORITY = 10
MAX_SIDE_BYTES = 64 << 20
MAX_TTL_S = 30 * 24 * 3600.0
MIN_ID_CHARS = 4
OUT_FORMATS = ("", "text", "jsonl", "msgpack")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSplit:
    """A map task's share of the job's inputs; as `mapreduce.plan.Split`, with its place on the ring.

    Attributes:
        path: what to open on the peer that runs the task: an absolute path, a URL, or `ring:NAME`.
        name: the input as the user knows it.
        start: first byte; a record belongs to the split in which it starts.
        end: first byte behind, -1: to the end, for streams that cannot be entered midway.
        size_bytes: how much there is to read; an estimate where `end` is -1.
        key: the split's key on the ring; for a block of the ring's own store the block's key, so that its
            owner already holds it.
    """

    path: str
    name: str
    start: int = 0
    end: int = -1
    size_bytes: int = 0
    key: str

    def __post_init__(self) -> None:
        _check(self.start >= 0, f"a split starts at byte {self.start}")
        _check(self.end == -1 or self.end >= self.start, f"a split ends at byte {self.end}, before its start")
        _check(self.size_bytes >= 0, f"a split of {self.size_bytes} bytes")

    @classmethod
    def of(cls, split: Split) -> InputSplit:
        """The split with the key that a file's range has."""
        return cls(
            path=split.path,
            name=split.name,
            start=split.start,
            end=split.end,
            size_bytes=split.size_bytes,
            key=f"{split.path}:{split.start}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step, in numbers.

    Attributes:
        name: the step's name.
        after: indexes of the steps whose parts it reads, all smaller than its own; empty: the job's inputs.
        map_only: nothing is shuffled; the map tasks' outputs are the step's parts.
        partitions: number of reduce tasks asked for; 0: follows from the size of the step's input.
        sample_keys: how many keys a `TotalOrder` looks at; 0: the step has none.
        skip_limit: how many bad records the step may leave out in all.
        splits: of the job's inputs, for a step that reads them.
        samples: which splits its sampling looks at, for a `TotalOrder` step that reads the inputs.
    """

    name: str
    after: tuple[int, ...] = ()
    map_only: bool = False
    partitions: int = 0
    sample_keys: int = 0
    skip_limit: int = 0
    splits: tuple[InputSplit, ...] = ()
    samples: tuple[InputSplit, ...] = ()

    def __post_init__(self) -> None:
        _check(0 <= self.partitions <= MAX_PARTITIONS, f"{self.partitions} partitions")
        _check(len(self.splits) <= MAX_TASKS, f"{len(self.splits):,} splits")
        _check(self.sample_keys >= 0 and self.skip_limit >= 0, "a negative number of keys or records")
        _check(not (self.after and self.splits), f"step {self.name!r} reads both inputs and steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedColumn:
    """A column of keys or values as `mapreduce.columns.pack_column` encodes it."""

    form: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What leaders and workers know of a job.

    Attributes:
        name: the job's name, for people.
        steps: in execution order; the last one's parts are the result.
        replicas: R, how many peers hold each intermediate output and each part.
        strict_replicas: refuse to begin with fewer than R peers instead of warning.
        split_bytes: how large the splits of a part are that a later step reads.
        out_format: of the last step's parts: "text", "jsonl", "msgpack"; "": runs, for a client that
            iterates over pairs.
        max_attempts: a task that failed so often fails the job.
        task_timeout_s: an attempt that runs longer is ended; None: no limit.
        priority: -10 to 10; each step doubles the job's share where jobs compete.
        ttl_s: how long the result and the terminal record are kept.
        python: "major.minor" of the interpreter that packed the job.
    """

    name: str
    steps: tuple[StepPlan, ...]
    replicas: int = 2
    strict_replicas: bool = False
    split_bytes: int
    out_format: str = ""
    max_attempts: int = 3
    task_timeout_s: float | None = None
    priority: int = 0
    ttl_s: float = 3600.0
    python: str

    def __post_init__(self) -> None:
        _check(1 <= len(self.steps) <= MAX_STEPS, f"{len(self.steps)} steps")
        for index, step in enumerate(self.steps):
            _check(all(0 <= b < index for b in step.after), f"step {step.name!r} reads a step behind it")
        _check(1 <= self.replicas <= MAX_REPLICAS, f"{self.replicas} replicas: 1 to {MAX_REPLICAS} are kept")
        _check(self.split_bytes >= 1, f"splits of {self.split_bytes} bytes")
        _check(self.out_format in OUT_FORMATS, f"the output format {self.out_format!r}")
        _check(1 <= self.max_attempts <= MAX_ATTEMPTS, f"{self.max_attempts} attempts a task")
        _check(self.task_timeout_s is None or self.task_timeout_s > 0, "a time limit that has passed already")
        _check(abs(self.priority) <= MAX_PRIORITY, f"priority {self.priority}: -10 to 10 are known")
        _check(0 < self.ttl_s <= MAX_TTL_S, f"a time to live of {self.ttl_s:g} s")

    @property
    def last_step(self) -> int:
        """The index of the step whose parts are the result."""
        return len(self.steps) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCode:
    """The user's code as `mapreduce.bundling.Bundle` carries it; opened in child processes only."""

    job: bytes
    files: Mapping[str, bytes]
    file: str | None
    digest: str
    root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A whole submission: the plan and the cargo.

    Attributes:
        params: the parameters' values, as one packed column, in the order of `param_names`.
        side_files: {name: content}, at most `MAX_SIDE_BYTES` in all.
    """

    plan: JobPlan
    code: JobCode
    param_names: tuple[str, ...] = ()
    params: PackedColumn = field(default_factory=lambda: PackedColumn(form=0, data=b"\x90"))
    side_files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size_bytes = sum(map(len, self.side_files.values()))
        _check(size_bytes <= MAX_SIDE_BYTES, f"{size_bytes:,} bytes of side files")


def job_id_of(spec_digest: str, nonce: str) -> str:
    """Return a job's id: 32 hexadecimal digits that follow from the submission and the client's nonce.

    A client that repeats a submission with the same nonce means the same job, and so gets the same id.
    """
    return blake2b(f"{spec_digest}/{nonce}".encode(), digest_size=16, person=b"ringreduce.job").hexdigest()


def unique_prefix(prefix: str, ids: Sequence[str]) -> str:
    """Return the one id that begins so.

    Raises:
        ValueError: the prefix is too short, or fits none or several ids; one line that says which.
    """
    found = sorted(known for known in ids if known.startswith(prefix))
    if len(prefix) < MIN_ID_CHARS and prefix not in found:
        raise ValueError(f"{prefix!r} is too short for a job's id: give at least {MIN_ID_CHARS} characters")
    if not found:
        raise ValueError(f"no job {prefix!r} is known")
    if len(found) > 1 and prefix not in found:
        raise ValueError(f"{prefix!r} may be {found[0][:12]} or {found[1][:12]}: give more characters")
    return found[0] if prefix not in found else prefix


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"no peer runs such a job: {what}")
