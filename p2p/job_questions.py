"""What clients ask about jobs and files, what peers ask each other on their behalf, and the answers.

A client talks to one peer, which need not know the job: it asks those who do.  Every question carries a
number that its answer repeats.  A job is named by any beginning of its id; answers name it in full.

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
-------------  -----------------------------------------------------  -------------------------------------
Vet            Vetted: could you run this?                            peer
FetchSegment   a transfer, or NotHeld                                 peer
FindJobs       JobsFound                                              peer
ReadJob        JobRead                                                peer
ReadParts      PartsRead                                              peer
EndJob         JobRead                                                peer
=============  =====================================================  =====================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mapreduce.outcome import EventRecord, Failure, JobStatus, Totals
from membership.acceptor_id import AcceptorId
from membership.view import NodeId
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = [
    "CHUNK_BYTES",
    "QUESTION_KINDS",
    "ROWS_AT_A_TIME",
    "AskJobs",
    "AskLogs",
    "AskParts",
    "CancelJob",
    "Cancelled",
    "EndJob",
    "FetchSegment",
    "FindJobs",
    "Follow",
    "JobIs",
    "JobRead",
    "JobRow",
    "JobView",
    "JobsAre",
    "JobsFound",
    "LogsAre",
    "NotHeld",
    "PartChunk",
    "PartRow",
    "PartsAre",
    "PartsRead",
    "ReadJob",
    "ReadPart",
    "ReadParts",
    "StageView",
    "Submit",
    "Submitted",
    "Upload",
    "Uploaded",
    "Vet",
    "Vetted",
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


# -- peers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Vet:
    """Could you run this job? The spec itself, or "" if it is to be fetched from me."""

    number: int
    job: str
    spec_digest: str
    spec: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Vetted:
    """Yes (`reason` ""), and the spec lies here; or no, see `Submitted`."""

    number: int
    job: str
    reason: str = ""
    text: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSegment:
    """Send me this whole output, by a transfer."""

    number: int
    job: str
    stage: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotHeld:
    """It does not lie here."""

    number: int
    job: str
    stage: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindJobs:
    """Which jobs do you keep whose ids begin so?"""

    number: int
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsFound:
    """Those."""

    number: int
    jobs: tuple[JobRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJob:
    """How is this job?"""

    number: int
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRead:
    """How it is, as far as is known here; `leader` is who should know better, "" if nobody."""

    number: int
    job: str
    leader: NodeId
    view: JobView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadParts:
    """As `AskParts`, from peer to peer."""

    number: int
    job: str
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRead:
    """As `PartsAre`."""

    number: int
    job: str
    total: int
    rows: tuple[PartRow, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJob:
    """Cancel the job that you lead."""

    number: int
    job: str
    by: str


# -- the table ------------------------------------------------------------------------------------------

_WORD = r"[\x21-\x7e]*"
_HEX = Bounds(text_chars=64, pattern=r"[0-9a-f]*")
_NODE = Bounds(text_chars=64, pattern=_WORD)
_NODES = Bounds(items=64, text_chars=64, pattern=_WORD)
_STAGE = Bounds(least=-2, most=1 << 16)
_TEXT = Bounds(text_chars=64 << 10)
_PATHS = Bounds(items=16_384, text_chars=4_096)
_SIGNED = Bounds(least=-(1 << 63), most=(1 << 63) - 1)
_FAILURE = {f"Failure.{name}": _TEXT for name in ("message", "details", "position")}
_VIEW = {
    **_FAILURE,
    "Failure.node": _NODE,
    "JobView.job": _HEX,
    "JobView.leader": _NODE,
    "JobView.members": _NODES,
    "JobView.counters": Bounds(items=8_192, text_chars=256, least=_SIGNED.least, most=_SIGNED.most),
    "JobView.waiting_for": _TEXT,
    "StageView.total": Bounds(least=-1),
    "EventRecord.node": _NODE,
    "EventRecord.text": _TEXT,
}
_ROWS = {
    "JobRow.job": _HEX,
    "JobRow.leader": _NODE,
    "JobRow.members": _NODES,
    "JobRow.total": Bounds(least=-1),
}
_PARTS = {
    "PartRow.stage": _STAGE,
    "PartRow.digest": Bounds(bytes_len=64),
    "PartRow.holders": Bounds(items=64, text_chars=255, pattern=_WORD),
}
_SPEC = Bounds(bytes_len=INLINE_SPEC_BYTES)
_ACCEPTORS = {
    "AcceptorId.node": Bounds(text_chars=64, pattern=_WORD),
    "AcceptorId.disk": Bounds(text_chars=64, pattern=_WORD),
}


def _row(tag: int, message: type, role: Role, bounds: Mapping[str, Bounds] | None = None) -> Kind:
    return Kind(tag=tag, message=message, role=role, bounds=bounds or {})


QUESTION_KINDS: tuple[Kind, ...] = (
    _row(90, Upload, Role.SUBMIT, {"Upload.upload": _HEX, "Upload.data": Bounds(bytes_len=CHUNK_BYTES)}),
    _row(91, Uploaded, Role.PEER, {"Uploaded.upload": _HEX}),
    _row(
        92,
        Submit,
        Role.SUBMIT,
        {
            **_ACCEPTORS,
            "Submit.nonce": _HEX,
            "Submit.spec": _SPEC,
            "Submit.upload": _HEX,
            "Submit.group": Bounds(items=64),
        },
    ),
    _row(
        93,
        Submitted,
        Role.PEER,
        {
            **_ACCEPTORS,
            "Submitted.group": Bounds(items=64),
            "Submitted.job": _HEX,
            "Submitted.members": _NODES,
            "Submitted.text": _TEXT,
            "Submitted.paths": _PATHS,
            "Submitted.peers": Bounds(items=64, text_chars=255, pattern=_WORD),
        },
    ),
    _row(94, AskJobs, Role.OBSERVE, {"AskJobs.prefix": _HEX}),
    _row(95, JobsAre, Role.PEER, {**_ROWS, "JobsAre.silent": Bounds(items=4_096, text_chars=64)}),
    _row(96, Follow, Role.OBSERVE, {"Follow.job": _HEX}),
    _row(97, JobIs, Role.PEER, _VIEW),
    _row(98, AskParts, Role.OBSERVE, {"AskParts.job": _HEX}),
    _row(99, PartsAre, Role.PEER, {**_PARTS, "PartsAre.total": Bounds(least=-1)}),
    _row(100, ReadPart, Role.OBSERVE, {"ReadPart.job": _HEX, "ReadPart.stage": _STAGE}),
    _row(101, PartChunk, Role.PEER, {"PartChunk.data": Bounds(bytes_len=CHUNK_BYTES)}),
    _row(102, CancelJob, Role.SUBMIT, {"CancelJob.job": _HEX}),
    _row(103, Cancelled, Role.PEER, _VIEW),
    _row(104, AskLogs, Role.OBSERVE, {"AskLogs.job": _HEX}),
    _row(
        105,
        LogsAre,
        Role.PEER,
        {"LogsAre.node": _NODE, "LogsAre.text": Bounds(text_chars=MAX_LOG_BYTES)},
    ),
    _row(120, Vet, Role.PEER, {"Vet.job": _HEX, "Vet.spec_digest": _HEX, "Vet.spec": _SPEC}),
    _row(121, Vetted, Role.PEER, {"Vetted.job": _HEX, "Vetted.text": _TEXT, "Vetted.paths": _PATHS}),
    _row(122, FetchSegment, Role.PEER, {"FetchSegment.job": _HEX, "FetchSegment.stage": _STAGE}),
    _row(123, NotHeld, Role.PEER, {"NotHeld.job": _HEX, "NotHeld.stage": _STAGE}),
    _row(124, FindJobs, Role.PEER, {"FindJobs.prefix": _HEX}),
    _row(125, JobsFound, Role.PEER, _ROWS),
    _row(126, ReadJob, Role.PEER, {"ReadJob.job": _HEX}),
    _row(127, JobRead, Role.PEER, {**_VIEW, "JobRead.job": _HEX, "JobRead.leader": _NODE}),
    _row(128, ReadParts, Role.PEER, {"ReadParts.job": _HEX}),
    _row(129, PartsRead, Role.PEER, {**_PARTS, "PartsRead.job": _HEX, "PartsRead.total": Bounds(least=-1)}),
    _row(130, EndJob, Role.PEER, {"EndJob.job": _HEX, "EndJob.by": Bounds(text_chars=128)}),
)
