"""Records that are bytes: whole files, records of one length, and whatever a user's function makes.

⚙ Readers open the files they read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, ClassVar

from mapreduce.batches import Batch, ListBatch
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.lines import MAX_RECORD_BYTES, check_positive, codec_name, not_decodable
from mapreduce.plan import Split
from mapreduce.streams import open_source, reading, shown

# A reader function's batch ends after so many records, or `batch_bytes` of its file.
FUNCTION_BATCH_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class WholeFile:
    """Each file is one record: bytes, or a string if an encoding is given.

    A string's line ends are all "\\n" and a byte order mark is taken off, as `open` and "utf-8-sig" do.

    Attributes:
        encoding: None for bytes.
        errors: as in `Text`.
        max_record_bytes: a longer file is an error.
    """

    encoding: str | None = None
    errors: str = "strict"
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = False
    splittable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.encoding is not None:
            codec_name(self.encoding, self.errors)
        check_positive("max_record_bytes", self.max_record_bytes)

    @property
    def batch_kinds(self) -> tuple[str, ...]:
        """Which kinds of `@batch` mappers it can feed."""
        return ("records", "bytes") if self.encoding is None else ("records", "text", "bytes")

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return 0: a file is read from its start."""
        return 0

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:  # noqa: ARG002  # one record, one batch
        """Yield one batch of one record, the file.

        Raises:
            InputError: the file cannot be read, or is too large.
        """
        with open_source(split.path, split.name) as file, reading(split.name):
            data = file.read(self.max_record_bytes + 1)
        if len(data) > self.max_record_bytes:
            raise InputError(
                f"{shown(split.name)}: larger than {self.max_record_bytes:,} bytes, too large for one "
                "record; if it is meant, raise WholeFile(max_record_bytes=…)"
            )
        yield _FileBatch(split.name, data, self.encoding, self.errors)


class _FileBatch(Batch):
    """One file as one record."""

    __slots__ = ("_data", "_encoding", "_errors")

    def __init__(self, name: str, data: bytes, encoding: str | None, errors: str) -> None:
        super().__init__(name, len(data))
        self._data = data
        self._encoding = encoding
        self._errors = errors

    @property
    def records(self) -> list[Any]:
        return [self._data if self._encoding is None else self.text]

    @property
    def text(self) -> str:
        if self._encoding is None:
            return super().text
        codec = codec_name(self._encoding, self._errors)
        try:
            text = self._data.decode(codec, self._errors)
        except UnicodeDecodeError as error:
            where = f"{shown(self.name)}, byte {error.start:,}"
            raise InputError(f"{where}: {not_decodable(codec, error)}") from None
        return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")

    @property
    def raw(self) -> bytes:
        return self._data

    def each(self) -> Iterator[Any]:
        try:
            records: list[Any] = self.records
        except InputError as error:
            records = [error]
        yield from records

    def locate(self, index: int) -> str:  # noqa: ARG002  # there is one record
        return shown(self.name)


