"""How a file of the ring is cut into blocks, where they lie, and what its splits read of them.

Theory
------
A file is cut at plain byte borders, every `block_bytes`.  Records do not end there, and readers look a
little to either side: one byte back, to see whether a record begins at the border, and on, to the end of the
last record.  So each block brings along the byte before it and the first `AFTER_BYTES` behind it.  A task
whose split is one block then finds all that it reads on the peer that holds the block; only a longer record,
or the header of a table, takes it to another block, which is fetched (`p2p.ring_inputs`).

A block is a segment of the store (`p2p.segments`): the "job" is the file's id, the stage `FILE_STAGE`, the
task the number of the block.  It has three entries: the block itself, what stands before it, and what behind
it.

A job names a file by `ring_path`: id, size and length of the blocks stand in it, so whoever is given a task
needs to know nothing else of the file.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mapreduce.claims import homes
from membership.ring import Ring
from membership.view import NodeId

__all__ = [
    "AFTER",
    "AFTER_BYTES",
    "BEFORE",
    "BLOCK_BYTES",
    "DIGEST_BYTES",
    "MAX_BLOCKS",
    "RING",
    "RingPath",
    "attempt_of",
    "block_count",
    "block_key",
    "block_of",
    "is_file_id",
    "places",
]

RING = "ring:"
BLOCK_BYTES = 32 << 20
"""As long as a split, so that by default a task reads one block."""

AFTER_BYTES = 64 << 10
DIGEST_BYTES = 16
MAX_BLOCKS = 16_384
BEFORE = 0
AFTER = 1
"""The partitions under which a block's segment holds what stands before and behind it."""

_FILE = re.compile(r"[0-9a-f]{40}")
_PATH = re.compile(r"ring://([0-9a-f]{40})/([1-9][0-9]*)/([0-9]+)/(.*)", re.DOTALL)


def is_file_id(job: str) -> bool:
    """Tell the id of a file from that of a job."""
    return _FILE.fullmatch(job) is not None


def block_count(size_bytes: int, block_bytes: int) -> int:
    """Return how many blocks a file has."""
    return -(-size_bytes // block_bytes)


def block_key(file: str, block: int) -> str:
    """Return a block's key on the ring."""
    return f"{file}/{block}"


def attempt_of(block: int) -> int:
    """Return the attempt under which the store finds a block; attempts begin with 1."""
    return block + 1


def block_of(attempt: int) -> int:
    """The other way round."""
    return attempt - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RingPath:
    """What a split's path says of a file of the ring.

    Attributes:
        file: its id.
        block_bytes, size_bytes: of its blocks, and of all of it.
        name: by which its ending is known.
    """

    file: str
    block_bytes: int
    size_bytes: int
    name: str

    def __str__(self) -> str:
        return f"ring://{self.file}/{self.block_bytes}/{self.size_bytes}/{self.name}"

    @classmethod
    def parse(cls, path: str) -> RingPath | None:
        """Read a path; None if it is none of a file of the ring."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        return cls(file=match[1], block_bytes=int(match[2]), size_bytes=int(match[3]), name=match[4])

    def blocks(self, start: int, end: int) -> range:
        """Return the blocks in which a split lies (`end` -1: all from its start on)."""
        if end < 0 or end > self.size_bytes:
            end = self.size_bytes
        return range(start // self.block_bytes, block_count(end, self.block_bytes))


def places(file: str, blocks: int, replicas: int, ring: Ring) -> list[tuple[NodeId, ...]]:
    """Return who shall hold each block, the preferred one first.

    The first one is who a job's task that reads the block goes to (`mapreduce.claims.homes`, bounded loads);
    the others are the next owners of the block's key, in other zones where there are any.
    """
    if not len(ring):
        return [()] * blocks
    if blocks == 1:  # a load of one is within all bounds
        return [ring.owners(block_key(file, 0), replicas).peers]
    keys = [block_key(file, block) for block in range(blocks)]
    found: list[tuple[NodeId, ...]] = []
    for key, home in zip(keys, homes(keys, ring), strict=True):
        owners: Sequence[NodeId] = ring.owners(key, replicas).peers
        if home in owners:
            others = [node for node in owners if node != home]
        else:
            zone = ring.peer(home).zone
            # It takes the place of the one that stands for its zone, or else of the last.
            same = next((node for node in owners if zone and ring.peer(node).zone == zone), owners[-1])
            others = [node for node in owners if node != same]
        found.append((home, *others))
    return found
