"""Readers of values: JSON lines, and the pairs of a job's own output.

Values are parsed many at a time by C code that stops at the first mistake; only then each is tried by
itself, to name the bad one and, if the job wants that, to go on without it.

⚙ Readers open the files they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, repeat
from operator import itemgetter
from typing import Any, BinaryIO, ClassVar

from mapreduce.batches import Batch, ListBatch
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.formats import FORMATS, format_by_content, format_by_ending
from mapreduce.lines import MAX_RECORD_BYTES, LineBatch, TextBatch, check_positive
from mapreduce.plan import Split
from mapreduce.readers import Text
from mapreduce.streams import one_line, open_source, reading, shown

# How much of a file is looked at to tell the format of a part.
PEEK_BYTES = 64 << 10
PACKED_NONE = b"\xc0"
_BLANKS = " \t\r\n"


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
        for lines in self._lines().batches(split, batch_bytes):
            yield ParsedLines(lines, JSON_VALUES)

    def _lines(self) -> Text:
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
        if self.format is not None and self.format not in FORMATS:
            raise JobDefinitionError(f"Pairs(format={self.format!r}): the formats are {', '.join(FORMATS)}")
        check_positive("max_record_bytes", self.max_record_bytes)

    def alignment_bytes(self, path: str) -> int:
        """Return 1 if a file can be entered anywhere, 0 if only at its start (msgpack)."""
        return int(self._format_of(path, path) != "msgpack")

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's pairs, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or holds something other than pairs.
        """
        match self._format_of(split.path, split.name):
            case "msgpack":
                with open_source(split.path, split.name) as file:
                    yield from packed_pairs(file, split.name, batch_bytes, self.max_record_bytes)
            case "jsonl":
                for lines in Text("utf-8", "strict", self.max_record_bytes).batches(split, batch_bytes):
                    yield ParsedLines(lines, JSON_PAIRS)
            case _:
                # Bytes are written as they are, so what is not UTF-8 must survive being read.
                text = Text("utf-8", "surrogateescape", self.max_record_bytes)
                for lines in text.batches(split, batch_bytes):
                    yield ParsedLines(lines, TEXT_PAIRS)

    def _format_of(self, path: str, name: str) -> str:
        found = self.format or format_by_ending(path)
        if found is None:
            with open_source(path, name) as file, reading(name):
                found = format_by_content(file.read(PEEK_BYTES))
        return found


@dataclass(frozen=True, slots=True)
class Notation:
    """How lines become records.

    Attributes:
        parse_all: returns the records of lines, or None if one of them is bad.
        parse: returns a line's record; raises ValueError saying what is wrong.
        skips_blank: blank lines are no records.
    """

    parse_all: Callable[[list[str]], list[Any] | None]
    parse: Callable[[str], Any]
    skips_blank: bool = True


class ParsedLines(Batch):
    """Lines of a batch, each parsed to a record."""

    __slots__ = ("_lines", "_notation")

    def __init__(self, lines: LineBatch | TextBatch, notation: Notation) -> None:
        super().__init__(lines.name, lines.size_bytes)
        self._lines = lines
        self._notation = notation

    @property
    def records(self) -> list[Any]:
        lines = self._lines.records
        if self._notation.skips_blank:
            lines = list(filter(None, map(str.strip, lines, repeat(_BLANKS))))
        records = self._notation.parse_all(lines)
        return list(self._parsed_one_by_one()) if records is None else records

    @property
    def text(self) -> str:
        return self._lines.text

    @property
    def raw(self) -> bytes:
        return self._lines.raw

    def each(self) -> Iterator[Any]:
        for line, where in zip(self._lines.each(), self._lines.places(), strict=False):
            if isinstance(line, InputError):
                yield line
            elif self._is_record(line):
                try:
                    record = self._notation.parse(line)
                except _REFUSALS as error:
                    record = InputError(f"{where}: {_reason(error)}")
                yield record

    def locate(self, index: int) -> str:
        numbers = (n for n, line in enumerate(self._lines.each()) if self._is_record(line))
        return self._lines.locate(next(islice(numbers, index, None), 0))

    def _parsed_one_by_one(self) -> Iterator[Any]:
        for number, line in enumerate(self._lines.records):
            if self._is_record(line):
                try:
                    yield self._notation.parse(line)
                except _REFUSALS as error:
                    raise InputError(f"{self._lines.locate(number)}: {_reason(error)}") from None

    def _is_record(self, line: str | InputError) -> bool:
        return not self._notation.skips_blank or isinstance(line, InputError) or bool(line.strip(_BLANKS))