@dataclass(frozen=True, slots=True)
class FixedLength:
    """Records of bytes, all of one length.

    Attributes:
        length: of a record, in bytes.
    """

    length: int

    gives_pairs: ClassVar[bool] = False
    splittable: ClassVar[bool] = True
    batch_kinds: ClassVar[tuple[str, ...]] = ("records", "bytes")

    def __post_init__(self) -> None:
        check_positive("the length of a record", self.length)

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return the length of a record."""
        return self.length

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's records, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or its size is no multiple of the length.
        """
        position = self._aligned(split.start)
        end = self._aligned(split.end) if split.end >= 0 else -1
        size = max(1, batch_bytes // self.length) * self.length
        if position == end:
            return
        with open_source(split.path, split.name) as file:
            if position:
                with reading(split.name):
                    file.seek(position)
            while position != end:
                with reading(split.name):
                    data = file.read(size if end < 0 else min(size, end - position))
                if len(data) % self.length:
                    raise InputError(
                        f"{shown(split.name)}: {position + len(data):,} bytes are no multiple of the record "
                        f"length {self.length:,}: the last record has {len(data) % self.length:,} bytes"
                    )
                if not data:
                    if end < 0:
                        return
                    raise InputError(
                        f"{shown(split.name)}: has shrunk since the job began: nothing is there from byte "
                        f"{position:,} on, but a split of it ends at byte {end:,}"
                    )
                yield _FixedBatch(split.name, position, data, self.length)
                position += len(data)

    def _aligned(self, offset: int) -> int:
        return -(-offset // self.length) * self.length


class _FixedBatch(Batch):
    """Whole records of one length."""

    __slots__ = ("_data", "_length", "_offset")

    # One call cuts so many records: four times as fast as slicing, and the format stays small.
    CUT_AT_ONCE = 256

    def __init__(self, name: str, offset: int, data: bytes, length: int) -> None:
        super().__init__(name, len(data))
        self._offset = offset
        self._data = data
        self._length = length

    @property
    def records(self) -> list[Any]:
        many = struct.Struct(f"{self._length}s" * self.CUT_AT_ONCE)
        stop = len(self._data) // many.size * many.size
        rest = struct.Struct(f"{self._length}s").iter_unpack(memoryview(self._data)[stop:])
        cut = many.iter_unpack(memoryview(self._data)[:stop])
        return list(chain(chain.from_iterable(cut), chain.from_iterable(rest)))

    @property
    def raw(self) -> bytes:
        return self._data

    def locate(self, index: int) -> str:
        offset = self._offset + index * self._length
        return f"{shown(self.name)}, record {offset // self._length + 1:,} (byte {offset:,})"


@dataclass(frozen=True, slots=True)
class FunctionReader:
    """A reader made of a function; see `reader`."""

    function: Callable[[BinaryIO], Iterable[Any]]
    gives_pairs: bool = False

    splittable: ClassVar[bool] = False
    batch_kinds: ClassVar[tuple[str, ...]] = ("records",)

    def __call__(self, file: BinaryIO) -> Iterable[Any]:
        """Call the function, as its own tests may want to."""
        return self.function(file)

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return 0: a file is read from its start."""
        return 0

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield what the function makes of the file, some records at a time.

        Raises:
            InputError: the file cannot be read.
            JobDefinitionError: the function gives nothing that can be iterated, or no pairs.
            Exception: whatever the function raises.
        """
        name = getattr(self.function, "__name__", repr(self.function))
        with open_source(split.path, split.name) as file:
            given = self.function(file)
            try:
                records = iter(given)
            except TypeError:
                raise JobDefinitionError(
                    f"the reader {name} returned {type(given).__name__}; it must yield records"
                ) from None
            try:
                yield from self._gathered(records, file, split, batch_bytes, name)
            finally:
                # A generator that still stands inside its own `with` leaves it before the file is closed.
                getattr(records, "close", lambda: None)()

    def _gathered(
        self, records: Iterator[Any], file: BinaryIO, split: Split, batch_bytes: int, name: str
    ) -> Iterator[Batch]:
        begun, number, some = 0, 0, []
        for record in records:
            if self.gives_pairs and not (isinstance(record, (tuple, list)) and len(record) == 2):
                raise JobDefinitionError(
                    f"the reader {name} has pairs=True but gave a {type(record).__name__}; "
                    "it must yield (key, value)"
                )
            some.append(record)
            position = _position(file, begun)
            if len(some) >= FUNCTION_BATCH_RECORDS or position - begun >= batch_bytes:
                yield _function_batch(split, some, position - begun, number)
                begun, number, some = position, number + len(some), []
        if some:
            yield _function_batch(split, some, max(0, _position(file, begun) - begun), number)


def _function_batch(split: Split, records: list[Any], size_bytes: int, first: int) -> Batch:
    return ListBatch(
        split.name, size_bytes, records, lambda index: f"{shown(split.name)}, record {first + index + 1:,}"
    )


def _position(file: BinaryIO, before: int) -> int:
    try:
        return file.tell()
    except (OSError, ValueError):  # the function has closed the file, or reads ahead in its own way
        return before
