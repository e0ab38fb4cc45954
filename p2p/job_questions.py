"""What clients ask about jobs, and the answers.

A client talks to one peer, which need not know the job: it asks those who do (`p2p.job_inquiries`).  Every
question carries a number that its answer repeats.  A job is named by any beginning of its id; answers name it
in full.

=============  =====================================================  =====================================
question       answer                                                 who may ask
=============  =====================================================  =====================================
Upload         Uploaded: so much of it is here                        submit
Submit         Submitted, or Refused                                  submit
AskJobs        JobsAre                                                observe
Follow         JobIs, now and whenever it changes, for the lease      observe
AskParts       PartsAre, some rows at a time                          observe
ReadPart       PartChunk                                              observe
CancelJob      Cancelled                                              submit
AskLogs        LogsAre: what user code printed on that one peer       observe
=============  =====================================================  =====================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mapreduce.outcome import EventRecord, Failure, JobStatus, Totals
from membership.acceptor_id import AcceptorId
from membership.view import NodeId
from p2p.name_bounds import ACCEPTOR, NODE, NODES, WORD
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = [
    "CHUNK_BYTES",
    "HEX",
    "PARTS",
    "PATHS",
    "QUESTION_KINDS",
    "ROWS",
    "ROWS_AT_A_TIME",
    "SPEC",
    "STAGE",
    "TEXT",
    "VIEW",
    "AskJobs",
    "AskLogs",
    "AskParts",
    "CancelJob",
    "Cancelled",
    "Follow",
    "JobIs",
    "JobRow",
    "JobView",
    "JobsAre",
    "LogsAre",
    "PartChunk",
    "PartRow",
    "PartsAre",
    "ReadPart",
    "StageView",
    "Submit",
    "Submitted",
    "Upload",
    "Uploaded",
]

CHUNK_BYTES = 512 << 10
ROWS_AT_A_TIME = 2_000
# A spec up to this length travels in the message itself.
INLINE_SPEC_BYTES = 512 << 10
MAX_LOG_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """A stage's progress; `total` is -1 where it is not known yet."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as a peer knows it.

    Attributes:
        ballot: of the last leadership.
        epoch: of the job's group, `members`.
        input_bytes: what its splits hold together.
        waiting_for: why nothing moves, "" while something does.
        is_fresh: the leader says so, or it is final; otherwise the leader may know more.
    """

    job: str
    name: str
    state: JobStatus
    leader: NodeId
    ballot: int
    epoch: int
    members: tuple[NodeId, ...]
    stages: tuple[StageView, ...]
    counters: Mapping[str, int]
    totals: Totals
    failure: Failure | None
    events: tuple[EventRecord, ...]
    born_at_s: float
    ended_at_s: float
    input_bytes: int
    out_format: str
    waiting_for: str = ""
    is_fresh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A line of the list of jobs."""

    job: str
    name: str
    state: JobStatus
    leader: NodeId
    done: int
    total: int
    born_at_s: float
    ended_at_s: float
    members: tuple[NodeId, ...]
    is_fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One part of a result, and who holds it; `attempt` 0: it is empty and lies nowhere."""

    part: int
    stage: int
    attempt: int
    digest: bytes
    size_bytes: int
    holders: tuple[str, ...]


# -- clients --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Bytes of something large, from `offset` on; `size_bytes` of it are to come in all."""

    number: int
    upload: str
    offset: int
    size_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """So much of it is here; the next chunk begins there."""

    number: int
    upload: str
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Run this job: the packed spec itself, or the name of an upload that brought it.

    `nonce` is the client's: the same submission with the same nonce is the same job.  `group` is empty
    at first; then it is what the first answer named, whoever is asked (`p2p.submissions` says why).
    """

    number: int
    nonce: str
    spec: bytes
    upload: str = ""
    group: tuple[AcceptorId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job exists, and will outlive this peer. `warnings` are lines for people.

    `reason` is "" if so; "pending" while that is not known; "group" when it may begin: submit it again with
    this `group`; otherwise why not: "inputs" (of `paths`, which
    some peer cannot read), "python", "code", "replicas", "quorum", "spec", "upload", "disk", "busy"; `text`
    says it in one line. `peers` are addresses of peers, to go on with if this one dies.
    """

    number: int
    job: str
    members: tuple[NodeId, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""
    text: str = ""
    paths: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    group: tuple[AcceptorId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskJobs:
    """Which jobs are there whose ids begin so?"""

    number: int
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsAre:
    """The jobs that any peer knows of; `silent` are peers that did not answer in time."""

    number: int
    jobs: tuple[JobRow, ...]
    silent: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How is this job, now and whenever that changes, for `lease_s` (0: now only)?"""

    number: int
    job: str
    lease_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIs:
    """How a job is; None: nobody who was asked knows it."""

    number: int
    view: JobView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskParts:
    """Where do the parts of the result lie, from number `first` on?"""

    number: int
    job: str
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsAre:
    """Some parts; `total` of them there are in all, -1: there is no result to be had."""

    number: int
    total: int
    rows: tuple[PartRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPart:
    """Give me bytes of a part that lies with you."""

    number: int
    job: str
    stage: int
    attempt: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartChunk:
    """Some bytes of a part; `is_here` is False if it does not lie here."""

    number: int
    offset: int
    data: bytes
    is_here: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """End this job."""

    number: int
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of it: its state now; None: nobody who leads it was reached."""

    number: int
    view: JobView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLogs:
    """What has user code of this job printed on your machine?"""

    number: int
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsAre:
    """What was printed, the end of it where it was much."""

    number: int
    node: NodeId
    text: str


# -- the table ------------------------------------------------------------------------------------------

HEX = Bounds(text_chars=64, pattern=r"[0-9a-f]*")
STAGE = Bounds(least=-2, most=1 << 16)
TEXT = Bounds(text_chars=64 << 10)
PATHS = Bounds(items=16_384, text_chars=4_096)
_SIGNED = Bounds(least=-(1 << 63), most=(1 << 63) - 1)
_FAILURE = {f"Failure.{name}": TEXT for name in ("message", "details", "position")}
VIEW = {
    **_FAILURE,
    "Failure.node": NODE,
    "JobView.job": HEX,
    "JobView.leader": NODE,
    "JobView.members": NODES,
    "JobView.counters": Bounds(items=8_192, text_chars=256, least=_SIGNED.least, most=_SIGNED.most),
    "JobView.waiting_for": TEXT,
    "StageView.total": Bounds(least=-1),
    "EventRecord.node": NODE,
    "EventRecord.text": TEXT,
}
ROWS = {
    "JobRow.job": HEX,
    "JobRow.leader": NODE,
    "JobRow.members": NODES,
    "JobRow.total": Bounds(least=-1),
}
PARTS = {
    "PartRow.stage": STAGE,
    "PartRow.digest": Bounds(bytes_len=64),
    "PartRow.holders": Bounds(items=64, text_chars=255, pattern=WORD),
}
SPEC = Bounds(bytes_len=INLINE_SPEC_BYTES)


def _row(tag: int, message: type, role: Role, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=role, bounds=bounds or {})


QUESTION_KINDS: tuple[Kind, ...] = (
    _row(90, Upload, Role.SUBMIT, {"Upload.upload": HEX, "Upload.data": Bounds(bytes_len=CHUNK_BYTES)}),
    _row(91, Uploaded, Role.PEER, {"Uploaded.upload": HEX}),
    _row(
        92,
        Submit,
        Role.SUBMIT,
        {
            **ACCEPTOR,
            "Submit.nonce": HEX,
            "Submit.spec": SPEC,
            "Submit.upload": HEX,
            "Submit.group": Bounds(items=64),
        },
    ),
    _row(
        93,
        Submitted,
        Role.PEER,
        {
            **ACCEPTOR,
            "Submitted.group": Bounds(items=64),
            "Submitted.job": HEX,
            "Submitted.members": NODES,
            "Submitted.text": TEXT,
            "Submitted.paths": PATHS,
            "Submitted.peers": Bounds(items=64, text_chars=255, pattern=WORD),
        },
    ),
    _row(94, AskJobs, Role.OBSERVE, {"AskJobs.prefix": HEX}),
    _row(95, JobsAre, Role.PEER, {**ROWS, "JobsAre.silent": Bounds(items=4_096, text_chars=64)}),
    _row(96, Follow, Role.OBSERVE, {"Follow.job": HEX}),
    _row(97, JobIs, Role.PEER, VIEW),
    _row(98, AskParts, Role.OBSERVE, {"AskParts.job": HEX}),
    _row(99, PartsAre, Role.PEER, {**PARTS, "PartsAre.total": Bounds(least=-1)}),
    _row(100, ReadPart, Role.OBSERVE, {"ReadPart.job": HEX, "ReadPart.stage": STAGE}),
    _row(101, PartChunk, Role.PEER, {"PartChunk.data": Bounds(bytes_len=CHUNK_BYTES)}),
    _row(102, CancelJob, Role.SUBMIT, {"CancelJob.job": HEX}),
    _row(103, Cancelled, Role.PEER, VIEW),
    _row(104, AskLogs, Role.OBSERVE, {"AskLogs.job": HEX}),
    _row(
        105,
        LogsAre,
        Role.PEER,
        {"LogsAre.node": NODE, "LogsAre.text": Bounds(text_chars=MAX_LOG_BYTES)},
    ),
)