_REFUSALS = (ValueError, RecursionError)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else one_line(error)


# --- JSON -------------------------------------------------------------------------------------------


@cache
def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    """Return json's C function that parses the value at an index and says where it ends.

    It spares each line the two Python calls and two regular expressions of `json.loads`.
    """
    import json

    scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
    return scan


def _json_values(lines: list[str]) -> list[Any] | None:
    try:
        found = list(map(_scanner(), lines, repeat(0)))
    except (ValueError, RecursionError):
        return None
    # The scanner's StopIteration ends the map early: a short result is a mistake, too.
    if len(found) < len(lines) or list(map(itemgetter(1), found)) != list(map(len, lines)):
        return None
    return list(map(itemgetter(0), found))


def _json_value(line: str) -> Any:
    import json

    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos + 1}") from None


JSON_VALUES = Notation(_json_values, _json_value)


# --- pairs ------------------------------------------------------------------------------------------


def _key(value: Any) -> Any:
    """Arrays in keys were tuples: lists cannot be keys."""
    return tuple(map(_key, value)) if type(value) is list else value


def _pair(value: Any) -> tuple[Any, Any]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("not a pair: expected an array [key, value]")
    return _key(value[0]), value[1]


def _all_pairs(values: list[Any]) -> list[tuple[Any, Any]] | None:
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {2}:
        return [(_key(key) if type(key) is list else key, value) for key, value in values]
    return None


def _json_pairs(lines: list[str]) -> list[Any] | None:
    values = _json_values(lines)
    return None if values is None else _all_pairs(values)


JSON_PAIRS = Notation(_json_pairs, lambda line: _pair(_json_value(line)))


def _text_pairs(lines: list[str]) -> list[Any] | None:
    cut = [line.partition("\t") for line in lines]
    if not all(map(itemgetter(1), cut)):
        return None
    values = _json_values(list(map(itemgetter(2), cut)))
    if values is None:
        return [(key, _meaning(text)) for key, _, text in cut]
    return list(zip(map(itemgetter(0), cut), values, strict=True))


def _text_pair(line: str) -> tuple[str, Any]:
    key, tab, text = line.partition("\t")
    if not tab:
        raise ValueError("not a pair: expected key, tab, value")
    return key, _meaning(text)


def _meaning(text: str) -> Any:
    """Return what a text means as JSON, or the text itself."""
    try:
        value, end = _scanner()(text, 0)
    except (ValueError, RecursionError, StopIteration):
        return text
    return value if end == len(text) else text


TEXT_PAIRS = Notation(_text_pairs, _text_pair, skips_blank=False)


def packed_pairs(file: BinaryIO, name: str, batch_bytes: int, max_record_bytes: int) -> Iterator[Batch]:
    """Yield the pairs of a stream of msgpack arrays [key, value].

    Raises:
        InputError: it is no such stream, or ends inside a pair, or a pair is too large.
    """
    import msgpack

    unpacker = msgpack.Unpacker(
        strict_map_key=False, unicode_errors="surrogatepass", max_buffer_size=max_record_bytes + batch_bytes
    )
    number = size_bytes = 0
    while True:
        with reading(name):
            chunk = file.read(batch_bytes)
        where = f"{shown(name)}, behind pair {number:,}"
        try:
            # An object that stands behind the end comes back as itself, unless a pair was cut off there.
            unpacker.feed(chunk or PACKED_NONE)
            values = list(unpacker)
        except msgpack.BufferFull:
            raise InputError(
                f"{shown(name)}, pair {number + 1:,}: larger than {max_record_bytes:,} bytes; "
                "if it is meant, raise Pairs(max_record_bytes=…)"
            ) from None
        except (ValueError, msgpack.UnpackException) as error:
            raise InputError(
                f"{where}: not msgpack as a job writes it: {one_line(error) or type(error).__name__}"
            ) from None
        if not chunk:
            if values != [None]:
                raise InputError(
                    f"{shown(name)}: ends inside pair {number + 1:,}; fetch or make the file again"
                )
            return
        size_bytes += len(chunk)
        pairs = _all_pairs(values)
        if pairs is None:
            raise InputError(f"{where}: holds something other than [key, value]")
        if pairs:
            yield _packed_batch(name, pairs, size_bytes, number)
            number, size_bytes = number + len(pairs), 0


def _packed_batch(name: str, pairs: list[Any], size_bytes: int, first: int) -> Batch:
    return ListBatch(name, size_bytes, pairs, lambda index: f"{shown(name)}, pair {first + index + 1:,}")
