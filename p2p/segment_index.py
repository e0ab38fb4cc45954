"""What lies in a peer's store, in memory: which segment holds an output, and what is spoken for.

Theory
------
The index is made of segments' headers alone, so it can be read again from the directory at any time.  Two
questions are asked of it, and they differ: *where do these bytes lie* (`find`), and *is all there is of this
partition here* (`holds`).  An attempt without pairs for a partition has no bytes, and yet it is held.

The same output may lie here twice, in segments that cover different attempts or partitions.  The first one
is the one to read from, as it may be in use; when its segment goes, the others are looked at again.

This module is pure; `p2p.store` reads the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2p.segments import WHOLE, Covers, Header, Located, Source

__all__ = ["Gone", "SegmentIndex"]

Gone = tuple[str, int, int, int]
"""What is not here any more: job, stage, task, attempt."""


class SegmentIndex:
    """The segments of one store, by what they hold.

    Attributes:
        bytes_held: of all their files.
    """

    def __init__(self) -> None:
        self.bytes_held = 0
        # {job: {stage: {attempt: {partition: where}}}} and the segments of each stage.
        self._located: dict[str, dict[int, dict[int, dict[int, Located]]]] = {}
        self._files: dict[str, dict[int, dict[str, Covers]]] = {}
        # {path: the checksum of its header}: what tells a segment from another one in its place.
        self._checksums: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        # Their entries are those that the places of outputs name; no file is opened to find another copy.
        self._headers: dict[str, Header] = {}
        # {job: {stage: {attempt: the sets of partitions that are spoken for, None: all}}}
        self._covered: dict[str, dict[int, dict[int, list[frozenset[int] | None]]]] = {}

    # -- questions -------------------------------------------------------------------------------------

    def find(self, job: str, stage: int, attempt: int, partition: int = WHOLE) -> Located | None:
        """Return where an output lies, None if it is not here."""
        return self._located.get(job, {}).get(stage, {}).get(attempt, {}).get(partition)

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

    def stages(self, job: str) -> tuple[int, ...]:
        """Return the stages of a job of which anything lies here, or did."""
        return tuple(self._files.get(job, {}))

    def is_empty(self, job: str) -> bool:
        """Tell whether nothing lies here of a job."""
        return not any(self._files.get(job, {}).values())

    def paths(self) -> list[str]:
        """Return the paths of all segments, in order."""
        return sorted(path for stages in self._files.values() for paths in stages.values() for path in paths)

    def holds_path(self, path: str) -> bool:
        """Tell whether this is the path of a segment."""
        return any(path in paths for stages in self._files.values() for paths in stages.values())

    def checksum(self, path: str) -> bytes | None:
        """Return the checksum of a segment's header, None if there is no such segment."""
        return self._checksums.get(path)

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
            here = self._located.get(job, {}).get(stage, {}).get(attempt, {})
            for partition in wanted or sorted(here):
                located = here.get(partition)
                if located is not None:
                    found.append(Source(entry=located.entry, path=located.path, offset=located.offset))
        return found

    # -- coming and going ------------------------------------------------------------------------------

    def admit(self, header: Header, path: str) -> None:
        """A segment lies here."""
        self._checksums[path] = header.checksum
        self._sizes[path] = header.file_bytes
        self._headers[path] = header
        self.bytes_held += self._sizes[path]
        self._files.setdefault(header.job, {}).setdefault(header.stage, {})[path] = header.covers
        covered = self._covered.setdefault(header.job, {}).setdefault(header.stage, {})
        partitions = frozenset(header.covers.partitions) or None
        for attempt in header.covers.attempts:
            covered.setdefault(attempt, []).append(partitions)
        self.locate(header, path)

    def locate(self, header: Header, path: str) -> None:
        """Find the outputs of a segment that lies here from now on in it, unless they lie in another one."""
        attempts = self._located.setdefault(header.job, {}).setdefault(header.stage, {})
        for entry in header.entries:
            # A second copy of the same output is as good as the first, which may be in use.
            attempts.setdefault(entry.attempt, {}).setdefault(
                entry.partition,
                Located(
                    path=path, offset=header.bytes_before + entry.offset, length=entry.length, entry=entry
                ),
            )

    def locate_again(self, path: str) -> None:
        """Do what `locate` does, of a segment that was admitted and has not gone."""
        self.locate(self._headers[path], path)

    def remove(self, path: str) -> tuple[list[Gone], list[str]]:
        """A segment is not here any more.

        Returns:
            What has gone with it, and the segments to be looked at again (`locate_again`): they speak of the
            same attempts, and were not found while this one was.
        """
        gone: list[Gone] = []
        others: list[str] = []
        for job, stages in self._files.items():
            for stage, paths in stages.items():
                if path in paths:
                    covers = paths.pop(path)
                    gone += self._forget(job, stage, path, covers)
                    lost = set(covers.attempts)
                    others += [
                        other for other, spoken in paths.items() if not lost.isdisjoint(spoken.attempts)
                    ]
        self._forget_path(path)
        return gone, others

    def _forget_path(self, path: str) -> None:
        self._checksums.pop(path, None)
        self._headers.pop(path, None)
        self.bytes_held -= self._sizes.pop(path, 0)

    def _forget(self, job: str, stage: int, path: str, covers: Covers) -> list[Gone]:
        covered = self._covered[job][stage]
        located = self._located.get(job, {}).get(stage, {})
        spoken_for = frozenset(covers.partitions) or None
        for attempt in covers.attempts:
            covered[attempt].remove(spoken_for)
            if not covered[attempt]:
                del covered[attempt]
            entries = located.get(attempt, {})
            for partition in [number for number, one in entries.items() if one.path == path]:
                del entries[partition]
            if not entries:
                located.pop(attempt, None)
        outputs = zip(covers.tasks, covers.attempts, strict=True)
        return [(job, stage, task, attempt) for task, attempt in outputs]

    def drop(self, job: str, stage: int) -> list[str]:
        """Nothing of a stage is here any more; return the paths of its segments, in order."""
        paths = sorted(self._files.get(job, {}).pop(stage, ()))
        self._located.get(job, {}).pop(stage, None)
        self._covered.get(job, {}).pop(stage, None)
        for path in paths:
            self._forget_path(path)
        return paths

    def drop_job(self, job: str) -> None:
        """Forget a job of which nothing lies here any more."""
        self._files.pop(job, None)
        self._located.pop(job, None)
        self._covered.pop(job, None)
