"""Outputs on disk: what a peer holds of the jobs of the ring.

Theory
------
A *segment* is one file: a header that lists what it holds, then the bytes, as they came in one transfer::

    magic "RSEG", version, length of the header, xxh3-128 of the header | header (msgpack) | body

The header names job, stage and, for each entry, task, attempt and partition (`WHOLE` for a part, a spec or a
block of a file) with its range in the body, and the digest of the body.  So the directory alone tells what
lies here: an index in memory is read from the headers at start, and nothing else has to be kept in step.

It also names what the segment *covers*: attempts, and of these which partitions (none: all there is).  An
attempt that had no pairs for a partition has no entry for it, and yet whoever holds the segment knows that
there is nothing to be had.

A segment is written under a name that ends in ``.tmp`` and renamed when its digest has been checked; only
then is it in the index, and only then may it be acknowledged.  It is not synced: a process may be killed at
any moment without loss, and after a power failure what is torn is found by its digests and made again from
another copy.  A segment never changes; it goes when its job is dropped, its time is over or it is damaged.

Disk space has two marks.  Below the *low* mark of free space the store takes nothing more from others,
until free space is above the *high* mark; the peer says so in its meta and leaves the candidates for copies.

A disk that refuses `REFUSALS` segments, and meanwhile takes none as large as the smallest of them, is
*failing*: the peer leaves the candidates likewise, for whoever pushes to it would try for ever.  The store
goes on trying, since whoever has nobody else to turn to still comes here; when it succeeds it is sound again.

⚙ This module reads and writes files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgpack
import xxhash

from mapreduce.failpoints import failpoint

__all__ = [
    "FILE_STAGE",
    "SPEC_STAGE",
    "WHOLE",
    "Body",
    "Covers",
    "DamagedSegment",
    "Entry",
    "Incoming",
    "Located",
    "Source",
    "Store",
    "StoreFull",
    "pack_header",
    "read_covers",
]

WHOLE: Final = -1
"""The partition of an entry that is a whole output."""

SPEC_STAGE: Final = -1
FILE_STAGE: Final = -2

MAX_HEADER_BYTES: Final = 8 << 20
MAX_ENTRIES: Final = 1 << 18
COPY_BYTES: Final = 1 << 20
LOW_FREE_BYTES: Final = 256 << 20
HIGH_FREE_BYTES: Final = 512 << 20
REFUSALS: Final = 3

_PROBE: Final = "probe.tmp"
_MAGIC: Final = b"RSEG"
_VERSION: Final = 2
_HEAD = struct.Struct("<4sBxxxI16s")
_JOB = re.compile(r"[0-9a-f]{8,64}|files")


class DamagedSegment(Exception):
    """A segment is not what was written; another copy has to serve."""


class StoreFull(Exception):
    """There is less free space than the store may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One output, or one partition of a map task's output, within a body.

    Attributes:
        offset, length: its bytes in the body.
        keys, values, is_sorted: of a run, as in `mapreduce.shuffle.RunRange`.
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
    """Where an entry's bytes are to be taken from; `entry.offset` is not yet that in a body."""

    entry: Entry
    path: str
    offset: int


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
        entry = source.entry
        place = (entry.task, entry.attempt, entry.partition, size, entry.length)
        rows.append((*place, entry.keys, entry.values, int(entry.is_sorted)))
        size += entry.length
    for chunk in read_sources(sources, COPY_BYTES):
        digest.update(chunk)
        yield len(chunk)
    if covers is None:
        outputs = dict.fromkeys((source.entry.task, source.entry.attempt) for source in sources)
        covers = Covers(
            partitions=(), tasks=tuple(t for t, _ in outputs), attempts=tuple(a for _, a in outputs)
        )
    return pack_header(job, stage, size, digest.digest(), rows, covers), size


