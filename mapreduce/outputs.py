"""Where a job's output goes, and how it becomes visible: whole, or not at all.

Theory of operation
-------------------
An attempt writes its part under a name of its own in `_temporary/`.  Committing it is one rename, to
`part-00000` and so on; the same attempt may be committed again, another attempt of a committed part
changes nothing.  When all parts are there `_temporary` goes, and the empty file `_SUCCESS` comes last: who
sees it sees all parts.  A job that fails removes what it made, the directory too if that was its own.
`_temporary` is also the lock: it is made by `mkdir`, so of two jobs with one output directory the second
is refused.

Parts have no ending, in any format: they are found by scripts that expect `part-00000`.  `Pairs` tells the
formats apart by their first bytes.

*Durability.*  By default nothing is forced to the disk: renames order what other processes see, but after
a power cut `_SUCCESS` may stand beside parts whose bytes were never written, as after any `cp`.  With
`durable=True` each part is synced before its rename and the directory before and after `_SUCCESS`; that
costs a write of the whole output at the disk's speed.

⚙ This module makes, renames and removes files.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from mapreduce.errors import EnvironmentFailed, OutputError
from mapreduce.failpoints import failpoint
from mapreduce.formats import FORMATS, encoded
from mapreduce.streams import is_url, shown

__all__ = ["FORMATS", "OutputDirectory", "part_name", "write_part"]

TEMPORARY = "_temporary"
SUCCESS = "_SUCCESS"
WRITE_BYTES = 1 << 20


def part_name(part: int) -> str:
    """Return a part's file name; up to 100,000 parts sort as their numbers do."""
    return f"part-{part:05d}"


def write_part(out_format: str, file: BinaryIO, pairs: Iterable[tuple[Any, Any]]) -> int:
    """Write pairs to a file in one of FORMATS and flush it.

    Returns:
        How many bytes were written.

    Raises:
        BadValue: a key or a value cannot be written; the message names the key.
        EnvironmentFailed: the disk is full, or fails.
    """
    name = str(getattr(file, "name", "the output"))
    held: list[bytes] = []
    held_bytes = written_bytes = 0
    for data in encoded(out_format, pairs):
        held.append(data)
        held_bytes += len(data)
        if held_bytes >= WRITE_BYTES:
            with writing(name):
                file.write(b"".join(held))
            written_bytes += held_bytes
            held, held_bytes = [], 0
    with writing(name):
        file.write(b"".join(held))
        file.flush()
    return written_bytes + held_bytes


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn an OSError while writing `path` into an error that names it.

    Raises:
        EnvironmentFailed: with the reason; another attempt may go better.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentFailed(
                f"{shown(path)}: no space left to write it; free some, or choose another place with -o "
                "(without -o: with --temp-dir)"
            ) from error
        raise EnvironmentFailed(f"{shown(path)}: cannot be written: {error.strerror or error}") from error


