"""Inputs of a job that lie on the ring, or are brought there because some peer cannot read them.

See `p2p.handing_in` for when.  Splits are planned as for a file of the same size on this machine; afterwards
each stands under its block's key, and its path says all that a peer needs (`p2p.blocks.RingPath`).  A reader
that wants to look into a file to know where it can be entered sees its beginning, which is fetched for that.

⚙ Reads inputs, asks peers, makes temporary files.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, Self

import xxhash

from mapreduce.errors import InputError
from mapreduce.inputs import Source
from mapreduce.pieces import Piece, pieces_path
from mapreduce.plan import DEFAULT_SPLIT_BYTES, SAMPLE_SPLIT_BYTES
from mapreduce.progress import size_text
from mapreduce.spec import InputSplit, JobSpec
from mapreduce.streams import codec_of, is_url, shown
from p2p.blocks import RING, RingPath, block_key
from p2p.catalogue import Entry
from p2p.errors import PeerError
from p2p.file_client import FileClient, FileUnknown
from p2p.job_client import InputsNotThere, JobClient

__all__ = ["INPUTS", "INPUTS_TTL_S", "RingSources", "expand_ring", "remove_all"]

INPUTS = ".inputs/"
INPUTS_TTL_S = 24 * 3600.0
HEAD_BYTES = 64 << 10
_MAGIC = re.compile(r"[*?\[]")


class RingSources:
    """The inputs of one submission that lie on the ring.  Use it as a context manager.

    Args:
        client: of the swarm; a connection of its own is made for files.
        options: of the submission, see `mapreduce.submission.spec_of`.
        tell: takes a line for people.
        on_progress: told of inputs on their way: (bytes more, bytes in all).

    Attributes:
        brought: names of the inputs that were put on the ring.
    """

    def __init__(
        self,
        client: JobClient,
        options: Mapping[str, Any],
        tell: Callable[[str], Any],
        on_progress: Callable[[int, int], Any],
    ) -> None:
        self._client = FileClient.beside(client)
        self._options = options
        self._tell = tell
        self._on_progress = on_progress
        self._directory = tempfile.TemporaryDirectory(prefix="ringreduce-inputs-")
        self._paths: dict[str, RingPath] = {}
        self.brought: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._directory.cleanup()

    def expand(self, given: str) -> list[Source]:
        """Return the files that ``ring:…`` stands for.

        Raises:
            InputError: it stands for none.
        """
        found: list[Source] = []
        for entry in expand_ring(self._client, given):
            path = _ring_path(entry)
            self._paths[str(path)] = path
            found.append(
                Source(
                    path=str(path),
                    name=RING + entry.name,
                    size_bytes=entry.size_bytes,
                    splittable=codec_of(entry.name) is None,
                )
            )
        return found

    # ---- planning ------------------------------------------------------------------------------------------

    def planned(self, sources: Sequence[Source]) -> list[Source]:
        """Return the sources with paths at which planning can look into those of the ring."""
        least = min(self._options.get("split_bytes", DEFAULT_SPLIT_BYTES), SAMPLE_SPLIT_BYTES)
        found: list[Source] = []
        for source in sources:
            path = self._paths.get(source.path)
            if path is None:
                found.append(source)
            elif path.size_bytes <= least:  # nobody asks where it can be entered
                found.append(replace(source, path=str(path)))
            else:
                found.append(replace(source, path=self._path_of_head(path)))
        return found

    def _path_of_head(self, path: RingPath) -> str:
        data = self._client.head(path.file, min(HEAD_BYTES, path.size_bytes, path.block_bytes))
        where = os.path.join(self._directory.name, path.file)
        with open(where, "wb") as file:
            file.write(data)
        piece = Piece(
            at=0,
            length=len(data),
            path=where,
            offset=0,
            body_offset=0,
            body_length=len(data),
            digest=xxhash.xxh3_128_digest(data),
        )
        # As if that were all: who looks for the form of a file reads as much as there is.
        planned = pieces_path([piece], len(data), path.name)
        self._paths[planned] = path
        return planned

    def anchored(self, spec: JobSpec) -> JobSpec:
        """Let splits of files of the ring stand under the keys of their blocks."""

        def anchored(split: InputSplit) -> InputSplit:
            path = self._paths.get(split.path)
            if path is None:
                return split
            return replace(split, path=str(path), key=block_key(path.file, split.start // path.block_bytes))

        steps = tuple(
            [
                replace(
                    step, splits=tuple(map(anchored, step.splits)), samples=tuple(map(anchored, step.samples))
                )
                for step in spec.plan.steps
            ]
        )
        return replace(spec, plan=replace(spec.plan, steps=steps))

    # ---- bringing ------------------------------------------------------------------------------------------

    def bring_lacking(self, sources: Sequence[Source], error: InputsNotThere) -> bool:
        """Put on the ring what some peer cannot read; False if it is nothing of this machine's."""
        places = {_place(path) for path in error.paths}
        lacking = [
            source
            for source in sources
            if source.path not in self._paths
            and (source.path in error.paths or _place(source.path) in places)
        ]
        if lacking:
            self._tell(str(error))
            self.bring(lacking)
        return bool(lacking)

    def bring(self, sources: Sequence[Source]) -> None:
        """Put inputs of this machine on the ring.

        Raises:
            InputError: one of them cannot be read.
            FileRefused, NoPeerReached: the ring does not take one; what was put is removed.
        """
        distinct = {source.path: source for source in sources}
        total = sum(source.size_bytes for source in distinct.values())
        count = f"{len(distinct)} inputs" if len(distinct) != 1 else next(iter(distinct.values())).name
        self._tell(f"putting {count} on the ring, {size_text(total)}")
        batch = secrets.token_hex(8)
        try:
            for number, source in enumerate(distinct.values()):
                name = f"{INPUTS}{batch}/{number}/{_last_part(source)}"
                with _stored(source) as file:
                    entry, _ = self._client.put(
                        file,
                        name,
                        replicas=self._options.get("replicas", 2),
                        ttl_s=max(INPUTS_TTL_S, self._options.get("ttl_s", 0.0)),
                        on_progress=lambda more: self._on_progress(more, total),
                    )
                self.brought.append(name)
                path = _ring_path(entry)
                self._paths[source.path] = self._paths[str(path)] = path
        except BaseException:
            self.take_back()
            raise

    def has_brought(self, path: str) -> bool:
        """Whether this file of ours was put on the ring."""
        return path in self._paths

    def take_back(self) -> None:
        """Remove what was put on the ring."""
        remove_all(self._client, self.brought)
        self.brought = []


