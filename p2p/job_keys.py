"""Under which names jobs lie in registers and in the store."""

from __future__ import annotations

from collections.abc import Iterable

from membership.register import AcceptorId
from membership.view import NodeId

__all__ = ["JOB_KEY", "SPEC_ATTEMPT", "nodes_of"]

JOB_KEY = "job/"
# A spec lies in the store as the only attempt of its stage.
SPEC_ATTEMPT = 1


def nodes_of(members: Iterable[AcceptorId]) -> tuple[NodeId, ...]:
    """Return the nodes of a group's acceptors, in its order."""
    return tuple(member.node for member in members)
