"""What leaders and workers want done.

The shell (`p2p.job_hands`) performs effects in the order in which they are returned, and answers by calling
the machine's `on_…` methods.  Nothing is answered before the call that returned the effect has ended.

=============  ==========================================  ===========================================
effect         the shell …                                 and answers
=============  ==========================================  ===========================================
Send           sends once; to this very peer too           -
Propose        applies changes to the job's register       `Leader.on_committed`
StepDown       drops the leader                            -
RunTask        has a child process run the attempt         `Worker.on_task_done`, `on_task_failed`
CancelTask     ends it and removes what it wrote           -
Forget         removes what attempts left in work files    -
Push           brings outputs to a peer                    `Worker.on_pushed`, `on_push_failed`
CancelPush     forgets a push                              -
Fetch          brings a range of a part here               `Worker.on_fetched`, `on_fetch_failed`
FetchPlan      finds a job's spec and unpacks it           `Worker.on_plan`, `on_plan_failed`
ReadInventory  lists what lies here of a job               `Worker.on_inventory`
Drop           removes outputs of some stages              -
DropJob        removes all but one stage's outputs         -
Announce       tells whoever listens                       -
=============  ==========================================  ===========================================
"""

from __future__ import annotations

from dataclasses import dataclass

from mapreduce.changes import Proposal
from mapreduce.messages import HeldGroup, Message, Piece
from mapreduce.record import EventRecord, JobStatus, StageKind
from mapreduce.spec import InputSplit, PackedColumn
from membership.view import NodeId

__all__ = [
    "Announce",
    "CancelPush",
    "CancelTask",
    "Drop",
    "DropJob",
    "Effect",
    "Fetch",
    "FetchPlan",
    "Forget",
    "Happened",
    "JobEnded",
    "LeaderEffect",
    "Propose",
    "Push",
    "ReadInventory",
    "RunTask",
    "Send",
    "StageSetup",
    "Stalled",
    "StepDown",
    "TaskOutput",
    "WorkerEffect",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a message, once, without waiting; losing it is expected and harmless."""

    to: NodeId
    message: Message


# -- of a leader ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Apply a proposal to the job's record: `mapreduce.changes.apply`.

    A leader has one proposal under way at a time. The register retries it for as long as it takes; when
    another proposer has outbid it, the shell drops the leader without an answer.
    """

    job: str
    proposal: Proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDown:
    """The job is over and everybody knows, as far as they could be told: drop this leader."""

    job: str


# -- of a worker ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSetup:
    """What all attempts of a stage share; one object for all of them.

    Attributes:
        step: index of the step in the plan; `step_name` its name.
        kind: what the tasks do.
        partitions: reduce tasks of the step.
        borders: of a `TotalOrder`.
        out_format: of the parts: "" for a run.
        map_only: the map tasks' outputs are parts.
    """

    job: str
    stage: int
    step: int
    step_name: str
    kind: StageKind
    partitions: int
    borders: PackedColumn | None
    out_format: str
    map_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTask:
    """Run one attempt in a child process.

    Attributes:
        number: how often the task has been tried, from 1: what user code sees as its attempt.
        split: of a map or sampling task that reads the job's inputs.
        piece: of one that reads a part; the bytes are here (`Fetch` came before, where they were not).
        sample_keys: of a sampling task: how many keys to report.
        read_stage: of a reduce task: the stage of the outputs it reads.
        reads: of a reduce task: the winning attempt of each map task, in task order; 0: nothing to read.
    """

    setup: StageSetup
    task: int
    attempt: int
    number: int
    split: InputSplit | None = None
    piece: Piece | None = None
    sample_keys: int = 0
    read_stage: int = -1
    reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutput:
    """What the shell says of an attempt that succeeded; its files are complete and lie here.

    Attributes:
        partitions: of a map task: those for which there are pairs, ascending.
        is_empty: nothing was written that anybody could read.
        digest, size_bytes: of a part; `size_bytes` of map outputs too.
        took_s: how long the child was busy with it, to judge how many tasks to queue.
    """

    partitions: tuple[int, ...] = ()
    is_empty: bool = False
    digest: bytes = b""
    size_bytes: int = 0
    records: int = 0
    cuts: tuple[int, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    sample: PackedColumn | None = None
    spilled_bytes: int = 0
    bad_records: int = 0
    took_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """End an attempt: kill it if it runs, remove what it wrote, answer nothing."""

    job: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """These attempts are settled: what they left in working files, beside pushed outputs, is not needed."""

    job: str
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Bring outputs to `to`, and have them acknowledged there with their digests.

    Attributes:
        number: names this push in the answer.
        group: which attempts, and of these which partitions (empty: all there is).
        is_repair: a copy in the background, to be throttled.
    """

    job: str
    number: int
    to: NodeId
    group: HeldGroup
    is_repair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelPush:
    """A push that nobody waits for any more; no answer is expected."""

    job: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Bring the bytes of a piece here, from one of its holders."""

    job: str
    attempt: int
    piece: Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """Find the spec with this digest (the leader and the members have it) and unpack its plan."""

    job: str
    spec_digest: str
    sources: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInventory:
    """List what lies here of a job."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Remove the outputs of some stages."""

    job: str
    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropJob:
    """Remove everything of a job; the outputs of `keep_stage` (-1: none) stay for `keep_s` seconds."""

    job: str
    keep_stage: int
    keep_s: float


# -- of both --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something for the job's log on this peer; the weightier events are in the record as well."""

    job: str
    event: EventRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Nothing has moved for a while, and why; an empty text: it moves again."""

    job: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """The job has come to its end, as this peer has just learnt."""

    job: str
    status: JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Tell whoever listens."""

    event: Happened | Stalled | JobEnded


LeaderEffect = Send | Propose | StepDown | Announce
WorkerEffect = (
    Send
    | RunTask
    | CancelTask
    | Forget
    | Push
    | CancelPush
    | Fetch
    | FetchPlan
    | ReadInventory
    | Drop
    | DropJob
    | Announce
)
Effect = LeaderEffect | WorkerEffect
