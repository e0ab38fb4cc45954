"""What this peer's acceptor has promised, on disk.

Theory
------
A vote must survive a loss of power before anybody hears of it (`membership.register_effects`).  Each key has
a file: the new state is written beside it and synced, renamed over it, and the directory synced.  A file's
name is the digest of its key; the key stands in its first line.

The directory has an id of its own, made when it is made.  It is half of the acceptor's name: a peer that has
lost its votes comes back as another acceptor and never breaks a promise that it does not remember.  Votes
that cannot be read back are lost votes, so the whole directory is begun anew then.

*Forgotten on purpose.*  A vote goes when its register has served its time.  That this was so is remembered,
in one file of keys: whoever comes back later with a vote of that time must not bring the register back to
life.

⚙ This module reads, writes and syncs files.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from hashlib import blake2b

from mapreduce.failpoints import failpoint

__all__ = ["VoteStore"]

DISK_FILE = "disk"
FORGOTTEN_FILE = "forgotten"
MAX_FORGOTTEN = 16_384
ENDING = ".vote"
_DISK = re.compile(r"[0-9a-f]{16}")


class VoteStore:
    """The votes in one directory.

    Args:
        directory: made if need be.

    Raises:
        OSError: it cannot be made, read or written.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._noted = 0  # since the file of what was forgotten was made as short as may be
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.disk = self._read_disk() or self._begin()

    def load(self) -> dict[str, bytes]:
        """Return the saved states by key; their own digests say whether they are whole.

        A state whose key is damaged is empty, which is no whole one either.

        Raises:
            OSError: a file cannot be read.
        """
        # A former life may have died between a rename and its sync. What is found is spoken of from here on,
        # and said again without another save.
        self._sync()
        found: dict[str, bytes] = {}
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            if name.endswith(".tmp"):
                os.unlink(path)  # it was being written when its writer died, and nobody heard of it
            elif name.endswith(ENDING):
                with open(path, "rb") as file:
                    line, _, state = file.read().partition(b"\n")
                key = line.decode("ascii", "replace")
                # Under a damaged key the vote would pass for another one's, and its own would be forgotten.
                found[key] = state if self._path(key) == path else b""
        return found

    def save(self, key: str, state: bytes | None) -> None:
        """Make a state durable, or remove it, which is remembered then.

        Raises:
            OSError: it is not durable, and must not be tried again: end this life of the acceptor.
        """
        path = self._path(key)
        if state is None:
            if not os.path.exists(path):
                return
            self._note_forgotten(key)
            os.unlink(path)
        else:
            _write_synced(path, key.encode("ascii") + b"\n" + state)
        self._sync()

    def forgotten(self) -> list[str]:
        """Return the keys that were removed, the latest last; of more than `MAX_FORGOTTEN` the oldest go.

        Raises:
            OSError: they cannot be read, or not be written anew.
        """
        path = os.path.join(self._directory, FORGOTTEN_FILE)
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            return []
        *lines, torn = text.split("\n")  # what was being written when its writer died
        keys = list(dict.fromkeys(reversed(lines)))[:MAX_FORGOTTEN][::-1]
        if torn or len(keys) < len(lines):
            _write_synced(path, "".join(f"{key}\n" for key in keys).encode("ascii", "replace"))
            self._sync()
        return keys

    def _note_forgotten(self, key: str) -> None:
        with open(os.path.join(self._directory, FORGOTTEN_FILE), "ab") as file:
            file.write(key.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._noted += 1
        if self._noted >= MAX_FORGOTTEN:
            self._noted = 0
            self.forgotten()

    def begin_anew(self) -> None:
        """Forget all votes and take another disk id; what was forgotten on purpose stays so.

        Raises:
            OSError: the directory cannot be cleared.
        """
        # The id goes first, and durably: under it nobody may ever find fewer votes than were cast.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, DISK_FILE))
        self._sync()
        self.disk = self._begin()

    def _read_disk(self) -> str | None:
        try:
            with open(os.path.join(self._directory, DISK_FILE), encoding="ascii", errors="replace") as file:
                disk = file.read(64).strip()
        except FileNotFoundError:
            return None
        return disk if _DISK.fullmatch(disk) else None

    def _begin(self) -> str:
        # Votes without a readable id belong to a disk that nobody can name any more.
        for name in os.listdir(self._directory):
            if name != FORGOTTEN_FILE:
                os.unlink(os.path.join(self._directory, name))
        disk = secrets.token_hex(8)
        _write_synced(os.path.join(self._directory, DISK_FILE), disk.encode() + b"\n")
        self._sync()
        return disk

    def _path(self, key: str) -> str:
        return os.path.join(self._directory, blake2b(key.encode(), digest_size=16).hexdigest() + ENDING)

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_synced(path: str, content: bytes) -> None:
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        failpoint("vote.sync")
        os.fsync(file.fileno())
    failpoint("vote.rename")
    os.rename(temporary, path)
    failpoint("vote.renamed")
