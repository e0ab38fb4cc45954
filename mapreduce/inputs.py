"""Which files a job reads, and into which byte ranges they fall.

Theory of operation
-------------------
*Order.*  Inputs are read in the order they are given; what one input stands for (a directory, a glob) is
read in the order of its paths, as `LC_ALL=C sort` would put them.  A file that is named twice is read
twice, as `cat` would.  Nothing depends on the order in which a file system lists its names.

*What is left out.*  In directories, names that begin with "." or "_" are left out, at every level: so
the output directory of one job (with `_SUCCESS`, perhaps `_temporary`) is a good input for the next.
Globs mean what they mean to a shell, where only a leading dot hides a name.

*Splits.*  A file is cut into ranges of `split_bytes` if it can be entered midway: it is not compressed
and its reader finds the next record from any place.  Where records really begin is found by the reader when
the split is read, so planning opens no file and takes a microsecond or two a split.

⚙ This module lists files and asks file systems for sizes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mapreduce.errors import InputError, UsageError
from mapreduce.plan import DEFAULT_SPLIT_BYTES, Split
from mapreduce.streams import codec_of, is_url, one_line, open_source, reading, shown

if TYPE_CHECKING:
    from mapreduce.batches import Batch

__all__ = ["Reader", "Source", "expand", "open_source", "paths_of", "plan_splits"]

STANDARD_INPUT = "-"
# A last range that would be smaller than this share of a split is read with the one before it
# (Hadoop's FileInputFormat, SPLIT_SLOP).
SPLIT_SLOP = 1.1


class Reader(Protocol):
    """How the bytes of an input become records; `mapreduce.readers` has the ones there are."""

    @property
    def gives_pairs(self) -> bool:
        """True when records are (key, value) pairs, so that mappers take two arguments."""

    @property
    def batch_kinds(self) -> tuple[str, ...]:
        """Which kinds of `@batch` mappers it can feed: of "records", "text", "bytes"."""

    @property
    def splittable(self) -> bool:
        """True when a plain file can be entered midway."""

    def alignment_bytes(self, path: str) -> int:
        """Return 1 if this file can be entered anywhere, n if at multiples of n, 0 if at its start only."""

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield the records that begin in a split, some `batch_bytes` at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One input file.

    Attributes:
        path: what to open: an absolute local path or an fsspec URL.
        name: the file as the user knows it, e.g. "books/a.txt"; "-" for standard input.
        size_bytes: its size as stored; 0 where a server does not tell.
        splittable: False when it can be read from its start only, being compressed or a mere stream.
    """

    path: str
    name: str
    size_bytes: int
    splittable: bool


