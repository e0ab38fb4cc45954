"""How the bytes of an input become records.

A reader is an immutable value that a job's step holds; it follows `mapreduce.inputs.Reader`.  For a split
it yields batches (see `mapreduce.batches`).  Which bytes of a file a split covers is the reader's
business, with one rule: a record belongs to the split in which its first byte lies.

Here are the readers themselves: their settings, and where they may enter a file.  The work is done in
`mapreduce.lines` and `mapreduce.parsing`, and the libraries for JSON, CSV and msgpack are imported when a
split is read, because every job imports this module.

⚙ Readers open the files they read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, ClassVar, overload

from mapreduce.batches import Batch, ListBatch
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.lines import (
    MAX_RECORD_BYTES,
    LineBatch,
    TextBatch,
    codec_name,
    is_linewise,
    line_chunks,
    not_decodable,
    signature,
    text_batches,
)
from mapreduce.plan import Split
from mapreduce.streams import open_source, reading, shown

__all__ = ["Csv", "FixedLength", "JsonLines", "Pairs", "Text", "WholeFile", "reader"]

# A reader function's batch ends after so many records, or `batch_bytes` of its file.
FUNCTION_BATCH_RECORDS = 1_000
# How much of a file is looked at to tell the format of a part.
PEEK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of text, without their line ends (\\n, \\r\\n or \\r); empty lines are records too.

    A byte order mark at the start of a file is taken off.

    Attributes:
        encoding: as Python names it.
        errors: what to do with bytes that are not valid: "strict" makes them an error that names the
            place; "replace", "ignore", "backslashreplace" and "surrogateescape" are Python's.
        max_record_bytes: a longer line is an error.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        codec_name(self.encoding, self.errors)
        _check_positive("max_record_bytes", self.max_record_bytes)

    @property
    def batch_kinds(self) -> tuple[str, ...]:
        """Which kinds of `@batch` mappers it can feed."""
        return ("records", "text", "bytes") if self.splittable else ("records", "text")

    @property
    def splittable(self) -> bool:
        """True when a plain file can be entered midway; not so in UTF-16 and other encodings with a state."""
        return is_linewise(codec_name(self.encoding, self.errors))

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return 1 if a file can be entered anywhere, 0 if only at its start."""
        return int(self.splittable)

    def batches(self, split: Split, batch_bytes: int) -> Generator[LineBatch | TextBatch, None, None]:
        """Yield a split's lines, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or a line is too long.
        """
        codec = codec_name(self.encoding, self.errors)
        with open_source(split.path, split.name) as file:
            if not is_linewise(codec):
                yield from text_batches(file, split, codec, self.errors, batch_bytes, self.max_record_bytes)
                return
            for offset, data, stop in line_chunks(file, split, batch_bytes, self.max_record_bytes):
                begin = 0
                if offset == 0:
                    mark = signature(codec)
                    begin = len(mark) if mark and data.startswith(mark) else 0
                if begin < stop:
                    yield LineBatch(split, offset, data, begin, stop, codec, self.errors)


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
        _check_positive("max_record_bytes", self.max_record_bytes)

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
        _check_positive("the length of a record", self.length)

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
                        f"{shown(split.name)}: has shrunk to {position:,} bytes since the job began"
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
class JsonLines:
    """One JSON value a line, as Python objects; blank lines are left out.

    Attributes:
        encoding, errors, max_record_bytes: as in `Text`.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._lines()

    @property
    def batch_kinds(self) -> tuple[str, ...]:
        """Which kinds of `@batch` mappers it can feed."""
        return self._lines().batch_kinds

    @property
    def splittable(self) -> bool:
        """True when a plain file can be entered midway."""
        return self._lines().splittable

    def alignment_bytes(self, path: str) -> int:
        """Return 1 if a file can be entered anywhere, 0 if only at its start."""
        return self._lines().alignment_bytes(path)

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's values, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or a line is too long.
        """
        from mapreduce.parsing import JSON_VALUES, ParsedLines

        for lines in self._lines().batches(split, batch_bytes):
            yield ParsedLines(lines, JSON_VALUES)

    def _lines(self) -> Text:
        return Text(self.encoding, self.errors, self.max_record_bytes)


