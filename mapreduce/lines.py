"""From bytes to lines: which lines a byte range holds, and how they are decoded.

Theory of operation
-------------------
A line ends with \\n, \\r\\n or \\r, and with nothing else: `str.splitlines` also cuts at form feeds and
Unicode separators, which files do not mean.  A line belongs to the split that holds its first byte.  With
f(x) = the first place >= x at which a line begins, the split [a, b) covers the bytes [f(a), f(b)).
Neighbours compute the same f(b), so no line is lost or doubled wherever the borders fall.  To know f(a)
one byte before a must be seen (is it a line end?), and one behind it (\\r followed by \\n).

In most encodings the bytes 0A and 0D are line ends and never part of another character, and every line
can be decoded by itself.  Those are listed below; their files are cut as bytes, and a chunk of whole
lines is decoded and cut by two C calls.  Files in other encodings (UTF-16, UTF-32, EBCDIC, ISO-2022,
UTF-7) are read from their start through an incremental decoder and cut as text.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from mapreduce.batches import Batch, place
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.plan import Split
from mapreduce.streams import reading, shown

# No line, and no other record, may be longer: a file without line ends should fail with a message, not
# with the machine's memory.
MAX_RECORD_BYTES = 256 << 20
# How much is first read behind a split's end to complete its last line.
TAIL_BYTES = 8 << 10
NEWLINE = 0x0A
_LINE_END = re.compile(rb"\r\n|\r|\n")

# Encodings (by codecs.lookup(...).name) in which every line stands for itself; a test checks each of them.
# EUC-JP is not one: behind the byte 8F its decoder takes a line end for the rest of a broken character.
_LINEWISE = frozenset(
    """
    ascii utf-8 gbk gb2312 gb18030 big5 big5hkscs cp932 cp949 cp950 euc_kr
    johab shift_jis shift_jis_2004 shift_jisx0213 koi8-r koi8-t koi8-u kz1048 ptcp154 tis-620 hp-roman8
    cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866
    cp869 cp874 cp1006 cp1125 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258
    iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10
    iso8859-11 iso8859-13 iso8859-14 iso8859-15 iso8859-16
    mac-arabic mac-croatian mac-cyrillic mac-farsi mac-greek mac-iceland mac-latin2 mac-roman mac-romanian
    mac-turkish
    """.split()  # noqa: SIM905  # a list of 80 quoted names reads worse
)

HOW_TO_DECODE = (
    'choose errors="replace" for the job\'s reader, as in Text(errors="replace"), or --errors replace on the '
    "command line; or the right encoding (--encoding latin-1 takes any bytes)"
)
# Stands for bytes that could not be decoded, in text whose lines are not told apart in bytes.
BAD_MARK = "\udcff"


def codec_name(encoding: str, errors: str) -> str:
    """Return Python's own name of an encoding.

    Raises:
        JobDefinitionError: there is no such encoding of text, or no such way to treat errors.
    """
    try:
        found = codecs.lookup(encoding)
    except (LookupError, ValueError):
        found = None
    if found is None or not found._is_text_encoding or found.incrementaldecoder is None:
        raise JobDefinitionError(
            f"encoding {encoding!r} is not known; common ones are utf-8, latin-1, cp1252, utf-16"
        )
    try:
        codecs.lookup_error(errors)
    except (LookupError, ValueError):
        raise JobDefinitionError(
            f"errors={errors!r} is not known; choose strict, replace, ignore, backslashreplace or "
            "surrogateescape"
        ) from None
    # The signature of utf-8-sig is taken off every encoding that has one.
    return "utf-8" if found.name == "utf-8-sig" else found.name


def check_positive(what: str, value: object) -> None:
    """Raise JobDefinitionError unless `value` is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise JobDefinitionError(f"{what} is {value!r}; it must be a whole number, at least 1")


def is_linewise(codec: str) -> bool:
    """True when files in this codec can be cut at line ends without decoding them."""
    return codec in _LINEWISE


