"""What a client asks about the ring, and what it is told: a key's owners, a member's story, what happens,
whether what a peer holds is sound.

A client that asks about jobs or files only imports nothing of this; see `p2p.client_protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.history import Cause
from membership.view import Member, NodeId, Status
from p2p.member_bounds import ID, MEMBER
from p2p.questions import AskMembers
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = [
    "RING_KINDS",
    "AskScrub",
    "AskWhere",
    "AskWhy",
    "Happened",
    "Question",
    "ScrubIs",
    "Story",
    "Watch",
    "WhereIs",
    "WhyIs",
    "WhyLine",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskWhere:
    """Which peers own this key, the first `count` of them?"""

    number: int
    key: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereIs:
    """The owners of a key, nearest first, and how that came about, a step a line."""

    number: int
    key: str
    owners: tuple[Member, ...]
    explanation: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskWhy:
    """Why do you believe what you believe about this node?"""

    number: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyLine:
    """One step of a member's story, `age_s` seconds before the answer was given; see `membership.history`."""

    age_s: float
    cause: Cause
    by: tuple[NodeId, ...]
    status: Status
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One member, and how it came to be what it is, oldest step first."""

    member: Member
    steps: tuple[WhyLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyIs:
    """The stories of the members whose ids begin with `node`."""

    number: int
    node: str
    stories: tuple[Story, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Tell me what happens from now on, for `lease_s` seconds; asked again before it ends, it goes on."""

    number: int
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One membership event.

    `sequence` counts the events told to this watcher, so that it notices a gap; 0 confirms a `Watch`.
    """

    number: int
    sequence: int
    event: str
    node: str
    address: str
    incarnation: int
    by: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskScrub:
    """How far have you read through what lies with you? `begins`: read through all of it now."""

    number: int
    begins: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubIs:
    """So many segments are checked, `damaged` of them were not sound and are removed; `waiting` are still to
    be read.
    """

    number: int
    checked: int
    damaged: int
    waiting: int


Question = AskMembers | AskWhere | AskWhy | Watch

RING_KINDS: tuple[Kind, ...] = (
    Kind(
        tag=22,
        message=AskWhere,
        role=Role.OBSERVE,
        bounds={"AskWhere.count": Bounds(least=1, most=1_024)},
    ),
    Kind(tag=23, message=WhereIs, role=Role.PEER, bounds={**MEMBER, "WhereIs.owners": Bounds(items=1_024)}),
    Kind(tag=24, message=AskWhy, role=Role.OBSERVE, bounds={"AskWhy.node": ID}),
    Kind(tag=25, message=WhyIs, role=Role.PEER, bounds=MEMBER),
    Kind(tag=26, message=Watch, role=Role.OBSERVE),
    Kind(tag=27, message=Happened, role=Role.PEER),
    Kind(tag=29, message=AskScrub, role=Role.SUBMIT),
    Kind(tag=30, message=ScrubIs, role=Role.PEER),
)
