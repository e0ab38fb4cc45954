"""The peer's directory: its lasting name, and the lock that keeps a second peer out.

Theory
------
The node id lives here, so the directory *is* the peer as far as others can tell.  Two processes in one
directory would be two peers with one name; an `flock` on a file in it lets in one, and the kernel lifts it
when the process ends, however it ends.  The file's text, the holder's process id, is only for the message.

`node.json` holds the id, the incarnation and the session.  Each start raises both numbers and has them on
disk before anybody hears of them, so that a restarted peer outbids whatever is still being said about its
former life.  Later values are written without waiting for the disk: one that is lost is too low, and a
peer that hears of its own higher incarnation outbids that, too.

Without a directory of its own a peer works in a temporary one, removed at its end.  One killed with
SIGKILL leaves its directory behind, without a lock; the next such peer of this user removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from membership.view import NodeId
from p2p.errors import DataDirectoryBusy, DataDirectoryUnusable

__all__ = ["DataDirectory", "Identity"]

LOCK_FILE = "lock"
NODE_FILE = "node.json"
TEMPORARY_PREFIX = "ringreduce-peer-"
MAX_LEFTOVERS = 64  # looked at in one start
MAX_FILE_BYTES = 4_096

_NODE_ID = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: the lasting id, and the numbers that order our lives."""

    id: NodeId
    incarnation: int
    session: int


class DataDirectory:
    """A directory that this process has for itself.  Use it as a context manager.

    Args:
        path: the directory, made if it is missing; None for a temporary one.

    Raises:
        DataDirectoryBusy: another live peer works there.
        DataDirectoryUnusable: it cannot be made or locked.
    """

    def __init__(self, path: Path | None) -> None:
        self._temporary = path is None
        try:
            if path is None:
                _remove_leftovers()
                path = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
            else:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = path
            self._lock = _locked(path)
        except OSError as error:
            raise DataDirectoryUnusable(f"data directory {path}: {error.strerror}") from None

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the directory go; a temporary one is removed."""
        if self._lock < 0:
            return
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def begin_life(self, wall_clock_ms: int) -> Identity:
        """The identity for this start, on disk: a new one, or the last one with both numbers raised.

        Args:
            wall_clock_ms: milliseconds since 1970; orders processes that do not share a directory.

        Raises:
            DataDirectoryUnusable: `node.json` is damaged, or cannot be written.
        """
        last = self._read()
        if last is None:
            now = Identity(NodeId(secrets.token_hex(8)), 1, wall_clock_ms)
        else:
            now = replace(
                last, incarnation=last.incarnation + 1, session=max(last.session + 1, wall_clock_ms)
            )
        try:
            self.remember(now, durable=True)
        except OSError as error:
            raise DataDirectoryUnusable(f"{self.path / NODE_FILE}: {error.strerror}") from None
        return now

    def remember(self, identity: Identity, *, durable: bool = False) -> None:
        """Replace what `node.json` holds; with `durable`, wait for the disk.

        Raises:
            OSError: it cannot be written.
        """
        target = self.path / NODE_FILE
        temporary = target.with_suffix(".tmp")
        text = {"id": identity.id, "incarnation": identity.incarnation, "session": identity.session}
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(text) + "\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
        if durable:
            _sync_directory(self.path)

    def _read(self) -> Identity | None:
        path = self.path / NODE_FILE
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(MAX_FILE_BYTES))
            identity = Identity(NodeId(content["id"]), content["incarnation"], content["session"])
            numbers = (identity.incarnation, identity.session)
            if not _NODE_ID.fullmatch(identity.id) or any(type(n) is not int or n < 0 for n in numbers):
                raise ValueError
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataDirectoryUnusable(f"{path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise DataDirectoryUnusable(
                f"{path} is damaged: restore it, or remove it to start as a new peer with empty hands"
            ) from None
        return identity


def _locked(directory: Path) -> int:
    """A descriptor that holds the directory's lock.

    Raises:
        BlockingIOError, wrapped as `DataDirectoryBusy`: somebody else holds it.
    """
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryBusy(
            f"data directory {directory} is in use by the peer with process id {holder}:"
            " stop that one, or give this one another --data"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_leftovers() -> None:
    """Remove temporary directories of peers of this user that are no more."""
    base = Path(tempfile.gettempdir())
    found = sorted(base.glob(f"{TEMPORARY_PREFIX}*"))[:MAX_LEFTOVERS]
    for directory in found:
        with contextlib.suppress(OSError, DataDirectoryBusy):
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            # One that has no lock file yet belongs to a peer that is just starting.
            if not (directory / LOCK_FILE).exists():
                continue
            lock = _locked(directory)
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
