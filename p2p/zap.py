"""Who is let in: answers to libzmq's questions about CURVE keys (ZAP, https://rfc.zeromq.org/spec/27).

For each handshake libzmq sends a request with the key that the other side has proven to own, and waits.
The answer 200 lets it in and names a user, which libzmq then attaches to every frame of that connection;
400 turns it away. There is no third answer here, and whatever is odd about a request is turned away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2p.roles import Role

__all__ = ["ZAP_DOMAIN", "Verdict", "judge"]

ZAP_DOMAIN = b"ringreduce"
"""libzmq asks nobody, and lets everybody in, where the domain is empty."""

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """The frames of the answer, whom it let in (None: nobody), and from where the request came."""

    reply: list[bytes]
    role: Role | None
    remote: str


def judge(request: Sequence[bytes], users: Mapping[bytes, Role]) -> Verdict | None:
    """Answer one request.

    Args:
        request: the frames behind the empty delimiter: version, request id, domain, address, identity,
        mechanism
            and, for CURVE, the client's public key (32 bytes).
        users: roles by public key (32 bytes).

    Returns:
        The verdict, or None for frames that are no ZAP request at all and cannot be answered.
    """
    if len(request) < 6 or request[0] != b"1.0":
        return None
    version, request_id, domain, remote, _identity, mechanism = request[:6]
    role = None
    if domain == ZAP_DOMAIN and mechanism == b"CURVE" and len(request) == 7 and len(request[6]) == _KEY_BYTES:
        role = users.get(request[6])
    if role is None:
        answer = [version, request_id, b"400", b"unknown key", b"", b""]
    else:
        answer = [version, request_id, b"200", b"OK", role.label.encode(), b""]
    return Verdict(answer, role, remote.decode("ascii", "replace"))
