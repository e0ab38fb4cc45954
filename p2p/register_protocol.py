"""The table of what registers and transfers say between peers; tags 40 to 59.

Everybody's limits: a key is a word, a payload is what `p2p.job_protocol` packs, a group is small.
"""

from __future__ import annotations

from membership import register_messages as r
from membership.register import Group
from p2p import bulk
from p2p.job_protocol import MAX_RECORD_BYTES
from p2p.name_bounds import ACCEPTOR, NODE, WORD
from p2p.roles import Role
from p2p.schema import Bounds
from p2p.wire import Kind

__all__ = ["REGISTER_KINDS"]

_KEY = Bounds(text_chars=128, pattern=WORD)
_MEMBERS = Bounds(items=64)
_BALLOT = {"Ballot.node": NODE}
_RECORD = {
    **ACCEPTOR,
    "Record.members": _MEMBERS,
    "Record.sealed_to": _MEMBERS,
    "Record.payload": Bounds(bytes_len=MAX_RECORD_BYTES),
}


def _row(tag: int, message: type, *bounds: dict[str, Bounds]) -> Kind:
    found = {f"{message.__name__}.key": _KEY}
    for more in bounds:
        found |= more
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=found)


REGISTER_KINDS: tuple[Kind, ...] = (
    _row(40, r.Prepare, ACCEPTOR, _BALLOT),
    _row(41, r.Promise, _RECORD, _BALLOT),
    _row(42, r.Accept, _RECORD, _BALLOT),
    _row(43, r.Accepted, ACCEPTOR, _BALLOT),
    _row(44, r.Nack, ACCEPTOR, _BALLOT),
    _row(45, r.Birth, _RECORD),
    _row(46, r.Born, ACCEPTOR),
    _row(47, r.Unborn, ACCEPTOR),
    _row(48, Group, ACCEPTOR, {"Group.members": _MEMBERS}),
    _row(49, r.Heartbeat, ACCEPTOR, _BALLOT, {"Heartbeat.members": _MEMBERS}),
    _row(50, r.AskHearing),
    _row(51, r.Hearing, _BALLOT, {"Hearing.leader": NODE}),
    Kind(tag=52, message=bulk.Received, role=Role.PEER),
    Kind(tag=53, message=bulk.Stored, role=Role.PEER, bounds={"Stored.reason": Bounds(text_chars=1_024)}),
)
