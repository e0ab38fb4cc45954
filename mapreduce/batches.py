"""What readers hand to the executor: some records at a time, decoded only as far as a mapper asks.

A mapper sees its split as a sequence of batches.  One that takes single records costs `records`; a batch
mapper may ask for `text` or `raw` instead and then nothing is cut into lines.  Nothing is kept: each use
of `records`, `text` or `raw` does the work anew, so a caller uses one of them, once.

A record that ends the job is named by what `locate` says, with the number of its line, and so is the first
that `records` cannot decode.  That means to count the line ends before it, perhaps of the whole file, so
records that are merely left out (`each`) are named by their byte.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.streams import codec_of, is_url, open_source, shown

# How far into a file its lines are counted to name a record by line, plain and compressed.
COUNTED_BYTES = 1 << 30
COUNTED_COMPRESSED_BYTES = 128 << 20
COUNT_CHUNK_BYTES = 1 << 20


class Batch(ABC):
    """Some consecutive records of one split.

    Attributes:
        name: the input they come from, as the user knows it.
        size_bytes: how much of the input they take, uncompressed.
    """

    __slots__ = ("name", "size_bytes")

    def __init__(self, name: str, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes

    @property
    @abstractmethod
    def records(self) -> list[Any]:
        """The records.

        Raises:
            InputError: one cannot be decoded; the message says where and what to do.
        """

    @property
    def text(self) -> str:
        """Whole lines as one string, each ended by a newline character, whatever it was in the file."""
        raise JobDefinitionError(
            f"{shown(self.name)}: this reader gives no text; use @batch without an argument"
        )

    @property
    def raw(self) -> bytes:
        """Whole records as they stand in the file."""
        raise JobDefinitionError(
            f"{shown(self.name)}: this reader gives no bytes; use @batch without an argument"
        )

    def each(self) -> Iterator[Any]:
        """Yield every record, or in its place the `InputError` that says why it is none."""
        yield from self.records

    @abstractmethod
    def locate(self, index: int) -> str:
        """Say where record number `index` of this batch stands, e.g. "a.txt, line 12 (byte 345)"."""


class ListBatch(Batch):
    """Records that exist already.

    Args:
        name: the input's name.
        records: as `each` yields them: an `InputError` stands in the place of a bad record.
        locate: says where a record stands, given its index.
    """

    __slots__ = ("_locate", "_records")

    def __init__(
        self, name: str, size_bytes: int, records: Sequence[Any], locate: Callable[[int], str]
    ) -> None:
        super().__init__(name, size_bytes)
        self._records = records
        self._locate = locate

    @property
    def records(self) -> list[Any]:
        return list(self._records)

    def locate(self, index: int) -> str:
        return self._locate(index)


def place(name: str, path: str, offset: int) -> str:
    """Name the line at a byte offset: "a.txt, line 12 (byte 345)", or without its number if that is far.

    Args:
        name, path: of the input, as the user knows it and as it is opened.
        offset: first byte of the line, in uncompressed bytes.
    """
    limit = COUNTED_BYTES if codec_of(path) is None else COUNTED_COMPRESSED_BYTES
    if is_url(path) or offset > limit:
        return f"{shown(name)}, byte {offset:,}"
    try:
        return f"{shown(name)}, line {1 + _line_ends(path, offset):,} (byte {offset:,})"
    except InputError:  # it went away meanwhile: that is another message's subject
        return f"{shown(name)}, byte {offset:,}"


def _line_ends(path: str, offset: int) -> int:
    """Count the line ends (\\n, \\r\\n, \\r) in the first `offset` bytes of a file."""
    count, left, after_return = 0, offset, False
    with open_source(path) as file:
        while left > 0 and (chunk := file.read(min(left, COUNT_CHUNK_BYTES))):
            count += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
            count -= after_return and chunk.startswith(b"\n")
            after_return = chunk.endswith(b"\r")
            left -= len(chunk)
    return count
