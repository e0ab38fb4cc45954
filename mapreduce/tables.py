"""The reader of CSV files.

Theory of operation
-------------------
Whether a line end ends a row depends on quotes before it, so a file is read from its start.  The lines
of a batch are given to `csv.reader` with one empty line behind them.  If no quote is open there, the
empty line comes back as an empty row; if one is open, the last row has swallowed it.  Then that row's
lines are kept and put before the next batch.  So the parsing stays in C, and a quote that is never
closed is seen at the end of the file instead of hiding the rest of it in one field.

With `multiline=False` every line is a row, which lets a file be split; a row that goes on in the next line
is an error there.

⚙ Readers open the files they read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, ClassVar, Protocol

from mapreduce.batches import Batch
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.lines import MAX_RECORD_BYTES, LineBatch, TextBatch
from mapreduce.plan import Split
from mapreduce.readers import Text
from mapreduce.streams import shown

HEADER_BYTES = 64 << 10
OPEN_IN_LINE = "a quoted field goes on in the next line; if that is meant, read with Csv(multiline=True)"

Row = list[str]


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
        yield from row_batches(self, split, batch_bytes)

    def lines(self) -> Text:
        """Return the reader of the lines that rows consist of."""
        return Text(self.encoding, self.errors, self.max_record_bytes)


def row_batches(settings: Csv, split: Split, batch_bytes: int) -> Iterator[Batch]:
    """Yield a split's rows; see `Csv.batches`."""
    # A field may be as long as a record; the module has one limit for everybody.
    csv.field_size_limit(max(csv.field_size_limit(), settings.max_record_bytes))
    parser = _Parser(settings, split)
    if not settings.splittable:
        yield from _rows_across_lines(parser, settings, split, batch_bytes)
        return
    if settings.header is True and split.start > 0:
        parser.read_header_of_file()
    for lines in settings.lines().batches(split, batch_bytes):
        text, bad = _decoded(lines)
        rows = parser.rows_and_sentinel(text)
        if len(rows) != text.count("\n") + 1:
            rows = parser.rows_line_by_line(text, lines, bad)
        else:
            rows.pop()
        yield parser.batch(text, rows, bad, lines.size_bytes, lines)


def _rows_across_lines(parser: _Parser, settings: Csv, split: Split, batch_bytes: int) -> Iterator[Batch]:
    text, lines_in_text, first_line, size_bytes = "", 0, 1, 0
    bad: dict[int, InputError] = {}
    # An open row is parsed again when its text has doubled, so a long one costs linear work; and at the end.
    enough = 0
    for lines in chain(settings.lines().batches(split, batch_bytes), (None,)):
        if lines is not None:
            fresh, fresh_bad = _decoded(lines)
            bad |= {lines_in_text + number: error for number, error in fresh_bad.items()}
            text += fresh
            lines_in_text += fresh.count("\n")
            size_bytes += lines.size_bytes
            if len(text) < enough:
                continue
        elif not text:
            return
        rows = parser.rows_and_sentinel(text)
        whole, cut = lines_in_text, len(text)
        if rows.pop():
            whole, cut = parser.end_of_rows(text, len(rows))
        if cut:
            numbered = _NumberedLines(split.name, first_line)
            ours = {number: error for number, error in bad.items() if number < whole}
            yield parser.batch(text[:cut], rows, ours, size_bytes, numbered)
            bad = {number - whole: error for number, error in bad.items() if number >= whole}
            text, lines_in_text, first_line, size_bytes = (
                text[cut:],
                lines_in_text - whole,
                first_line + whole,
                0,
            )
        if text and (lines is None or len(text) > settings.max_record_bytes):
            end = "is never closed" if lines is None else f"goes on for {len(text):,} characters"
            where = _NumberedLines(split.name, first_line).locate(0)
            raise InputError(f"{where}: a quoted field begins here and {end}")
        enough = 2 * len(text)


class _Lines(Protocol):
    """Tells where lines stand: exactly, or many of them cheaply."""

    def locate(self, index: int) -> str: ...
    def places(self) -> Iterator[str]: ...


class _NumberedLines:
    """Lines whose numbers in their file are known."""

    def __init__(self, name: str, first_line: int) -> None:
        self._name = shown(name)
        self._first_line = first_line

    def locate(self, index: int) -> str:
        return f"{self._name}, line {self._first_line + index:,}"

    def places(self) -> Iterator[str]:
        return map(self.locate, count())


def _decoded(lines: LineBatch | TextBatch) -> tuple[str, dict[int, InputError]]:
    """Return a batch's text, and what is wrong with each line that could not be decoded."""
    try:
        return lines.text, {}
    except InputError as error:
        bad = {i: line for i, line in enumerate(lines.each()) if isinstance(line, InputError)}
        bad[min(bad, default=0)] = error  # the first one is named exactly: it may end the job
        return lines.lenient_text, bad


