"""What peers say to each other about the parts of results of jobs that are over, see `p2p.result_keeper`.

=============  ==========================================================================================
AskKept        who keeps a job's record asks everybody what lies with him of its result; `KeptHere` answers
SendKept       it asks a holder to send a part to another peer; `KeptSent` says what became of that
KeptHurt       a holder tells everybody that what it had of a result is not here any more
TimeIsOver     who kept a job's record tells whoever still speaks of it that its time to live is over
=============  ==========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from mapreduce.spec import MAX_STEPS, MAX_TASKS
from membership.view import NodeId
from p2p.name_bounds import JOB, NODE
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = ["RESULT_KINDS", "AskKept", "KeptHere", "KeptHurt", "KeptSent", "SendKept", "TimeIsOver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskKept:
    """What have you of this result?  What you have, or will be sent, is to be kept so long.

    Attributes:
        number: the answer repeats it.
        stage: whose outputs are the result.
        left_s: of the job's time to live.
    """

    number: int
    job: str
    stage: int
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHere:
    """Whole outputs of these attempts lie here."""

    number: int
    job: str
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendKept:
    """Send this part to that peer, in the background."""

    number: int
    job: str
    stage: int
    attempt: int
    to: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSent:
    """It was sent, or was not."""

    number: int
    job: str
    attempt: int
    to: NodeId
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHurt:
    """Something of this result was damaged here, and is gone."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeIsOver:
    """This job has ended, and so has its time to live: I have kept its record, and forgotten it since."""

    job: str


_STAGE = Bounds(most=3 * MAX_STEPS)


def _row(tag: int, message: type, **bounds: Bounds) -> Kind:
    found = {f"{message.__name__}.{name}": limit for name, limit in bounds.items()}
    return Kind(tag=tag, message=message, role=Role.PEER, bounds={f"{message.__name__}.job": JOB} | found)


RESULT_KINDS: tuple[Kind, ...] = (
    _row(150, AskKept, stage=_STAGE),
    _row(151, KeptHere, attempts=Bounds(items=MAX_TASKS)),
    _row(152, SendKept, stage=_STAGE, to=NODE),
    _row(153, KeptSent, to=NODE, reason=Bounds(text_chars=4_096)),
    _row(154, KeptHurt),
    _row(155, TimeIsOver),
)