class OutputDirectory:
    """The directory that a job's parts go to.

    Use: `check` before any work, `prepare`, then `attempt_path` and `commit` for each part, at last `finish`
    or `abort`.

    Args:
        path: the directory; it need not exist.
        durable: see the top of this module.
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = False) -> None:
        self.path = os.fspath(path)
        self._durable = durable
        self._committed: dict[int, int] = {}
        self._renamed: set[int] = set()  # parts that are in their place, or may be
        self._made: list[str] = []  # directories, outermost first
        self._prepared = False

    def check(self) -> None:
        """See whether the directory can be used; changes nothing.

        Raises:
            OutputError: it is a file, is not empty, or cannot be written to; one line, with a remedy.
        """
        name = shown(self.path)
        if not self.path:
            raise OutputError("the output directory has an empty name")
        if is_url(self.path):
            raise OutputError(f"{name}: output goes to a directory of this machine, not to a URL")
        try:
            present = os.listdir(self.path)
        except FileNotFoundError:
            self._check_parent()
            return
        except NotADirectoryError:
            raise OutputError(f"{name}: is a file, or lies below one; name a directory") from None
        except PermissionError:
            raise OutputError(f"{name}: no permission to use the directory; name another one") from None
        except (OSError, ValueError) as error:
            raise OutputError(f"{name}: cannot be used: {error}") from None
        if TEMPORARY in present:
            raise OutputError(
                f"{name}: another job writes here, or one was killed while it did; "
                "remove the directory or name another one"
            )
        if present:
            raise OutputError(f"{name}: the output directory is not empty; remove it or name another one")
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(f"{name}: no permission to write to the directory; name another one")

    def prepare(self) -> None:
        """Make the directory, its missing parents and the place for attempts.

        Raises:
            OutputError: it cannot be made, or has been filled or taken since it was checked.
        """
        self.check()
        missing = []
        directory = os.path.abspath(self.path)
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        try:
            for directory in reversed(missing):
                self._made.append(directory)  # before: an interruption behind the mkdir must find it
                try:
                    os.mkdir(directory)
                except FileExistsError:  # made by somebody else meanwhile: then it is theirs
                    self._made.pop()
            self._prepared = True
            try:
                os.mkdir(os.path.join(self.path, TEMPORARY))
            except OSError:
                self._prepared = False
                raise
        except FileExistsError:
            self._remove_made()
            raise OutputError(
                f"{shown(self.path)}: another job writes here; name another directory"
            ) from None
        except OSError as error:
            self._remove_made()
            raise OutputError(f"{shown(self.path)}: cannot be made: {error.strerror}") from None
        except BaseException:
            self.abort()
            self._remove_made()
            raise

    def attempt_path(self, part: int, attempt: int) -> str:
        """Return where an attempt writes its part."""
        return os.path.join(self.path, TEMPORARY, f"{part_name(part)}.{attempt}")

    def part_path(self, part: int) -> str:
        """Return where a committed part lies."""
        return os.path.join(self.path, part_name(part))

    def commit(self, part: int, attempt: int) -> bool:
        """Make an attempt's part visible; the first attempt that is committed stays.

        Returns:
            True if this attempt is the part's, now or since an earlier call.

        Raises:
            EnvironmentFailed: the rename failed.
        """
        if part in self._committed:
            return self._committed[part] == attempt
        source, target = self.attempt_path(part, attempt), self.part_path(part)
        with writing(target):
            if self._durable:
                _sync(source)
            self._renamed.add(part)  # before: an interruption behind the rename must find it
            failpoint("publish.rename")
            os.rename(source, target)
            failpoint("publish.renamed")
        self._committed[part] = attempt
        return True

    def finish(self) -> None:
        """Remove what attempts have left and say that all parts are there.

        Raises:
            EnvironmentFailed: the disk is full, or fails.
        """
        marker = os.path.join(self.path, SUCCESS)
        with writing(marker):
            shutil.rmtree(os.path.join(self.path, TEMPORARY))
            if self._durable:
                _sync(self.path)
            failpoint("publish.mark")
            with open(marker, "wb"):
                pass
            if self._durable:
                _sync(self.path)

    def abort(self) -> None:
        """Remove everything that was made here; does nothing before `prepare`, never raises OSError."""
        if not self._prepared:
            return
        # The marker goes first: without it nobody takes what is left for a whole output.
        for name in (SUCCESS, *map(part_name, sorted(self._renamed))):
            with suppress(OSError):
                os.unlink(os.path.join(self.path, name))
        shutil.rmtree(os.path.join(self.path, TEMPORARY), ignore_errors=True)
        self._remove_made()
        self._committed.clear()
        self._renamed.clear()
        self._prepared = False

    def _remove_made(self) -> None:
        for directory in reversed(self._made):
            with suppress(OSError):  # somebody else has put something in it
                os.rmdir(directory)
        self._made.clear()

    def _check_parent(self) -> None:
        """The directory is to be made: find out whether it can be."""
        parent = os.path.abspath(self.path)
        if os.path.islink(parent):
            raise OutputError(f"{shown(self.path)}: a link that leads nowhere; remove it or name another one")
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent):
            raise OutputError(f"{shown(self.path)}: {shown(parent)} is not a directory")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{shown(self.path)}: no permission to make it in {shown(parent)}; name another directory"
            )


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
