"""Frames: how a message becomes bytes, and what bytes may become a message.

Theory
------
A frame is four bytes, ``RR``, the protocol version and a zero, followed by one msgpack list::

    cluster, ring digest, sender, incarnation, tag, fields

The four bytes never change their meaning, so peers of any two versions can tell each other apart, and
name both versions, without reading further.  What follows is read only when the version is ours.  The tag
names a message type in a table (`Kind`), its schema comes from the annotations of the dataclass
(`p2p.schema`).

Whatever the bytes are, `WireFormat.decode` returns an `Envelope` or raises a `WireError`.  What it can
cost is bounded before anything is built: the size of the frame, by the receiver's limit; the length of
every list, by that of the frame and by `MAX_ITEMS`; the depth, by msgpack's own stack and then by the
schemas, none of which can contain itself.  There are no extension types, no timestamps and no map keys
but strings and bytes.

The sender and its incarnation are claims.  Rights come from the connection (`p2p.gate`), never from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from membership.view import NodeId
from p2p.errors import MalformedFrame, NotOurFrame, OversizedFrame, WrongVersion
from p2p.roles import Role
from p2p.schema import Bounds, Schema, compile_schema

__all__ = [
    "MAX_CONTROL_BYTES",
    "MAX_ITEMS",
    "PROTOCOL_VERSION",
    "Envelope",
    "Kind",
    "WireFormat",
    "peek_version",
]

PROTOCOL_VERSION = 1
MAX_CONTROL_BYTES = 1024 * 1024
MAX_ITEMS = 16_384

_MAGIC = b"RR"
_HEADER_BYTES = 4
_SENDER = re.compile(r"[\x21-\x7e]{1,64}")  # it stands in log lines: no spaces, no control characters
_CLUSTER_CHARS = 63
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message and what its sender says about itself.

    `ring_digest` is the digest of the sender's view, by which two peers notice that they see different rings.
    """

    cluster: str
    ring_digest: bytes
    sender: NodeId
    incarnation: int
    message: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of the table of messages.

    `tag` is the message's number on the wire and is never used again for another; `role` is the least role
    whose holder may send it; `bounds` are the limits of its fields, where the defaults of `Bounds` do not
    fit.
    """

    tag: int
    message: type
    role: Role
    bounds: Mapping[str, Bounds] = field(default_factory=dict)


class WireFormat:
    """Packs and unpacks the messages of one table.

    Args:
        kinds: the table; tags and types are unique.
        version: 0 to 255, other than ours only in tests of the refusal.
        max_bytes: the largest frame that is made or read.

    Raises:
        TypeError: a row has no safe form on the wire.
        ValueError: two rows share a tag or a type.
    """

    def __init__(
        self,
        kinds: Iterable[Kind],
        *,
        version: int = PROTOCOL_VERSION,
        max_bytes: int = MAX_CONTROL_BYTES,
    ) -> None:
        self.version = version
        self.max_bytes = max_bytes
        self._header = _MAGIC + bytes((version, 0))
        self._by_tag: dict[int, tuple[Schema, Role]] = {}
        self._by_type: dict[type, tuple[int, Schema]] = {}
        for kind in kinds:
            if kind.tag in self._by_tag or kind.message in self._by_type:
                raise ValueError(
                    f"tag {kind.tag} or message {kind.message.__name__} stands in the table twice"
                )
            schema = compile_schema(kind.message, kind.bounds)
            self._by_tag[kind.tag] = schema, kind.role
            self._by_type[kind.message] = kind.tag, schema

    def encode(self, envelope: Envelope) -> bytes:
        """The frame of an envelope.

        Raises:
            OversizedFrame: it is longer than `max_bytes`.
            MalformedFrame: a value that msgpack cannot carry (NaN, a number beyond 64 bits, half a surrogate
            pair). KeyError: the message's type is not in the table; a mistake of ours.
        """
        tag, schema = self._by_type[type(envelope.message)]
        try:
            body: bytes = msgpack.packb(
                (
                    envelope.cluster,
                    envelope.ring_digest,
                    envelope.sender,
                    envelope.incarnation,
                    tag,
                    schema.pack(envelope.message),
                )
            )
        except (ValueError, OverflowError) as error:
            raise MalformedFrame(f"{schema.type.__name__} cannot be sent: {error}") from None
        if _HEADER_BYTES + len(body) > self.max_bytes:
            raise OversizedFrame(_HEADER_BYTES + len(body), self.max_bytes)
        return self._header + body

    def decode(self, frame: bytes) -> Envelope:
        """The envelope in a frame.

        Raises:
            WireError: and nothing else, whatever the bytes are.
        """
        if len(frame) > self.max_bytes:
            raise OversizedFrame(len(frame), self.max_bytes)
        version = peek_version(frame)
        if version != self.version:
            raise WrongVersion(version, self.version)
        outer = _unpack(frame)
        if type(outer) is not tuple or len(outer) != 6:
            raise MalformedFrame("the envelope is no list of six items")
        cluster, ring_digest, sender, incarnation, tag, fields = outer
        if type(cluster) is not str or len(cluster) > _CLUSTER_CHARS:
            raise MalformedFrame("the envelope names no cluster")
        if type(ring_digest) is not bytes or len(ring_digest) > _DIGEST_BYTES:
            raise MalformedFrame("the envelope has no ring digest")
        if type(sender) is not str or not _SENDER.fullmatch(sender):
            raise MalformedFrame("the envelope names no sender")
        if type(incarnation) is not int or incarnation < 0:
            raise MalformedFrame("the envelope has no incarnation")
        row = self._by_tag.get(tag) if type(tag) is int else None
        if row is None:
            raise MalformedFrame(f"no message has the tag {tag!r:.20}")
        return Envelope(
            cluster=cluster,
            ring_digest=ring_digest,
            sender=NodeId(sender),
            incarnation=incarnation,
            message=row[0].unpack(fields),
        )

    def least_role(self, message: object) -> Role:
        """The least role whose holder may send this message."""
        tag, _ = self._by_type[type(message)]
        return self._by_tag[tag][1]


def peek_version(frame: bytes) -> int:
    """The protocol version of a frame of any version.

    Raises:
        NotOurFrame: the bytes are no frame of any version.
    """
    if len(frame) < _HEADER_BYTES or frame[:2] != _MAGIC or frame[3] != 0:
        raise NotOurFrame("the bytes are no frame of ours")
    return frame[2]


def _unpack(frame: bytes) -> Any:
    body = memoryview(frame)[_HEADER_BYTES:]
    most_items = min(
        MAX_ITEMS, len(body)
    )  # each item takes a byte, so a longer list is a lie that would cost memory
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            use_list=False,
            strict_map_key=True,
            max_array_len=most_items,
            max_map_len=most_items,
            max_str_len=len(body),
            max_bin_len=len(body),
            max_ext_len=0,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedFrame(f"the msgpack is damaged: {type(error).__name__} {error}".strip()) from None
