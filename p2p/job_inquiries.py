"""What peers ask each other about jobs, mostly on behalf of a client, and the answers.

A number stands in every question and in its answer, as in `p2p.job_questions`, whose limits hold here, too.

=============  =====================================================
question       answer
=============  =====================================================
Vet            Vetted: could you run this?
FetchSegment   a transfer, or NotHeld
FindJobs       JobsFound
ReadJob        JobRead
ReadParts      PartsRead
EndJob         JobRead
=============  =====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from membership.view import NodeId
from p2p.job_questions import HEX, PARTS, PATHS, ROWS, SPEC, STAGE, TEXT, VIEW, JobRow, JobView, PartRow
from p2p.name_bounds import NODE
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = [
    "INQUIRY_KINDS",
    "EndJob",
    "FetchSegment",
    "FindJobs",
    "JobRead",
    "JobsFound",
    "NotHeld",
    "PartsRead",
    "ReadJob",
    "ReadParts",
    "Vet",
    "Vetted",
]


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


def _row(tag: int, message: type, bounds: Mapping[str, Bounds]) -> Kind:
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=bounds)


INQUIRY_KINDS: tuple[Kind, ...] = (
    _row(120, Vet, {"Vet.job": HEX, "Vet.spec_digest": HEX, "Vet.spec": SPEC}),
    _row(121, Vetted, {"Vetted.job": HEX, "Vetted.text": TEXT, "Vetted.paths": PATHS}),
    _row(122, FetchSegment, {"FetchSegment.job": HEX, "FetchSegment.stage": STAGE}),
    _row(123, NotHeld, {"NotHeld.job": HEX, "NotHeld.stage": STAGE}),
    _row(124, FindJobs, {"FindJobs.prefix": HEX}),
    _row(125, JobsFound, ROWS),
    _row(126, ReadJob, {"ReadJob.job": HEX}),
    _row(127, JobRead, {**VIEW, "JobRead.job": HEX, "JobRead.leader": NODE}),
    _row(128, ReadParts, {"ReadParts.job": HEX}),
    _row(129, PartsRead, {**PARTS, "PartsRead.job": HEX, "PartsRead.total": Bounds(least=-1)}),
    _row(130, EndJob, {"EndJob.job": HEX, "EndJob.by": Bounds(text_chars=128)}),
)
