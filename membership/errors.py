"""What can go wrong in membership, and whose fault it is.

A leaf: imports nothing of ours. The machines themselves never raise because of what a peer sent: bad news
from the network is ignored, answered or announced. What is raised here is always the fault of the caller on
this host.
"""

from __future__ import annotations

__all__ = [
    "DamagedVote",
    "EmptyRing",
    "InvalidConfig",
    "InvalidGroup",
    "InvalidMember",
    "MembershipError",
    "SwimStopped",
    "TooManyProposals",
    "UnknownRegister",
]


class MembershipError(Exception):
    """Base of every error of this package."""


class InvalidConfig(MembershipError, ValueError):
    """Two settings contradict each other (the caller's fault; nothing has started)."""


class InvalidMember(MembershipError, ValueError):
    """A record no peer can start with, such as one without an id (the caller's fault; nothing started)."""


class SwimStopped(MembershipError):
    """The machine has left, or its identity was refused; it takes no more commands (the caller's fault)."""


class EmptyRing(MembershipError, LookupError):
    """A key was looked up in a ring without members (retry after someone has joined)."""


class InvalidGroup(MembershipError, ValueError):
    """A register's members are none, or not distinct (the caller's fault; nothing was written)."""


class TooManyProposals(MembershipError):
    """A proposer's queue is full (the caller's, who may try again later; the change had no effect)."""


class DamagedVote(MembershipError):
    """An acceptor's state cannot be read back (the environment's fault).

    Its promises are lost with it: the acceptor must not speak again but under a new disk id.
    """


class UnknownRegister(MembershipError, LookupError):
    """A key was used whose group this node does not know (the caller's fault: it must `learn` it first)."""