@dataclass(frozen=True, slots=True)
class Csv:
    """Rows of a table with delimiters, as {column: field} with all fields strings; blank rows are left out.

    Quoting is as in RFC 4180 and Python's csv.  A line end inside a quoted field becomes "\\n".

    Attributes:
        delimiter: one character.
        quotechar: one character; None: quotes mean nothing.
        header: True: each file begins with the columns' names; a tuple: these are the names, and a file
            begins with data; False: there are no names, and a row is a list.
        encoding, errors, max_record_bytes: as in `Text`.
        multiline: False promises that no quoted field holds a line end; then large files are split.
    """

    delimiter: str = ","
    quotechar: str | None = '"'
    header: bool | tuple[str, ...] = True
    encoding: str = "utf-8"
    errors: str = "strict"
    multiline: bool = True
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = False
    batch_kinds: ClassVar[tuple[str, ...]] = ("records", "text")

    def __post_init__(self) -> None:
        self.lines()
        for name, value in (("delimiter", self.delimiter), ("quotechar", self.quotechar)):
            if not (isinstance(value, str) and len(value) == 1) and (name, value) != ("quotechar", None):
                raise JobDefinitionError(f"Csv: {name}={value!r} is not one character")
        if isinstance(self.header, list):
            object.__setattr__(self, "header", tuple(self.header))
        if isinstance(self.header, tuple) and len(set(self.header)) < len(self.header):
            raise JobDefinitionError(f"Csv: header={self.header!r} names a column twice")

    @property
    def splittable(self) -> bool:
        """True when a plain file can be entered midway: every line end ends a row."""
        return (not self.multiline or self.quotechar is None) and self.lines().splittable

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return 1 if a file can be entered anywhere, 0 if only at its start."""
        return int(self.splittable)

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's rows, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, has no header, or never closes a quote.
        """
        from mapreduce.tables import row_batches

        yield from row_batches(self, split, batch_bytes)

    def lines(self) -> Text:
        """Return the reader of the lines that rows consist of."""
        return Text(self.encoding, self.errors, self.max_record_bytes)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The (key, value) pairs that a job of ours has written, for mappers of (key, value).

    Arrays in keys come back as tuples.  `jsonl` and `msgpack` give back what was written, but for what the
    format cannot say (bytes in JSON are base64 strings, tuples in values are lists).  Of `text`, keys are
    strings, and a value is what it means as JSON, else a string: text does not tell 1 from "1".

    Attributes:
        format: "text", "jsonl" or "msgpack".  None: as the file's ending says (.txt and .tsv, .jsonl,
            .msgpack), or else as its first bytes do: 0x92 begins a msgpack pair; a line that begins with
            "[" and holds no tab is JSON; all else is text.
        max_record_bytes: a longer pair is an error.
    """

    format: str | None = None
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = True
    splittable: ClassVar[bool] = True  # depends on the file: see alignment_bytes
    batch_kinds: ClassVar[tuple[str, ...]] = ("records",)

    def __post_init__(self) -> None:
        from mapreduce.formats import FORMATS

        if self.format is not None and self.format not in FORMATS:
            raise JobDefinitionError(f"Pairs(format={self.format!r}): the formats are {', '.join(FORMATS)}")
        _check_positive("max_record_bytes", self.max_record_bytes)

    def alignment_bytes(self, path: str) -> int:
        """Return 1 if a file can be entered anywhere, 0 if only at its start (msgpack)."""
        return int(self._format_of(path, path) != "msgpack")

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's pairs, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or holds something other than pairs.
        """
        from mapreduce import parsing

        match self._format_of(split.path, split.name):
            case "msgpack":
                with open_source(split.path, split.name) as file:
                    yield from parsing.packed_pairs(file, split.name, batch_bytes, self.max_record_bytes)
            case "jsonl":
                for lines in Text("utf-8", "strict", self.max_record_bytes).batches(split, batch_bytes):
                    yield parsing.ParsedLines(lines, parsing.JSON_PAIRS)
            case _:
                # Bytes are written as they are, so what is not UTF-8 must survive being read.
                text = Text("utf-8", "surrogateescape", self.max_record_bytes)
                for lines in text.batches(split, batch_bytes):
                    yield parsing.ParsedLines(lines, parsing.TEXT_PAIRS)

    def _format_of(self, path: str, name: str) -> str:
        from mapreduce.formats import format_by_content, format_by_ending

        found = self.format or format_by_ending(path)
        if found is None:
            with open_source(path, name) as file, reading(name):
                found = format_by_content(file.read(PEEK_BYTES))
        return found


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


@overload
def reader(function: Callable[[BinaryIO], Iterable[Any]], /) -> FunctionReader: ...
@overload
def reader(*, pairs: bool = False) -> Callable[[Callable[[BinaryIO], Iterable[Any]]], FunctionReader]: ...
def reader(
    function: Callable[[BinaryIO], Iterable[Any]] | None = None, /, *, pairs: bool = False
) -> FunctionReader | Callable[[Callable[[BinaryIO], Iterable[Any]]], FunctionReader]:
    """Make a reader of a function that takes a binary file and yields its records.

    The file is open at its start and decompressed; it can seek if it is not compressed.  Each file is
    read by one task.

        @reader
        def messages(file):
            yield from mailbox_of(file)

    Args:
        function: takes the file, yields records.
        pairs: True: the records are (key, value) pairs, and the mapper takes two arguments.
    """
    if function is None:
        return lambda function: FunctionReader(function, pairs)
    if not callable(function):
        raise JobDefinitionError(f"reader({function!r}): expected a function of a binary file")
    return FunctionReader(function, pairs)


def _check_positive(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise JobDefinitionError(f"{what} is {value!r}; it must be a whole number, at least 1")
