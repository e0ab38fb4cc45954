"""What a client asks a peer, and what it is told.

A question carries a number that its answers repeat, so that an answer that comes late is not taken for
another. Answers go back over the connection on which the question came: a client has no inbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membership.view import Member

__all__ = [
    "Answer",
    "AskMembers",
    "AskWhere",
    "AskWhy",
    "Happened",
    "MembersAre",
    "Owner",
    "Question",
    "Refused",
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

    `refused` counts what it has turned away since its start, by kind; `dropped` what it could not send.
    """

    number: int
    cluster: str
    version: int
    ring_digest: bytes
    asked: str
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
class Owner:
    """One owner of a key."""

    id: str
    address: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereIs:
    """The owners of a key in ring order, and how that came about."""

    number: int
    key: str
    position: int
    owners: tuple[Owner, ...]
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskWhy:
    """Why do you believe what you believe about this node?"""

    number: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyLine:
    """One thing that happened: `age_s` seconds before the answer was given."""

    age_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyIs:
    """What is believed about a node, and the history behind it, oldest first; None where it was never heard
    of."""

    number: int
    node: str
    status: str | None
    history: tuple[WhyLine, ...]


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
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The peer will not answer: `kind` is the refusal's counter, `text` says why in one line."""

    number: int
    kind: str
    text: str


Question = AskMembers | AskWhere | AskWhy | Watch
Answer = MembersAre | WhereIs | WhyIs | Happened | Refused