def remove_all(client: JobClient, names: Sequence[str]) -> None:
    """Remove files of the ring; what cannot be removed ends with its time to live."""
    with FileClient.beside(client) as files:
        for name in names:
            with contextlib.suppress(PeerError):
                files.remove(name)


def _ring_path(entry: Entry) -> RingPath:
    name = entry.name.rsplit("/", 1)[-1]
    return RingPath(file=entry.file, block_bytes=entry.block_bytes, size_bytes=entry.size_bytes, name=name)


def _place(path: str) -> str:
    """Where a URL leads, for peers look at one of each place only; of a path the path."""
    return "/".join(path.split("/")[:3]) if is_url(path) else path


def _last_part(source: Source) -> str:
    """A name for the ring that ends as the input's does."""
    last = re.sub(r"[^A-Za-z0-9._-]", "_", source.name.split("?")[0].rsplit("/", 1)[-1])[-64:].lstrip(".")
    return last if last.strip("-_") else "input"


@contextlib.contextmanager
def _stored(source: Source) -> Iterator[BinaryIO]:
    """Open an input as it is stored, compressed or not, so that it can seek."""
    if not is_url(source.path):
        try:
            file = open(source.path, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise InputError(f"{shown(source.name)}: {error.strerror or error}") from None
        with file:
            yield file
        return
    import fsspec

    with tempfile.TemporaryFile(prefix="ringreduce-input-") as copy:
        system, inner = fsspec.core.url_to_fs(source.path)
        with system.open(inner, "rb") as remote:
            shutil.copyfileobj(remote, copy, 1 << 20)
        yield copy


# ---- names -------------------------------------------------------------------------------------------------


def expand_ring(client: FileClient, given: str) -> list[Entry]:
    """Return the files of the ring that an input stands for, in order of their names.

    Names that begin with "." or "_" are left out of directories, and those with "." of patterns, as on this
    machine (`mapreduce.inputs`).

    Raises:
        InputError: it stands for none.
    """
    name = given.removeprefix(RING)
    try:
        magic = _MAGIC.search(name)
        if magic is not None:
            pattern = _pattern(name)
            rows = [row for row in client.files(name[: magic.start()]) if pattern.fullmatch(row.name)]
            if not rows:
                raise InputError(f"{shown(given)}: no file of the ring matches the pattern")
            return [client.file(row.name) for row in rows]
        if not name.endswith("/"):
            try:
                return [client.file(name)]
            except FileUnknown as error:
                names = _below(client, name + "/")
                if not names:
                    raise InputError(f"{shown(given)}: {error}") from None
                return [client.file(found) for found in names]
        names = _below(client, name)
        if not names:
            raise InputError(f"{shown(given)}: no file lies below it on the ring")
        return [client.file(found) for found in names]
    except FileUnknown as error:  # it was removed between two questions
        raise InputError(f"{shown(given)}: {error}") from None


def _below(client: FileClient, prefix: str) -> list[str]:
    rows = client.files(prefix)
    return [
        row.name
        for row in rows
        if not any(part.startswith((".", "_")) for part in row.name.removeprefix(prefix).split("/"))
    ]


def _pattern(name: str) -> re.Pattern[str]:
    """Translate a pattern: `*` stays within a part of the name, `**` does not."""
    parts = []
    for part in name.split("/"):
        if part == "**":
            parts.append(r"(?:[^/.][^/]*/)*[^/.][^/]*")
            continue
        text = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
        hidden = "" if part.startswith(".") else r"(?!\.)"
        # What stands for any character stands for none that parts a name.
        text = re.sub(r"\\.|\[.*?\]|\.", lambda one: "[^/]" if one[0] == "." else one[0], text)
        parts.append(hidden + text.replace("(?>", "(?:"))
    return re.compile("/".join(parts).replace("(?:[^/.][^/]*/)*[^/.][^/]*/", "(?:[^/.][^/]*/)*"))
