"""The store: what a peer holds of the jobs of the ring, as segments on its disk.

Theory
------
The directory alone tells what lies here: each file is a segment that lists what it holds (`p2p.segments`).
An index in memory (`p2p.segment_index`) is read from the headers at start; a segment enters it when it has
come whole (`p2p.incoming`), and leaves it when its job is dropped, its time is over or it is damaged.

What came and went is noted for whoever has to know of it: `touched` for those who copy blocks and parts,
`rotted` for the leaders whose outputs are damaged.  Whether there is room, and whether the disk takes
anything, is `p2p.disk`'s to know.

⚙ This module reads and writes files.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterable, Iterator, Sequence

import xxhash

from p2p.adoption import adopt, is_adoptable
from p2p.disk import HIGH_FREE_BYTES, LOW_FREE_BYTES, Disk, is_want_of_ours
from p2p.incoming import Incoming
from p2p.segment_index import Gone, SegmentIndex
from p2p.segments import (
    COPY_BYTES,
    WHOLE,
    Body,
    Covers,
    DamagedSegment,
    Header,
    Located,
    Source,
    checking_body,
    describing,
    heading,
    is_job,
    pack_header,
    parse_header,
    read_checksum,
    read_header,
    read_sources,
)

__all__ = ["Store", "StoreFull"]


class StoreFull(Exception):
    """There is less free space than the store may use."""


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
        self._directory = directory
        self._disk = Disk(directory, low_free_bytes=low_free_bytes, high_free_bytes=high_free_bytes)
        self._index = SegmentIndex()
        # Of the last segment: names go on where an earlier life ended, which may have had our process id.
        self._number = 0
        # Whether a file that a task wrote can get a second name here.
        self._knows_links = True
        self.touched: set[str] = set()
        """Jobs of which something came or went; whoever looks after them takes them out."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.unremoved = ""
        """What was last not to be removed and why, until it is told."""
        self.damaged = 0
        self.rotted: list[Gone] = []
        """What was damaged and is not here any more, as (job, stage, task, attempt), until it is told."""
        self._scan()

    # -- what lies here --------------------------------------------------------------------------------

    def find(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> Located | None:
        """See `SegmentIndex.find`."""
        return self._index.find(job, stage, attempt, partition)

    def holds(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> bool:
        """See `SegmentIndex.holds`."""
        return self._index.holds(job, stage, attempt, partition)

    def held(self, job: str) -> Iterator[tuple[int, Covers]]:
        """See `SegmentIndex.held`."""
        return self._index.held(job)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of which anything lies here."""
        return self._index.jobs

    @property
    def bytes_held(self) -> int:
        """How large the segments here are, with their headers."""
        return self._index.bytes_held

    def segments(self) -> list[str]:
        """Return the paths of all segments, for scrubbing."""
        return self._index.paths()

    def holds_path(self, path: str) -> bool:
        """Tell whether this is the path of one of our segments."""
        return self._index.holds_path(path)

    def sources(
        self, job: str, stage: int, attempts: Iterable[int], partitions: Iterable[int]
    ) -> list[Source] | None:
        """See `SegmentIndex.sources`."""
        return self._index.sources(job, stage, attempts, partitions)

    def read(self, located: Located) -> bytes:
        """Return an entry's bytes, after its whole segment has been checked.

        Raises:
            DamagedSegment: it was damaged, and is not here any more.
            OSError: it cannot be read.
        """
        if not self.verify(located.path):
            raise DamagedSegment(f"{located.path} is damaged")
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
        parsed = parse_header(header)
        if not own and self.is_full(parsed.size):
            raise StoreFull("the disk is nearly full")
        try:
            return Incoming(header, parsed, self._fresh_path(parsed), self._disk, self._admit)
        except OSError as error:
            self._disk.note_refused(parsed.size, error)
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
        """Take outputs of this peer's own into the store; closed before its end, it leaves nothing.

        They are copied, unless the file in which they lie can become a segment (`p2p.adoption`).

        Yields:
            How many bytes were read, now and then.

        Raises:
            OSError: a source cannot be read, or the disk is full.
            DamagedSegment: a source changed while it was read.
        """
        if (
            self._knows_links
            and is_adoptable(sources)
            and (yield from self._adopting(job, stage, sources, covers))
        ):
            return
        header, _ = yield from describing(job, stage, sources, covers)
        incoming = self.receive(header, own=True)
        try:
            for chunk in read_sources(sources, COPY_BYTES):
                incoming.write(chunk)
                yield len(chunk)
            incoming.finish()
        finally:
            incoming.abort()

    def _adopting(
        self, job: str, stage: int, sources: Sequence[Source], covers: Covers | None
    ) -> Generator[int, None, bool]:
        """Make the file in which all these outputs lie a segment; False if it cannot become one."""
        header = yield from heading(job, stage, sources, covers)
        parsed = parse_header(header, is_behind=True)
        try:
            path = self._fresh_path(parsed)
            if not adopt(sources[0].path, header, parsed, path):
                return False
        except OSError as error:
            # Each attempt reads the file and adds a header to it: where there are no links one is enough.
            self._knows_links &= error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP)
            self._leave_if_empty(job)
            return False  # a disk that is full or broken shows when it is to take a copy
        self._admit(parsed, path)
        return True

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

    def drop(self, job: str, stages: Iterable[int]) -> None:
        """Remove what lies here of some stages."""
        self.touched.add(job)
        for stage in tuple(stages):
            for path in self._index.drop(job, stage):
                self._unlink(path)
        self._leave_if_empty(job)

    def drop_job(self, job: str, keep_stages: Iterable[int] = ()) -> None:
        """Remove what lies here of a job but for some stages."""
        keep = set(keep_stages)
        self.drop(job, [stage for stage in self._index.stages(job) if stage not in keep])

    # -- damage ----------------------------------------------------------------------------------------

    def verify(self, path: str) -> bool:
        """Check a segment's every byte; one that is damaged is removed, with all entries it held.

        Raises:
            OSError: this process lacks descriptors or memory, so that nothing is known of the segment.
        """
        sound = True
        for sound in self.verifying(path):  # noqa: B007 - the last word counts
            pass
        return sound

    def verifying(self, path: str) -> Iterator[bool]:
        """Check a segment as `verify` does, pausing after every `COPY_BYTES`: yields whether all is well.

        One that cannot be opened for want of descriptors or memory is not known to be damaged, and stays.

        Raises:
            OSError: for such a want; what was not checked must not pass for sound.
        """
        try:
            with open(path, "rb") as file:
                header = read_header(file)
                if header.checksum != (self._index.checksum(path) or header.checksum):
                    raise DamagedSegment(f"{path} is another one")
                for _ in checking_body(file, header):
                    yield True
        except (DamagedSegment, OSError) as error:
            if is_want_of_ours(error):
                raise
            self.remove_segment(path)
            yield False

    def body(self, path: str) -> Body:
        """Return where a segment's body lies in its file, and its digest.

        Raises:
            DamagedSegment, OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            header = read_header(file)
        return Body(path=path, offset=header.bytes_before, length=header.size, digest=header.digest)

    def is_own(self, path: str) -> bool:
        """Tell whether a file still begins as the segment that was stored there; its body is not looked at.

        A reader checks the bytes that it reads; that they are whole, but another segment's, it cannot see.

        Raises:
            OSError: this process lacks descriptors or memory, so that nothing is known of the file.
        """
        try:
            return read_checksum(path) == self._index.checksum(path)
        except OSError as error:
            if is_want_of_ours(error):
                raise
            return False

    def find_own(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> Located | None:
        """Do what `find` does; a segment in whose place another one lies, or none, is removed first.

        Raises:
            OSError: as of `is_own`.
        """
        while located := self.find(job, stage, attempt, partition):
            if self.is_own(located.path):
                return located
            self.remove_segment(located.path)
        return None

    def remove_segment(self, path: str, *, is_damaged: bool = True) -> list[Gone]:
        """Remove a segment that is damaged, or is one too many; return all that is not here any more."""
        # One that was dropped before whoever checks it came to open it is not damaged.
        is_damaged = is_damaged and self.holds_path(path)
        gone, others = self._index.remove(path)
        jobs = {job for job, *_ in gone}
        self.touched |= jobs
        for other in others:
            self._index.locate_again(other)
        self.damaged += is_damaged
        if is_damaged:
            self.rotted += gone
        self._unlink(path)
        for job in jobs:
            self._leave_if_empty(job)
        return gone

    # -- the disk --------------------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """What a disk that takes nothing answers; "" of a sound one."""
        return self._disk.failing

    def is_full(self, more_bytes: int = 0) -> bool:
        """See `Disk.is_full`."""
        return self._disk.is_full(more_bytes)

    def probe(self) -> None:
        """See `Disk.probe`."""
        self._disk.probe()

    # -- inside ----------------------------------------------------------------------------------------

    def _scan(self) -> None:
        self._disk.remove_probe()
        for job in sorted(os.listdir(self._directory)):
            directory = os.path.join(self._directory, job)
            if not is_job(job) or not os.path.isdir(directory):
                continue
            for name in sorted(os.listdir(directory)):
                path = os.path.join(directory, name)
                if not name.endswith(".seg"):
                    self._unlink(path)  # it was being written when its writer died
                    continue
                try:
                    with open(path, "rb") as file:
                        header = read_header(file)
                        size = os.fstat(file.fileno()).st_size
                        if size != header.file_bytes or header.job != job:
                            raise DamagedSegment(path)
                except (DamagedSegment, OSError) as error:
                    if is_want_of_ours(error):
                        raise  # it may well be sound: a peer that cannot look must not begin
                    self.damaged += 1
                    self._unlink(path)
                    continue
                self._number = max(self._number, _number_of(name))
                self._admit(header, path)

    def _fresh_path(self, header: Header) -> str:
        """Name a segment, in a directory that is made if need be."""
        directory = os.path.join(self._directory, header.job)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._number += 1
        name = f"{header.stage}.{os.getpid()}.{self._number}.{header.digest.hex()[:12]}.seg"
        return os.path.join(directory, name)

    def _admit(self, header: Header, path: str) -> None:
        self.touched.add(header.job)
        self._index.admit(header, path)

    def _leave_if_empty(self, job: str) -> None:
        if self._index.is_empty(job):
            self._index.drop_job(job)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(self._directory, job))

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:  # it goes on taking space, and is found again when the peer starts again
            self.unremoved = f"{path}: {error.strerror or error}"


def _number_of(name: str) -> int:
    """The number in a segment's name, 0 where there is none."""
    *_, number, _digest, _ending = ("", "", *name.split("."))
    return int(number) if number.isdecimal() else 0
