"""Whether two outputs are the same answer, however they are divided into parts.

Each line, its JSON rid of blanks, is hashed by itself and the hashes are added up: that is the same for any
order, and for ever so many lines takes no memory.  Where order counts, the bytes are hashed as they come.

⚙ This module reads files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
from xxhash import xxh3_64_intdigest, xxh3_128

_MODULUS = 1 << 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What an output says: how much (lines, or bytes where order counts), and the digest of it."""

    amount: int
    digest: str


def digest(out: Path, *, ordered: bool, packed: bool = False) -> Answer:
    """Return the answer in the parts of a directory.

    Args:
        out: has part files of lines of key, tab and value; or, where order counts, of records.
        ordered: whether order counts.
        packed: records are the keys of msgpack pairs; else they stand as they are.
    """
    parts = sorted(out.glob("part-*"))
    if ordered:
        whole, size_bytes = xxh3_128(), 0
        for block in _blocks(parts, packed):
            whole.update(block)
            size_bytes += len(block)
        return Answer(size_bytes, whole.hexdigest())
    total = count = 0
    for part in parts:
        with part.open("rb") as file:
            for line in file:
                total += xxh3_64_intdigest(canonical(line))
                count += 1
    return Answer(count, f"{total % _MODULUS:016x}")


def canonical(line: bytes) -> bytes:
    """Return a line of key, tab and value without the blanks that JSON allows."""
    key, tab, value = line.rstrip(b"\n").partition(b"\t")
    if value[:1] in (b"[", b"{"):
        value = json.dumps(json.loads(value), separators=(",", ":")).encode()
    return key + tab + value


def _blocks(parts: list[Path], packed: bool) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            if packed:
                for key, _ in msgpack.Unpacker(file):
                    yield key
            else:
                while block := file.read(1 << 20):
                    yield block