class _Parser:
    """Parses text as one file's settings say, and knows its columns."""

    def __init__(self, settings: Csv, split: Split) -> None:
        self._settings = settings
        self._split = split
        self._columns = settings.header if isinstance(settings.header, tuple) else None
        self._header_to_come = settings.header is True

    def reader(self, lines: Iterable[str]) -> Iterator[Row]:
        settings = self._settings
        if settings.quotechar is None:
            return csv.reader(lines, delimiter=settings.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=settings.delimiter, quotechar=settings.quotechar)

    def rows_and_sentinel(self, text: str) -> list[Row]:
        """Return the rows of whole lines, and behind them an empty one if no quote is open at the end."""
        return list(self.reader(chain(io.StringIO(text), ("",))))

    def end_of_rows(self, text: str, count: int) -> tuple[int, int]:
        """Return how many lines, and how many characters, the first `count` rows take."""
        lines = io.StringIO(text)
        reader = self.reader(lines)
        for _ in islice(reader, count):
            pass
        whole = reader.line_num  # type: ignore[attr-defined]
        return whole, sum(map(len, islice(io.StringIO(text), whole)))

    def rows_line_by_line(self, text: str, lines: _Lines, bad: dict[int, InputError]) -> list[Row]:
        """Return the row of each line; where a quote is open at its end, an empty one and a note in `bad`."""
        rows = []
        for number, (line, where) in enumerate(zip(io.StringIO(text), lines.places(), strict=False)):
            row, *sentinel = self.rows_and_sentinel(line)
            if not sentinel:
                row = []
                where = where if bad else lines.locate(number)
                bad.setdefault(number, InputError(f"{where}: {OPEN_IN_LINE}"))
            rows.append(row)
        return rows

    def read_header_of_file(self) -> None:
        """Learn the columns' names from the start of the file, for a split from its midst."""
        start = Split(path=self._split.path, name=self._split.name)
        with closing(self._settings.lines().batches(start, HEADER_BYTES)) as batches:
            line = next(next(batches).each())
        if isinstance(line, InputError):
            raise line
        self._take_header(self.reader([line]))

    def batch(
        self,
        text: str,
        rows: list[Row],
        bad: dict[int, InputError],
        size_bytes: int,
        lines: _Lines,
    ) -> RowBatch:
        """Make a batch of parsed text; the file's first gives its header away."""
        skipped = 0
        if self._header_to_come:
            if 0 in bad:
                raise bad[0]
            self._take_header(iter(rows))
            skipped = 1
        return RowBatch(self, self._split.name, text, rows, skipped, bad, size_bytes, lines, self._columns)

    def _take_header(self, rows: Iterator[Row]) -> None:
        names = next(rows)
        where = f"{shown(self._split.name)}, line 1"
        if not names:
            raise InputError(f"{where}: no header; name the columns, as in Csv(header=('id', 'name'))")
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        if twice:
            raise InputError(f"{where}: the header names column {twice[0]!r} twice")
        self._columns = tuple(names)
        self._header_to_come = False


class RowBatch(Batch):
    """Rows, parsed; made to records when asked for.

    Args:
        parser: made the rows of the text, and can do it again to find one's line.
        text: the lines.
        rows: one for each row of the text; empty for blank lines.
        skipped: how many of the rows are header.
        bad: what is wrong with lines, by their number in the text.
        lines: say where the lines of the text stand.
        columns: their names, or None to leave rows as lists.
    """

    __slots__ = ("_bad", "_columns", "_lines", "_parser", "_rows", "_skipped", "_text")

    def __init__(
        self,
        parser: _Parser,
        name: str,
        text: str,
        rows: list[Row],
        skipped: int,
        bad: dict[int, InputError],
        size_bytes: int,
        lines: _Lines,
        columns: tuple[str, ...] | None,
    ) -> None:
        super().__init__(name, size_bytes)
        self._parser = parser
        self._text = text
        self._rows = rows
        self._skipped = skipped
        self._bad = bad
        self._lines = lines
        self._columns = columns

    @property
    def records(self) -> list[Any]:
        if self._bad:
            raise self._bad[min(self._bad)]
        rows: list[Any] = list(filter(None, self._rows[self._skipped :]))
        columns = self._columns
        if columns is None:
            return rows
        if set(map(len, rows)) <= {len(columns)}:
            return [dict(zip(columns, row, strict=True)) for row in rows]
        first, row = next((first, row) for first, _, row in self._numbered() if len(row) != len(columns))
        raise InputError(f"{self._lines.locate(first)}: {_ragged(row, columns)}")

    @property
    def text(self) -> str:
        if self._bad:
            raise self._bad[min(self._bad)]
        return self._text

    def each(self) -> Iterator[Any]:
        columns, places, at = self._columns, self._lines.places(), 0
        for first, last, row in self._numbered():
            wrong = next((self._bad[line] for line in range(first, last) if line in self._bad), None)
            if wrong is not None:
                yield wrong
            elif columns is None:
                yield row
            elif len(row) == len(columns):
                yield dict(zip(columns, row, strict=True))
            else:
                where = next(islice(places, first - at, None))
                at = first + 1
                yield InputError(f"{where}: {_ragged(row, columns)}")

    def locate(self, index: int) -> str:
        first, _, _ = next(islice(self._numbered(), index, None), (0, 0, []))
        return self._lines.locate(first)

    def _numbered(self) -> Iterator[tuple[int, int, Row]]:
        """Yield the first line of each row that is a record, that behind its last one, and the row."""
        lines = self._text.count("\n")
        if len(self._rows) == lines:
            spans: Iterable[tuple[int, int]] = zip(range(lines), range(1, lines + 1), strict=True)
        else:
            reader = self._parser.reader(io.StringIO(self._text))
            ends = [reader.line_num for _ in reader]  # type: ignore[attr-defined]
            spans = zip([0, *ends], ends, strict=False)
        for number, ((first, last), row) in enumerate(zip(spans, self._rows, strict=True)):
            if number >= self._skipped and (row or first in self._bad):
                yield first, last, row


def _ragged(row: Row, columns: tuple[str, ...]) -> str:
    return f"{len(row)} fields, but the header names {len(columns)} columns"
