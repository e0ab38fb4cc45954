"""Segments: the files in which outputs lie, and in which they travel from peer to peer.

Theory
------
A *segment* is one file: a header that lists what it holds, then the bytes, as they came in one transfer::

    magic "RSEG", version, length of the header, xxh3-128 of the header | header (msgpack) | body

or, of another version, with the header behind the body: so a file that a task wrote, with room for the first
bytes before it, becomes a segment without being copied (`heading`).  Its body may hold more than the header
names.

The header names job, stage and, for each entry, task, attempt and partition (`WHOLE` for a part, a spec or a
block of a file) with its range in the body, and the digest of the body.  So whoever finds the file knows what
lies in it, and nothing else has to be kept in step.

It also names what the segment *covers*: attempts, and of these which partitions (none: all there is).  An
attempt that had no pairs for a partition has no entry for it, and yet whoever holds the segment knows that
there is nothing to be had.

A header may come from anywhere: what it says is checked before it is believed (`parse_header`).  A segment
never changes once it is written; a copy of it is made from its *sources* (`describing`, `read_sources`).

⚙ This module reads files.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import msgpack
import xxhash

from p2p.blocks import MAX_BLOCKS, block_of

__all__ = [
    "COPY_BYTES",
    "FILE_STAGE",
    "HEAD_BYTES",
    "MAX_HEADER_BYTES",
    "SPEC_STAGE",
    "WHOLE",
    "Body",
    "Covers",
    "DamagedSegment",
    "Entry",
    "Header",
    "Located",
    "Source",
    "checking_body",
    "describing",
    "head_of",
    "heading",
    "is_job",
    "pack_header",
    "parse_header",
    "read_checksum",
    "read_covers",
    "read_header",
    "read_sources",
    "with_head",
]

WHOLE: Final = -1
"""The partition of an entry that is a whole output."""

SPEC_STAGE: Final = -1
FILE_STAGE: Final = -2

MAX_HEADER_BYTES: Final = 8 << 20
MAX_ENTRIES: Final = 1 << 18
COPY_BYTES: Final = 1 << 20

_MAGIC: Final = b"RSEG"
_VERSION: Final = 2
_HEADER_BEHIND: Final = 3
_HEAD = struct.Struct("<4sBxxxI16s")
HEAD_BYTES: Final = _HEAD.size
"""With so many bytes a segment's file begins, before its header or its body."""

_JOB = re.compile(r"[0-9a-f]{8,64}|files")


class DamagedSegment(Exception):
    """A segment is not what was written; another copy has to serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One output, or one partition of a map task's output, within a body.

    Attributes:
        offset, length: its bytes in the body.
        keys, values, is_sorted: of a run, as in `mapreduce.run_files.RunRange`.
    """

    task: int
    attempt: int
    partition: int
    offset: int
    length: int
    keys: int = 0
    values: int = 0
    is_sorted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an entry's bytes are to be taken from; `entry.offset` is not yet that in a body.

    Attributes:
        is_alone: the file holds one attempt's output and nothing else, and its first `HEAD_BYTES` are free.
    """

    entry: Entry
    path: str
    offset: int
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where an entry lies in a file of the store."""

    path: str
    offset: int
    length: int
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The bytes of a segment behind its header, which have one digest."""

    path: str
    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Covers:
    """What a segment speaks of: these attempts, and of them those partitions; none: the whole output.

    `tasks` and `attempts` belong together.
    """

    partitions: tuple[int, ...]
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself.

    Attributes:
        size: bytes of the body.
        digest: of the body.
        checksum: of the header; it tells the segment from another one in its place.
        bytes_before: where the body begins in a file.
        file_bytes: the length of such a file.
    """

    job: str
    stage: int
    size: int
    digest: bytes
    entries: tuple[Entry, ...]
    covers: Covers
    checksum: bytes
    bytes_before: int
    file_bytes: int


