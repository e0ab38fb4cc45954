"""A file of which only some ranges lie on this machine, in pieces of other files.

Theory
------
A block of a file that lies on a ring of peers is a range of some local file.  A task reads the input as if
it were one file, by the offsets of the whole: `Pieces` finds the piece in which a byte lies.  A byte that
lies in none of them is `BlockNotHere`, by which whoever gave the task learns what to fetch before it is run
again.

Pieces lie in *bodies*, each with a digest.  A body is checked when it is first touched by this process,
whole, because nobody may compute with damaged bytes; the same body is not read twice for that.

A path says all of it (`pieces_path`), so that readers need not know: it ends as the file's name does, by
which they tell how it is compressed.

⚙ This module opens files.
"""

from __future__ import annotations

import base64
import io
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack
import xxhash

from mapreduce.errors import EnvironmentFailed, JobError
from mapreduce.streams import PIECES

__all__ = ["BlockDamaged", "BlockNotHere", "Piece", "Pieces", "pieces_path"]

CHECK_BYTES = 1 << 20
MAX_CHECKED = 4_096
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,16})?")


class BlockNotHere(JobError):
    """A byte of the input lies in no piece that is here; `str(error)` is its offset."""

    may_retry = True


class BlockDamaged(EnvironmentFailed):
    """A body is not what was written; `str(error)` is the path of the file that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of a file.

    Attributes:
        at, length: in bytes of the whole file.
        path, offset: where its bytes lie.
        body_offset, body_length, digest: of the body in `path` that holds them, and its xxh3-128.
    """

    at: int
    length: int
    path: str
    offset: int
    body_offset: int
    body_length: int
    digest: bytes


def pieces_path(pieces: Sequence[Piece], size_bytes: int, name: str) -> str:
    """Return the path under which `mapreduce.streams.open_source` opens these pieces as one file.

    Args:
        pieces: of the file, in any order; where two have the same byte, either is taken.
        size_bytes: of the whole file.
        name: the file's, for its ending.
    """
    rows = [
        (one.at, one.length, one.path, one.offset, one.body_offset, one.body_length, one.digest)
        for one in sorted(pieces, key=lambda one: (one.at, one.length))
    ]
    packed: bytes = msgpack.packb((size_bytes, rows), unicode_errors="surrogateescape")
    ending = os.path.splitext(name)[1]
    ending = ending if _ENDING.fullmatch(ending) else ""
    return f"{PIECES}{base64.urlsafe_b64encode(packed).decode('ascii')}/input{ending}"


_checked: dict[tuple[str, int, int, int], None] = {}


class Pieces(io.RawIOBase):
    """The file that a path made by `pieces_path` stands for.

    Raises:
        BlockNotHere: a byte is read that lies in no piece.
        BlockDamaged: a body does not fit its digest.
    """

    def __init__(self, path: str) -> None:
        packed = base64.urlsafe_b64decode(path.removeprefix(PIECES).split("/", 1)[0])
        self._size, rows = msgpack.unpackb(packed, use_list=False, unicode_errors="surrogateescape")
        self._pieces = [
            Piece(
                at=at,
                length=length,
                path=where,
                offset=offset,
                body_offset=body_offset,
                body_length=body_length,
                digest=digest,
            )
            for at, length, where, offset, body_offset, body_length, digest in rows
        ]
        self._starts = [piece.at for piece in self._pieces]
        self._position = 0
        self._open: tuple[str, BinaryIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, target: Any) -> int:
        if self._position >= self._size or not len(target):
            return 0
        piece = self._piece_of(self._position)
        file = self._file(piece)
        within = self._position - piece.at
        file.seek(piece.offset + within)
        data = file.read(min(len(target), piece.length - within))
        if not data:
            raise BlockDamaged(piece.path)
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _piece_of(self, position: int) -> Piece:
        """The piece that reaches farthest from here; pieces overlap by little, so a look back is short."""
        best: Piece | None = None
        for number in range(bisect_right(self._starts, position) - 1, -1, -1):
            piece = self._pieces[number]
            if piece.at + piece.length > position and (
                best is None or piece.at + piece.length > best.at + best.length
            ):
                best = piece
        if best is None:
            raise BlockNotHere(str(position))
        return best

    def _file(self, piece: Piece) -> BinaryIO:
        if self._open is None or self._open[0] != piece.path:
            if self._open is not None:
                self._open[1].close()
            self._open = (piece.path, open(piece.path, "rb", buffering=0))  # noqa: SIM115 - see close
            _check(self._open[1], piece)
        return self._open[1]


def _check(file: BinaryIO, piece: Piece) -> None:
    found = os.fstat(file.fileno())
    key = (piece.path, found.st_ino, found.st_mtime_ns, found.st_size)
    if key in _checked:
        return
    digest = xxhash.xxh3_128()
    file.seek(piece.body_offset)
    left = piece.body_length
    while left and (data := file.read(min(left, CHECK_BYTES))):
        digest.update(data)
        left -= len(data)
    if left or digest.digest() != piece.digest:
        raise BlockDamaged(piece.path)
    if len(_checked) >= MAX_CHECKED:
        _checked.clear()
    _checked[key] = None