def line_chunks(
    file: BinaryIO, split: Split, batch_bytes: int, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[tuple[int, bytes, int]]:
    """Cut a split into chunks of whole lines.

    Args:
        file: opened at its start; it must be able to seek if `split.start` > 0.
        split: `end` may be -1: to the end of the file.
        batch_bytes: how many bytes a chunk has, about; a longer line makes a longer chunk.
        max_record_bytes: a line's end must lie within so many bytes of its start.

    Yields:
        (offset, data, stop): the lines are `data[:stop]` and begin at byte `offset` of the file.

    Raises:
        InputError: a line is too long, or the file has become shorter than the split.
    """
    offset, data = 0, b""
    if split.end == 0:
        return
    if split.start > 0:
        offset, data = _skip_to_line(file, split, batch_bytes)
        if offset < 0:
            return
    while True:
        # `data` begins with a line of ours; `border` is where in it the next split begins.
        border = split.end - offset
        if 0 <= border <= len(data) and (stop := _line_start(data, border)) >= 0:
            if stop:
                yield offset, data, stop
            return
        if (stop := _last_line_start(data)) > 0:
            yield offset, data, stop
            offset, data, border = offset + stop, data[stop:], border - stop
        # Now `data` is one line whose end has not been seen.
        if len(data) >= max_record_bytes:
            raise InputError(
                f"{place(split.name, split.path, offset)}: a line longer than {max_record_bytes:,} bytes; "
                "is this a file of lines? If so, raise max_record_bytes= of its reader"
            )
        missing = border - len(data) if split.end >= 0 else batch_bytes
        want = min(missing, batch_bytes) if missing > 0 else TAIL_BYTES
        # Doubling keeps the work of joining a long line's pieces linear.
        chunk = _read(file, split, min(max(want, len(data)), max_record_bytes - len(data)))
        if not chunk:
            _check_whole(split, offset + len(data))
            if data:
                yield offset, data, len(data)
            return
        data = data + chunk if data else chunk


def _skip_to_line(file: BinaryIO, split: Split, batch_bytes: int) -> tuple[int, bytes]:
    """Return where the split's first line begins and what has been read from there, or (-1, b"")."""
    position = split.start - 1
    with reading(split.name):
        file.seek(position)
    data = b""
    while True:
        left = split.end - position - len(data) if split.end >= 0 else batch_bytes
        if left <= 0:
            return -1, b""  # one line covers the split, or its only line end is its last byte
        chunk = _read(file, split, min(left, batch_bytes))
        if not chunk:
            _check_whole(split, position + len(data))
            return -1, b""
        data += chunk
        # In the first round data[0] is the byte before the split; later it is a \r still undecided.
        start = _line_start(data, 1)
        if start >= 0:
            found = position + start
            return (-1, b"") if 0 <= split.end <= found else (found, data[start:])
        kept = data[-1:] if data.endswith(b"\r") else b""
        position, data = position + len(data) - len(kept), kept


def _line_start(data: bytes, place: int) -> int:
    """Return the first place >= `place` where a line begins in `data`, or -1 if more must be seen."""
    feed = data.find(b"\n", place - 1)
    carriage = data.find(b"\r", place - 1, feed if feed >= 0 else len(data))
    if carriage < 0:
        return feed + 1 if feed >= 0 else -1
    if carriage + 1 == len(data):
        return -1
    return carriage + 2 if data[carriage + 1] == NEWLINE else carriage + 1


def _last_line_start(data: bytes) -> int:
    """Return the last place in `data` that is certainly behind a line's end; 0 if there is none."""
    feed = data.rfind(b"\n")
    # A \r at the very end may be the first half of \r\n.
    return max(feed, data.rfind(b"\r", feed + 1, max(feed + 1, len(data) - 1))) + 1


def _read(file: BinaryIO, split: Split, size_bytes: int) -> bytes:
    with reading(split.name):
        return file.read(size_bytes)


def _check_whole(split: Split, size_bytes: int) -> None:
    if size_bytes < split.end:
        raise InputError(
            f"{shown(split.name)}: has shrunk since the job began: nothing is there from byte "
            f"{size_bytes:,} on, but a split of it ends at byte {split.end:,}"
        )


def signature(codec: str) -> bytes:
    """Return the byte order mark that files in a codec may begin with, or b"" if it has none."""
    try:
        return "\ufeff".encode(codec)
    except UnicodeEncodeError:
        return b""


class LineBatch(Batch):
    """Whole lines, still as bytes; in a codec of which `is_linewise` is true.

    Args:
        split: where they come from.
        offset: where `data` begins in the file.
        data: the lines are data[begin:stop].
        codec, errors: how to decode them.
    """

    __slots__ = ("_begin", "_codec", "_data", "_errors", "_offset", "_split", "_stop")

    def __init__(
        self, split: Split, offset: int, data: bytes, begin: int, stop: int, codec: str, errors: str
    ) -> None:
        super().__init__(split.name, stop - begin)
        self._split = split
        self._offset = offset
        self._data = data
        self._begin = begin
        self._stop = stop
        self._codec = codec
        self._errors = errors

    @property
    def records(self) -> list[Any]:
        lines = self._decoded().split("\n")
        if not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        text = self._decoded()
        return text + "\n" if text and text[-1] != "\n" else text

    @property
    def lenient_text(self) -> str:
        """The text with a mark for what cannot be decoded; as many lines as `each` yields."""
        return LineBatch(
            self._split, self._offset, self._data, self._begin, self._stop, self._codec, "replace"
        ).text

    @property
    def raw(self) -> bytes:
        return self._data[self._begin : self._stop]

    def each(self) -> Iterator[Any]:
        lines: Iterable[Any]
        try:
            lines = self.records
        except InputError:
            lines = map(self._line, self._spans())
        yield from lines

    def locate(self, index: int) -> str:
        start, _ = next(itertools.islice(self._spans(), index, None), (self._begin, 0))
        return place(self.name, self._split.path, self._offset + start)

    def places(self) -> Iterator[str]:
        """Say where each line stands, without counting lines."""
        return (f"{shown(self.name)}, byte {self._offset + start:,}" for start, _ in self._spans())

    def _decoded(self) -> str:
        # A view spares a copy of nearly the whole chunk; only line ends of other kinds make one.  They are
        # replaced while a character is a byte: text that is not ASCII is twice or four times as wide.
        lines: bytes | memoryview = memoryview(self._data)[self._begin : self._stop]
        if self._data.find(b"\r", self._begin, self._stop) >= 0:
            lines = bytes(lines).replace(b"\r\n", b"\n")
            if b"\r" in lines:
                lines = lines.replace(b"\r", b"\n")
        try:
            return str(lines, self._codec, self._errors)
        except UnicodeDecodeError as error:
            raise self._first_undecodable(error) from None

    def _first_undecodable(self, otherwise: UnicodeDecodeError) -> InputError:
        for start, stop in self._spans():
            try:
                self._decoded_line(start, stop)
            except UnicodeDecodeError as error:
                where = place(self.name, self._split.path, self._offset + start + error.start)
                return InputError(f"{where}: {not_decodable(self._codec, error)}")
        return InputError(f"{shown(self.name)}: {not_decodable(self._codec, otherwise)}")

    def _decoded_line(self, start: int, stop: int) -> str:
        return str(memoryview(self._data)[start:stop], self._codec, self._errors)

    def _line(self, span: tuple[int, int]) -> str | InputError:
        try:
            return self._decoded_line(*span)
        except UnicodeDecodeError as error:
            where = f"{shown(self.name)}, byte {self._offset + span[0] + error.start:,}"
            return InputError(f"{where}: {not_decodable(self._codec, error)}")

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Yield where each line begins and ends in the data, without its line end."""
        start = self._begin
        for end in _LINE_END.finditer(self._data, self._begin, self._stop):
            yield start, end.start()
            start = end.end()
        if start < self._stop:
            yield start, self._stop


def not_decodable(codec: str, error: UnicodeDecodeError) -> str:
    """Say what is wrong with undecodable bytes and what to do, to follow a place."""
    found = bytes(error.object[error.start : min(error.end, error.start + 4)]).hex(" ")
    return f"not valid {codec} ({error.reason}: {found}); {HOW_TO_DECODE}"


class TextBatch(Batch):
    """Whole lines that exist as text only, because their codec does not tell lines apart in bytes.

    Args:
        name: the input's name.
        size_bytes: how much of the file they take, about.
        text: the lines, each ended by "\\n" but perhaps the file's last; BAD_MARK where bytes were bad.
        first_line: the number of the first line in its file, from 1.
        problems: what to say of each BAD_MARK, in order.
    """

    __slots__ = ("_first_line", "_problems", "_text")

    def __init__(self, name: str, size_bytes: int, text: str, first_line: int, problems: list[str]) -> None:
        super().__init__(name, size_bytes)
        self._text = text
        self._first_line = first_line
        self._problems = problems

    @property
    def records(self) -> list[Any]:
        if self._problems:
            raise next(record for record in self.each() if isinstance(record, InputError))
        lines = self._text.split("\n")
        if not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        if self._problems:
            raise next(record for record in self.each() if isinstance(record, InputError))
        return self.lenient_text

    @property
    def lenient_text(self) -> str:
        """The text with BAD_MARK for what cannot be decoded."""
        return self._text if self._text.endswith("\n") else self._text + "\n"

    @property
    def raw(self) -> bytes:
        raise JobDefinitionError(
            f'{shown(self.name)}: @batch("bytes") needs an encoding whose lines can be told apart in bytes; '
            'use @batch("text")'
        )

    def each(self) -> Iterator[Any]:
        problems = iter(self._problems)
        for number, line in enumerate(self._text.removesuffix("\n").split("\n")):
            found = (
                [next(problems, "not decodable") for _ in range(line.count(BAD_MARK))]
                if self._problems
                else []
            )
            yield InputError(f"{self.locate(number)}: {found[0]}") if found else line

    def locate(self, index: int) -> str:
        return f"{shown(self.name)}, line {self._first_line + index:,}"

    def places(self) -> Iterator[str]:
        """Say where each line stands."""
        return map(self.locate, itertools.count())


def text_batches(
    file: BinaryIO, split: Split, codec: str, errors: str, batch_bytes: int, max_record_bytes: int
) -> Iterator[TextBatch]:
    """Read a file from its start through a decoder that keeps its state.

    Raises:
        InputError: a line is longer than `max_record_bytes` characters.
    """
    decoder = _MarkingDecoder(split.name, codec, errors)
    text, first_line, size_bytes, at_start = "", 1, 0, True
    while True:
        # Doubling keeps the work of joining a long line's pieces linear.
        chunk = _read(file, split, max(batch_bytes, len(text)))
        fresh = decoder.decode(chunk)
        if at_start and fresh:
            fresh, at_start = fresh.removeprefix("\ufeff"), False
        size_bytes += len(chunk)
        text += fresh
        # A \r at the very end may be the first half of \r\n.
        undecided = "\r" if chunk and text.endswith("\r") else ""
        text = text.removesuffix(undecided).replace("\r\n", "\n").replace("\r", "\n")
        stop = text.rfind("\n") + 1 if chunk else len(text)
        if stop:
            problems = decoder.take_problems(text.count(BAD_MARK, 0, stop))
            yield TextBatch(split.name, size_bytes, text[:stop], first_line, problems)
            first_line += text.count("\n", 0, stop)
            size_bytes = 0
        elif len(text) > max_record_bytes:
            raise InputError(
                f"{shown(split.name)}, line {first_line:,}: longer than {max_record_bytes:,} characters; "
                "is this a file of lines? If so, raise max_record_bytes= of its reader"
            )
        text = text[stop:] + undecided
        if not chunk:
            return


class _MarkingDecoder:
    """An incremental decoder that puts BAD_MARK for undecodable bytes and goes on behind them.

    With errors other than "strict" the codec itself knows what to put, and nothing is marked.
    """

    def __init__(self, name: str, codec: str, errors: str) -> None:
        self._name = shown(name)
        self._codec = codec
        self._decoder = codecs.getincrementaldecoder(codec)(errors)
        self._position = 0  # of the next chunk in the file
        self._problems: list[str] = []

    def take_problems(self, count: int) -> list[str]:
        """Return what is to be said of the next `count` marks."""
        taken, self._problems = self._problems[:count], self._problems[count:]
        return taken

    def decode(self, chunk: bytes) -> str:
        """Decode the next bytes of the file; b"" ends it."""
        pieces = []
        end = self._position + len(chunk)
        data = chunk
        while True:
            state = self._decoder.getstate()
            try:
                pieces.append(self._decoder.decode(data, final=not chunk))
                break
            except UnicodeDecodeError as error:
                # What the decoder had kept of earlier chunks is in the error's bytes, before `data`.
                whole = bytes(error.object)
                self._decoder.setstate((b"", state[1]))
                pieces += [self._decoder.decode(whole[: error.start]), BAD_MARK]
                at_byte = end - len(whole) + error.start
                self._problems.append(f"byte {at_byte:,}: {not_decodable(self._codec, error)}")
                data = whole[error.end :]
            except UnicodeError as error:
                # UTF-16 and UTF-32 without a byte order mark, which only they and not their -le and -be need.
                raise InputError(
                    f"{self._name}: not valid {self._codec} ({error}); choose the byte order, as in "
                    f"--encoding {self._codec}-le"
                ) from None
        self._position = end
        return "".join(pieces)
