"""What can go wrong between processes, sorted by whose fault it is.

Two families.  `WireError` is about one frame: a stranger, an old version or a broken peer sent it, it had
no effect, and the receiver counts it and goes on.  `PeerError` is about this process: the operator gets
`str(error)` as one line and the process ends with `exit_code` (2: the request or the machine's setting is
wrong; 3: nobody could be reached).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressInUse",
    "BadAddress",
    "BadConfig",
    "DataDirectoryBusy",
    "DataDirectoryUnusable",
    "IdentityTaken",
    "KeysMissing",
    "KeysUnsafe",
    "KeysUnusable",
    "MalformedFrame",
    "NameNotResolved",
    "NoPeerReached",
    "NotAllowed",
    "NotOurFrame",
    "OversizedFrame",
    "PeerError",
    "RequestRefused",
    "SelfTestFailed",
    "WireError",
    "WrongCluster",
    "WrongVersion",
]


class WireError(Exception):
    """A frame that is refused.  It reached no machine and changed nothing.

    `kind` names the counter under which the refusal appears.
    """

    kind: ClassVar[str] = "malformed"


class NotOurFrame(WireError):
    """The bytes do not begin as a frame of ours: garbage, or another program on our port."""

    kind = "garbage"


class MalformedFrame(WireError):
    """A frame of our version that does not fit the schema; the text says which field and why."""


class OversizedFrame(WireError):
    """A frame larger than its limit, sent or received."""

    kind = "oversized"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a frame of {size_bytes:,} bytes is larger than the limit of {limit_bytes:,} bytes")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class WrongVersion(WireError):
    """The sender speaks another protocol version; no part of the frame behind its header was read."""

    kind = "wrong_version"

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(f"it speaks protocol version {theirs}, this peer speaks version {ours}")
        self.theirs = theirs
        self.ours = ours


class WrongCluster(WireError):
    """The sender belongs to another cluster."""

    kind = "wrong_cluster"

    def __init__(self, theirs: str, ours: str) -> None:
        super().__init__(f"it belongs to cluster {theirs!r}, this peer to {ours!r}")
        self.theirs = theirs
        self.ours = ours


class NotAllowed(WireError):
    """The sender's key does not give it the right to say this."""

    kind = "not_allowed"

    def __init__(self, message: str, role: str, needed: str) -> None:
        super().__init__(f"a key of role {role!r} may not send {message}: that takes role {needed!r}")


class PeerError(Exception):
    """Base of what ends a peer or a command; `str(error)` is the one line that the operator gets."""

    exit_code: ClassVar[int] = 2


class BadConfig(PeerError):
    """A setting, or two settings together, make no sense."""


class BadAddress(PeerError):
    """An address that is no HOST:PORT, or cannot be bound on this machine."""


class AddressInUse(BadAddress):
    """Another process serves this address already."""


class NameNotResolved(PeerError):
    """A host name that the resolver does not know."""

    exit_code = 3


class DataDirectoryBusy(PeerError):
    """Another live peer works in this data directory."""


class DataDirectoryUnusable(PeerError):
    """The data directory cannot be made, written, or understood."""


class KeysMissing(PeerError):
    """The cluster has no keys here, and this is not a place where they may be made silently."""


class KeysUnsafe(PeerError):
    """A key file that others may read or change."""


class KeysUnusable(PeerError):
    """A key file or a token that is damaged, or does not hold what is needed."""


class SelfTestFailed(PeerError):
    """The inbox let a random key in: the build of libzmq does not authenticate, and nothing is served."""


class NoPeerReached(PeerError):
    """None of the given peers answered."""

    exit_code = 3


class RequestRefused(PeerError):
    """A peer answered, and said no: another cluster, another version, or a role without the right."""

    exit_code = 3


class IdentityTaken(PeerError):
    """Another live process of the cluster has our node id."""
