"""Which copies of blocks must move: who holds what, who should, and who sees to it.

Theory
------
Every peer tells all others which blocks lie with it (`HoldsBlocks`: a bit for each block of each file), at
once when that changes, and in full to whoever finds, by a digest, that it has missed something.  So each peer
knows where copies lie, and decides alone, by rules that are the same everywhere:

* A block that fewer peers hold than it should have copies is sent to the places that lack it
  (`blocks.places`), by *one* of its holders: the first of its places among them, or else the one with the
  least id.  A peer that drains or is full is no place; it still holds, and sends, but does not count as a
  copy if it drains.
* A copy that is not at one of the block's places may go, when all of those hold the block, as far as has been
  heard for `SURPLUS_S` on end.  Each of them says so of itself, so a copy goes only where R others remain.
* Blocks of a file that has no name any more go after `UNNAMED_S`: so long may nothing be heard of a put
  between a block's arrival and the file's name; those of a file that was removed sooner, but not while a job
  goes on that reads it.

Where peers differ in their view for a while, a block may be sent twice, which is harmless.

The work is cut into slices of `BLOCKS_PER_SLICE`, as a peer may hold very many blocks and its loop must turn;
the bytes themselves go through the one throttle for repairs (`p2p.bulk`).

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from membership.ring import Ring
from membership.view import NodeId
from p2p.blocks import places
from p2p.catalogue import Entry

__all__ = [
    "BLOCKS_PER_SLICE",
    "SURPLUS_S",
    "UNNAMED_S",
    "Copy",
    "Holdings",
    "Surplus",
    "due_copies",
    "state_of",
]

BLOCKS_PER_SLICE = 256
SURPLUS_S = 10.0
UNNAMED_S = 600.0


@dataclass(frozen=True, slots=True)
class Copy:
    """Send a block to a peer."""

    file: str
    block: int
    to: NodeId


@dataclass(frozen=True, slots=True)
class Surplus:
    """This copy of ours is one too many."""

    file: str
    block: int


class Holdings:
    """Which peers hold which blocks, as far as they have said; bits are Python integers."""

    def __init__(self) -> None:
        self._held: dict[NodeId, dict[str, int]] = {}

    def set(self, node: NodeId, rows: Iterable[tuple[str, int]], *, is_all: bool) -> bool:
        """Take note of what a peer says; False if it is no news."""
        before = self._held.get(node, {})
        now = {} if is_all else dict(before)
        for file, bits in rows:
            if bits:
                now[file] = bits
            else:
                now.pop(file, None)
        if now == before:
            return False
        self._held[node] = now
        return True

    def add(self, node: NodeId, file: str, block: int) -> None:
        """A peer has just taken a block."""
        held = self._held.setdefault(node, {})
        held[file] = held.get(file, 0) | 1 << block

    def forget(self, node: NodeId) -> None:
        """A peer is gone, and its copies with it."""
        self._held.pop(node, None)

    def state(self, node: NodeId) -> bytes:
        """A digest of what was heard of a peer, see `state_of`."""
        return state_of(self._held.get(node, {}))

    def bits(self, node: NodeId, file: str) -> int:
        """The blocks of a file that a peer holds."""
        return self._held.get(node, {}).get(file, 0)

    def of(self, file: str, block: int, among: Collection[NodeId]) -> list[NodeId]:
        """The holders of a block, in order of their ids."""
        return sorted(node for node in among if self.bits(node, file) >> block & 1)

    def copies(self, entry: Entry, among: Collection[NodeId]) -> int:
        """How many copies the block with the fewest has; as many as there should be for a file of none."""
        held = [bits for node in among if (bits := self.bits(node, entry.file))]
        counts = (sum(bits >> block & 1 for bits in held) for block in range(entry.blocks))
        return min(counts, default=entry.replicas)


def state_of(held: Mapping[str, int]) -> bytes:
    """Return sixteen bytes that stand for all blocks that a peer holds."""
    state = blake2b(digest_size=16, person=b"ringreduce.block")
    for file in sorted(held):
        state.update(f"{file}:{held[file]:x};".encode())
    return state.digest()


def due_copies(
    me: NodeId,
    mine: Mapping[str, int],
    entries: Iterable[Entry],
    holdings: Holdings,
    ring: Ring,
    staying: Collection[NodeId],
    *,
    is_leaving: bool = False,
) -> Iterator[Copy | Surplus | None]:
    """Yield what this peer has to do about the blocks that lie with it; None where a slice ends.

    Args:
        mine: {file: bits} of what lies here.
        entries: of the files that lie here and have a name.
        ring: of those who take copies.
        staying: those who are here and do not leave.
        is_leaving: this peer leaves: every block must lie elsewhere R times.
    """
    looked_at = 0
    for entry in entries:
        wanted = places(entry.file, entry.blocks, entry.replicas, ring)
        for block in _blocks(mine.get(entry.file, 0)):
            looked_at += 1
            if looked_at % BLOCKS_PER_SLICE == 0:
                yield None
            if block >= entry.blocks:
                continue
            holders = set(holdings.of(entry.file, block, staying))
            if not is_leaving:
                holders.add(me)
            lacking = [node for node in wanted[block] if node not in holders]
            if not lacking:
                if me not in wanted[block] and not is_leaving and len(wanted[block]) >= entry.replicas:
                    yield Surplus(entry.file, block)
                continue
            senders = sorted(holders - {me}) if is_leaving else sorted(holders)
            preferred = [node for node in wanted[block] if node in senders] or senders
            # One that leaves hands on by itself what nobody else can; the others do the rest.
            if (preferred[:1] or [me]) == [me]:
                for node in lacking:
                    yield Copy(entry.file, block, node)


def _blocks(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