def pack_header(
    job: str, stage: int, size: int, digest: bytes, rows: Sequence[tuple[int, ...]], covers: Covers
) -> bytes:
    """Make a header of what is known: `rows` are the fields of entries, in order."""
    spoken_of = [covers.partitions, covers.tasks, covers.attempts]
    header: bytes = msgpack.packb([job, stage, size, digest, rows, spoken_of])
    return header


def read_sources(sources: Sequence[Source], chunk_bytes: int) -> Iterator[bytes]:
    """Read sources one behind the other, in chunks that end where a source's file ends.

    Raises:
        OSError: a file cannot be read, or is shorter than it was.
    """
    open_path, file = "", None
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
                chunk = file.read(min(left, chunk_bytes))
                if not chunk:
                    raise OSError(errno.EIO, "it is shorter than it was", source.path)
                left -= len(chunk)
                yield chunk
    finally:
        if file is not None:
            file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    job: str
    stage: int
    size: int
    digest: bytes
    entries: tuple[Entry, ...]
    covers: Covers
    checksum: bytes


def _parse(header: bytes) -> _Header:
    """Read a header that may come from anywhere; everything about it is checked."""
    try:
        job, stage, size, digest, rows, (partitions, tasks, attempts) = msgpack.unpackb(header)
        if not (isinstance(job, str) and _JOB.fullmatch(job) and type(stage) is int and type(size) is int):
            raise ValueError("its first fields")
        if not (isinstance(digest, bytes) and len(digest) == 16 and len(rows) <= MAX_ENTRIES):
            raise ValueError("its digest or its number of entries")
        if not 0 < len(attempts) == len(tasks) <= MAX_ENTRIES:
            raise ValueError("what it covers")
        if any(type(number) is not int or number < 0 for number in (*partitions, *tasks, *attempts)):
            raise ValueError("what it covers")
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
    return _Header(
        job=job,
        stage=stage,
        size=size,
        digest=digest,
        entries=tuple(entries),
        covers=covers,
        checksum=_checksum(header),
    )


class Incoming:
    """A segment on its way into the store."""

    def __init__(self, store: Store, header: bytes, path: str) -> None:
        self._store = store
        self._header_bytes = header
        self._header = _parse(header)
        self._path = path
        self._file: BinaryIO | None = open(f"{path}.tmp", "wb", buffering=0)  # noqa: SIM115 - see abort
        self._digest = xxhash.xxh3_128()
        self.received = 0
        try:
            _write(self._file, _HEAD.pack(_MAGIC, _VERSION, len(header), _checksum(header)) + header)
        except OSError:
            self.abort()
            raise

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self._header.size

    @property
    def place(self) -> tuple[str, int, Covers]:
        """The job, the stage and what is covered."""
        return self._header.job, self._header.stage, self._header.covers

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the body.

        Raises:
            OSError: the disk is full or broken.
            DamagedSegment: there are more bytes than announced.
        """
        assert self._file is not None
        if self.received + len(data) > self._header.size:
            raise DamagedSegment("more bytes than announced")
        self._digest.update(data)
        try:
            _write_body(self._file, data)
        except OSError as error:
            self._store._note_refused(self.size, error)
            raise
        self.received += len(data)

    def finish(self) -> None:
        """Check the body, make the segment visible.

        Raises:
            DamagedSegment: the bytes are not those that were announced; nothing is left of them.
        """
        assert self._file is not None
        if self.received != self._header.size or self._digest.digest() != self._header.digest:
            self.abort()
            raise DamagedSegment("the body's digest is not the announced one")
        self._file.close()
        self._file = None
        try:
            failpoint("store.rename")
            os.rename(f"{self._path}.tmp", self._path)
        except OSError as error:
            self._store._note_refused(self.size, error)
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}.tmp")
            raise
        self._store._note_taken(self.size)
        failpoint("store.renamed")
        self._store._admit(self._header, self._path, _HEAD.size + len(self._header_bytes))

    def abort(self) -> None:
        """Remove what has come so far; harmless after `finish`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}.tmp")


