"""What the ring speaks in: peers as it keeps them, answers about keys, and the hashes that place both.

The hashes are blake2b, each use with a personal string of its own: the position of a key says nothing
about the points of a peer of the same name, and nothing depends on the process, its hash seed or the
machine's byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

from membership.view import MAX_WEIGHT, NodeId

__all__ = [
    "CIRCLE",
    "DIGEST_BITS",
    "MAX_WEIGHT",
    "POINTS_PER_WEIGHT",
    "Assignment",
    "Movement",
    "Owners",
    "Placeable",
    "RingPeer",
    "key_position",
    "key_priority",
    "owners_of",
    "peer_hash",
    "peer_positions",
    "zone_of",
]

POINTS_PER_WEIGHT = 64
CIRCLE = 1 << 64
DIGEST_BITS = 128

_POINTS_PER_HASH = 8  # one 64-byte blake2b gives eight positions: an eighth of the calls
_UNPACK_POINTS = struct.Struct("<8Q").unpack

Key = TypeVar("Key", str, bytes)


class Placeable(Protocol):
    """What the ring needs to know of a peer; ``membership.view.Member`` is one."""

    @property
    def id(self) -> NodeId: ...
    @property
    def weight(self) -> float: ...
    @property
    def zone(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RingPeer:
    """A peer as the ring keeps it: ``weight`` in units of 64 points, ``zone`` empty where it names none."""

    id: NodeId
    weight: float = 1.0
    zone: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= MAX_WEIGHT:  # also refuses NaN
            raise ValueError(f"weight of peer {self.id} is {self.weight}; it must be in (0, {MAX_WEIGHT:g}]")

    @property
    def points(self) -> int:
        """How many points the peer has on the ring."""
        return max(1, round(POINTS_PER_WEIGHT * self.weight))


@dataclass(frozen=True, slots=True)
class Owners:
    """The owners of one key, nearest first.

    ``zones_repeated`` names the zones that hold more than one of them (sorted; empty: each lies in
    another zone). ``missing`` is how many fewer there are than were asked for, because the ring has too
    few peers.
    """

    peers: tuple[NodeId, ...]
    zones_repeated: tuple[str, ...] = ()
    missing: int = 0

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self.peers)

    def __len__(self) -> int:
        return len(self.peers)

    def __getitem__(self, rank: int) -> NodeId:
        return self.peers[rank]


@dataclass(frozen=True, slots=True)
class Movement:
    """What one join or leave moves, as fractions of the whole key space.

    ``fraction`` is the share of all keys whose first owner changes. ``per_peer`` splits it by the other
    side: for a join, what each present peer gives to the joiner; for a leave, what each remaining peer
    takes over. What a peer leaves alone when it is the last one has no new owner and is in ``fraction``
    only.
    """

    peer: NodeId
    fraction: float
    per_peer: Mapping[NodeId, float]


@dataclass(frozen=True, slots=True)
class Assignment(Generic[Key]):
    """Many keys placed with bounded loads.

    ``owners`` maps each key to its owners; ``loads`` counts the keys that each peer owns first;
    ``capacities`` is the most it may. ``displaced`` counts the keys whose first owner is not the one
    plain hashing gives.
    """

    owners: Mapping[Key, Owners]
    loads: Mapping[NodeId, int]
    capacities: Mapping[NodeId, int]
    displaced: int


def zone_of(peer: RingPeer) -> str:
    """The failure domain of ``peer``; one that names no zone is its own."""
    # NUL keeps its id apart from every zone's name.
    return peer.zone or f"\0{peer.id}"


def owners_of(peers: Sequence[RingPeer], wanted: int) -> Owners:
    """``peers`` as the answer to who the ``wanted`` owners are."""
    zones = [peer.zone for peer in peers if peer.zone]
    return Owners(
        peers=tuple(peer.id for peer in peers),
        zones_repeated=tuple(sorted({zone for zone in zones if zones.count(zone) > 1})),
        missing=wanted - len(peers),
    )


def key_position(key: str | bytes) -> int:
    """The place of ``key`` on the circle, 0 ≤ position < 2**64; text counts as its UTF-8 bytes."""
    return int.from_bytes(blake2b(_encoded(key), digest_size=8, person=b"ringreduce.key").digest(), "little")


def key_priority(key: str | bytes) -> tuple[bytes, bytes]:
    """In which order keys are placed under bounded loads: by a hash of their own, ties by the key itself."""
    data = _encoded(key)
    return blake2b(data, digest_size=8, person=b"ringreduce.order").digest(), data


def peer_positions(peer: RingPeer) -> list[int]:
    """All points of ``peer``, unsorted; the first k are the same whatever its weight."""
    positions: list[int] = []
    data = peer.id.encode()
    for block in range(-(-peer.points // _POINTS_PER_HASH)):
        salt = block.to_bytes(8, "little")
        positions += _UNPACK_POINTS(blake2b(data, salt=salt, person=b"ringreduce.point").digest())
    return positions[: peer.points]


def peer_hash(peer: RingPeer) -> int:
    """A 128-bit hash of everything the ring knows of ``peer``; the ring's digest is the sum of these."""
    data = repr((peer.id, peer.weight, peer.zone)).encode()
    digest = blake2b(data, digest_size=DIGEST_BITS // 8, person=b"ringreduce.peer").digest()
    return int.from_bytes(digest, "big")


def _encoded(key: str | bytes) -> bytes:
    # Undecodable file names arrive as lone surrogates; they are keys like any other.
    return key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