def describing(
    job: str, stage: int, sources: Sequence[Source], covers: Covers | None = None
) -> Generator[int, None, tuple[bytes, int]]:
    """Make the header of a segment that holds these sources one behind the other.

    Args:
        covers: what they are all of; without it the sources are whole outputs.

    Yields:
        How many bytes were read, now and then.

    Returns:
        The header's bytes and the length of the body.

    Raises:
        OSError: a source cannot be read.
    """
    digest = xxhash.xxh3_128()
    rows: list[tuple[int, ...]] = []
    size = 0
    for source in sources:
        rows.append(_row(source.entry, size))
        size += source.entry.length
    for chunk in read_sources(sources, COPY_BYTES):
        digest.update(chunk)
        yield len(chunk)
    return pack_header(job, stage, size, digest.digest(), rows, covers or _whole_of(sources)), size


def heading(
    job: str, stage: int, sources: Sequence[Source], covers: Covers | None = None
) -> Generator[int, None, bytes]:
    """Make the header by which the file that all these sources lie in becomes a segment.

    The file's first `HEAD_BYTES` are free, all behind them is the body.  Arguments, what is yielded and what
    is raised are as of `describing`.
    """
    path, digest, size = sources[0].path, xxhash.xxh3_128(), 0
    with open(path, "rb", buffering=0) as file:
        file.seek(HEAD_BYTES)
        while chunk := file.read(COPY_BYTES):
            digest.update(chunk)
            size += len(chunk)
            yield len(chunk)
    rows = [_row(source.entry, source.offset - HEAD_BYTES) for source in sources]
    return pack_header(job, stage, size, digest.digest(), rows, covers or _whole_of(sources))


def _row(entry: Entry, offset: int) -> tuple[int, ...]:
    place = (entry.task, entry.attempt, entry.partition, offset, entry.length)
    return (*place, entry.keys, entry.values, int(entry.is_sorted))


def _whole_of(sources: Sequence[Source]) -> Covers:
    outputs = dict.fromkeys((source.entry.task, source.entry.attempt) for source in sources)
    tasks, attempts = tuple(task for task, _ in outputs), tuple(attempt for _, attempt in outputs)
    return Covers(partitions=(), tasks=tasks, attempts=attempts)


def pack_header(
    job: str, stage: int, size: int, digest: bytes, rows: Sequence[tuple[int, ...]], covers: Covers
) -> bytes:
    """Make a header of what is known: `rows` are the fields of entries, in order."""
    spoken_of = [covers.partitions, covers.tasks, covers.attempts]
    header: bytes = msgpack.packb([job, stage, size, digest, rows, spoken_of])
    return header


def read_sources(sources: Sequence[Source], chunk_bytes: int) -> Iterator[bytes]:
    """Read sources one behind the other, in chunks of exactly that many bytes, but for the last.

    A chunk that lies in one source is what the file gave, uncopied: that is most of them.

    Raises:
        OSError: a file cannot be read, or is shorter than it was.
    """
    open_path, file = "", None
    held: list[bytes] = []
    missing = chunk_bytes
    try:
        for source in sources:
            if source.path != open_path:
                if file is not None:
                    file.close()
                file = open(source.path, "rb")  # noqa: SIM115 - closed below
                open_path = source.path
            assert file is not None
            left = source.entry.length
            file.seek(source.offset)
            while left:
                piece = file.read(min(left, missing))
                if not piece:
                    raise OSError(errno.EIO, "it is shorter than it was", source.path)
                left -= len(piece)
                missing -= len(piece)
                held.append(piece)
                if not missing:
                    yield held[0] if len(held) == 1 else b"".join(held)
                    held, missing = [], chunk_bytes
        if held:
            yield b"".join(held)
    finally:
        if file is not None:
            file.close()


