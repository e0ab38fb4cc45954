"""Bringing files to the ring and back, from outside.

Theory
------
*Put.*  The name is asked for first, so that a put that cannot end well costs nothing.  Then each block goes
to its first place, two blocks at a time and a window of chunks each; that peer makes the other copies and
says when they are there.  One that does not answer is left for the block's next place.  The name comes last:
until then nobody sees the file, and what was sent of it is dropped after a while.  The same put may be said
again; blocks that are gone when the name is asked for are sent once more.

*Get.*  A block is read as the part of a result is: from any peer that holds it, checked against the digest in
the file's entry, and from the next one where it is not right.

⚙ Reads and writes files, and waits.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import xxhash

from p2p import file_questions as f
from p2p.blocks import (
    AFTER,
    AFTER_BYTES,
    BEFORE,
    BLOCK_BYTES,
    MAX_BLOCKS,
    attempt_of,
    block_count,
)
from p2p.catalogue import MAX_NAME_CHARS, REMOVAL_KEPT_S, Entry
from p2p.errors import NoPeerReached, PeerError
from p2p.job_client import JobClient, ResultGone
from p2p.job_questions import CHUNK_BYTES, PartChunk, PartRow, ReadPart
from p2p.questions import AskMembers, MembersAre
from p2p.segments import FILE_STAGE, WHOLE, Covers, pack_header

__all__ = ["FileClient", "FileExists", "FileLost", "FileRefused", "FileUnknown", "RingFull"]

BLOCKS_AT_A_TIME = 2
WINDOW_BYTES = 4 << 20
NUDGE_S = 1.0
SILENCE_S = 4.0
NAMING_LIMIT_S = 15.0
# A peer that has missed where a block lies hears of it when it compares with the others, every 5 s.
LACKING_WAIT_S = 6.0
LACKING_PAUSE_S = 0.1
SENT_AGAIN = 3
DEFAULT_REPLICAS = 2


class FileUnknown(PeerError):
    """No file of that name is on the ring."""


class FileExists(PeerError):
    """There is a file of that name already."""


class FileRefused(PeerError):
    """The ring does not take the file; the text says why."""


class RingFull(FileRefused):
    """No peer that is reached has room for a block."""


class FileLost(PeerError):
    """A block of the file lies with no peer that is here, or is damaged everywhere."""

    exit_code = 1


@dataclass(slots=True)
class _Block:
    """A block on its way."""

    number: int
    header: bytes
    body: bytes
    digest: bytes
    places: deque[str]
    upload: str
    address: str = ""
    question: int = 0
    sent: int = 0
    received: int = 0
    heard_at: float = 0.0
    nudged_at: float = 0.0
    reasons: list[str] = field(default_factory=list)


class FileClient(JobClient):
    """A client that knows about files of the ring; see `Client` for its arguments."""

    topics = frozenset({"jobs", "files"})

    @classmethod
    def beside(cls, client: JobClient) -> FileClient:
        """Return a client of the same swarm, with a connection of its own."""
        return cls(client.keys, client.addresses)

    # ---- put -----------------------------------------------------------------------------------------------

    def put(
        self,
        source: BinaryIO,
        name: str,
        *,
        replicas: int = DEFAULT_REPLICAS,
        replaces: bool = False,
        ttl_s: float | None = None,
        block_bytes: int = BLOCK_BYTES,
        on_progress: Callable[[int], Any] = lambda _bytes: None,
    ) -> tuple[Entry, int]:
        """Put a file on the ring.

        Args:
            source: open for reading; it must be able to seek.
            name: what it shall be called.
            replicas: how many peers shall hold each block, 1 to 8.
            replaces: it may take the place of a file that there is.
            ttl_s: how long it shall stay; None: until it is removed.
            block_bytes: length of the blocks.
            on_progress: told how many more bytes are safe.

        Returns:
            Its entry, and how many copies the block with the fewest has (`replicas` for an empty file).

        Raises:
            FileExists: there is one of that name.
            FileRefused, RingFull: the ring does not take it.
            NoPeerReached: nobody answered, or no majority has agreed to the name.
        """
        size = source.seek(0, os.SEEK_END)
        blocks = block_count(size, block_bytes)
        if blocks > MAX_BLOCKS:
            raise FileRefused(f"{name}: {size:,} bytes are too many: cut it into files below 512 GiB")
        _check(self.ask(f.BeginPut(number=0, name=name, replaces=replaces), f.PutBegun))
        self._check_place(name)
        put = secrets.token_hex(20)
        digests: dict[int, bytes] = {}
        copies = replicas
        places = self._places(put, blocks, replicas)
        reading = _blocks(source, put, size, block_bytes, range(blocks), digests)
        for sent, count in self._sent(reading, places, blocks, replicas):
            copies = min(copies, count)
            on_progress(sent)
        if source.seek(0, os.SEEK_END) != size:
            raise FileRefused(f"{name}: the file has changed while it was read")
        now = time.time()
        entry = Entry(
            name=name,
            version=0,
            file=put,
            size_bytes=size,
            block_bytes=block_bytes,
            digests=b"".join(digests[number] for number in range(blocks)),
            replicas=replicas,
            made_at_s=now,
            expires_at_s=now + ttl_s if ttl_s is not None else 0.0,
        )
        for _ in range(SENT_AGAIN):
            lacking = self._give_name(entry, replaces=replaces)
            if not lacking:
                return entry, copies
            places = self._places(put, blocks, replicas)
            reading = _blocks(source, put, size, block_bytes, lacking, digests)
            copies = min(copies, *[count for _, count in self._sent(reading, places, blocks, replicas)])
        raise FileRefused(f"{name}: its blocks are gone again before it has its name: try again")

    def _check_place(self, name: str) -> None:
        """Refuse a name below a file, or of a directory: who fetches all of them could not have both.

        Two who put at the same time may still make such a pair; nothing but that fetch minds.
        """
        below = f"{name}/"
        if (
            len(below) <= MAX_NAME_CHARS
            and self.ask(f.AskFiles(number=0, prefix=below, after=""), f.FilesAre).rows
        ):
            raise FileRefused(f"{name}: files lie below {below} on the ring: choose another name")
        parent = name
        while parent := parent.rpartition("/")[0]:
            if self.ask(f.AskFile(number=0, name=parent), f.FileIs).entry is not None:
                raise FileRefused(f"{name}: {parent} is a file on the ring: choose another name")

    def remove(self, name: str) -> None:
        """Take a file off the ring.

        Raises:
            FileUnknown: there is none of that name.
            NoPeerReached: nobody answered, or no majority has agreed.
        """
        now = time.time()
        entry = Entry(
            name=name,
            version=0,
            file=secrets.token_hex(20),
            is_removal=True,
            made_at_s=now,
            expires_at_s=now + REMOVAL_KEPT_S,
        )
        self._give_name(entry, replaces=True)

    def _give_name(self, entry: Entry, *, replaces: bool) -> list[int]:
        """Give a name; returns the blocks that have to be sent again before, none if it is given."""
        timeout_s, self._timeout_s = self._timeout_s, NAMING_LIMIT_S
        deadline = time.monotonic() + LACKING_WAIT_S
        try:
            while True:
                answer = self.ask(f.NameFile(number=0, entry=entry, replaces=replaces), f.FileNamed)
                if answer.reason != "lacking":
                    _check(answer)
                    return []
                if time.monotonic() >= deadline:
                    bits = int.from_bytes(answer.lacking, "little")
                    lacking = [number for number in range(entry.blocks) if bits >> number & 1]
                    if not lacking:
                        raise FileRefused(answer.text)
                    return lacking
                time.sleep(LACKING_PAUSE_S)  # the peer may not have heard yet of the last blocks
        finally:
            self._timeout_s = timeout_s

    def _places(self, file: str, blocks: int, replicas: int) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        while len(rows) < blocks:
            question = f.AskPlaces(number=0, file=file, blocks=blocks, replicas=replicas, first=len(rows))
            answer = self.ask(question, f.PlacesAre)
            if not answer.rows or not all(row.addresses for row in answer.rows):
                raise RingFull("no peer has room: every disk is nearly full")
            rows += [row.addresses for row in answer.rows]
        return rows

    def _sent(
        self, reading: Iterator[_Block], places: Sequence[tuple[str, ...]], blocks: int, copies: int
    ) -> Iterator[tuple[int, int]]:
        """Send all blocks; yields (bytes, copies) of each that has all the copies that it gets."""
        under_way: dict[str, _Block] = {}
        everybody = [address for row in places for address in row]
        others = list(dict.fromkeys(everybody))
        while True:
            while len(under_way) < BLOCKS_AT_A_TIME and (block := next(reading, None)) is not None:
                mine = places[block.number]
                block.places.extend([*mine, *[address for address in others if address not in mine]])
                self._to_next_place(block)
                under_way[block.upload] = block
            if not under_way:
                return
            for block in under_way.values():
                self._feed(block, blocks, copies)
            for message in self._arrived(NUDGE_S / 4):
                if not isinstance(message, f.BlockPut) or message.upload not in under_way:
                    continue
                block = under_way[message.upload]
                block.heard_at = time.monotonic()
                if message.reason:
                    block.reasons.append(message.reason)
                    self._to_next_place(block)
                elif message.copies:
                    del under_way[block.upload]
                    yield len(block.body), message.copies
                else:
                    if message.received < block.received:
                        block.sent = message.received  # it was started again, and has lost what it had
                    block.received = message.received
            for block in under_way.values():
                silent = time.monotonic() - block.heard_at > SILENCE_S
                if silent or block.address in self._failed:
                    block.reasons.append(f"{block.address} does not answer")
                    self._to_next_place(block)

    def _feed(self, block: _Block, blocks: int, copies: int) -> None:
        """Send what the window allows of a block; and again what may be lost, if nothing has been heard."""
        now = time.monotonic()
        size = len(block.body)
        while block.sent < size and block.sent - block.received < WINDOW_BYTES:
            data = block.body[block.sent : block.sent + CHUNK_BYTES]
            self._send_chunk(block, block.sent, data, blocks, copies)
            block.sent += len(data)
            block.nudged_at = now
        if now - block.nudged_at > NUDGE_S:
            block.nudged_at = now
            if block.received < size:
                block.sent = block.received  # what was on its way may be lost
            else:
                self._send_chunk(block, size, b"", blocks, copies)

    def _send_chunk(self, block: _Block, offset: int, data: bytes, blocks: int, copies: int) -> None:
        question = f.PutBlock(
            number=0,
            upload=block.upload,
            header=block.header if offset == 0 else b"",
            offset=offset,
            data=data,
            blocks=blocks,
            copies=copies,
        )
        self._send(block.address, self._numbered(question))

    def _to_next_place(self, block: _Block) -> None:
        if not block.places:
            full = [reason for reason in block.reasons if "full" in reason]
            if full:
                raise RingFull(f"no peer has room for block {block.number}: {full[0]}")
            reasons = "; ".join(dict.fromkeys(block.reasons))
            raise NoPeerReached(f"no peer takes block {block.number} ({reasons})")
        block.address = block.places.popleft()
        self._learn(block.address)
        self._failed.pop(block.address, None)
        block.upload = block.upload or secrets.token_hex(20)
        block.sent = block.received = 0
        block.heard_at = block.nudged_at = time.monotonic()

    # ---- look ----------------------------------------------------------------------------------------------

    def files(self, prefix: str = "") -> list[f.FileRow]:
        """Return the files whose names begin so, in order of their names."""
        rows: list[f.FileRow] = []
        while True:
            after = rows[-1].name if rows else ""
            answer = self.ask(f.AskFiles(number=0, prefix=prefix, after=after), f.FilesAre)
            rows += answer.rows
            if not answer.more:
                return rows

    def files_below(self, name: str) -> list[f.FileRow]:
        """Return the files below a name that ends in "/", at least one.

        Raises:
            FileUnknown: there are none.
        """
        rows = self.files(name)
        if not rows and self.ask(f.AskFile(number=0, name=name.rstrip("/")), f.FileIs).entry is not None:
            raise FileUnknown(f"{name}: a file, not a directory: leave the / out")
        if not rows:
            raise FileUnknown(f"no file is below {name} on the ring")
        return rows

    def file(self, name: str) -> Entry:
        """Return what a name stands for.

        Raises:
            FileUnknown: there is no file of that name.
        """
        answer = self.ask(f.AskFile(number=0, name=name), f.FileIs)
        if answer.entry is None:
            hint = f"; did you mean {answer.near}?" if answer.near else ""
            raise FileUnknown(f"no file {name} is on the ring{hint}")
        return answer.entry

    # ---- get -----------------------------------------------------------------------------------------------

    def get(
        self, entry: Entry, write: Callable[[bytes], Any], on_progress: Callable[[int], Any] = lambda _: None
    ) -> None:
        """Fetch a file.

        Args:
            entry: which.
            write: takes its bytes in order; each block is checked before any of it is written.
            on_progress: told how many more bytes are here.

        Raises:
            FileLost: a block of it is not to be had.
        """
        for block in range(entry.blocks):
            data = self.block(entry, block)
            write(data)
            on_progress(len(data))

    def block(self, entry: Entry, number: int) -> bytes:
        """Return a block's bytes.

        Raises:
            FileLost: nobody gives it.
        """
        size = min(entry.block_bytes, entry.size_bytes - number * entry.block_bytes)
        for is_last in (False, True):
            row = PartRow(
                part=number,
                stage=FILE_STAGE,
                attempt=attempt_of(number),
                digest=entry.digest(number),
                size_bytes=size,
                holders=self._holders(entry.file, number, everybody=is_last),
            )
            try:
                return self.read_part(entry.file, row)
            except ResultGone:
                continue  # somebody may hold it of whom the peer has not heard yet
        raise FileLost(
            f"{entry.name}: block {number} of {entry.blocks} lies with no peer that is here; it comes back "
            "with a peer that holds it"
        )

    def head(self, file: str, size_bytes: int) -> bytes:
        """Return the first bytes of a file, by its id, as some holder has them; they are not checked.

        Raises:
            FileLost: nobody gives them.
        """
        for everybody in (False, True):
            for address in self._holders(file, 0, everybody=everybody):
                question = ReadPart(number=0, job=file, stage=FILE_STAGE, attempt=attempt_of(0), offset=0)
                question = self._numbered(question)
                self._learn(address)
                self._failed.pop(address, None)
                self._send(address, question)
                deadline = time.monotonic() + SILENCE_S
                while time.monotonic() < deadline and address not in self._failed:
                    for message in self._arrived(NUDGE_S / 4):
                        if isinstance(message, PartChunk) and message.number == question.number:
                            if message.is_here:
                                return message.data[:size_bytes]
                            deadline = 0.0
        raise FileLost("the file's first block lies with no peer that is here")

    def _holders(self, file: str, number: int, *, everybody: bool) -> tuple[str, ...]:
        if everybody:
            members = self.ask(AskMembers(number=0), MembersAre).members
            return tuple([member.address for member in members if member.status.in_ring])
        question = f.AskHolders(number=0, file=file, blocks=number + 1, first=number)
        return self.ask(question, f.HoldersAre).rows[0].addresses


def _check(answer: f.PutBegun | f.FileNamed) -> None:
    match answer.reason:
        case "":
            return
        case "exists":
            raise FileExists(answer.text)
        case "unknown":
            raise FileUnknown(answer.text)
        case "full":
            raise RingFull(answer.text)
        case "quorum":
            raise NoPeerReached(answer.text)
        case _:
            raise FileRefused(answer.text or answer.reason)


def _blocks(
    source: BinaryIO,
    file: str,
    size: int,
    block_bytes: int,
    numbers: Iterable[int],
    digests: dict[int, bytes],
) -> Iterator[_Block]:
    """Read blocks of a file one after the other, as segments; takes note of their digests.

    Raises:
        FileRefused: a block is not what it was before.
    """
    for number in numbers:
        at = number * block_bytes
        source.seek(max(0, at - 1))
        before = source.read(1) if at else b""
        data = source.read(min(block_bytes, size - at))
        header, body = block_segment(file, number, data, before, source.read(AFTER_BYTES))
        digest = xxhash.xxh3_128_digest(data)
        if digests.setdefault(number, digest) != digest:
            raise FileRefused("the file has changed while it was read")
        yield _Block(number, header, body, digest, deque(), "")


def block_segment(file: str, block: int, data: bytes, before: bytes, after: bytes) -> tuple[bytes, bytes]:
    """Return the header and the body of a block's segment, see `p2p.blocks`."""
    body = b"".join((data, before, after))
    attempt = attempt_of(block)
    rows: list[tuple[int, ...]] = []
    offset = 0
    for partition, piece in ((WHOLE, data), (BEFORE, before), (AFTER, after)):
        rows.append((block, attempt, partition, offset, len(piece), 0, 0, 0))
        offset += len(piece)
    covers = Covers(partitions=(), tasks=(block,), attempts=(attempt,))
    return pack_header(file, FILE_STAGE, len(body), xxhash.xxh3_128_digest(body), rows, covers), body
