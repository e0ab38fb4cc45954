"""Which files lie on the ring, under which names: what every peer knows, and how peers come to agree on it.

Theory of operation
-------------------
A file's content never changes: each `put` makes a new *file* with a
random id, and its blocks lie under that id (`p2p.blocks`).  What changes is which file a *name* stands for.
An `Entry` says that: name, version, file, size, the digests of the blocks.  Every peer has every entry, so
any peer answers for any name and the last peer alive still knows them all; the bytes of an entry are few (16
for each block of 32 MiB).

*Which entry stands.*  The one with the greater (version, file): the same one at all peers, in whatever order
they hear of them.  A removal is an entry too, so that nobody who was away brings the name back; it is kept
for `REMOVAL_KEPT_S`.  An entry whose time is over (`expires_at_s`, by the wall clock) stands for nothing, and
is kept as long as a removal, for the same reason.

*Why no register.*  A job's record has a group that is named in the handle; whoever asks, asks that group.  A
name brings no handle along: its group would have to follow from the ring, and two peers with different views
would found two registers of one name.  A name also needs less than a job.  There is no leader, and no history
that has to go on; what must not happen is that of two puts of one name both are told "done", or that a reader
gets a mixture of two files.  The latter cannot be, since blocks belong to a file and not to a name.  The
former is prevented so:

1. the peer that is asked (the *coordinator*) claims the name at all peers that are here; a peer grants one
   claim at a time, for `CLAIM_S`, and none if it knows of the name already (unless the put replaces it);
2. with grants of a majority it writes the entry, whose version is above all that the granting peers know;
   with fewer it gives its grants back and says why;
3. when a majority has the entry on disk the client is told "done"; the others hear of it from whoever they
   compare catalogues with next.

Majorities of one membership intersect, so of two simultaneous puts one is refused, and of two one after the
other the second sees the first.  The coordinator stops by itself before a grant can have run out
(`WRITE_WITHIN_S`), so only clocks that run at very different speeds, or two halves of a partition that both
take themselves for the whole, could let two in; then the greater version stands, at all peers, and no byte of
the other one is mixed with it.  A job does not even see that: it names the files that it reads by id.

Pure; `p2p.ring_files` performs, `p2p.name_files` keeps entries on disk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from p2p.blocks import DIGEST_BYTES, block_count

__all__ = [
    "CLAIM_S",
    "MAX_NAME_CHARS",
    "REMOVAL_KEPT_S",
    "WRITE_WITHIN_S",
    "Catalogue",
    "Entry",
    "NameRow",
    "is_forgotten",
    "supersedes",
    "why_no_name",
]

CLAIM_S = 10.0
WRITE_WITHIN_S = 4.0
REMOVAL_KEPT_S = 7 * 24 * 3600.0
MAX_NAME_CHARS = 512
MAX_CLAIMS = 4_096
# A peer answers in its loop, and comparing takes time with the square of the length.
MAX_NEAR = 100
NEAR_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a name stands for.

    Attributes:
        name: parts with "/" between them.
        version: of the name; the greater one stands.
        file: the id under which the blocks lie, 40 hexadecimal digits; of a removal just an id.
        is_removal: the name stands for nothing any more.
        size_bytes, block_bytes: of the content, and of each block but the last.
        digests: xxh3-128 of each block, one behind the other.
        replicas: how many peers shall hold each block.
        made_at_s, expires_at_s: wall clock; 0 in the latter: never.
    """

    name: str
    version: int
    file: str
    is_removal: bool = False
    size_bytes: int = 0
    block_bytes: int = 1
    digests: bytes = b""
    replicas: int = 1
    made_at_s: float = 0.0
    expires_at_s: float = 0.0

    def __post_init__(self) -> None:
        if self.block_bytes < 1 or len(self.digests) != DIGEST_BYTES * self.blocks:
            raise ValueError(f"entry {self.name!r}: its digests do not fit its size")

    @property
    def blocks(self) -> int:
        """How many there are."""
        return block_count(self.size_bytes, self.block_bytes)

    def digest(self, block: int) -> bytes:
        """The digest of a block."""
        return self.digests[DIGEST_BYTES * block : DIGEST_BYTES * (block + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRow:
    """An entry in short, to compare catalogues."""

    name: str
    version: int
    file: str


def supersedes(new: Entry | NameRow, old: Entry | NameRow | None) -> bool:
    """Tell whether an entry stands instead of another one of the same name."""
    return old is None or (new.version, new.file) > (old.version, old.file)


def why_no_name(name: str) -> str:
    """Return why this cannot be a file's name, "" if it can."""
    if not name:
        return "it is empty"
    if len(name) > MAX_NAME_CHARS:
        return f"it is longer than {MAX_NAME_CHARS} characters"
    if not name.isprintable():
        return "it holds characters that cannot be printed"
    if any(character in name for character in "*?["):
        return "it holds *, ? or [, which stand for other names"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "its parts, between /, must not be empty, . or .."
    return ""


@dataclass(frozen=True, slots=True)
class _Claim:
    put: str
    until: float


class Catalogue:
    """What one peer knows of names.

    Args:
        entries: those that were kept.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._files: dict[str, Entry] = {}
        self._claims: dict[str, _Claim] = {}
        self._over: set[str] = set()
        self._state = 0
        self._sorted: list[str] | None = None
        for entry in entries:
            self.learn(entry)

    # -- entries ---------------------------------------------------------------------------------------

    def get(self, name: str) -> Entry | None:
        """Return what a name stands for, None if for nothing."""
        entry = self._entries.get(name)
        return entry if entry is not None and self._stands(entry) else None

    def known(self, name: str) -> Entry | None:
        """Return the entry of a name, be it a removal or one whose time is over."""
        return self._entries.get(name)

    def of_file(self, file: str) -> Entry | None:
        """Return the entry by which a file has a name."""
        return self._files.get(file)

    def learn(self, entry: Entry, wall_s: float = 0.0) -> bool:
        """Take note of an entry, whose time may be over at `wall_s`; False if it is no news."""
        old = self._entries.get(entry.name)
        if not supersedes(entry, old):
            return False
        if old is not None:
            self._leave(old)
        else:
            self._sorted = None
        self._entries[entry.name] = entry
        self._state ^= _mark(entry)
        if not entry.is_removal:
            self._files[entry.file] = entry
        if _is_over(entry, wall_s):
            self._hide(entry)
        return True

    def expire(self, wall_s: float) -> list[Entry]:
        """Hide the entries whose time is over; returns those that nobody brings back, which are forgotten."""
        over = [one for one in self._entries.values() if _is_over(one, wall_s)]
        forgotten = [one for one in over if is_forgotten(one, wall_s)]
        for entry in over:
            self._hide(entry)
        for entry in forgotten:
            self._leave(entry)
            del self._entries[entry.name]
            self._sorted = None
        return forgotten

    def entries(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        """Yield the entries of names that begin so and stand behind `after`, in order of their names."""
        for name in self._names():
            if name > after and name.startswith(prefix):
                entry = self._entries[name]
                if self._stands(entry):
                    yield entry

    def near(self, name: str) -> str:
        """Return a name that may have been meant, or ""."""
        import difflib

        names = self._names()
        at = bisect_left(names, name)
        beside = names[max(0, at - MAX_NEAR // 2) :][:MAX_NEAR]
        # Names that lie side by side begin alike: they differ in their ends.
        ends = {known[-NEAR_CHARS:]: known for known in beside if self._stands(self._entries[known])}
        found = difflib.get_close_matches(name[-NEAR_CHARS:], list(ends), n=1)
        return ends[found[0]] if found else ""

    # -- comparing -------------------------------------------------------------------------------------

    @property
    def state(self) -> bytes:
        """Sixteen bytes that are equal at two peers when they know the same entries."""
        return self._state.to_bytes(16, "big")

    def rows(self, after: str, count: int) -> list[NameRow]:
        """Return entries in short, of the first `count` names behind `after`."""
        names = [name for name in self._names() if name > after][:count]
        return [
            NameRow(name=name, version=self._entries[name].version, file=self._entries[name].file)
            for name in names
        ]

    def compare(self, rows: Iterable[NameRow], after: str, last: str) -> tuple[list[Entry], list[str]]:
        """Compare another peer's rows of the names behind `after` up to `last` ("": to the end) with ours.

        Returns:
            Entries that it lacks, and names of which it has a better entry.
        """
        theirs = {row.name: row for row in rows}
        ours = [name for name in self._names() if name > after and (not last or name <= last)]
        better = [self._entries[name] for name in ours if supersedes(self._entries[name], theirs.get(name))]
        wanted = [row.name for row in theirs.values() if supersedes(row, self._entries.get(row.name))]
        return better, wanted

    # -- claims ----------------------------------------------------------------------------------------

    def claim(self, name: str, put: str, now: float, *, replaces: bool) -> tuple[str, int]:
        """Let one put have a name for a while.

        Args:
            put: its id; the same one may claim again.
            replaces: it may stand instead of a file that there is.

        Returns:
            ("", the version that is known) if granted; "exists", "busy" or "full" if not.
        """
        known = self._entries.get(name)
        version = known.version if known is not None else 0
        claim = self._claims.get(name)
        if known is not None and known.file == put:
            return "", version - 1  # it has been written already: said again, it is the same put
        if claim is not None and claim.put != put and claim.until > now:
            return "busy", version
        if known is not None and self._stands(known) and not replaces:
            return "exists", version
        if claim is None and len(self._claims) >= MAX_CLAIMS:
            return "full", version
        self._claims[name] = _Claim(put, now + CLAIM_S)
        return "", version

    def unclaim(self, name: str, put: str) -> None:
        """Give a name back."""
        claim = self._claims.get(name)
        if claim is not None and claim.put == put:
            del self._claims[name]

    def drop_claims(self, now: float) -> None:
        """Drop those that have run out."""
        self._claims = {name: claim for name, claim in self._claims.items() if claim.until > now}

    # -- inside ----------------------------------------------------------------------------------------

    def _stands(self, entry: Entry) -> bool:
        return not entry.is_removal and entry.name not in self._over

    def _leave(self, entry: Entry) -> None:
        self._state ^= _mark(entry)
        self._hide(entry)
        self._over.discard(entry.name)

    def _hide(self, entry: Entry) -> None:
        self._over.add(entry.name)
        if self._files.get(entry.file) is entry:
            del self._files[entry.file]

    def _names(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self._entries)
        return self._sorted


def is_forgotten(entry: Entry, wall_s: float) -> bool:
    """Tell whether an entry's time is over for so long that nobody need remember it."""
    kept_s = 0.0 if entry.is_removal else REMOVAL_KEPT_S  # a removal's own time is that
    return 0 < entry.expires_at_s <= wall_s - kept_s


def _is_over(entry: Entry, wall_s: float) -> bool:
    return 0 < entry.expires_at_s <= wall_s


def _mark(entry: Entry) -> int:
    """A number for an entry; the numbers of all entries, added without carry, stand for a catalogue."""
    text = f"{entry.version} {entry.file} {entry.name}".encode()
    return int.from_bytes(blake2b(text, digest_size=16, person=b"ringreduce.name").digest(), "big")
