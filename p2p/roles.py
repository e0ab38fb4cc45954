"""What the holder of a key may do.

A connection is authenticated by its CURVE key, each key belongs to one role, and a message's rights come
from the role of the connection it came over, whatever the message says about its sender.  Roles are
ordered: each may do all that the one below may.
"""

from __future__ import annotations

import enum

__all__ = ["Role"]


class Role(enum.IntEnum):
    """Who may say what to a peer."""

    OBSERVE = 1  # may ask: who is here, who owns what, how far a job is
    SUBMIT = 2  # may also hand in jobs and files, and so run code as the peer's user
    PEER = 3  # may also gossip, take tasks and hold data

    @property
    def label(self) -> str:
        """The name used in files, tokens, commands and as the User-Id of a connection."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Role | None:
        """The role of that name, or None."""
        return _BY_LABEL.get(label)


_BY_LABEL = {role.label: role for role in Role}