def parse_header(header: bytes, *, is_behind: bool = False) -> Header:
    """Read a header that may come from anywhere; everything about it is checked.

    Args:
        header: its bytes.
        is_behind: it stands behind the body.

    Raises:
        DamagedSegment: it is malformed.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise DamagedSegment("the header is too long")
    try:
        job, stage, size, digest, rows, (partitions, tasks, attempts) = msgpack.unpackb(header)
        if not (isinstance(job, str) and is_job(job) and type(stage) is int and type(size) is int):
            raise ValueError("its first fields")
        if size < 0:
            raise ValueError("its size")
        if not (isinstance(digest, bytes) and len(digest) == 16 and len(rows) <= MAX_ENTRIES):
            raise ValueError("its digest or its number of entries")
        if not 0 < len(attempts) == len(tasks) <= MAX_ENTRIES:
            raise ValueError("what it covers")
        if any(type(number) is not int or number < 0 for number in (*partitions, *tasks, *attempts)):
            raise ValueError("what it covers")
        # Who holds which blocks is told in bits, one for each number that there may be.
        if stage == FILE_STAGE and not all(0 <= block_of(attempt) < MAX_BLOCKS for attempt in attempts):
            raise ValueError("the number of a block")
        entries = []
        for row in rows:
            if len(row) != 8 or any(type(number) is not int for number in row):
                raise ValueError("an entry")
            task, attempt, partition, offset, length, keys, values, is_sorted = row
            if not (0 <= offset <= offset + length <= size and task >= 0 and partition >= WHOLE):
                raise ValueError("an entry's range")
            entries.append(
                Entry(
                    task=task,
                    attempt=attempt,
                    partition=partition,
                    offset=offset,
                    length=length,
                    keys=keys,
                    values=values,
                    is_sorted=bool(is_sorted),
                )
            )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DamagedSegment(f"a segment's header is malformed: {error}") from error
    covers = Covers(partitions=tuple(partitions), tasks=tuple(tasks), attempts=tuple(attempts))
    return Header(
        job=job,
        stage=stage,
        size=size,
        digest=digest,
        entries=tuple(entries),
        covers=covers,
        checksum=_checksum(header),
        bytes_before=HEAD_BYTES + (0 if is_behind else len(header)),
        file_bytes=HEAD_BYTES + len(header) + size,
    )


def with_head(header: bytes) -> bytes:
    """Return the bytes with which the file of a segment with this header begins, up to its body."""
    return _HEAD.pack(_MAGIC, _VERSION, len(header), _checksum(header)) + header


def head_of(header: bytes) -> bytes:
    """Return the `HEAD_BYTES` with which the file of a segment begins whose header is behind its body."""
    return _HEAD.pack(_MAGIC, _HEADER_BEHIND, len(header), _checksum(header))


def is_job(name: str) -> bool:
    """Tell whether a name may be that of a job, or of a file of the ring, and so of a directory."""
    return _JOB.fullmatch(name) is not None


def read_header(file: BinaryIO) -> Header:
    """Read what a segment says of itself; the file then stands at its body.

    Raises:
        DamagedSegment: it is not a segment, or its header is damaged.
        OSError: it cannot be read.
    """
    head = file.read(HEAD_BYTES)
    if len(head) != HEAD_BYTES:
        raise DamagedSegment("too short")
    magic, version, length, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or version not in (_VERSION, _HEADER_BEHIND) or length > MAX_HEADER_BYTES:
        raise DamagedSegment("not a segment of this version")
    is_behind = version == _HEADER_BEHIND
    if is_behind:
        file.seek(max(HEAD_BYTES, file.seek(0, os.SEEK_END) - length))
    header = file.read(length)
    if _checksum(header) != checksum:
        raise DamagedSegment("its header is damaged")
    if is_behind:
        file.seek(HEAD_BYTES)
    return parse_header(header, is_behind=is_behind)


def read_checksum(path: str) -> bytes:
    """Return the checksum with which a segment's file begins; nothing else of it is looked at.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)[-16:]


def read_covers(path: str) -> tuple[int, Covers]:
    """Return what a segment's own header says that it holds: its stage, and what of it.

    Raises:
        DamagedSegment: its header is damaged; its body is not looked at.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        header = read_header(file)
    return header.stage, header.covers


def checking_body(file: BinaryIO, header: Header) -> Iterator[None]:
    """Read a body to its end and check it, pausing after every `COPY_BYTES`; `file` stands at its beginning.

    Raises:
        DamagedSegment: it is too short, or its digest is not the header's.
        OSError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    left = header.size
    while left and (chunk := file.read(min(left, COPY_BYTES))):
        digest.update(chunk)
        left -= len(chunk)
        if left:
            yield
    if left or digest.digest() != header.digest:
        raise DamagedSegment("its body is damaged")


def _checksum(header: bytes) -> bytes:
    return xxhash.xxh3_128_digest(header)
