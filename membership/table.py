"""What one peer believes about all others: a shared base that never changes, and this peer's differences.

In a real peer the base is empty and everything is a difference. In a simulation all peers start from one
base, so that ten thousand tables of ten thousand members take the room of one.

Anti-entropy needs to know where two tables differ without sending them. Members fall by their id into
`BUCKETS` buckets; a bucket's digest is the XOR of its members' fingerprints, so that it follows from the
base's digest and the differences alone. Only members in the ring count: whether a peer still remembers some
dead one is its own business, and two peers that have forgotten at different times do not differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b

from membership.view import Member, NodeId, Status, View

__all__ = ["BUCKETS", "MemberTable", "Members", "bucket_of"]

BUCKETS = 64
"""How many digests a SyncRequest carries. Part of the protocol: all peers must use the same."""


def bucket_of(node: NodeId) -> int:
    """Return the bucket of a node: the same at every peer, in every process."""
    return blake2b(node.encode(), digest_size=1).digest()[0] % BUCKETS


def _fingerprint(member: Member) -> int:
    state = blake2b(digest_size=8)
    state.update(repr((member.id, member.incarnation, member.status.value, member.description)).encode())
    return int.from_bytes(state.digest(), "big")


def _fingerprint_in_ring(member: Member | None) -> int:
    return _fingerprint(member) if member is not None and member.status.in_ring else 0


class MemberTable:
    """An immutable set of members that any number of machines may start from and share.

    Args:
        members: at most one record for each id, in any order.
    """

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.by_id: dict[NodeId, Member] = {
            member.id: member for member in sorted(members, key=lambda member: member.id)
        }
        self.ids: tuple[NodeId, ...] = tuple(self.by_id)
        self.position: dict[NodeId, int] = {node: place for place, node in enumerate(self.ids)}
        self.not_in_ring: tuple[NodeId, ...] = tuple(
            member.id for member in self.by_id.values() if not member.status.in_ring
        )
        self.suspects: tuple[NodeId, ...] = tuple(
            member.id for member in self.by_id.values() if member.status is Status.SUSPECT
        )

    def __iter__(self) -> Iterator[Member]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def in_bucket(self) -> tuple[tuple[NodeId, ...], ...]:
        """The ids of each bucket, in order of id."""
        buckets: list[list[NodeId]] = [[] for _ in range(BUCKETS)]
        for node in self.ids:
            buckets[bucket_of(node)].append(node)
        return tuple(map(tuple, buckets))

    @cached_property
    def digests(self) -> tuple[int, ...]:
        """The digest of each bucket."""
        digests = [0] * BUCKETS
        for member in self:
            digests[bucket_of(member.id)] ^= _fingerprint_in_ring(member)
        return tuple(digests)

    @cached_property
    def view(self) -> View:
        """All members as a view of version 0."""
        return View(0, tuple(self))


class Members:
    """One peer's table: the base and its differences. Every change raises `version`."""

    __slots__ = ("_base", "_changed", "_count", "_digests", "_overlay", "_removed", "_view", "version")

    def __init__(self, base: MemberTable) -> None:
        self._base = base
        self._count = len(base)
        self._overlay: dict[NodeId, Member] = {}
        self._removed: dict[NodeId, None] = {}  # ids of the base that are no more
        self.version = 0
        self._view: View | None = None
        self._digests = base.digests
        # What has changed since the digests were computed, and what was there then.
        self._changed: dict[NodeId, Member | None] = {}

    def __len__(self) -> int:
        return self._count

    def get(self, node: NodeId) -> Member | None:
        """Return what is believed about a node, or None."""
        member = self._overlay.get(node)
        if member is not None:
            return member
        if self._removed and node in self._removed:
            return None
        return self._base.by_id.get(node)

    def put(self, member: Member) -> None:
        """Replace what is believed about a node."""
        before = self.get(member.id)
        if before is None:
            self._count += 1
            self._removed.pop(member.id, None)
        self._changed.setdefault(member.id, before)
        self._overlay[member.id] = member
        self.version += 1

    def remove(self, node: NodeId) -> None:
        """Forget a node."""
        before = self.get(node)
        if before is None:
            return
        self._changed.setdefault(node, before)
        self._count -= 1
        self._overlay.pop(node, None)
        if node in self._base.by_id:
            self._removed[node] = None
        self.version += 1

    def view(self) -> View:
        """Return everybody, sorted; built only after a change."""
        if self._view is None or self._view.version != self.version:
            if self.version == 0:
                self._view = self._base.view
            else:
                merged = {**self._base.by_id, **self._overlay}
                for node in self._removed:
                    del merged[node]
                self._view = View.of(merged.values(), self.version)
        return self._view

    def digests(self) -> tuple[int, ...]:
        """Return the digest of each bucket; costs as much as has changed since it was last asked for."""
        if self._changed:
            digests = list(self._digests)
            for node, before in self._changed.items():
                change = _fingerprint_in_ring(before) ^ _fingerprint_in_ring(self.get(node))
                if change:
                    digests[bucket_of(node)] ^= change
            self._digests = tuple(digests)
            self._changed.clear()
        return self._digests

    def in_buckets(self, buckets: int) -> Iterator[tuple[int, list[Member]]]:
        """Yield (bucket, its members) for each bit set in `buckets`; the dead and departed included."""
        extra: dict[int, list[Member]] = {}
        for node, member in self._overlay.items():
            if node not in self._base.by_id:
                extra.setdefault(bucket_of(node), []).append(member)
        for bucket in range(BUCKETS):
            if buckets >> bucket & 1:
                known = [self.get(node) for node in self._base.in_bucket[bucket]]
                yield bucket, [member for member in known if member is not None] + extra.get(bucket, [])