def paths_of(inputs: Any) -> list[str]:
    """Return a job's inputs, one path or several, as a list.

    Raises:
        TypeError: they are none.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise TypeError(f"inputs: expected a path or a list of paths, got {inputs!r}")
    paths = list(given)
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"inputs: expected paths, got {path!r}")
    return [str(os.fspath(path)) for path in paths]


def expand(inputs: Sequence[str], *, stdin_path: str | None = None) -> list[Source]:
    """Return the files that a job's inputs stand for.

    Args:
        inputs: paths of files and directories, globs (also with `**`), fsspec URLs, "-".
        stdin_path: the file into which standard input was copied; needed if "-" is among the inputs.

    Returns:
        The files in the order in which they are read; see the top of this module.

    Raises:
        InputError: an input is not there, cannot be read, or stands for no file; one line, with a remedy.
    """
    sources: list[Source] = []
    for given in map(os.fspath, inputs):
        if not given:
            raise InputError("an input has an empty name; name a file, or . for the current directory")
        if given == STANDARD_INPUT:
            if stdin_path is None:
                raise InputError("-: standard input cannot be read here; name a file")
            size_bytes = os.stat(stdin_path).st_size
            sources.append(Source(path=stdin_path, name="-", size_bytes=size_bytes, splittable=True))
        elif given.startswith("ring:"):
            raise InputError(
                f"{shown(given)}: files of the ring are read on a swarm; submit the job to a peer (--peer)"
            )
        elif given.startswith("file://"):
            sources += _local(given.removeprefix("file://"), given)
        elif is_url(given) and not os.path.lexists(given):
            sources += _remote(given)
        else:
            sources += _local(given, given)
    return sources


def plan_splits(
    sources: Iterable[Source], reader: Reader, split_bytes: int = DEFAULT_SPLIT_BYTES
) -> list[Split]:
    """Cut files into the map tasks' shares; this depends on the arguments alone.

    Args:
        sources: the files, in order.
        reader: tells whether and where a file can be entered midway.
        split_bytes: how long a range should be.

    Raises:
        UsageError: `split_bytes` is less than 1.
    """
    if split_bytes < 1:
        raise UsageError(f"a split of {split_bytes} bytes is too small: choose at least 1 byte")
    splits: list[Split] = []
    for source in sources:
        path, name, size = source.path, source.name, source.size_bytes
        step = split_bytes
        # Files of one split are not asked for their alignment: that may mean to open them.
        if not (source.splittable and reader.splittable):
            splits.append(Split(path=path, name=name, size_bytes=size))
            continue
        if size > step:
            alignment = reader.alignment_bytes(path)
            if alignment == 0:
                splits.append(Split(path=path, name=name, size_bytes=size))
                continue
            step = max(1, round(step / alignment)) * alignment
        start = 0
        while size - start > step * SPLIT_SLOP:
            splits.append(Split(path=path, name=name, start=start, end=start + step, size_bytes=step))
            start += step
        splits.append(Split(path=path, name=name, start=start, end=size, size_bytes=size - start))
    return splits


# --- this machine's files ----------------------------------------------------------------------------


def _local(path: str, name: str) -> list[Source]:
    """Expand one local path; `name` is the same with what the user wrote before it."""
    prefix = name.removesuffix(path)
    try:
        found = os.stat(path)
    except ValueError:
        raise InputError(f"{shown(name)}: a path cannot hold a zero byte") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _has_magic(path) and not os.path.lexists(path):
            return _globbed(path, prefix)
        raise _not_there(path, name, error) from None
    if stat.S_ISDIR(found.st_mode):
        return _directory(path, prefix)
    return [_local_file(path, prefix, found)]


def _local_file(path: str, prefix: str, found: os.stat_result | None = None) -> Source:
    name = prefix + path
    try:
        found = found or os.stat(path)
    except OSError as error:
        raise _not_there(path, name, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(
            f"{shown(name)}: not a regular file; give what it sends on standard input, with - as the input"
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"{shown(name)}: no permission to read it")
    return Source(
        path=os.path.abspath(path),
        name=name,
        size_bytes=found.st_size,
        splittable=codec_of(path) is None,
    )


def _directory(path: str, prefix: str) -> list[Source]:
    files = sorted(_walk(path, prefix))
    if not files:
        raise InputError(
            f'{shown(prefix + path)}: the directory holds no files (names that begin with "." or "_" '
            "are left out)"
        )
    return [_local_file(file, prefix) for file in files]


def _walk(root: str, prefix: str) -> Iterator[str]:
    """Yield the files below a directory, in no order, through links too."""
    # Beside each directory to visit stand those it lies in: a link back to one of them is a circle.
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        directory, above = waiting.pop()
        try:
            status = os.stat(directory)
            itself = (status.st_dev, status.st_ino)
            if itself in above:
                raise InputError(
                    f"{shown(prefix + directory)}: the directory contains itself, through a link; "
                    "remove the link"
                )
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "_")):
                        continue
                    if entry.is_dir():
                        waiting.append((entry.path, above | {itself}))
                    else:
                        yield entry.path
        except OSError as error:
            raise InputError(
                f"{shown(prefix + directory)}: the directory cannot be listed: {error.strerror}"
            ) from None


def _has_magic(path: str) -> bool:
    return any(character in path for character in "*?[")


def _globbed(pattern: str, prefix: str) -> list[Source]:
    import glob

    recursive = "**" in pattern
    sources: list[Source] = []
    seen: dict[str, str] = {}
    for path in sorted(glob.glob(pattern, recursive=True)):
        if recursive:
            _refuse_circle(os.path.dirname(path), prefix, seen)
        if not os.path.isdir(path):
            sources.append(_local_file(path, prefix))
        elif not recursive:  # ** has matched the directory's own files already
            sources += _directory(path, prefix)
    if not sources:
        raise InputError(f"{shown(prefix + pattern)}: no file matches the pattern")
    return sources


def _refuse_circle(directory: str, prefix: str, known: dict[str, str]) -> None:
    """Refuse a directory that a link inside it leads to: `**` would go round until the path is too long.

    Args:
        directory: as it was reached.
        prefix: what the user wrote before it.
        known: {directory: its real path} of those that were looked at; added to.
    """
    waiting = []
    while directory and directory not in known:
        waiting.append(directory)
        directory = os.path.dirname(directory) if os.path.dirname(directory) != directory else ""
    for below in reversed(waiting):
        known[below] = os.path.realpath(below)
        if os.path.islink(below) and f"{os.path.abspath(below)}/".startswith(f"{known[below]}/"):
            raise InputError(
                f"{shown(prefix + below)}: the directory contains itself, through a link; remove the link"
            )


def _not_there(path: str, name: str, error: OSError) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{shown(name)}: no permission to read it")
    if os.path.islink(path):
        return InputError(f"{shown(name)}: a link that leads nowhere")
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return InputError(f"{shown(name)}: {error.strerror}")
    return InputError(f"{shown(name)}: no such file or directory{_suggestion(path)}")


def _suggestion(path: str) -> str:
    """Name the file that may have been meant: the nearest name in the same directory."""
    directory, wanted = os.path.split(path.rstrip("/"))
    try:
        names = sorted(os.listdir(directory or "."))
    except OSError:
        return ""
    import difflib

    near = difflib.get_close_matches(wanted, names[:10_000], n=1)
    return f"; did you mean {shown(os.path.join(directory, near[0]))}?" if near else ""


# --- files behind URLs -------------------------------------------------------------------------------


def _remote(url: str) -> list[Source]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InputError(f"{shown(url)}: a package is missing: {one_line(error)}") from None
    except ValueError as error:
        raise InputError(f"{shown(url)}: {one_line(error)}") from None
    with reading(url):
        if _has_magic(path) and not system.exists(path):
            found = system.glob(path, detail=True)
            files = {name: info for name, info in found.items() if info["type"] == "file"}
            nothing = "no file matches the pattern"
        else:
            info = system.info(path)
            if info["type"] != "directory":
                return [_remote_file(url, info)]
            found = system.find(path, detail=True)
            files = {name: info for name, info in found.items() if not _hidden(name, path)}
            nothing = 'the directory holds no files (names that begin with "." or "_" are left out)'
    if not files:
        raise InputError(f"{shown(url)}: {nothing}")
    return [_remote_file(_url_of(url, system, name), files[name]) for name in sorted(files)]


def _hidden(path: str, root: str) -> bool:
    inner = path[len(root) :] if path.startswith(root) else path
    return any(part.startswith((".", "_")) for part in inner.split("/"))


def _remote_file(url: str, info: dict[str, Any]) -> Source:
    size = info.get("size")
    # A web server that does not take ranges sends everything from the start each time.
    enters = not url.startswith(("http://", "https://")) or bool(info.get("partial"))
    return Source(
        path=url,
        name=url,
        size_bytes=size or 0,
        splittable=size is not None and enters and codec_of(url) is None,
    )


def _url_of(url: str, system: Any, path: str) -> str:
    """Return the URL of a file found below `url`, with the chain of file systems kept as it was."""
    links = url.split("::")
    if len(links) == 1:
        return str(system.unstrip_protocol(path))
    place = next(number for number, link in enumerate(links) if "://" in link)
    protocol = links[place].split("://", 1)[0]
    links[place] = f"{protocol}://{path.removeprefix(f'{protocol}://')}"
    return "::".join(links)