class Store:
    """The segments of one peer.

    Args:
        directory: their place; made if need be.
        low_free_bytes: with less free space than this nothing is taken from others.
        high_free_bytes: with more than this it is taken again.
    """

    def __init__(
        self,
        directory: str,
        *,
        low_free_bytes: int = LOW_FREE_BYTES,
        high_free_bytes: int = HIGH_FREE_BYTES,
    ) -> None:
        assert low_free_bytes <= high_free_bytes
        self._directory = directory
        self._low, self._high = low_free_bytes, high_free_bytes
        self._is_full = False
        self._refusals = 0
        self._refused_bytes = 0
        self.failing = ""
        """What a disk that takes nothing answers; "" of a sound one."""
        self._number = 0
        # {job: {stage: {attempt: {partition: where}}}} and the segments of each stage with their sizes.
        self._index: dict[str, dict[int, dict[int, dict[int, Located]]]] = {}
        self._files: dict[str, dict[int, dict[str, Covers]]] = {}
        # {path: the checksum of its header}: what tells a segment from another one in its place.
        self._checksums: dict[str, bytes] = {}
        # {job: {stage: {attempt: the sets of partitions that are spoken for, None: all}}}
        self._covered: dict[str, dict[int, dict[int, list[frozenset[int] | None]]]] = {}
        self.bytes_held = 0
        self.touched: set[str] = set()
        """Jobs of which something came or went; whoever looks after them takes them out."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.unremoved = ""
        """What was last not to be removed and why, until it is told."""
        self.damaged = 0
        self.rotted: list[tuple[str, int, int, int]] = []
        """What was damaged and is not here any more, as (job, stage, task, attempt), until it is told."""
        self._scan()

    # -- what lies here --------------------------------------------------------------------------------

    def find(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> Located | None:
        """Return where an output lies, None if it is not here."""
        return self._index.get(job, {}).get(stage, {}).get(attempt, {}).get(partition)

    def holds(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> bool:
        """Tell whether an output lies here, be it that there are no pairs in it."""
        covered = self._covered.get(job, {}).get(stage, {}).get(attempt, ())
        return any(partitions is None or partition in partitions for partitions in covered)

    def held(self, job: str) -> Iterator[tuple[int, Covers]]:
        """Yield (stage, what is covered) of all that lies here of a job."""
        for stage, segments in self._files.get(job, {}).items():
            for covers in segments.values():
                yield stage, covers

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of which anything lies here."""
        return tuple(self._files)

    def read(self, located: Located) -> bytes:
        """Return an entry's bytes.

        Raises:
            OSError: it cannot be read.
        """
        with open(located.path, "rb") as file:
            file.seek(located.offset)
            return file.read(located.length)

    # -- coming and going ------------------------------------------------------------------------------

    def receive(self, header: bytes, *, own: bool = False) -> Incoming:
        """Begin to take a segment.

        Args:
            header: as `describe` made it; it may come from anywhere.
            own: it is this peer's own output, for which the space marks do not count.

        Raises:
            DamagedSegment: the header is malformed.
            StoreFull: the disk is too full for other peers' outputs.
            OSError: the disk is full or broken.
        """
        if len(header) > MAX_HEADER_BYTES:
            raise DamagedSegment("the header is too long")
        parsed = _parse(header)
        if not own and self.is_full(parsed.size):
            raise StoreFull("the disk is nearly full")
        directory = os.path.join(self._directory, parsed.job)
        self._number += 1
        name = f"{parsed.stage}.{os.getpid()}.{self._number}.{parsed.digest.hex()[:12]}.seg"
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            return Incoming(self, header, os.path.join(directory, name))
        except OSError as error:
            self._note_refused(parsed.size, error)
            raise

    def take(self, job: str, stage: int, sources: Sequence[Source], covers: Covers | None = None) -> None:
        """Copy outputs of this peer's own into the store, all at once; raises as `taking`."""
        for _ in self.taking(job, stage, sources, covers):
            pass

    def offering(
        self, job: str, stage: int, sources: Sequence[Source], covers: Covers | None = None
    ) -> Generator[int, None, tuple[bytes, int]]:
        """Do what `describing` does, and check before it the segments of ours that the sources lie in.

        A copy that was made of damaged bytes would have a digest that fits them.

        Raises:
            OSError: a source cannot be read.
            DamagedSegment: one lies in a segment that was damaged, and is not here any more.
        """
        for path in dict.fromkeys(source.path for source in sources):
            if not self.holds_path(path):
                continue  # what a task wrote; its readers check it
            for sound in self.verifying(path):
                if not sound:
                    raise DamagedSegment(f"{path} is damaged")
                yield COPY_BYTES
        return (yield from describing(job, stage, sources, covers))

    def taking(
        self, job: str, stage: int, sources: Sequence[Source], covers: Covers | None = None
    ) -> Generator[int, None, None]:
        """Copy outputs of this peer's own into the store; closed before its end, it leaves nothing.

        Yields:
            How many bytes were read, now and then.

        Raises:
            OSError: a source cannot be read, or the disk is full.
            DamagedSegment: a source changed while it was read.
        """
        header, _ = yield from describing(job, stage, sources, covers)
        incoming = self.receive(header, own=True)
        try:
            for chunk in read_sources(sources, COPY_BYTES):
                incoming.write(chunk)
                yield len(chunk)
            incoming.finish()
        finally:
            incoming.abort()

    def put(self, job: str, stage: int, task: int, attempt: int, data: bytes) -> None:
        """Store a few bytes as a whole output.

        Raises:
            OSError: the disk is full or broken.
        """
        digest = xxhash.xxh3_128_digest(data)
        rows = [(task, attempt, WHOLE, 0, len(data), 0, 0, 0)]
        covers = Covers(partitions=(), tasks=(task,), attempts=(attempt,))
        incoming = self.receive(pack_header(job, stage, len(data), digest, rows, covers), own=True)
        try:
            incoming.write(data)
            incoming.finish()
        finally:
            incoming.abort()

    def sources(
        self, job: str, stage: int, attempts: Iterable[int], partitions: Iterable[int]
    ) -> list[Source] | None:
        """Return where outputs lie, to be sent on; None if anything that is wanted is not here.

        What is sent on says that it is all there is of these partitions (`Covers`), so a partition of which
        this store has never heard must not pass for one without pairs.

        Args:
            partitions: those wanted; empty: whole outputs.
        """
        wanted = tuple(partitions)
        found: list[Source] = []
        for attempt in attempts:
            if not all(self.holds(job, stage, attempt, partition) for partition in wanted or (WHOLE,)):
                return None
            here = self._index.get(job, {}).get(stage, {}).get(attempt, {})
            for partition in wanted or sorted(here):
                located = here.get(partition)
                if located is not None:
                    found.append(Source(entry=located.entry, path=located.path, offset=located.offset))
        return found

    def drop(self, job: str, stages: Iterable[int]) -> None:
        """Remove what lies here of some stages."""
        self.touched.add(job)
        for stage in tuple(stages):
            for path in sorted(self._files.get(job, {}).pop(stage, ())):
                self._unlink(path)
            self._index.get(job, {}).pop(stage, None)
            self._covered.get(job, {}).pop(stage, None)
        self._leave_if_empty(job)

    def _leave_if_empty(self, job: str) -> None:
        if any(self._files.get(job, {}).values()):
            return
        self._files.pop(job, None)
        self._index.pop(job, None)
        self._covered.pop(job, None)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self._directory, job))

    def drop_job(self, job: str, keep_stages: Iterable[int] = ()) -> None:
        """Remove what lies here of a job but for some stages."""
        keep = set(keep_stages)
        self.drop(job, [stage for stage in self._files.get(job, {}) if stage not in keep])

    # -- damage ----------------------------------------------------------------------------------------

    def verify(self, path: str) -> bool:
        """Check a segment's every byte; one that is damaged is removed, with all entries it held."""
        sound = True
        for sound in self.verifying(path):  # noqa: B007 - the last word counts
            pass
        return sound

    def verifying(self, path: str) -> Iterator[bool]:
        """Check a segment as `verify` does, pausing after every `COPY_BYTES`: yields whether all is well."""
        try:
            with open(path, "rb") as file:
                header, _ = _read_header(file)
                if header.checksum != self._checksums.get(path, header.checksum):
                    raise DamagedSegment(f"{path} is another one")
                digest = xxhash.xxh3_128()
                left = header.size
                while left and (chunk := file.read(min(left, COPY_BYTES))):
                    digest.update(chunk)
                    left -= len(chunk)
                    if left:
                        yield True
            if left or digest.digest() != header.digest:
                raise DamagedSegment(path)
        except (DamagedSegment, OSError):
            self.remove_segment(path)
            yield False

    def holds_path(self, path: str) -> bool:
        """Tell whether this is the path of one of our segments."""
        return any(path in paths for stages in self._files.values() for paths in stages.values())

    def body(self, path: str) -> Body:
        """Return where a segment's body lies in its file, and its digest.

        Raises:
            DamagedSegment, OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            header, body_at = _read_header(file)
        return Body(path=path, offset=body_at, length=header.size, digest=header.digest)

    def is_own(self, path: str) -> bool:
        """Tell whether a file still begins as the segment that was stored there; its body is not looked at.

        A reader checks the bytes that it reads; that they are whole, but another segment's, it cannot see.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(_HEAD.size)[-16:] == self._checksums.get(path)
        except OSError:
            return False

    def remove_segment(self, path: str, *, is_damaged: bool = True) -> list[tuple[str, int, int, int]]:
        """Remove a segment that is damaged, or is one too many.

        Returns:
            (job, stage, task, attempt) of all that is not here any more.
        """
        gone: list[tuple[str, int, int, int]] = []
        for job, stages in list(self._files.items()):
            for stage, paths in stages.items():
                if path in paths:
                    covers = paths.pop(path)
                    gone += self._forget(job, stage, path, covers)
        self.damaged += is_damaged
        if is_damaged:
            self.rotted += gone
        self._unlink(path)
        for job in {job for job, *_ in gone}:
            self._leave_if_empty(job)
        return gone

    def segments(self) -> list[str]:
        """Return the paths of all segments, for scrubbing."""
        return sorted(path for stages in self._files.values() for paths in stages.values() for path in paths)

    def is_full(self, more_bytes: int = 0) -> bool:
        """Tell whether other peers' outputs are refused for lack of space."""
        try:
            free = shutil.disk_usage(self._directory).free - more_bytes
        except OSError:
            return True
        self._is_full = free < (self._high if self._is_full else self._low)
        return self._is_full

    def probe(self) -> None:
        """See whether a failing disk takes again what it refused: writes that much, `COPY_BYTES` at most."""
        path = os.path.join(self._directory, _PROBE)
        try:
            with open(path, "wb", buffering=0) as file:
                _write_body(file, bytes(max(1, min(self._refused_bytes, COPY_BYTES))))
            self._note_taken(self._refused_bytes)
        except OSError as error:
            self._note_refused(self._refused_bytes, error)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    # -- inside ----------------------------------------------------------------------------------------

    def _note_refused(self, size: int, error: OSError) -> None:
        self._refused_bytes = min(size, self._refused_bytes) if self._refusals else size
        self._refusals += 1
        if self._refusals >= REFUSALS and not self.failing:
            self.failing = (error.strerror or type(error).__name__)[:64]

    def _note_taken(self, size: int) -> None:
        # Of a disk that takes no large files, a small one that it took proves nothing.
        if size >= self._refused_bytes:
            self._refusals, self._refused_bytes, self.failing = 0, 0, ""

    def _scan(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, _PROBE))
        for job in sorted(os.listdir(self._directory)):
            directory = os.path.join(self._directory, job)
            if not _JOB.fullmatch(job) or not os.path.isdir(directory):
                continue
            for name in sorted(os.listdir(directory)):
                path = os.path.join(directory, name)
                if not name.endswith(".seg"):
                    self._unlink(path)  # it was being written when its writer died
                    continue
                try:
                    with open(path, "rb") as file:
                        header, body_at = _read_header(file)
                        if os.fstat(file.fileno()).st_size != body_at + header.size or header.job != job:
                            raise DamagedSegment(path)
                except (DamagedSegment, OSError):
                    self.damaged += 1
                    self._unlink(path)
                    continue
                self._admit(header, path, body_at)

    def _admit(self, header: _Header, path: str, body_at: int) -> None:
        self._checksums[path] = header.checksum
        self.bytes_held += header.size
        self.touched.add(header.job)
        self._files.setdefault(header.job, {}).setdefault(header.stage, {})[path] = header.covers
        covered = self._covered.setdefault(header.job, {}).setdefault(header.stage, {})
        partitions = frozenset(header.covers.partitions) or None
        for attempt in header.covers.attempts:
            covered.setdefault(attempt, []).append(partitions)
        self._index_entries(header, path, body_at)

    def _index_entries(self, header: _Header, path: str, body_at: int) -> None:
        attempts = self._index.setdefault(header.job, {}).setdefault(header.stage, {})
        for entry in header.entries:
            # A second copy of the same output is as good as the first, which may be in use.
            attempts.setdefault(entry.attempt, {}).setdefault(
                entry.partition,
                Located(path=path, offset=body_at + entry.offset, length=entry.length, entry=entry),
            )

    def _forget(self, job: str, stage: int, path: str, covers: Covers) -> list[tuple[str, int, int, int]]:
        self.touched.add(job)
        covered = self._covered[job][stage]
        indexed = self._index.get(job, {}).get(stage, {})
        spoken_for = frozenset(covers.partitions) or None
        gone: list[tuple[str, int, int, int]] = []
        for task, attempt in zip(covers.tasks, covers.attempts, strict=True):
            gone.append((job, stage, task, attempt))
            covered[attempt].remove(spoken_for)
            if not covered[attempt]:
                del covered[attempt]
            entries = indexed.get(attempt, {})
            for partition in [number for number, located in entries.items() if located.path == path]:
                del entries[partition]
            if not entries:
                indexed.pop(attempt, None)
        # Another copy may lie here in another segment; it was not indexed while the first one was.
        lost = set(covers.attempts)
        for other, spoken_of in list(self._files[job][stage].items()):
            if not lost.isdisjoint(spoken_of.attempts):
                self._index_again(other)
        return gone

    def _index_again(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                header, body_at = _read_header(file)
        except (DamagedSegment, OSError):
            self.remove_segment(path)
            return
        self._index_entries(header, path, body_at)

    def _unlink(self, path: str) -> None:
        self._checksums.pop(path, None)
        try:
            size = os.path.getsize(path)
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:  # it goes on taking space, and is found again when the peer starts again
            self.unremoved = f"{path}: {error.strerror or error}"
            return
        self.bytes_held = max(0, self.bytes_held - size)


def read_covers(path: str) -> tuple[int, Covers]:
    """Return what a segment's own header says that it holds: its stage, and what of it.

    Raises:
        DamagedSegment: its header is damaged; its body is not looked at.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        header, _ = _read_header(file)
    return header.stage, header.covers


def _read_header(file: BinaryIO) -> tuple[_Header, int]:
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size:
        raise DamagedSegment("too short")
    magic, version, length, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or version != _VERSION or length > MAX_HEADER_BYTES:
        raise DamagedSegment("not a segment of this version")
    header = file.read(length)
    if _checksum(header) != checksum:
        raise DamagedSegment("its header is damaged")
    return _parse(header), _HEAD.size + length


def _checksum(header: bytes) -> bytes:
    return xxhash.xxh3_128_digest(header)


def _write_body(file: BinaryIO, data: bytes | memoryview) -> None:
    failpoint("store.write")
    _write(file, data)


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    view: Any = memoryview(data)
    while view:
        view = view[file.write(view) :]
