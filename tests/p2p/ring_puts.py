"""What a client does to put a file on the ring of a `MemorySwarm`, and where its blocks lie then."""

from __future__ import annotations

import random
from dataclasses import replace

import xxhash

from p2p import file_questions as f
from p2p.blocks import attempt_of
from p2p.catalogue import Entry
from p2p.file_client import block_segment
from p2p.segments import FILE_STAGE
from tests.p2p.memory_swarm import Asker, MemorySwarm

__all__ = ["BLOCK", "content", "copies", "entry_of", "holders", "put"]

BLOCK = 10_000


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def put(
    swarm: MemorySwarm,
    name: str,
    data: bytes,
    *,
    file: str = "a" * 40,
    replicas: int = 2,
    replaces: bool = False,
) -> f.FileNamed:
    """What a client does, block by block, over the first peer."""
    asker, node = Asker(swarm), next(iter(swarm.nodes.values()))
    begun = asker.ask(node, f.BeginPut(number=1, name=name, replaces=replaces))
    if begun.reason:
        return f.FileNamed(number=1, reason=begun.reason, text=begun.text)
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    question = f.AskPlaces(number=2, file=file, blocks=len(blocks), replicas=replicas, first=0)
    rows = asker.ask(node, question).rows
    by_address = {one.peer.swim.me.address: one for one in swarm.nodes.values()}
    for number, block in enumerate(blocks):
        before = blocks[number - 1][-1:] if number else b""
        after = blocks[number + 1][:100] if number + 1 < len(blocks) else b""
        header, body = block_segment(file, number, block, before, after)
        chunk = f.PutBlock(
            number=3 + number,
            upload=f"{number:040x}",
            header=header,
            offset=0,
            data=body,
            blocks=len(blocks),
            copies=replicas,
        )
        first = by_address[rows[number].addresses[0]]
        answer = asker.ask(first, chunk)
        while not answer.copies:
            assert not answer.reason
            empty = replace(chunk, header=b"", offset=len(body), data=b"")
            answer = asker.ask(first, empty)
    named: f.FileNamed = asker.ask(
        node, f.NameFile(number=99, entry=entry_of(name, data, file, replicas), replaces=replaces)
    )
    return named


def entry_of(name: str, data: bytes, file: str, replicas: int) -> Entry:
    digests = [xxhash.xxh3_128_digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    return Entry(
        name=name,
        version=0,
        file=file,
        size_bytes=len(data),
        block_bytes=BLOCK,
        digests=b"".join(digests),
        replicas=replicas,
        made_at_s=1.0,
    )


def holders(swarm: MemorySwarm, block: int, file: str = "a" * 40) -> set[str]:
    return {
        name
        for name, node in swarm.nodes.items()
        if node.engine.store.holds(file, FILE_STAGE, attempt_of(block))
    }


def copies(swarm: MemorySwarm, blocks: int, file: str = "a" * 40) -> list[int]:
    return [len(holders(swarm, block, file)) for block in range(blocks)]
