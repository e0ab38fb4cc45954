"""What a client asks a peer, and what it is told.

A question carries a number that its answers repeat, so that an answer that comes late is not taken for
another. Answers go back over the connection on which the question came: a client has no inbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membership.history import Cause
from membership.view import Member, NodeId, Status

__all__ = [
    "Answer",
    "AskMembers",
    "AskWhere",
    "AskWhy",
    "Happened",
    "MembersAre",
    "Question",
    "Refused",
    "Story",
    "Watch",
    "WhereIs",
    "WhyIs",
    "WhyLine",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskMembers:
    """Who is here, as you see it?"""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersAre:
    """The view of the peer that was asked.

    `me` is its id, `health` its own ill health (0 is well).  `refused` counts what it has turned away since
    its start, by kind; `counters` what else it has counted.
    """

    number: int
    cluster: str
    me: str
    health: int
    ring_digest: bytes
    members: tuple[Member, ...]
    refused: Mapping[str, int]
    counters: Mapping[str, int]


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
class Refused:
    """The peer will not answer: `kind` is the refusal's counter, `text` says why in one line."""

    number: int
    kind: str
    text: str


Question = AskMembers | AskWhere | AskWhy | Watch
Answer = MembersAre | WhereIs | WhyIs | Happened | Refused
