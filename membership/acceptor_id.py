"""Who keeps a promise.

Apart from `membership.register`, because clients name acceptors and need nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.view import NodeId

__all__ = ["AcceptorId"]


@dataclass(frozen=True, slots=True, order=True)
class AcceptorId:
    """Who keeps a promise: a node, and the disk that it was written to.

    Attributes:
        node: where to send.
        disk: the id of the data directory; a new one for an empty disk.
    """

    node: NodeId
    disk: str
