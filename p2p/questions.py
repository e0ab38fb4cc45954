"""What every client may have to ask a peer, and what it is told.

A question carries a number that its answers repeat, so that an answer that comes late is not taken for
another. Answers go back over the connection on which the question came: a client has no inbox.  What else
there is to ask is about the ring (`p2p.ring_questions`), jobs (`p2p.job_questions`) or files
(`p2p.file_questions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membership.view import Member
from p2p.member_bounds import MEMBER
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import MAX_ITEMS, Kind

__all__ = ["COMMON_KINDS", "AskMembers", "MembersAre", "Refused"]


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
class Refused:
    """What was sent is not taken: `kind` is the counter of such refusals, `text` says why in one line.

    A frame is refused as a whole, before anybody looks at the number in it, so `number` is 0: a client takes
    this for the answer to whatever it asks at the moment.  A peer that is told so by another peer notes why
    that one cannot be talked to.
    """

    number: int
    kind: str
    text: str


COMMON_KINDS: tuple[Kind, ...] = (
    Kind(tag=20, message=AskMembers, role=Role.OBSERVE),
    Kind(
        tag=21,
        message=MembersAre,
        role=Role.PEER,
        bounds={**MEMBER, "MembersAre.members": Bounds(items=MAX_ITEMS)},
    ),
    Kind(tag=28, message=Refused, role=Role.PEER),
)
