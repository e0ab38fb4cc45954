"""This machine's files on their way to the ring and back: what is put under which name, and written whole.

⚙ Lists, makes and renames files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from mapreduce.errors import InputError, UsageError
from mapreduce.inputs import expand
from p2p.catalogue import why_no_name

if TYPE_CHECKING:
    from p2p.file_client import FileClient
    from p2p.file_questions import FileRow

__all__ = ["directory_for", "fetch_below", "named_sources", "ring_name", "whole_file"]


RING = "ring:"


def ring_name(given: str) -> str:
    """Return a file's name on the ring, which may be written as jobs write it: ring:NAME."""
    return given.removeprefix(RING)


def named_sources(given: Sequence[str], name: str) -> list[tuple[str, str, int]]:
    """Return what is to be put: (path, name on the ring, size) of each file; "-" is standard input, size 0.

    Args:
        given: files, directories, globs, "-".
        name: of the one file, or of the directory below which all of them shall lie.

    Raises:
        InputError: one of them is not there, or stands for no file.
        UsageError: two would have one name, or one a name that cannot be.
    """
    found: list[tuple[str, str, int]] = []
    is_directory = name.endswith("/") or len(given) > 1
    base = ring_name(name).rstrip("/")
    for path in given:
        if path == "-":
            if is_directory:
                raise UsageError("-: standard input has no name of its own: put it alone, as one NAME")
            found.append(("-", base, 0))
            continue
        if path.startswith(RING):
            raise InputError(f"{path}: it is on the ring already")
        sources = expand([path])
        root = path if os.path.isdir(path) else None
        for source in sources:
            if root is not None:
                inner = os.path.relpath(source.name, root)
                within = (
                    os.path.join(os.path.basename(os.path.abspath(root)), inner) if is_directory else inner
                )
                found.append((source.path, f"{base}/{within}", source.size_bytes))
            elif is_directory or len(sources) > 1:
                found.append((source.path, f"{base}/{os.path.basename(source.name)}", source.size_bytes))
            else:
                found.append((source.path, base, source.size_bytes))
    seen: dict[str, str] = {}
    for path, target, _ in found:
        reason = why_no_name(target)
        if reason:
            raise UsageError(f"{target!r} is no name for a file: {reason}")
        if target in seen:
            raise UsageError(f"{seen[target]} and {path} would both be {target}: put them one by one")
        seen[target] = path
    return found


def directory_for(path: str) -> None:
    """Make the directory that a file shall lie in.

    Raises:
        UsageError: it cannot be made.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory or ".", exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{directory}: is a file, or lies below one; name a directory") from None
    except OSError as error:
        raise UsageError(f"{directory}: cannot be made: {error.strerror or error}") from None


def fetch_below(
    client: FileClient,
    prefix: str,
    rows: Sequence[FileRow],
    directory: str,
    on_progress: Callable[[int], Any] = lambda _: None,
) -> None:
    """Fetch files of the ring into a directory, by what stands behind the prefix in their names.

    Raises:
        FileUnknown, FileLost: one is not there any more, or none of its holders is.
        UsageError: one cannot be written.
    """
    for row in rows:
        path = os.path.join(directory, *row.name.removeprefix(prefix).split("/"))
        directory_for(path)
        with whole_file(path) as file:
            client.get(client.file(row.name), file.write, on_progress)


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """Open a file that comes to be when all of it has been written; nothing is left of it if that fails.

    A symbolic link is followed, and a file that is there keeps its mode.  What is no file of bytes, a pipe
    or a device, is written to as it is: a rename would put a file in its place.

    Raises:
        UsageError: it cannot be made or written.
    """
    target = os.path.realpath(path)
    partial = f"{target}.{os.getpid()}.tmp"
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            with open(path, "wb") as file:
                yield file
            return
        with open(partial, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
        os.replace(partial, target)
    except OSError as error:
        raise UsageError(f"{path}: it cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def _mode(path: str) -> int | None:
    """Return the mode of what a path stands for, links followed; None where nothing is."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
