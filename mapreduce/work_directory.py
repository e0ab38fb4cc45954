"""A private directory for the intermediate files of one run.

It lies beside those of other runs of the same user, and holds a file that is locked for as long as its owner
lives.  Whoever makes the next one removes those whose lock is free: a run that was killed leaves nothing for
longer than until then.

⚙ Files, locks, the clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time

from mapreduce.errors import EnvironmentFailed, UsageError

MAX_DIRECTORIES_TRIED = 10
OWNER = "owner"
# A directory without an owner is being made, or was by somebody who was killed; making one takes no time.
UNOWNED_S = 3600.0
# Of these another place is the remedy, and not another attempt.
_WRONG_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)


class WorkDirectory:
    """A private directory for one job's intermediate files, removed with everything in it."""

    def __init__(self, parent: str | os.PathLike[str] | None) -> None:
        base = os.fspath(parent or tempfile.gettempdir())
        try:
            # Absolute, because user code may change the working directory of its process.
            root = os.path.abspath(os.path.join(base, f"ringreduce-{os.getuid()}"))
            with contextlib.suppress(FileExistsError):
                os.mkdir(root, mode=0o700)  # and none above it: a mistyped path must not come into being
            if os.stat(root).st_uid != os.getuid():
                raise PermissionError(errno.EACCES, "it belongs to somebody else", root)
            _sweep(root)
            self.path, self._lock = _locked_directory(root)
        except OSError as error:
            kind = UsageError if error.errno in _WRONG_PLACE else EnvironmentFailed
            raise kind(
                f"cannot make a temporary directory in {base}: {error.strerror or error}; "
                "choose another with --temp-dir"
            ) from error

    def remove(self) -> None:
        """Remove the directory; harmless when it is gone."""
        if self._lock >= 0:
            _remove_directory(self.path)
            lock, self._lock = self._lock, -1
            os.close(lock)


def _locked_directory(root: str) -> tuple[str, int]:
    """Make a directory whose file "owner" is locked, which tells others that its owner lives."""
    import fcntl

    for _ in range(MAX_DIRECTORIES_TRIED):
        path = tempfile.mkdtemp(prefix="run-", dir=root)
        owner = os.path.join(path, OWNER)
        lock = os.open(owner, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(owner):
            return path, lock
        os.close(lock)  # before the lock was ours another run took it for a dead one's, and removed it
    raise OSError(errno.EBUSY, "other runs remove what is made there", root)


def _sweep(root: str) -> None:
    """Remove what runs left that were killed: their locks are free."""
    import fcntl

    for name in os.listdir(root):
        path = os.path.join(root, name)
        try:
            owner = os.open(os.path.join(path, OWNER), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime > UNOWNED_S:
                    _remove_directory(path)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_directory(path)
        except OSError:
            pass  # its owner lives
        finally:
            os.close(owner)


def _remove_directory(path: str) -> None:
    """Remove a run's directory; its owner file goes last, for who is killed meanwhile is then found dead."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != OWNER:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    shutil.rmtree(path, ignore_errors=True)
