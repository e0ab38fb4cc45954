"""Comparing notes: two peers find out where they differ, and send each other only that.

Gossip may miss somebody; anti-entropy mends it (memberlist's push/pull). There the whole state goes both
ways, which is 1 MB for ten thousand members, mostly of things both know. Here three messages do it:

    A ── SyncRequest(digests of 64 buckets) ──► B
    A ◄── SyncState(all of B's records in the buckets that differ; several messages if many) ── B
    A ── SyncState(what A knows better in these buckets) ──► B

A joining peer knows only itself, so nearly all buckets differ and it gets everything: joining is the same
exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil, log2

from membership.view import Member, NodeId, Status, supersedes

__all__ = ["better_than", "chunks", "differing", "sync_period_s"]


def sync_period_s(base_s: float, members: int) -> float:
    """Return how often to compare notes, in seconds.

    Each doubling above 32 members adds one base period (as memberlist does). So the total work grows
    like N / log N instead of N; gossip has told nearly everything anyway.
    """
    return base_s * (1 + max(0, ceil(log2(max(1, members) / 32))))


def differing(mine: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    """Return the buckets whose digests differ, as bits; all if the other side counts buckets differently."""
    if len(mine) != len(theirs):
        return (1 << len(mine)) - 1
    return sum(1 << bucket for bucket, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)


def chunks(buckets: Iterable[tuple[int, list[Member]]], size_max: int) -> Iterator[tuple[int, list[Member]]]:
    """Group whole buckets into (bits, members) of about `size_max` members; a larger bucket stays whole."""
    bits, members = 0, list[Member]()
    for bucket, some in buckets:
        if members and len(members) + len(some) > size_max:
            yield bits, members
            bits, members = 0, []
        bits |= 1 << bucket
        members = members + some
    if bits:
        yield bits, members


def better_than(mine: Iterable[Member], theirs: Iterable[Member]) -> list[Member]:
    """Return the records of mine that the other side should hear of.

    The dead that it has never heard of are not among them: they are no use to it.
    """
    known: dict[NodeId, Member] = {member.id: member for member in theirs}
    return [
        member
        for member in mine
        if supersedes(member, known.get(member.id))
        and (member.id in known or member.status in (Status.ALIVE, Status.SUSPECT))
    ]
